"""Splits by time or by machine, with nothing shared between them."""

from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Split, SplitWindow

SPLITS = ("train", "validation", "test")

Boundaries = tuple[datetime, datetime]

INSTANT = timedelta(microseconds=1)  # the resolution of times
MONDAY = date(1970, 1, 5)  # weeks are counted from here, so that windows stay where they are when older data arrives


def time_boundaries(start: datetime, end: datetime, split: Split) -> Boundaries:
    """Return when training and validation end, which is the same for all plants of a fleet.

    `start` and `end` are the first and the last time of the whole fleet's telemetry. Raises UpkeepError if dates or
    windows lie outside.
    """
    if split.by == "window" and split.window:
        days = _recent_windows(end, split.window)
        remedy = "fetch more history, or lower validation_weeks and test_weeks of dataset.split.window in params.yaml"
    elif split.validation_from and split.test_from and split.by == "date":
        days = [split.validation_from, split.test_from]
        remedy = "give dates within the data as dataset.split.validation_from and test_from in params.yaml"
    else:
        span = end - start
        return end - (split.test_share + split.validation_share) * span, end - split.test_share * span
    midnights = [datetime.combine(day, time(), UTC) for day in days]
    if not start < midnights[0] < midnights[1] < end:
        raise UpkeepError(
            f"the split's dates are {days[0]} and {days[1]}, the data is from {start:%Y-%m-%d} to {end:%Y-%m-%d}",
            remedy=remedy,
            stage="dataset",
        )
    # A boundary is the last instant of what lies before it.
    return midnights[0] - INSTANT, midnights[1] - INSTANT


def _recent_windows(end: datetime, window: SplitWindow) -> list[date]:
    """Return the Mondays on which validation and test begin; the test window ends with the newest row's week."""
    weeks = (end.date() - MONDAY).days // 7 + 1 - window.test_weeks
    test_from = MONDAY + timedelta(weeks=weeks // window.every_weeks * window.every_weeks)
    return [test_from - timedelta(weeks=window.validation_weeks), test_from]


def split_by_time(boundaries: Boundaries, horizon: timedelta) -> pl.Expr:
    """Return each row's split from its ``time``, null in the gap of one horizon before each boundary.

    A row belongs to a split only if the whole of (t, t + horizon] does, so no label looks across a boundary.
    """
    train_end, validation_end = boundaries
    at = pl.col("time")
    return (
        pl.when(at + horizon <= train_end)
        .then(pl.lit("train"))
        .when((at > train_end) & (at + horizon <= validation_end))
        .then(pl.lit("validation"))
        .when(at > validation_end)
        .then(pl.lit("test"))
    )


def split_machines(machines: list[str], pinned_to_test: set[str], split: Split) -> dict[str, str]:
    """Return each machine's split: pinned ones are test, the rest is drawn by `split.seed`.

    Where machines are pinned, they are the whole test set and the rest becomes training and validation.
    """
    free = sorted(set(machines) - pinned_to_test)
    drawn = [free[index] for index in np.random.default_rng(split.seed).permutation(len(free))]
    n_test = 0 if pinned_to_test else round(split.test_share * len(free))
    n_validation = round(split.validation_share * len(free))
    return {
        **dict.fromkeys(drawn[n_test + n_validation :], "train"),
        **dict.fromkeys(drawn[n_test : n_test + n_validation], "validation"),
        **dict.fromkeys([*drawn[:n_test], *sorted(pinned_to_test)], "test"),
    }


def thin_negatives(train: pl.DataFrame, kept: float, seed: int) -> pl.DataFrame:
    """Keep all failing training rows and a share of the healthy ones, which then have ``weight`` 1 / `kept`.

    The weighted class balance stays that of the full data, and so do probabilities fitted on it.
    """
    drawn = pl.Series(np.random.default_rng(seed).random(len(train)) < kept)
    weight = pl.when(pl.col("label") == 1).then(1.0).otherwise(1.0 / kept)
    return train.with_columns(weight=weight).filter((pl.col("label") == 1) | drawn)
