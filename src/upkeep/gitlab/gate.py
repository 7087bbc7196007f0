"""The gate: whether a challenger may take the champion's place. What it cannot be sure of, it does not let pass."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from upkeep.core import paths
from upkeep.core.params import Gate
from upkeep.gitlab.markdown import code, sentence
from upkeep.gitlab.snapshot import Snapshot
from upkeep.judging.acceptance import Check
from upkeep.judging.comparison import Change, Comparison, Group
from upkeep.judging.reports import GroupReport
from upkeep.reporting.markdown import Markdown


class Verdict(NamedTuple):
    """Whether the challenger may ship, and the reasons if it may not, which are shown in GitLab's Markdown."""

    ships: bool
    reasons: list[str]


def judge(
    champion: Snapshot | None,
    challenger: Snapshot,
    comparison: Comparison,
    checks: Sequence[Check],
    limits: Gate,
    missed_failure: float,
    faults: Sequence[str] = (),
) -> Verdict:
    """Judge a challenger by its floors and acceptance cases, of which there must be some, and beside the champion.

    Parameters
    ----------
    champion
        None if the target branch has no history, so that the checks decide alone.
    missed_failure
        What one failure costs that nobody saw coming, ``evaluate.costs.failure``.
    faults
        Why the challenger's reports cannot be relied on, such as stages that did not run.
    """
    sides = {"this branch": challenger} | ({"the target branch": champion} if champion else {})
    missing = [
        sentence("{}'s {} is missing: {}", side, code(file), why)
        for side, snapshot in sides.items()
        for file, why in snapshot.missing.items()
    ]
    failed = [
        sentence("the check {} does not hold: found {}, expected {}", code(check.name), check.found, check.expected)
        for check in checks
        if not check.passed
    ]
    reasons = [*faults, *missing, *failed]
    if not checks and not faults:
        reasons.append(Markdown("nothing was checked: set `evaluate.floors` or `evaluate.golden` in params.yaml"))
    if champion is not None and not missing:
        reasons += [*_vanished(champion, challenger), *_worse(champion, challenger, comparison, limits, missed_failure)]
    return Verdict(not reasons, reasons)


def _vanished(champion: Snapshot, challenger: Snapshot) -> Iterator[Markdown]:
    """Name the plants that were lost: a plant goes when its data goes, and that with a change of `fetch`."""
    same_source = _origin(champion) == _origin(challenger)
    for plant in sorted(champion.plants - challenger.plants):
        if plant in challenger.raw_plants:
            yield sentence("{} has raw data, but no model that was judged", plant)
        elif same_source:
            yield sentence(
                "{} has vanished from {}, though `fetch.source` and `fetch.options` are the same; if that is meant, "
                "say so there",
                plant,
                code(paths.RAW),
            )


def _origin(snapshot: Snapshot) -> tuple[object, object]:
    fetch = snapshot.params.get("fetch") or {}
    return fetch.get("source"), fetch.get("options")


def _worse(
    champion: Snapshot, challenger: Snapshot, comparison: Comparison, limits: Gate, missed_failure: float
) -> Iterator[Markdown]:
    for plant in sorted(champion.plants & challenger.plants):
        group = comparison.plants.get(plant)
        if group is not None and group.failures:
            yield from _worse_precision(plant, group.changes["average_precision"], limits)
        else:
            yield from _worse_alone(plant, champion.judged[plant], challenger.judged[plant])
    if comparison.overall is not None:
        yield from _worse_cost(comparison.overall, limits, missed_failure)


def _worse_precision(plant: str, change: Change, limits: Gate) -> Iterator[Markdown]:
    if change.before is None or change.after is None:
        yield sentence(
            "{}: how well machines are ranked is not known, since all common test rows are of one class", plant
        )
        return
    fall = change.before - change.after
    rise = change.interval and [-change.interval[1], -change.interval[0]]
    if too_much(fall, rise, limits.precision_fall, limits.largest_precision_fall):
        words = f"falls from {change.before:.2f} to {change.after:.2f}"
        beyond = _explain(rise, fall > limits.largest_precision_fall)
        yield sentence("{}: average precision {}{}", plant, words, beyond)


def _worse_alone(plant: str, before: GroupReport, after: GroupReport) -> Iterator[Markdown]:
    """Without a failure in common rows each side stands by itself: below the champion's interval is worse."""
    for name in ("average_precision", "cost_saving"):
        value, expected = getattr(after.metrics, name), getattr(before.metrics, name)
        interval = before.intervals.get(name)
        lowest = interval[0] if interval else expected
        if expected is not None and (value is None or not value >= lowest):  # a NaN is not good enough either
            found = "not known" if value is None else f"{value:.2f}"
            yield sentence(
                "{}: no failure lies in test rows of both sides, and {} is {} where the target branch has at least {} "
                "on its own",
                *(plant, name.replace("_", " "), found, f"{lowest:.2f}"),
            )


def _worse_cost(group: Group, limits: Gate, missed_failure: float) -> Iterator[Markdown]:
    change = group.changes["cost"]
    before, after = change.before, change.after
    if before is None or after is None:
        yield Markdown("what following the alarms costs is not known, since no common test row is healthy")
        return
    # A share of next to nothing is nothing: a champion that cost 0 could never be followed by one false alarm.
    measure = max(before, missed_failure)
    allowed, largest = limits.cost_rise * measure, limits.largest_cost_rise * measure
    if too_much(after - before, change.interval, allowed, largest):
        beyond = _explain(change.interval, after - before > largest)
        amounts = f"{after:,.0f} instead of {before:,.0f}"
        yield sentence("following the alarms costs {} on the common test rows{}", amounts, beyond)


def too_much(loss: float, interval: Sequence[float] | None, allowed: float, largest: float) -> bool:
    """Tell whether a loss is too much: above `largest` always, above `allowed` unless chance may explain it.

    Without an interval of the loss, chance explains nothing.
    """
    # Spelt so that a loss that is not a number is too much.
    return not loss <= largest or (not loss <= allowed and (interval is None or interval[0] > 0))


def _explain(interval: Sequence[float] | None, beyond: bool) -> Markdown:
    if beyond:
        return Markdown(", which is more than `gate` in params.yaml lets pass, chance or not")
    return Markdown(", more than chance explains" if interval else ", and with so few machines chance cannot be told")
