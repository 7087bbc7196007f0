"""Splits by time or by machine, with nothing shared between them."""

from datetime import UTC, datetime, time, timedelta

import numpy as np
import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Split

SPLITS = ("train", "validation", "test")

Boundaries = tuple[datetime, datetime]

INSTANT = timedelta(microseconds=1)
"""What times are counted in."""


def time_boundaries(start: datetime, end: datetime, split: Split) -> Boundaries:
    """Return where training ends and where validation ends; the same instants for all plants of a fleet.

    `start` and `end` are the first and the last instant of the whole fleet's telemetry. An UpkeepError is raised if a
    split by date has its dates elsewhere.
    """
    if split.by != "date":
        span = end - start
        return end - (split.test_share + split.validation_share) * span, end - split.test_share * span
    midnights = [datetime.combine(day, time(), UTC) for day in (split.validation_from, split.test_from) if day]
    if not start < midnights[0] < midnights[1] < end:
        raise UpkeepError(
            f"the split's dates are {split.validation_from} and {split.test_from}, the data is from {start:%Y-%m-%d} "
            f"to {end:%Y-%m-%d}",
            remedy="give dates within the data as dataset.split.validation_from and test_from in params.yaml",
            stage="dataset",
        )
    # A boundary is the last instant of what lies before it.
    return midnights[0] - INSTANT, midnights[1] - INSTANT


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
