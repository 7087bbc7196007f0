"""Labels: whether a failure falls in (t, t + horizon], for the rows where that is known."""

from datetime import timedelta

import polars as pl

from upkeep.core.params import Dataset


def label_rows(telemetry: pl.DataFrame, events: pl.DataFrame, params: Dataset) -> pl.DataFrame:
    """Label each row of one plant whose outcome is known and that is not under repair.

    A row is *censored*, and left out, when its horizon runs past the last thing known of the plant. A machine whose
    record ends with a failure, such as an engine run to its end, has no unknown future.

    Parameters
    ----------
    telemetry
        One plant's rows with ``machine`` and ``time``.
    events
        Its events with ``machine``, ``time`` and ``kind``.

    Returns
    -------
    DataFrame
        ``machine``, ``time``, ``label`` (UInt8) and ``hours_to_failure`` (Float64, null where no failure follows),
        sorted by machine and time.
    """
    keys = telemetry.select("machine", "time").sort("machine", "time")
    horizon = timedelta(hours=params.horizon_hours)
    rows = keys.join_asof(
        _failures(events, "next_failure"),
        left_on="time",
        right_on="next_failure",
        by="machine",
        strategy="forward",
        allow_exact_matches=False,  # the failure falls in (t, t + horizon]: after t
        check_sortedness=False,
    )
    rows = rows.join(_known_until(keys, events), on="machine", how="left").filter(
        pl.col("known_until").is_null() | (pl.col("time") + horizon <= pl.col("known_until"))
    )
    return _without_repairs(rows, events, params).select(
        "machine",
        "time",
        label=(pl.col("next_failure") <= pl.col("time") + horizon).fill_null(value=False).cast(pl.UInt8),
        hours_to_failure=(pl.col("next_failure") - pl.col("time")).dt.total_microseconds() / 3.6e9,
    )


def _failures(events: pl.DataFrame, name: str) -> pl.DataFrame:
    return events.filter(kind="failure").select("machine", pl.col("time").alias(name)).sort("machine", name)


def _known_until(keys: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return until when each machine's outcomes are known; null where its record ends with a failure."""
    plant_end = pl.concat([keys["time"], events["time"]]).max()
    last_row = keys.group_by("machine").agg(last_row=pl.col("time").max())
    last_failure = _failures(events, "failure").group_by("machine").agg(last_failure=pl.col("failure").max())
    return last_row.join(last_failure, on="machine", how="left").select(
        "machine",
        known_until=pl.when(pl.col("last_failure") >= pl.col("last_row")).then(None).otherwise(pl.lit(plant_end)),
    )


def _without_repairs(rows: pl.DataFrame, events: pl.DataFrame, params: Dataset) -> pl.DataFrame:
    """Drop rows between a failure and its repair: the first maintenance after it, or the longest repair allowed."""
    maintenance = events.filter(kind="maintenance").select("machine", pl.col("time").alias("repaired"))
    repairs = _failures(events, "failure").join_asof(
        maintenance.sort("machine", "repaired"),
        left_on="failure",
        right_on="repaired",
        by="machine",
        strategy="forward",
        check_sortedness=False,
    )
    longest = pl.col("failure") + timedelta(hours=params.max_repair_hours)
    repairs = repairs.with_columns(repaired=pl.min_horizontal(pl.col("repaired"), longest))
    return rows.join_asof(
        repairs, left_on="time", right_on="failure", by="machine", strategy="backward", check_sortedness=False
    ).filter(pl.col("failure").is_null() | (pl.col("time") >= pl.col("repaired")))
