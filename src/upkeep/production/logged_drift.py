"""Drift of what the service was asked and answered: logged features and probabilities against training rows.

A log of millions of rows is read file by file, and kept as a histogram of fixed bins per column, so that neither memory
nor the order of files matters. A distance between two histograms is that of :mod:`upkeep.judging.drift` between the
rows, but for less than the width of a bin; that module is for telemetry, whose seasons it knows.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.core.types import Floats, Floats32
from upkeep.judging.drift import FEWEST_VALUES, LARGEST_SIMILARITY, count_independent, smallest_drift
from upkeep.judging.reports import ColumnDrift
from upkeep.model.storage import TrainingRange, to_matrix

PROBABILITY = "probability"
"""The column of answers, beside the features."""

BINS = 512
"""From one span below the 1% quantile of training rows to one above their 99% quantile; the outermost hold the rest."""

ROWS_AT_ONCE = 8_192
"""Their bins fit into a processor's cache."""


class Bins(NamedTuple):
    """Where each column's histogram begins, and how wide its bins are; both of shape (n_columns,)."""

    start: Floats
    width: Floats


def place_bins(ranges: Mapping[str, TrainingRange]) -> Bins:
    """Return the bins of each feature by what training rows held of it, and after them those of probabilities."""
    ends = np.array([[each.low or 0.0, each.high or 0.0] for each in ranges.values()] + [[1 / 3, 2 / 3]])
    span = ends[:, 1] - ends[:, 0]
    span = np.where(span > 0, span, 1.0)
    return Bins(ends[:, 0] - span, 3 * span / BINS)


def count_values(parts: Iterable[tuple[Floats32, Floats | None]], bins: Bins) -> Floats:
    """Return how many values, or how much of their weight, each bin holds, shape (n_columns, `BINS`).

    `parts` are values of shape (n_rows, n_columns), NaN where one is missing, and the weights of the rows, shape
    (n_rows,), if they do not all count once.
    """
    n_columns = len(bins.start)
    counts = np.zeros(n_columns * (BINS + 1))
    columns = np.arange(n_columns) * (BINS + 1)
    start, per_unit = bins.start.astype(np.float32), (1 / bins.width).astype(np.float32)
    for values, weight in parts:
        for first in range(0, len(values), ROWS_AT_ONCE):
            place = (values[first : first + ROWS_AT_ONCE] - start) * per_unit
            place = np.nan_to_num(np.clip(place, 0, BINS - 1), copy=False, nan=BINS)
            index = (place.astype(np.int64) + columns).ravel()
            weights = None if weight is None else np.repeat(weight[first : first + ROWS_AT_ONCE], n_columns)
            counts += np.bincount(index, weights, minlength=counts.size)
    return counts.reshape(n_columns, BINS + 1)[:, :BINS]


def measure_distances(counts: Floats, reference: Floats, bins: Bins) -> Floats:
    """Return the first Wasserstein distance of each column in standard deviations of the reference, NaN of no values.

    Between distributions on a line it is the area between their distribution functions (Vallender 1974, Calculation of
    the Wasserstein distance between probability distributions on the line).
    """
    with np.errstate(invalid="ignore"):
        shares, usual = (each / each.sum(axis=1, keepdims=True) for each in (counts, reference))
    place = np.arange(BINS)
    mean = usual @ place
    spread = np.sqrt((usual * (place - mean[:, None]) ** 2).sum(axis=1)) * bins.width
    area = np.abs(np.cumsum(shares - usual, axis=1)).sum(axis=1) * bins.width
    distances: Floats = area / np.maximum(spread, 1e-3)
    return distances


def compare_logged(
    logged: Iterable[pl.DataFrame],
    training: Iterable[pl.DataFrame],
    judged: pl.DataFrame,
    ranges: Mapping[str, TrainingRange],
) -> dict[str, ColumnDrift]:
    """Compare a model's logged features and probabilities with its training rows and judged ones.

    `logged` are files of the prediction log with ``features`` and ``probability``, `training` the chunks of its
    training rows with a column per feature and ``weight``, `judged` its validation or test rows with ``probability``,
    and `ranges` those of the model's metadata, in the order of its features. A column is judged by 30 values at least;
    how alike neighbouring rows are is not known of a log, so they are taken as most alike.
    """
    names, bins = [*ranges, PROBABILITY], place_bins(ranges)
    counts = count_values(((_read_log(rows, len(ranges)), None) for rows in logged), bins)
    reference = count_values(_read_known(training, judged, [*ranges]), bins)
    scores = measure_distances(counts, reference, bins)
    sizes = zip(counts.sum(axis=1), reference.sum(axis=1), strict=True)
    return {name: _judge(score, *size) for name, score, size in zip(names, scores.tolist(), sizes, strict=True)}


def _read_known(
    training: Iterable[pl.DataFrame], judged: pl.DataFrame, features: list[str]
) -> Iterator[tuple[Floats32, Floats | None]]:
    """Yield training rows without a probability, which they have none of, and judged ones with nothing else."""
    for rows in training:
        unknown = np.full(rows.height, np.nan, np.float32)
        yield np.column_stack([to_matrix(rows, features), unknown]), rows["weight"].to_numpy()
    unknown = np.full((judged.height, len(features)), np.nan, np.float32)
    yield np.column_stack([unknown, judged["probability"].to_numpy().astype(np.float32)]), None


def _read_log(rows: pl.DataFrame, n_features: int) -> Floats32:
    """Return the features of logged rows and, last, their probability; rows of a model with others are left out."""
    own = rows.filter(pl.col("features").list.len() == n_features)
    features = own["features"].explode().to_numpy().reshape(own.height, n_features)
    return np.column_stack([features, own["probability"].to_numpy().astype(np.float32)])


def _judge(score: float, current: float, reference: float) -> ColumnDrift:
    if min(current, reference) < FEWEST_VALUES:
        return ColumnDrift()
    independent = (count_independent(int(size), int(size), LARGEST_SIMILARITY) for size in (current, reference))
    threshold = smallest_drift(*independent)
    return ColumnDrift(score=score, threshold=threshold, drifted=score >= threshold)
