"""Checks before a model may ship: quality floors, and acceptance cases that it must judge right."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from upkeep.core.errors import UpkeepError
from upkeep.core.objects import read_object
from upkeep.core.text import align_columns
from upkeep.core.types import Floats, Frozen
from upkeep.judging.reports import LOWER_IS_BETTER, Evaluation, GroupReport, Metrics, Sanity, name_groups
from upkeep.judging.sanity import NOT_KNOWN, REFERENCES, explain_unknown, find_chance

FLOORS = [name for name in Metrics.model_fields if name not in LOWER_IS_BETTER]
JUDGED_HOURS = 24  # an alarm is expected within the last hours of an acceptance case


class Machine(Frozen):
    """An acceptance case's record of its machine."""

    model: str | None = None
    installed: datetime | None = None


class AcceptanceCase(Frozen):
    """A machine's history, and what a model of its plant must answer to it.

    `expect` is ``alarm``: a row of the last 24 hours raises the alarm; ``no_alarm``: no row does; or ``answer``: the
    last row gets a probability, whatever it is. CSV files are relative to the file that lists the cases.
    """

    name: str
    plant: str
    expect: Literal["alarm", "no_alarm", "answer"]
    telemetry: Path
    events: Path | None = None
    machines: Machine = Machine()


class Check(NamedTuple):
    """What was expected, what was found, and whether that passes."""

    name: str
    expected: str
    found: str
    passed: bool


def load_cases(path: Path) -> list[AcceptanceCase]:
    """Read the list of acceptance cases; raise an UpkeepError if the file is missing or a case is not as described."""
    return read_object(
        list[AcceptanceCase],
        path,
        what="the acceptance cases",
        expected="a YAML list of name, plant, expect, telemetry, and optionally events and machines",
        remedy="correct the file, or evaluate.golden in params.yaml",
    )


def check_floors(evaluation: Evaluation, floors: Mapping[str, float]) -> list[Check]:
    """Check the figures of ``evaluate`` against floors, and each group with a floor against chance and simple rules.

    `floors` gives the least value by name: ``average_precision`` is the whole fleet's,
    ``plants.lyon.average_precision`` one plant's. What is missing or unknown does not pass. With a floor of the fleet,
    a plant without one of its own must not be known to rank as chance does.
    """
    groups = name_groups(evaluation.overall, evaluation.plants)
    held = sorted({name.rpartition(".")[0] for name in floors} & groups.keys())
    checks = [_check_floor(groups, name, floor) for name, floor in sorted(floors.items())]
    checks += [_check_sanity(place, groups[place].sanity) for place in held]
    others = sorted(groups.keys() - {"", *held})
    if "" in held and others and len(evaluation.plants) > 1:  # one plant is the fleet, of which that was asked
        chance = [f"{name.removeprefix('plants.')}: {fault}" for name in others for fault in find_chance(groups[name])]
        found = "; ".join(chance) or f"none of {len(others)}"
        expected = "none that is known to rank as chance does"
        checks.append(Check("plants beyond chance", expected, found, not chance))
    return checks


def _check_floor(groups: Mapping[str, GroupReport], name: str, floor: float) -> Check:
    place, _, figure = name.rpartition(".")
    value, found = None, f"{NOT_KNOWN}: no such plant was judged"
    if place in groups and figure not in FLOORS:
        found = f"{NOT_KNOWN}: floors can be set for {', '.join(FLOORS)}"
    elif place in groups:
        value = groups[place].metrics.model_dump().get(figure)
        found = f"{NOT_KNOWN}: {explain_unknown(groups[place].metrics, figure)}" if value is None else f"{value:.4g}"
    return Check(name, f"at least {floor:g}", found, value is not None and value >= floor)


def _check_sanity(place: str, sanity: Sanity) -> Check:
    reached = ", ".join(f"{REFERENCES[name]} {value:.3g}" for name, value in sanity.average_precision.items() if value)
    found = "; ".join(sanity.faults) or f"none is better: {reached}"
    name = f"{place}.average_precision" if place else "average_precision"
    expected = "surely above what knows nothing, and below no simple rule"
    return Check(f"{name} beyond chance", expected, found, not sanity.faults)


def check_case(case: AcceptanceCase, time: Sequence[datetime], probability: Floats, threshold: float) -> Check:
    """Check a model's probabilities of a case's rows, at ascending times, against what the case expects."""
    expected = {
        "alarm": f"an alarm in the last {JUDGED_HOURS} h",
        "no_alarm": "no alarm at any row",
        "answer": "a probability at the last row",
    }[case.expect]
    if not len(time):
        return Check(case.name, expected, "no rows", False)
    recent = np.array([moment > time[-1] - timedelta(hours=JUDGED_HOURS) for moment in time])
    judged = {"alarm": probability[recent], "no_alarm": probability, "answer": probability[-1:]}[case.expect]
    if not np.all((judged >= 0) & (judged <= 1)):
        return Check(case.name, expected, "no probability", False)
    right = case.expect == "answer" or bool(np.any(judged >= threshold)) == (case.expect == "alarm")
    return Check(case.name, expected, f"highest probability {np.max(judged):.4g}, threshold {threshold:.4g}", right)


def tabulate_checks(checks: Sequence[Check]) -> str:
    """Return checks as a table for the terminal."""
    rows = [("ok" if check.passed else "FAILED", check.name, check.expected, check.found) for check in checks]
    return align_columns(("", "check", "expected", "found"), rows)


def require_passed(checks: Sequence[Check]) -> None:
    """Raise an UpkeepError that names each failed check, what it expected and what was found, if there is any."""
    if failed := [check for check in checks if not check.passed]:
        raise UpkeepError(
            f"{len(failed)} of {len(checks)} checks failed: "
            + "; ".join(f"{check.name} (found {check.found})" for check in failed),
            expected="; ".join(f"{check.name}: {check.expected}" for check in failed),
            remedy="see reports/evaluation for why; a floor or case that is wrong is changed in a commit that says so",
            stage="check",
        )
