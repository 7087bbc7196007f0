"""Time-based rolling statistics whose every bit depends on the rows inside the window only.

A running sum that adds the newest row and takes off the oldest carries the rounding of everything it ever saw, so
one year of history and the last two days of it would disagree in the last digits. Here each window (t - w, t] is
instead put together from two running sums that start inside it. Time is cut into blocks of the window's length; a
window then touches its own block and the one before, and its sum is

    (running sum backwards over the end of the block before) + (running sum forwards over its own block).

Minimum and maximum work the same way. The cost per row does not grow with the window. The scheme is that of
M. van Herk, "A fast algorithm for local minimum and maximum filters", Pattern Recognition Letters 13 (1992), and
J. Gil and M. Werman, "Computing 2-D min, median, and max filters", IEEE PAMI 15 (1993), applied to sums as well.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from upkeep.params import Aggregate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HOUR = 3_600_000_000
"""Microseconds in an hour."""


def roll(time: Ints, values: Floats, window_hours: int, aggregates: Sequence[Aggregate]) -> dict[Aggregate, Floats]:
    """Return rolling statistics of one machine's readings.

    Parameters
    ----------
    time
        Instants in microseconds, shape (n_rows,), strictly increasing.
    values
        Readings, shape (n_sensors, n_rows), NaN where one is missing. Memory grows with the number of blocks times
        the rows of the fullest block.
    window_hours
        Length w of the window (t - w, t], in hours.
    aggregates
        Which of ``mean``, ``std`` (n - 1 in the denominator), ``min``, ``max`` and ``slope`` (least squares, per hour).

    Returns
    -------
    dict
        For each aggregate an array of shape (n_sensors, n_rows), NaN where too few readings are in the window: none
        for mean, min and max, fewer than two for std and slope.
    """
    blocks = _Blocks(time, window_hours * HOUR)
    found = dict(zip(aggregates, np.empty((len(aggregates), *values.shape)), strict=True))
    complete = _Times(blocks, np.ones(len(time)))
    with np.errstate(invalid="ignore", divide="ignore"):
        for sensor, readings in enumerate(values):
            missing = np.isnan(readings)
            times = _Times(blocks, (~missing).astype(np.float64)) if missing.any() else complete
            for aggregate, column in _roll_one(blocks, times, readings, missing, set(aggregates)).items():
                if aggregate in found:
                    found[aggregate][sensor] = column
    return found


def _roll_one(
    blocks: "_Blocks", times: "_Times", readings: Floats, missing: NDArray[np.bool_], wanted: set[Aggregate]
) -> dict[Aggregate, Floats]:
    """Return the rolling statistics of one sensor, shape (n_rows,) each."""
    found: dict[Aggregate, Floats] = {}
    x = np.where(missing, 0.0, readings)
    n = times.count
    sum_x = blocks.total(x)
    mean = found["mean"] = sum_x / n
    if wanted & {"min", "max", "std"}:
        low = blocks.fold(np.minimum, np.inf, np.where(missing, np.inf, readings))
        high = blocks.fold(np.maximum, -np.inf, np.where(missing, -np.inf, readings))
        found["min"], found["max"] = np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)
    if "std" in wanted:
        squares = np.maximum(blocks.total(x * x) - sum_x * mean, 0.0)
        squares[low == high] = 0.0  # equal readings deviate by nothing, not by the rounding of their sums
        found["std"] = np.sqrt(squares / times.degrees_of_freedom)
    if "slope" in wanted:
        sum_tx = blocks.total(blocks.hours * x, blocks.hours_to_next * x)
        found["slope"] = (n * sum_tx - times.total * sum_x) / times.spread
    return found


class _Times:
    """Sums over the times of the readings in each window, which sensors without gaps share.

    Attributes
    ----------
    count, degrees_of_freedom
        Readings in the window; one less, NaN for none.
    total, spread
        Sum of times t, and n sum(t^2) - sum(t)^2, NaN where fewer than two readings leave the slope open.
    """

    def __init__(self, blocks: "_Blocks", known: Floats) -> None:
        own, before = blocks.hours * known, blocks.hours_to_next * known
        self.count = blocks.total(known)
        self.degrees_of_freedom = np.where(self.count > 1, self.count - 1, np.nan)
        self.total = blocks.total(own, before)
        spread = self.count * blocks.total(own * own, before * before) - self.total * self.total
        self.spread = np.where((self.count > 1) & (spread > 0), spread, np.nan)


class _Blocks:
    """One machine's rows, laid out so that running totals restart with each block of the window's length.

    Attributes
    ----------
    hours, hours_to_next
        Time of each row since its own block began, and (negative) until the next one begins, in hours, shape
        (n_rows,): times within a window count from the start of the block that its newest row lies in.
    """

    def __init__(self, time: Ints, window: int) -> None:
        block = time // window
        first = np.flatnonzero(np.diff(block, prepend=block[:1] - 1))
        run = np.repeat(np.arange(len(first)), np.diff(first, append=len(time)))
        position = np.arange(len(time)) - first[run]
        # One more column than there are blocks: nothing is ever laid there, so it reads as "no row before".
        shape = (int(position.max(initial=0)) + 1, len(first) + 1)
        self._place = position * shape[1] + run
        oldest = np.searchsorted(time, time - window, side="right")
        self._oldest = np.where(oldest < first[run], self._place[oldest], shape[1] - 1)
        self._laid = np.empty(shape)
        self.hours: Floats = (time - block * window) / HOUR
        self.hours_to_next: Floats = self.hours - window / HOUR

    def total(self, own: Floats, before: Floats | None = None) -> Floats:
        """Sum over each row's window, see :meth:`fold`."""
        return self.fold(np.add, 0.0, own, before)

    def fold(self, operation: np.ufunc, neutral: float, own: Floats, before: Floats | None = None) -> Floats:
        """Fold `operation` over each row's window.

        Parameters
        ----------
        own, before
            What a row contributes to windows that end in its own block, and in the next one if that differs; shape
            (n_rows,).
        """
        forwards = self._accumulate(operation, neutral, own, self._laid).take(self._place)
        backwards = self._accumulate(operation, neutral, own if before is None else before, self._laid[::-1])
        folded: Floats = operation(backwards.take(self._oldest), forwards, out=forwards)
        return folded

    def _accumulate(self, operation: np.ufunc, neutral: float, rows: Floats, along: Floats) -> Floats:
        """Lay rows out by place in their block and accumulate in the direction of `along`, a view of the layout."""
        self._laid.fill(neutral)
        cells = self._laid.reshape(-1)
        cells[self._place] = rows
        for one, following in pairwise(along):
            operation(one, following, out=following)
        return cells
