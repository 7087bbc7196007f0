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

from upkeep.core.params import Aggregate
from upkeep.core.types import Floats, Ints

HOUR = 3_600_000_000  # microseconds in an hour


def to_microseconds(hours: float) -> int:
    """Return a span in whole microseconds, the unit of all times here."""
    return round(hours * HOUR)


def roll(time: Ints, values: Floats, window_hours: float, aggregates: Sequence[Aggregate]) -> dict[Aggregate, Floats]:
    """Return rolling statistics of one machine's readings in the window (t - w, t], each of shape (n_sensors, n_rows).

    `time` is in microseconds, shape (n_rows,), strictly increasing; `values` are of shape (n_sensors, n_rows), NaN
    where one is missing. ``std`` has n - 1 in the denominator, ``slope`` is that of least squares, per hour. A window
    with too few readings gives NaN: none for mean, min and max, fewer than two for std and slope. Memory grows with the
    number of sensors times blocks times the rows of the fullest block.
    """
    window = to_microseconds(window_hours)
    oldest = np.searchsorted(time, time - window, side="right")
    blocks = _Blocks(time, np.zeros_like(time), window, np.arange(len(time)), oldest)
    return _aggregate(blocks, values, aggregates)


def roll_newest(
    time: Ints, starts: Ints, values: Floats, window_hours: float, aggregates: Sequence[Aggregate]
) -> dict[Aggregate, Floats]:
    """Return the statistics of each machine's newest window only: the same bits as :func:`roll` for its last row.

    `time` and `values` are as in :func:`roll`, grouped by machine; `starts` are the first row of each machine, then the
    number of rows, shape (n_machines + 1,), and no machine is without rows. Each statistic has shape (n_sensors,
    n_machines).
    """
    window = to_microseconds(window_hours)
    machine = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    rows = np.flatnonzero(time > time[starts[1:] - 1][machine] - window)
    ends = np.searchsorted(rows, starts)
    blocks = _Blocks(time[rows], machine[rows], window, newest=ends[1:] - 1, oldest=ends[:-1])
    return _aggregate(blocks, values[:, rows], aggregates)


def _aggregate(blocks: "_Blocks", values: Floats, aggregates: Sequence[Aggregate]) -> dict[Aggregate, Floats]:
    missing = np.isnan(values)
    complete = not missing.any()
    x = values if complete else np.where(missing, 0.0, values)
    # Sensors without gaps share the sums over times, which then have one row for all of them.
    known = np.ones((1, len(blocks.hours))) if complete else (~missing).astype(np.float64)
    own, before = blocks.hours * known, blocks.hours_to_next * known
    wanted = set(aggregates)
    summed: dict[str, tuple[Floats, ...]] = {"n": (known,), "x": (x,)}
    if "std" in wanted:
        summed["xx"] = (x * x,)
    if "slope" in wanted:
        summed |= {"t": (own, before), "tt": (own * own, before * before)}
        summed["tx"] = (blocks.hours * x, blocks.hours_to_next * x)
    total = {name: blocks.fold(np.add, 0.0, *parts) for name, parts in summed.items()}
    n, found = total["n"], dict[Aggregate, Floats]()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = found["mean"] = total["x"] / n
        if wanted & {"min", "max", "std", "slope"}:
            low = blocks.fold(np.minimum, np.inf, values if complete else np.where(missing, np.inf, values))
            high = blocks.fold(np.maximum, -np.inf, values if complete else np.where(missing, -np.inf, values))
            found["min"] = low if complete else np.where(n > 0, low, np.nan)
            found["max"] = high if complete else np.where(n > 0, high, np.nan)
        if "std" in wanted:
            squares = np.maximum(total["xx"] - total["x"] * mean, 0.0)
            squares[low == high] = 0.0  # equal readings deviate by nothing, not by the rounding of their sums
            found["std"] = np.sqrt(squares / np.where(n > 1, n - 1, np.nan))
        if "slope" in wanted:
            spread = n * total["tt"] - total["t"] * total["t"]
            spread = np.where((n > 1) & (spread > 0), spread, np.nan)
            rise = n * total["tx"] - total["t"] * total["x"]
            rise[low == high] = 0.0
            found["slope"] = rise / spread
    return {aggregate: found[aggregate] for aggregate in aggregates}


class _Blocks:
    """Rows laid out such that running totals restart with each block of the window's length, and with each machine.

    `newest` and `oldest` are the last and the first row of each window. `hours` and `hours_to_next` are the time of
    each row since its own block began, and (negative) until the next one begins, shape (n_rows,): times within a window
    count from the start of the block that its newest row lies in.
    """

    def __init__(self, time: Ints, machine: Ints, window: int, newest: Ints, oldest: Ints) -> None:
        block = time // window
        is_first = np.ones(len(time), dtype=np.bool_)
        is_first[1:] = (block[1:] != block[:-1]) | (machine[1:] != machine[:-1])
        first, self._run = np.flatnonzero(is_first), np.cumsum(is_first) - 1
        self._position = np.arange(len(time)) - first[self._run]
        # One more block than there are: nothing is ever laid there, so it reads as "no row before".
        self._shape = int(self._position.max(initial=0)) + 1, len(first) + 1
        self._newest, self._oldest, self._is_cut = newest, oldest, self._run[oldest] < self._run[newest]
        self._places: dict[int, tuple[Ints, Ints, Ints]] = {}
        self.hours: Floats = (time - block * window) / HOUR
        self.hours_to_next: Floats = self.hours - window / HOUR

    def fold(self, operation: np.ufunc, neutral: float, own: Floats, before: Floats | None = None) -> Floats:
        """Fold `operation` over each window, shape (n_series, n_windows).

        `own` and `before` are what a row contributes to windows that end in its own block, and in the next one if that
        differs; shape (n_series, n_rows).
        """
        length, width = self._shape
        place, newest, oldest = self._find_places(len(own))
        laid = np.full((length, len(own) * width), neutral)
        laid.reshape(-1)[place] = own
        running = laid.copy() if before is None else laid
        _accumulate(operation, running)
        forwards = running.take(newest)
        if before is not None:
            laid.fill(neutral)
            laid.reshape(-1)[place] = before
        _accumulate(operation, laid[::-1])
        folded: Floats = operation(laid.take(oldest), forwards, out=forwards)
        return folded

    def _find_places(self, n_series: int) -> tuple[Ints, Ints, Ints]:
        """Return places of rows, shape (n_series, n_rows), and of each window's newest row and its oldest one."""
        if n_series not in self._places:
            width = self._shape[1]
            place = self._position * (n_series * width) + self._run
            oldest = np.where(self._is_cut, place[self._oldest], width - 1)
            series = np.arange(n_series)[:, None] * width
            self._places[n_series] = place + series, place[self._newest] + series, oldest + series
        return self._places[n_series]


def _accumulate(operation: np.ufunc, laid: Floats) -> None:
    """Replace each row by its running total, in the order of rows; NumPy's own way is slow where rows are long."""
    if laid.shape[1] < laid.shape[0]:
        operation.accumulate(laid, axis=0, out=laid)
        return
    for one, following in pairwise(laid):
        operation(one, following, out=following)
