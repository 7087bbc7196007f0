"""The gate: whether a challenger may take the champion's place. What it cannot be sure of, it does not let pass."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from upkeep.core import paths
from upkeep.core.params import Gate
from upkeep.gitlab.markdown import code, sentence
from upkeep.gitlab.snapshot import Snapshot
from upkeep.judging.acceptance import Check
from upkeep.judging.comparison import Change, Comparison
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

    `champion` is None if the target branch has no history, so that the checks decide alone. `missed_failure` is what
    one failure costs that nobody saw coming, ``evaluate.costs.failure``, and `faults` are why the challenger's reports
    cannot be relied on, such as stages that did not run.
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
        reasons += _vanished(champion, challenger)
        for plant in sorted(champion.plants & challenger.plants):
            group = comparison.plants.get(plant)
            if group is not None and group.failures:
                reasons += _worse_precision(plant, group.changes["average_precision"], limits)
            else:
                reasons += _worse_alone(plant, champion.judged[plant], challenger.judged[plant])
        if comparison.overall is not None:
            reasons += _worse_cost(comparison.overall.changes["cost"], limits, missed_failure)
    return Verdict(not reasons, reasons)


def _vanished(champion: Snapshot, challenger: Snapshot) -> Iterator[Markdown]:
    """Name the plants that were lost: a plant goes when its data goes, and that with a change of `fetch`."""
    for plant in sorted(champion.plants - challenger.plants):
        if plant in challenger.raw_plants:
            yield sentence("{} has raw data, but no model that was judged", plant)
        elif champion.params == challenger.params:
            yield sentence(
                "{} has vanished from {}, though `fetch.source` and `fetch.options` are the same; if that is meant, "
                "say so there",
                plant,
                code(paths.RAW),
            )


def _worse_precision(plant: str, change: Change, limits: Gate) -> Iterator[Markdown]:
    if change.before is None or change.after is None:
        words = "{}: how well machines are ranked is not known, since all common test rows are of one class"
        yield sentence(words, plant)
        return
    rise = change.interval and [-change.interval[1], -change.interval[0]]
    fall = change.before - change.after
    if why := explain_loss(fall, rise, limits.precision_fall, limits.largest_precision_fall):
        words = f"falls from {change.before:.2f} to {change.after:.2f}"
        yield sentence("{}: average precision {}{}", plant, words, why)


def _worse_alone(plant: str, before: GroupReport, after: GroupReport) -> Iterator[Markdown]:
    """Without a failure in common rows each side stands by itself: below the champion's interval is worse."""
    words = "{}: no failure lies in test rows of both sides, and {} is {} where the target branch alone has at least {}"
    for name in ("average_precision", "cost_saving"):
        value, expected = getattr(after.metrics, name), getattr(before.metrics, name)
        interval = before.intervals.get(name)
        lowest = interval[0] if interval else expected
        if expected is not None and (value is None or not value >= lowest):  # a NaN is not good enough either
            found = "not known" if value is None else f"{value:.2f}"
            yield sentence(words, plant, name.replace("_", " "), found, f"{lowest:.2f}")


def _worse_cost(change: Change, limits: Gate, missed_failure: float) -> Iterator[Markdown]:
    before, after = change.before, change.after
    if before is None or after is None:
        yield Markdown("what following the alarms costs is not known, since no common test row is healthy")
        return
    # A share of next to nothing is nothing: a champion that cost 0 could never be followed by one false alarm.
    measure = max(before, missed_failure)
    allowed, largest = limits.cost_rise * measure, limits.largest_cost_rise * measure
    if why := explain_loss(after - before, change.interval, allowed, largest):
        amounts = f"{after:,.0f} instead of {before:,.0f}"
        yield sentence("following the alarms costs {} on the common test rows{}", amounts, why)


def explain_loss(loss: float, interval: Sequence[float] | None, allowed: float, largest: float) -> Markdown | None:
    """Say why a loss is too much: above `largest` always, above `allowed` unless chance may explain it; else None.

    Without an interval of the loss, chance explains nothing.
    """
    # Spelt so that a loss that is not a number is too much.
    if not loss <= largest:
        return Markdown(", which is more than `gate` in params.yaml lets pass, chance or not")
    if loss <= allowed:
        return None
    if interval is None:
        return Markdown(", and with so few machines chance cannot be told")
    return Markdown(", more than chance explains") if interval[0] > 0 else None
