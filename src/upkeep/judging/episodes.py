"""Events as planners count them: failures caught in time, and alarms that nothing followed.

A *failure* is known by its time, ``time + hours_to_failure``. It counts if at least one judged row lies between one
horizon and one lead time before it; a failure whose warning rows were never judged (they fell into another split or
into an outage) could not have been caught by any model. It is *caught* if one of those rows raised the alarm; its
*warning* is the time from the first such alarm to the failure.

A *prevented* failure is one that a visit came before, whose time is the visit's. Its rows end there, however early the
alarm was that the visit answered. Whoever raised no alarm by then might still have done so in time: whether such a
failure, an *open* one, would have been caught is not known (see :func:`upkeep.judging.economics.expect_caught`).

An *episode* is what a planner answers with one visit: an alarm, and all alarms of the same machine within one horizon
after it, whether it stops in between or not. The next alarm opens a new episode, so an alarm that never stops is not
free. An episode is *false* if no failure follows any of its alarms within the horizon.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.core.types import Booleans, Ints

MACHINE = ["plant", "machine"]
TRUTH = ["label", "hours_to_failure", "prevented"]  # what is known of each judged row
HOURS_PER_MONTH = 730.5  # a twelfth of 365.25 days


class Timeline(NamedTuple):
    """Judged rows as arrays of shape (n_rows,), in the order of machine and time.

    `failing` tells whether a failure follows within the horizon, and `horizon_end` is the position of the first row
    that is a horizon or more later, or is the next machine's.
    """

    failing: Booleans
    horizon_end: Ints


def read_timeline(predictions: pl.DataFrame, horizon_hours: float) -> Timeline:
    """Return what episodes are found from; `predictions` are one candidate's, sorted by plant, machine and time."""
    columns = predictions.select(
        machine=pl.struct(MACHINE).rle_id().cast(pl.Int64),
        seconds=(pl.col("time") - pl.col("time").min()).dt.total_seconds(),
        failing=(pl.col("hours_to_failure") <= horizon_hours).fill_null(False),
    )
    machine, seconds = columns["machine"].to_numpy(), columns["seconds"].to_numpy()
    horizon = round(horizon_hours * 3600)
    # One axis for all machines, each starting more than a horizon after the last one's end: one search serves all.
    axis = machine * (seconds.max(initial=0) + horizon + 1) + seconds
    return Timeline(columns["failing"].to_numpy(), np.searchsorted(axis, axis + horizon))


def find_episodes(timeline: Timeline, alarm: Booleans) -> tuple[Ints, Booleans]:
    """Return the first row of each episode of an alarm of shape (n_rows,), and whether the episode is false."""
    rows = np.flatnonzero(alarm)
    following = np.searchsorted(rows, timeline.horizon_end[rows])
    next_alarm, first, position = following.tolist(), [], 0
    while position < rows.size:
        first.append(position)
        position = next_alarm[position]
    opening = np.array(first, dtype=np.int64)
    failing = np.concatenate([[0], np.cumsum(timeline.failing[rows])])
    return rows[opening], failing[following[opening]] == failing[opening]


def opens_episode(latest: datetime | None, alarm_at: datetime, horizon: timedelta) -> bool:
    """Return whether a machine's alarm opens a new episode, as :func:`find_episodes` defines it.

    `latest` is the start of the machine's latest episode: None if there was none, or it was repaired since.
    """
    return latest is None or alarm_at >= latest + horizon


def judge_failures(predictions: pl.DataFrame, lead_time_hours: float, horizon_hours: float) -> pl.DataFrame:
    """List the failures that could have been caught.

    Columns are plant, machine, failed_at, prevented, caught, warning_hours (null if not caught), and ``peak``, the
    highest probability while a warning was still in time: the failure is caught at any threshold up to it.
    """
    since_row = pl.duration(microseconds=(pl.col("hours_to_failure") * 3.6e9).round().cast(pl.Int64))
    return (
        predictions.filter(pl.col("hours_to_failure").is_between(lead_time_hours, horizon_hours))
        .group_by(*MACHINE, (pl.col("time") + since_row).dt.round("1s").alias("failed_at"))
        .agg(
            prevented=pl.col("prevented").any(),
            caught=pl.col("alarm").any(),
            warning_hours=pl.col("hours_to_failure").filter(pl.col("alarm")).max(),
            peak=pl.col("probability").max(),
        )
        .sort(*MACHINE, "failed_at")
    )


def tally_machines(predictions: pl.DataFrame, lead_time_hours: float, horizon_hours: float) -> pl.DataFrame:
    """Count each machine's events; `predictions` are one candidate's, sorted by plant, machine and time.

    Columns are plant, machine, hours (rows times their plant's usual spacing, null where no machine has two rows),
    healthy and failing (rows), failures, caught, open and false_alarms; in the order of `predictions`.
    """
    spacing = pl.col("time").diff().over(MACHINE).median().over("plant").dt.total_seconds() / 3600
    timeline = read_timeline(predictions, horizon_hours)
    machines = predictions.with_columns(hours=spacing, failing=timeline.failing).group_by(MACHINE, maintain_order=True)
    failures = judge_failures(predictions, lead_time_hours, horizon_hours).group_by(MACHINE)
    left_open = (pl.col("prevented") & ~pl.col("caught")).sum()
    counts = {"failures": pl.len(), "caught": pl.col("caught").sum(), "open": left_open}
    starts, false = find_episodes(timeline, predictions["alarm"].to_numpy())
    false_alarms = predictions.select(MACHINE)[starts[false]].group_by(MACHINE)
    tally = machines.agg(
        hours=pl.col("hours").first() * pl.len(), healthy=(~pl.col("failing")).sum(), failing=pl.col("failing").sum()
    )
    for counted in (failures.agg(**counts), false_alarms.agg(false_alarms=pl.len())):
        tally = tally.join(counted, on=MACHINE, how="left", maintain_order="left")
    return tally.with_columns(pl.col(*counts, "false_alarms").fill_null(0).cast(pl.Int64))


def pick_alarms(predictions: pl.DataFrame, horizon_hours: float, count: int) -> pl.DataFrame:
    """Return the first rows of alarm episodes, which a planner would have seen: the most probable, at most `count`.

    `predictions` are one candidate's of one plant, sorted by machine and time.
    """
    starts, _ = find_episodes(read_timeline(predictions, horizon_hours), predictions["alarm"].to_numpy())
    return predictions[starts].sort("probability", "machine", "time", descending=[True, False, False]).head(count)
