"""Intervals by percentile bootstrap over machines, since the rows of one machine are not independent.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
"""

import numpy as np
from scipy.sparse import csr_array

from upkeep.core.types import Booleans, Floats, Ints

MAX_CELLS = 4_000_000  # cells of one block of resampled curves: 32 MB


def draw_machines(n_machines: int, n_resamples: int, seed: int) -> Floats:
    """Draw as many machines as there are, with replacement; return how often each resample drew each machine.

    The shape is (n_machines, n_resamples), or (n_machines, 0) of fewer than two machines, which tell no interval.
    """
    if n_machines < 2:
        return np.empty((n_machines, 0))
    draws = np.random.default_rng(seed).multinomial(n_machines, np.full(n_machines, 1 / n_machines), size=n_resamples)
    return draws.T.astype(np.float64)


def interval(resamples: Floats, confidence: float) -> list[float] | None:
    """Return the central interval of one figure's resamples, leaving out those where it is not defined (NaN)."""
    defined = resamples[~np.isnan(resamples)]
    if defined.size == 0:
        return None
    return [float(edge) for edge in np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])]


def resample_average_precision(label: Booleans, probability: Floats, machine: Ints, multiplicity: Floats) -> Floats:
    """Return the average precision of each resample of machines.

    Rows are sorted once; a resample only changes how often a machine's rows count, which gives the same figure as
    concatenating the drawn machines' rows. `machine` is the position of each row's in `multiplicity`, which is
    :func:`draw_machines`'s; the result has shape (n_resamples,).
    """
    thresholds, n_resamples = np.unique(probability[label]), multiplicity.shape[1]
    if thresholds.size == 0 or n_resamples == 0:
        return np.full(n_resamples, np.nan)
    # The highest threshold has rank 0; rows below the lowest change neither precision nor recall.
    rank = thresholds.size - np.searchsorted(thresholds, probability, side="right")
    ranked, shape = rank < thresholds.size, (thresholds.size, multiplicity.shape[0])
    rows = csr_array((np.ones(ranked.sum()), (rank[ranked], machine[ranked])), shape=shape)
    positives = csr_array((np.ones(label.sum()), (rank[label], machine[label])), shape=shape)
    n_blocks = -(-thresholds.size * n_resamples // MAX_CELLS)
    blocks = np.array_split(multiplicity, n_blocks, axis=1)
    area = np.concatenate([_weighted_area(rows, positives, block) for block in blocks])
    healthy = np.bincount(machine[~label], minlength=len(multiplicity)) @ multiplicity
    return np.where(healthy > 0, area, np.nan)


def _weighted_area(rows: csr_array, positives: csr_array, multiplicity: Floats) -> Floats:
    # Counts are whole numbers, so these sums are exact in whatever order a library takes them.
    found: Floats = positives @ multiplicity
    raised = np.cumsum(rows @ multiplicity, axis=0)
    precision = np.divide(np.cumsum(found, axis=0), raised, out=np.zeros_like(raised), where=raised > 0)
    total = found.sum(axis=0)
    area: Floats = (found * precision).sum(axis=0) / np.where(total > 0, total, np.nan)
    return area
