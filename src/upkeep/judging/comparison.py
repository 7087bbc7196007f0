"""Champion against challenger, on the test rows that both have predictions of and neither was trained on.

Both are judged by the challenger's labels, which know of failures that had not happened when the champion was judged.
Both are resampled alike, so that the interval of a change leaves out what is hard for both.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.core.names import KEYS
from upkeep.core.params import Evaluate
from upkeep.judging.economics import run_to_failure_cost
from upkeep.judging.episodes import MACHINE, TRUTH, find_episodes, judge_failures, read_timeline
from upkeep.judging.evaluation import Judgement, judge, read_outcomes
from upkeep.judging.reports import Interval
from upkeep.judging.resampling import interval

JUDGED = ["average_precision", "failures_caught", "false_alarms_per_machine_month", "cost"]


class Change(NamedTuple):
    """A figure of the champion (`before`) and the challenger, with the interval of each and of the difference."""

    before: float | None
    after: float | None
    before_interval: Interval = None
    after_interval: Interval = None
    interval: Interval = None


class Group(NamedTuple):
    """What changed in one plant, or in all, on the rows that both have predictions of.

    `changes` are by the names of `Metrics`; `unplanned_cost` is what the failures cost when nothing is done.
    """

    first: datetime
    last: datetime
    rows: int
    machines: int
    failures: int
    unplanned_cost: float
    changes: dict[str, Change]

    @property
    def changed(self) -> bool:
        """Whether any figure changed."""
        return any(change.before != change.after for change in self.changes.values())


class Comparison(NamedTuple):
    """What differs between champion and challenger, in the plants that have a test row in common.

    `alarms` are episodes that only one of them has: plant, machine, time, gained, false (Booleans). `failures` are
    those that only one of them caught in time: plant, machine, failed_at, gained; prevented ones are left out, since
    nobody knows whether the other would have been in time.
    """

    plants: dict[str, Group]
    overall: Group | None
    alarms: pl.DataFrame
    failures: pl.DataFrame


def compare(
    champion: Mapping[str, pl.DataFrame],
    challenger: Mapping[str, pl.DataFrame],
    how: Evaluate,
    horizon_hours: float,
    seed: int,
) -> Comparison:
    """Compare the chosen models of both, given by plant all predictions as ``train`` writes them.

    `horizon_hours` is that of the challenger's labels, `seed` that of the resamples.
    """
    common = {plant: share_rows(champion[plant], challenger[plant]) for plant in sorted(champion.keys() & challenger)}
    pairs = {plant: pair for plant, pair in common.items() if pair[0].height}
    if not pairs:
        return Comparison({}, None, _NO_ALARMS, _NO_FAILURES)
    before, after = (pl.concat([pair[side] for pair in pairs.values()]) for side in (0, 1))
    return Comparison(
        plants={plant: _compare_group(*pair, how, horizon_hours, seed) for plant, pair in pairs.items()},
        overall=_compare_group(before, after, how, horizon_hours, seed),
        alarms=_compare_alarms(before, after, horizon_hours),
        failures=_compare_failures(before, after, how.lead_time_hours, horizon_hours),
    )


def share_rows(champion: pl.DataFrame, challenger: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return one plant's test rows that both have predictions of, in the same order, with the challenger's labels."""
    before, after = (side.filter("chosen", split="test") for side in (champion, challenger))
    truth = after.select(*KEYS, *TRUTH).join(before.select(KEYS), on=KEYS, how="semi").sort(KEYS)
    answers = [*KEYS, "probability", "alarm"]
    before, after = (truth.join(side.select(answers), on=KEYS, maintain_order="left") for side in (before, after))
    return before, after


def _compare_group(
    champion: pl.DataFrame, challenger: pl.DataFrame, how: Evaluate, horizon_hours: float, seed: int
) -> Group:
    before, after = (judge(read_outcomes(rows, how, horizon_hours), how, seed) for rows in (champion, challenger))
    failures = int(after.figures["failures"])
    first, last = champion.select(first=pl.min("time"), last=pl.max("time")).row(0)
    return Group(
        first,
        last,
        rows=champion.height,
        machines=after.machines.height,
        failures=failures,
        unplanned_cost=run_to_failure_cost(failures, how.costs),
        changes={name: _compare_figure(before, after, name, how.confidence) for name in after.figures},
    )


def _compare_figure(before: Judgement, after: Judgement, name: str, confidence: float) -> Change:
    was, now = (None if np.isnan(side.figures[name]) else side.figures[name] for side in (before, after))
    if name not in after.resamples:
        return Change(was, now)
    resamples = before.resamples[name], after.resamples[name]
    intervals = [interval(values, confidence) for values in (*resamples, resamples[1] - resamples[0])]
    return Change(was, now, *intervals)


def _compare_alarms(champion: pl.DataFrame, challenger: pl.DataFrame, horizon_hours: float) -> pl.DataFrame:
    """List the episodes of either that are a horizon or more away from each episode of the other."""
    before, after = (_list_episodes(rows, horizon_hours) for rows in (champion, challenger))
    sides = []
    for mine, others, gained in ((after, before, True), (before, after, False)):
        apart = (pl.col("time") - pl.col("other")).abs()
        pairs = mine.join(others.select(*MACHINE, other="time"), on=MACHINE)
        near = pairs.filter(apart < pl.duration(hours=horizon_hours))
        sides.append(mine.join(near, on=KEYS, how="anti").with_columns(gained=pl.lit(gained)))
    return pl.concat(sides).select(_NO_ALARMS.columns).sort(*KEYS, "gained")


def _list_episodes(rows: pl.DataFrame, horizon_hours: float) -> pl.DataFrame:
    starts, false = find_episodes(read_timeline(rows, horizon_hours), rows["alarm"].to_numpy())
    return rows.select(KEYS)[starts].with_columns(false=pl.Series(false, dtype=pl.Boolean))


def _compare_failures(
    champion: pl.DataFrame, challenger: pl.DataFrame, lead: float, horizon_hours: float
) -> pl.DataFrame:
    before, after = (judge_failures(rows, lead, horizon_hours) for rows in (champion, challenger))
    keys = [*MACHINE, "failed_at"]
    both = before.filter(~pl.col("prevented")).join(after.select(*keys, gained="caught"), on=keys)
    return both.filter(pl.col("caught") != pl.col("gained")).select(_NO_FAILURES.columns).sort(keys)


_TEXTS = dict.fromkeys(MACHINE, pl.String)
_NO_ALARMS = pl.DataFrame(
    schema={**_TEXTS, "time": pl.Datetime("us", "UTC"), "gained": pl.Boolean, "false": pl.Boolean}
)
_NO_FAILURES = pl.DataFrame(schema={**_TEXTS, "failed_at": pl.Datetime("us", "UTC"), "gained": pl.Boolean})
