"""Whether a challenger may replace the champion, judged on the newest rows, which neither was trained on.

Predictions of both in, a decision with its reasons out; it fails closed.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import polars as pl

from upkeep.core.params import Gate, Params
from upkeep.core.text import count_things
from upkeep.judging.comparison import Change, Comparison, Group, compare
from upkeep.judging.reports import name_groups

TOGETHER = "all plants together"


class Succession(NamedTuple):
    """What was decided, the reasons against the challenger, and remarks that are no reasons.

    `decision` is ``promote``, ``keep`` (the champion is better) or ``unknown``, which also keeps the champion.
    `figures` compare both on the newest rows.
    """

    decision: Literal["promote", "keep", "unknown"]
    reasons: list[str]
    remarks: list[str]
    figures: Comparison


def find_newer(champion: pl.DataFrame, challenger: pl.DataFrame) -> pl.DataFrame:
    """Return the challenger's test rows that the champion was neither fitted on nor judged on by its own run.

    Both are one plant's rows in ``data/predictions``. The champion has not seen a machine from its first test row on. A
    machine without test rows may have been trained on, so only its rows after all the champion's are taken. This holds
    whether the champion's run split rows by time or by machine.
    """
    judged = champion.filter("chosen", split="test")
    asked = challenger.filter("chosen", split="test").join(judged, on=["machine", "time"], how="anti")
    starts = judged.group_by("machine").agg(unseen_from=pl.col("time").min())
    rows = asked.join(starts, on="machine", how="left", maintain_order="left")
    after_all = pl.col("time") > pl.lit(champion["time"].max(), champion.schema["time"])
    return rows.filter((pl.col("time") >= pl.col("unseen_from")) | after_all).drop("unseen_from")


def judge_succession(
    champion: Mapping[str, pl.DataFrame],
    challenger: Mapping[str, pl.DataFrame],
    params: Params,
    missed_floors: Mapping[str, float] = MappingProxyType({}),
) -> Succession:
    """Judge both on the test rows that they have in common, by the challenger's labels.

    By plant, `challenger` holds its own run's predictions, and `champion` those of its run and, made by
    :func:`upkeep.releases.rescoring.rescore`, those of the rows of :func:`find_newer`. `missed_floors` are the floors
    that the challenger is below in its own evaluation: each is a reason, unless the champion is below it and no better.
    """
    figures = compare(champion, challenger, params.evaluate, params.dataset.horizon_hours, params.model.seed)
    unknown = list(_find_unknown(champion, challenger, figures, params.gate))
    floors = [_judge_floor(figures, name, floor) for name, floor in sorted(missed_floors.items())]
    groups, remarks = _find_groups(figures, params.gate.min_failures)
    worse = [words for passes, words in floors if not passes]
    for name, group in groups.items():
        worse += _judge_precision(name, group.changes["average_precision"], params.gate)
    if figures.overall is not None:
        worse += _judge_cost(figures.overall.changes["cost"], params.gate, params.evaluate.costs.failure)
    return Succession(
        decision="unknown" if unknown else "keep" if worse else "promote",
        reasons=[*unknown, *worse],
        remarks=[*remarks, *(words for passes, words in floors if passes)],
        figures=figures,
    )


def _find_unknown(
    champion: Mapping[str, pl.DataFrame], challenger: Mapping[str, pl.DataFrame], figures: Comparison, limits: Gate
) -> Iterator[str]:
    for plant in sorted(champion.keys() & challenger.keys() - figures.plants.keys()):
        yield f"{plant}: no test row of this branch is one that the champion could be asked about"
    failures = figures.overall.failures if figures.overall else 0
    if failures < limits.min_failures:
        needed = f"{limits.min_failures} are needed by gate.min_failures in params.yaml"
        yield f"{count_things(failures, 'failure')} in the newest rows of both, {needed}"


def _find_groups(figures: Comparison, least: int) -> tuple[dict[str, Group], list[str]]:
    """Return plants with enough failures and, if there are others, all together; and remarks on the others."""
    enough = {plant: group for plant, group in figures.plants.items() if group.failures >= least}
    few = ", ".join(f"{plant} {group.failures}" for plant, group in figures.plants.items() if plant not in enough)
    if not few or figures.overall is None or figures.overall.failures < least:
        return enough, []
    return {TOGETHER: figures.overall, **enough}, [f"judged with all others, since their failures are few: {few}"]


def _judge_precision(name: str, change: Change, limits: Gate) -> Iterator[str]:
    if change.before is None or change.after is None:
        yield f"{name}: how well machines are ranked is not known, since all newest rows are of one class"
        return
    rise = change.interval and [-change.interval[1], -change.interval[0]]
    fall = change.before - change.after
    if why := explain_loss(fall, rise, limits.precision_fall, limits.largest_precision_fall):
        yield f"{name}: average precision falls from {change.before:.2f} to {change.after:.2f}{why}"


def _judge_cost(change: Change, limits: Gate, missed_failure: float) -> Iterator[str]:
    before, after = change.before, change.after
    if before is None or after is None:
        yield "what following the alarms costs is not known, since none of the newest rows is healthy"
        return
    # As a share of a champion's cost near 0, a single false alarm would always be too much.
    base = max(before, missed_failure)
    allowed, largest = limits.cost_rise * base, limits.largest_cost_rise * base
    if why := explain_loss(after - before, change.interval, allowed, largest):
        yield f"following the alarms costs {after:,.0f} instead of {before:,.0f} on the newest rows{why}"


def explain_loss(loss: float, interval: Sequence[float] | None, allowed: float, largest: float) -> str | None:
    """Return why a loss is too much, None if it is not: above `largest`, or above `allowed` and not by chance.

    Without an interval of the loss, chance explains nothing.
    """
    if not loss <= largest:  # which is also true of NaN
        return ", which is more than gate in params.yaml lets pass, chance or not"
    if loss <= allowed:
        return None
    if interval is None:
        return ", and with so few machines chance cannot be told"
    return ", more than chance explains" if interval[0] > 0 else None


def _judge_floor(figures: Comparison, name: str, floor: float) -> tuple[bool, str]:
    """Return whether a floor may be missed, since the champion misses it by as much or more, and words on it."""
    place, _, figure = name.rpartition(".")
    group = name_groups(figures.overall, figures.plants).get(place)
    change = group.changes.get(figure, Change(None, None)) if group else Change(None, None)
    if change.before is None or change.after is None:
        return False, f"{name} is below its floor of {floor:g}, and what the champion reaches is not known"
    both = f"{change.after:.3g}, the champion {change.before:.3g} on the newest rows"
    if change.before < floor and change.after >= change.before:
        return True, f"{name} is below its floor of {floor:g}, but no worse than what is live: {both}"
    return False, f"{name} is below its floor of {floor:g}: {both}"
