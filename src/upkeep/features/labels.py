"""Labels: whether a failure falls in (t, t + horizon], for the rows where that is known."""

from datetime import timedelta

import polars as pl

from upkeep.core.params import Dataset


def label_rows(
    telemetry: pl.DataFrame, events: pl.DataFrame, params: Dataset, row_length: timedelta = timedelta()
) -> pl.DataFrame:
    """Label each row of one plant whose outcome is known and that is not under repair.

    A row is *censored*, and left out, when its horizon runs past the last reading of its machine: of one that fell
    silent nothing is known, whatever the others deliver. A machine whose readings end at a failure or before it is
    repaired, such as an engine run to its end, has no unknown future. Other events tell nothing of the time up to
    them, and may even lie ahead: times of up to a day after the delivery are accepted. Where readings are reduced, the
    last row may hold the beginning of its `row_length` only, so what is known ends with the row before.

    Columns are ``machine``, ``time``, ``label`` (UInt8), ``hours_to_failure`` (null where no failure follows) and
    ``repaired`` (when the last failure's repair ended, null where there was none), sorted by machine and time.
    """
    keys = telemetry.select("machine", "time").sort("machine", "time")
    repairs = _find_repairs(events, params)
    next_failure = repairs.select("machine", next_failure="failure")
    rows = keys.join_asof(
        next_failure,
        left_on="time",
        right_on="next_failure",
        by="machine",
        strategy="forward",
        allow_exact_matches=False,  # the failure falls in (t, t + horizon]: after t
        check_sortedness=False,
    )
    ends = keys.group_by("machine").agg(known_until=pl.col("time").max() - row_length)
    ends = ends.join(repairs.group_by("machine").agg(last_repair=pl.col("repaired").max()), on="machine", how="left")
    horizon_end = pl.col("time") + timedelta(hours=params.horizon_hours)
    ends_failed = pl.col("known_until", "time") < pl.col("last_repair")
    known = rows.join(ends, on="machine", how="left", maintain_order="left").filter(
        pl.all_horizontal(ends_failed) | (horizon_end <= pl.col("known_until"))
    )
    return _without_repairs(known, repairs).select(
        "machine",
        "time",
        label=(pl.col("next_failure") <= horizon_end).fill_null(value=False).cast(pl.UInt8),
        hours_to_failure=(pl.col("next_failure") - pl.col("time")).dt.total_microseconds() / 3.6e9,
        repaired="repaired",
    )


def _find_repairs(events: pl.DataFrame, params: Dataset) -> pl.DataFrame:
    """Return when each failure was repaired: at the first maintenance after it, or after the longest repair allowed."""
    failures = events.filter(kind="failure").select("machine", failure="time").sort("machine", "failure")
    maintenance = events.filter(kind="maintenance").select("machine", repaired="time").sort("machine", "repaired")
    repairs = failures.join_asof(
        maintenance,
        left_on="failure",
        right_on="repaired",
        by="machine",
        strategy="forward",
        check_sortedness=False,
    )
    longest = pl.col("failure") + timedelta(hours=params.max_repair_hours)
    return repairs.with_columns(repaired=pl.min_horizontal("repaired", longest))


def _without_repairs(rows: pl.DataFrame, repairs: pl.DataFrame) -> pl.DataFrame:
    return rows.join_asof(
        repairs, left_on="time", right_on="failure", by="machine", strategy="backward", check_sortedness=False
    ).filter(pl.col("failure").is_null() | (pl.col("time") >= pl.col("repaired")))
