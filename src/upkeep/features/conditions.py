"""Operating conditions: the settings under which machines run, and the usual readings of each sensor in them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from upkeep.core.rounding import MEASURED, significant
from upkeep.core.types import Floats, Frozen, Single

FIT_ROWS = 5_000  # conditions are found on a sample of this many rows; more do not move the centres
FIT_SEED = 0
CHUNK_ROWS = 50_000  # rows whose distances to all centres are held in memory at once
ATTEMPTS = 5  # k-means depends on where it starts; the best of this many attempts is kept
MIN_READINGS = 30  # a condition with fewer readings of a sensor borrows the plant's level and spread


class Conditions(Frozen):
    """Operating conditions of one plant, and each sensor's level in them.

    `widths` are the widths of the settings' ranges, in their own units, by which distances between settings are scaled.
    `centres` are the settings of each condition, shape (n_conditions, n_settings), the most frequent condition first;
    `levels` and `spreads` are the mean and the standard deviation of each sensor, shape (n_conditions, n_sensors).
    """

    widths: list[Single]
    centres: list[list[Single]]
    levels: list[list[Single]]
    spreads: list[list[Annotated[Single, Field(gt=0)]]]

    def scale(self, settings: Floats, readings: Floats) -> Floats:
        """Return readings as deviations from their condition's level, in its spreads, shape (n_rows, n_sensors)."""
        level, spread = self.usual(settings)
        scaled: Floats = (readings - level) / spread
        return scaled

    def usual(self, settings: Floats) -> tuple[Floats, Floats]:
        """Return each sensor's level and spread in the condition of each row, shape (n_rows, n_sensors) each."""
        widths, centres, levels, spreads = self._arrays
        condition = assign_conditions(settings, centres, widths)
        return levels[condition], spreads[condition]

    @cached_property
    def _arrays(self) -> list[Floats]:
        return [np.array(values) for values in (self.widths, self.centres, self.levels, self.spreads)]


def assign_conditions(settings: Floats, centres: Floats, widths: Floats) -> NDArray[np.intp]:
    """Return the nearest condition of each row, shape (n_rows,); a missing setting is left out of the distance."""
    nearest = np.empty(len(settings), dtype=np.intp)
    for start in range(0, len(settings), CHUNK_ROWS):
        squares = ((settings[start : start + CHUNK_ROWS, None, :] - centres) / widths) ** 2
        distance = np.where(np.isnan(squares), 0.0, squares).sum(axis=2)
        nearest[start : start + CHUNK_ROWS] = distance.argmin(axis=1)
    return nearest


def fit_conditions(
    settings: Floats, readings: Floats, widths: Sequence[float], tolerance: float, most: int
) -> Conditions:
    """Fit the operating conditions of training rows, and each sensor's level and spread in them.

    The number of conditions is the smallest, up to `most`, with which the root mean square distance of rows from their
    condition's centre, as a share of the settings' ranges (`widths`), is at most `tolerance`. `settings` and `readings`
    have shapes (n_rows, n_settings) and (n_rows, n_sensors), NaN where a value is missing.
    """
    known, width = settings[~np.isnan(settings).any(axis=1)], np.asarray(widths)
    centres = significant(_find_centres(known / width, tolerance, most) * width, MEASURED)
    counts = np.bincount(assign_conditions(known, centres, width), minlength=len(centres))
    centres = centres[np.argsort(-counts, kind="stable")]
    condition, overall = assign_conditions(settings, centres, width), _measure_levels(readings)
    measured = [_measure_levels(readings[condition == index], overall) for index in range(len(centres))]
    levels, spreads = ([values.tolist() for values in part] for part in zip(*measured, strict=True))
    return Conditions(widths=list(widths), centres=centres.tolist(), levels=levels, spreads=spreads)


def _find_centres(points: Floats, tolerance: float, most: int) -> Floats:
    """Return the fewest k-means centres that keep points within `tolerance`, shape (k, n_settings)."""
    from scipy.cluster.vq import kmeans2  # only training finds conditions; scoring starts faster without it

    if not len(points) or not points.shape[1]:
        return np.zeros((1, points.shape[1]))
    rng = np.random.default_rng(FIT_SEED)
    sample = points[np.sort(rng.permutation(len(points))[:FIT_ROWS])]
    most = min(most, len(np.unique(sample, axis=0)))
    centres: Floats = sample.mean(axis=0, keepdims=True)
    for k in range(1, most + 1):
        if k > 1:
            attempts = [kmeans2(sample, k, minit="++", rng=rng, missing="warn")[0] for _ in range(ATTEMPTS)]
            centres = np.asarray(min(attempts, key=lambda found: _distance_to_nearest(sample, found)), dtype=np.float64)
        if _distance_to_nearest(sample, centres) <= tolerance:
            break
    return centres


def _distance_to_nearest(points: Floats, centres: Floats) -> float:
    squares = np.min([((points - centre) ** 2).sum(axis=1) for centre in centres], axis=0)
    return float(np.sqrt(squares.mean()))


def _measure_levels(readings: Floats, fallback: tuple[Floats, Floats] | None = None) -> tuple[Floats, Floats]:
    """Return each sensor's mean and standard deviation; those of `fallback` where there are too few readings."""
    count = (~np.isnan(readings)).sum(axis=0)
    level = np.nansum(readings, axis=0) / np.maximum(count, 1)
    deviation = np.sqrt(np.nansum((readings - level) ** 2, axis=0) / np.maximum(count - 1, 1))
    if fallback is not None:
        enough = count >= MIN_READINGS
        level, deviation = np.where(enough, level, fallback[0]), np.where(enough, deviation, fallback[1])
    return level, np.where(deviation > 0, deviation, 1.0)
