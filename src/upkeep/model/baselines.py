"""Baselines: what a plant would do without a model, beside which models are judged.

Each baseline ranks rows by one number. Its probability is fitted on training rows; its alarm threshold, such as the
interval of fixed-interval maintenance, is chosen on validation rows as a model's is, which is better than most plants'
habits.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.core.rounding import LOG_ODDS
from upkeep.core.types import Booleans, Floats
from upkeep.judging.metrics import has_both_classes
from upkeep.model.calibration import fit_calibration, prior_log_odds

Ranking = Callable[[pl.DataFrame], Floats]


def class_prior(rows: pl.DataFrame) -> Floats:
    """Return the same number for all rows."""
    return np.zeros(rows.height)


def hours_in_service(rows: pl.DataFrame) -> Floats:
    """Return the hours since the last maintenance or failure, or since installation if there was none.

    They are at least 0: a machine may have readings from before its day of installation on record.
    """
    since = [_known(name) for name in rows.columns if name.startswith("hours_since_")]
    age = [_known(name) for name in rows.columns if name == "age_hours"]
    hours = pl.coalesce(pl.min_horizontal(*since, pl.lit(None, pl.Float64)), *age, pl.lit(0.0))
    return rows.with_columns(rank=hours.clip(lower_bound=0))["rank"].to_numpy()


def recent_errors(rows: pl.DataFrame) -> Floats:
    """Return the number of errors of any code in the largest window."""
    counts = [found for name in rows.columns if (found := re.fullmatch(r"errors_.+_([\d.]+)h", name, re.DOTALL))]
    widest = max((float(found[1]) for found in counts), default=0.0)
    largest = [_known(found[0]) for found in counts if float(found[1]) == widest]
    return rows.with_columns(rank=pl.sum_horizontal(*largest, pl.lit(0.0)))["rank"].to_numpy()


def _known(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Float64).fill_nan(None)


RANKINGS: dict[str, Ranking] = {
    "class_prior": class_prior,
    "fixed_interval": hours_in_service,
    "error_count": recent_errors,
}


class SingleFeature(NamedTuple):
    """Risk rises with one feature, or falls; `known` are its values in training rows, ascending, unknown ones first."""

    feature: str
    rises: bool
    known: Floats

    def rank(self, rows: pl.DataFrame) -> Floats:
        """Return the share of training rows whose value each row exceeds, or that exceed it."""
        share = np.searchsorted(self.known, _lowest_if_unknown(rows, self.feature), side="right") / self.known.size
        return share if self.rises else 1 - share


def find_best_feature(read: Callable[[str], pl.DataFrame], features: list[str]) -> SingleFeature | None:
    """Return the best rule on one feature by average precision on training rows; None if these hold one class only.

    `read` returns one column of them, so that not all are in memory at a time.
    """
    label = read("label")["label"].cast(pl.Boolean).to_numpy()
    if not has_both_classes(label):
        return None
    best, highest = None, -1.0
    for name in features:
        values = _lowest_if_unknown(read(name), name)
        ascending = np.argsort(values)
        known = values[ascending]
        for rises, area in zip((True, False), _areas(known, label[ascending]), strict=True):
            # Rounded, since the last digits depend on the processor and must not decide.
            if (rounded := round(area, 9)) > highest:
                best, highest = SingleFeature(name, rises, known), rounded
    return best


def _areas(values: Floats, label: Booleans) -> list[float]:
    """Return the average precision of ranking rows by ascending values, upwards and downwards, from this one sort."""
    last = np.append(np.flatnonzero(values[1:] != values[:-1]), values.size - 1)  # row of each value
    rows, positives = np.diff(last, prepend=-1), np.diff(np.cumsum(label)[last], prepend=0)
    areas = []
    for found, raised in ((positives[::-1], rows[::-1]), (positives, rows)):
        precision = np.cumsum(found) / np.cumsum(raised)
        areas.append(float((found * precision).sum() / found.sum()))
    return areas


def _lowest_if_unknown(rows: pl.DataFrame, feature: str) -> Floats:
    return rows.select(_known(feature).fill_null(-np.inf)).to_series().to_numpy()


def fit_baseline(rank: Ranking, train: Iterable[pl.DataFrame]) -> Ranking:
    """Fit a baseline on training rows, given in chunks; return what maps rows to log-odds of shape (n_rows,).

    Log-odds rise with the ranking; where training rows do not tell how, they are constant, those of the class prior.
    """
    ranked = pl.concat(rows.select("label", "weight", rank=pl.Series(rank(rows))) for rows in train)
    label, weight = ranked["label"].to_numpy(), ranked["weight"].cast(pl.Float64).to_numpy()
    fitted, fault = fit_calibration("sigmoid", np.log1p(ranked["rank"].to_numpy()), label, weight)
    slope, intercept = fitted.slope, fitted.intercept
    if fault:
        slope, intercept = 0.0, float(prior_log_odds(label, weight))
    return lambda rows: (slope * np.log1p(rank(rows)) + intercept).round(LOG_ODDS)
