"""Labels: whether a failure falls in (t, t + horizon], for the rows where that is known."""

from datetime import timedelta
from functools import partial

import polars as pl

from upkeep.contract.dictionary import ALARM_AT, DEFECT, DTYPES, FINDING, OPTIONAL
from upkeep.core.params import Dataset

join_nearest = partial(pl.DataFrame.join_asof, by="machine", check_sortedness=False)
"""Join each row with its machine's nearest row before or after it; both frames are sorted by time."""


def label_rows(
    telemetry: pl.DataFrame, events: pl.DataFrame, params: Dataset, row_length: timedelta = timedelta()
) -> pl.DataFrame:
    """Label each row of one plant whose outcome is known and that is not under repair.

    A row is *censored*, and left out, when its horizon runs past the last reading of its machine: nothing is known of a
    machine that fell silent, whatever others deliver. A machine whose readings end at a failure or before its repair,
    such as an engine run to its end, has no unknown future. Other events say nothing about the time before them, and
    may even lie ahead: times up to a day after the delivery are accepted. Where readings are reduced, the last row may
    hold only the beginning of its `row_length`, so that what is known ends with the row before.

    A visit may have prevented the failure that an alarm predicted, which ``finding`` and ``alarm_at`` of events tell,
    where there are such columns. Of the rows whose horizon contains a visit

    - that found a *defect*, those from the alarm on are positive, as if the machine had failed at the visit and been
      repaired at once. When it would have failed is not known, so those before the alarm, or all of them if there was
      none, are left out;
    - that answers an alarm, but whose finding nobody reported, all are left out;
    - of any other kind, such as one that found *nothing* or that ends a failure's repair, failures alone decide.

    A row's label depends on nothing after its horizon: an alarm more than a horizon before its visit was too early.

    Columns are ``machine``, ``time``, ``label`` (UInt8), ``hours_to_failure`` (or to a visit that found a defect; null
    if neither follows), ``prevented`` (whether that visit is what makes the row positive) and ``repaired`` (when the
    last repair ended, null if there was none), sorted by machine and time.
    """
    keys = telemetry.select("machine", "time").sort("machine", "time")
    ends = _find_ends(events, params)
    ahead = ends.select("machine", "end", "positive_from", "prevented", fails=pl.col("repaired").is_not_null())
    # The failure falls in (t, t + horizon]: after t.
    rows = join_nearest(keys, ahead, left_on="time", right_on="end", strategy="forward", allow_exact_matches=False)
    last = keys.group_by("machine").agg(known_until=pl.col("time").max() - row_length)
    last = last.join(ends.group_by("machine").agg(last_repair=pl.col("repaired").max()), on="machine", how="left")
    horizon_end = pl.col("time") + timedelta(hours=params.horizon_hours)
    ends_failed = pl.col("known_until", "time") < pl.col("last_repair")
    near = (pl.col("end") <= horizon_end).fill_null(value=False)
    known = rows.join(last, on="machine", how="left", maintain_order="left").filter(
        pl.all_horizontal(ends_failed) | (horizon_end <= pl.col("known_until")),
        ~near | (pl.col("time") >= pl.col("positive_from")),
    )
    to_end = pl.when("fails").then(pl.col("end") - pl.col("time"))
    repairs = ends.drop_nulls("repaired").select("machine", "repaired", failure="end")
    return _without_repairs(known, repairs).select(
        "machine",
        "time",
        label=near.cast(pl.UInt8),
        hours_to_failure=to_end.dt.total_microseconds() / 3.6e9,
        prevented=near & pl.col("prevented"),
        repaired="repaired",
    )


def _find_ends(events: pl.DataFrame, params: Dataset) -> pl.DataFrame:
    """Return what ends a machine's healthy time: failures, and visits that may have prevented one.

    Columns are ``machine``, ``end``, ``repaired`` (null if it is not known), ``positive_from``, the time from which on
    rows are positive whose horizon contains the end, and ``prevented``, whether no failure is the end.
    """
    repairs = find_repairs(events, params)
    positive_from = pl.col("failure") - timedelta(hours=params.horizon_hours)
    failures = repairs.select(
        "machine", "repaired", end="failure", positive_from=positive_from, prevented=pl.lit(value=False)
    )
    return (
        pl.concat([failures, _find_telling_visits(events, repairs)])
        .group_by("machine", "end")
        .agg(pl.col("repaired").max(), pl.col("positive_from").min(), pl.col("prevented").min())
        .sort("machine", "end")
    )


def find_repairs(events: pl.DataFrame, params: Dataset) -> pl.DataFrame:
    """Return when each failure was repaired: at the first maintenance after it, or after the longest repair allowed."""
    failures = events.filter(kind="failure").select("machine", failure="time").sort("machine", "failure")
    maintenance = events.filter(kind="maintenance").select("machine", repaired="time").sort("machine", "repaired")
    repairs = join_nearest(failures, maintenance, left_on="failure", right_on="repaired", strategy="forward")
    longest = pl.col("failure") + timedelta(hours=params.max_repair_hours)
    return repairs.with_columns(repaired=pl.min_horizontal("repaired", longest))


def _find_telling_visits(events: pl.DataFrame, repairs: pl.DataFrame) -> pl.DataFrame:
    """Return the visits that found a defect, or whose finding nobody reported, except those that end `repairs`."""
    absent = [name for name in OPTIONAL["events"] if name not in events.columns]
    told = events.with_columns(pl.lit(None, DTYPES[OPTIONAL["events"][name]]).alias(name) for name in absent)
    has_defect, answers = pl.col(FINDING) == DEFECT, pl.col(ALARM_AT) < pl.col("time")
    visits = told.filter(pl.col("kind") == "maintenance", has_defect | (pl.col(FINDING).is_null() & answers))
    ending = repairs.select("machine", time="repaired")
    alone = _without_repairs(
        visits.sort("machine", "time").join(ending, on=["machine", "time"], how="anti", maintain_order="left"), repairs
    )
    return alone.select(
        "machine",
        repaired=pl.when(has_defect).then("time"),
        end="time",
        positive_from=pl.when(has_defect & answers).then(ALARM_AT).otherwise("time"),
        prevented=pl.lit(value=True),
    )


def _without_repairs(rows: pl.DataFrame, repairs: pl.DataFrame) -> pl.DataFrame:
    latest = join_nearest(rows, repairs, left_on="time", right_on="failure", strategy="backward")
    return latest.filter(pl.col("failure").is_null() | (pl.col("time") >= pl.col("repaired")))
