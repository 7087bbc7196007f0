"""Whether a challenger may take the champion's place, judged on the newest rows, which neither was trained on.

Pure: predictions of both in, a decision with its reasons out. What it cannot be sure of, it does not let pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import polars as pl

from upkeep.core.params import Gate, Params
from upkeep.core.text import count_things
from upkeep.judging.comparison import Change, Comparison, Group, compare

ROW = ["machine", "time"]
TOGETHER = "all plants together"


class Succession(NamedTuple):
    """What was decided, why the challenger may not ship if so, and what is to be known even if it may.

    `decision` is ``promote``, ``keep`` (the champion is better) or ``unknown``, which keeps the champion, too.
    `figures` compare both on the newest rows.
    """

    decision: Literal["promote", "keep", "unknown"]
    reasons: list[str]
    remarks: list[str]
    figures: Comparison


def find_newer(champion: pl.DataFrame, challenger: pl.DataFrame) -> pl.DataFrame:
    """Return the challenger's test rows that the champion can be asked about, and was not by its own run.

    Both are one plant's rows in ``data/predictions``. Test rows tell of each machine from when on the champion did not
    see it; a machine without any may have been trained on, so of it only what came after all the champion's rows is
    taken. What the champion was fitted on is so left out, whether its run split rows by time or by machine.
    """
    judged = champion.filter("chosen", split="test")
    asked = challenger.filter("chosen", split="test").join(judged, on=ROW, how="anti")
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
    """Judge both on the test rows that they have in common, held to what the challenger knows of failures.

    By plant, `champion` holds its own run's predictions and those of the rows that :func:`find_newer` names, made by
    :func:`upkeep.releases.rescoring.rescore`; `challenger` those of its own run. `missed_floors` are the floors that
    the challenger is below by its own evaluation: each is a reason, unless the champion is below it and no better.
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
    """Return whose ranking is judged: plants with enough failures and, where there are others, all plants together."""
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
    # A share of next to nothing is nothing: a champion that cost 0 could never be followed by one false alarm.
    measure = max(before, missed_failure)
    allowed, largest = limits.cost_rise * measure, limits.largest_cost_rise * measure
    if why := explain_loss(after - before, change.interval, allowed, largest):
        yield f"following the alarms costs {after:,.0f} instead of {before:,.0f} on the newest rows{why}"


def explain_loss(loss: float, interval: Sequence[float] | None, allowed: float, largest: float) -> str | None:
    """Say why a loss is too much: above `largest` always, above `allowed` unless chance may explain it; else None.

    Without an interval of the loss, chance explains nothing.
    """
    # Spelt so that a loss that is not a number is too much.
    if not loss <= largest:
        return ", which is more than gate in params.yaml lets pass, chance or not"
    if loss <= allowed:
        return None
    if interval is None:
        return ", and with so few machines chance cannot be told"
    return ", more than chance explains" if interval[0] > 0 else None


def _judge_floor(figures: Comparison, name: str, floor: float) -> tuple[bool, str]:
    """Tell whether a floor may be missed, since the champion misses it by as much or more, and say so."""
    place, _, figure = name.rpartition(".")
    group = figures.plants.get(place.removeprefix("plants.")) if place else figures.overall
    change = group.changes.get(figure, Change(None, None)) if group else Change(None, None)
    if change.before is None or change.after is None:
        return False, f"{name} is below its floor of {floor:g}, and what the champion reaches is not known"
    both = f"{change.after:.3g}, the champion {change.before:.3g} on the newest rows"
    if change.before < floor and change.after >= change.before:
        return True, f"{name} is below its floor of {floor:g}, but no worse than what is live: {both}"
    return False, f"{name} is below its floor of {floor:g}: {both}"
