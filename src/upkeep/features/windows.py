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
    return _aggregate(_Blocks(time, to_microseconds(window_hours)), values, aggregates)


def roll_newest(
    time: Ints, starts: Ints, values: Floats, window_hours: float, aggregates: Sequence[Aggregate]
) -> dict[Aggregate, Floats]:
    """Return the statistics of each machine's newest window only: the same bits as :func:`roll` for its last row.

    `time` and `values` are as in :func:`roll`, grouped by machine; `starts` are the first row of each machine, then the
    number of rows, shape (n_machines + 1,), and no machine is without rows. Each statistic has shape (n_sensors,
    n_machines).
    """
    newest = _Newest(time, starts, to_microseconds(window_hours))
    return _aggregate(newest, values[:, newest.rows], aggregates)


def _aggregate(blocks: "_Blocks | _Newest", values: Floats, aggregates: Sequence[Aggregate]) -> dict[Aggregate, Floats]:
    missing = np.isnan(values)
    complete = not missing.any()
    x = values if complete else np.where(missing, 0.0, values)
    # Sensors without gaps share the sums over times, which then have one row for all of them.
    known = np.ones((1, len(blocks.hours))) if complete else (~missing).astype(np.float64)
    own, before = blocks.hours * known, blocks.hours_to_next * known
    wanted = set(aggregates)
    sums = {"n": (known, known), "x": (x, x)}
    if "std" in wanted:
        sums["xx"] = (x * x, x * x)
    if "slope" in wanted:
        sums |= {"t": (own, before), "tt": (own * own, before * before)}
        sums["tx"] = (blocks.hours * x, blocks.hours_to_next * x)
    total = dict(zip(sums, blocks.totals(list(sums.values())), strict=True))
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
    """One machine's rows, laid out so that running totals restart with each block of the window's length.

    `hours` and `hours_to_next` are the time of each row since its own block began, and (negative) until the next one
    begins, shape (n_rows,): times within a window count from the start of the block that its newest row lies in.
    """

    def __init__(self, time: Ints, window: int) -> None:
        block = time // window
        first = np.flatnonzero(np.diff(block, prepend=block[:1] - 1))
        self._run = np.repeat(np.arange(len(first)), np.diff(first, append=len(time)))
        self._position = np.arange(len(time)) - first[self._run]
        # One more block than there are: nothing is ever laid there, so it reads as "no row before".
        self._shape = (int(self._position.max(initial=0)) + 1, len(first) + 1)
        oldest = np.searchsorted(time, time - window, side="right")
        self._oldest = np.where(oldest < first[self._run], oldest, -1)
        self._places: dict[int, tuple[Ints, Ints]] = {}
        self.hours: Floats = (time - block * window) / HOUR
        self.hours_to_next: Floats = self.hours - window / HOUR

    def totals(self, series: Sequence[tuple[Floats, Floats]]) -> list[Floats]:
        """Sum pairs of `own` and `before` over each row's window, see :meth:`fold`."""
        return [self.fold(np.add, 0.0, own, None if before is own else before) for own, before in series]

    def fold(self, operation: np.ufunc, neutral: float, own: Floats, before: Floats | None = None) -> Floats:
        """Fold `operation` over each row's window.

        `own` and `before` are what a row contributes to windows that end in its own block, and in the next one if that
        differs; shape (n_series, n_rows).
        """
        length, width = self._shape
        place, oldest = self._find_places(len(own))
        laid = np.full((length, len(own) * width), neutral)
        laid.reshape(-1)[place] = own
        running = laid.copy() if before is None else laid
        for one, following in pairwise(running):
            operation(one, following, out=following)
        forwards = running.take(place)
        if before is not None:
            laid.fill(neutral)
            laid.reshape(-1)[place] = before
        for one, following in pairwise(laid[::-1]):
            operation(one, following, out=following)
        folded: Floats = operation(laid.take(oldest), forwards, out=forwards)
        return folded

    def _find_places(self, n_series: int) -> tuple[Ints, Ints]:
        """Return places of rows, and of their windows' oldest rows in the block before, shape (n_series, n_rows)."""
        if n_series not in self._places:
            width = self._shape[1]
            place = self._position * (n_series * width) + self._run
            oldest = np.where(self._oldest >= 0, place[self._oldest], width - 1)
            series = np.arange(n_series)[:, None] * width
            self._places[n_series] = place + series, oldest + series
        return self._places[n_series]


class _Newest:
    """The `rows` of each machine's newest window, laid out such that they fold in the order of :class:`_Blocks`."""

    def __init__(self, time: Ints, starts: Ints, window: int) -> None:
        ends = starts[1:]
        self._n_machines = len(ends)
        machine = np.repeat(np.arange(len(ends)), ends - starts[:-1])
        newest = time[ends - 1][machine]
        self.rows = (time > newest - window).nonzero()[0]
        time, newest, machine = time[self.rows], newest[self.rows], machine[self.rows]
        block = time // window
        own = block == newest // window
        self._own, self._before = self._lay(machine, own, False), self._lay(machine, ~own, True)
        self.hours: Floats = (time - block * window) / HOUR
        self.hours_to_next: Floats = self.hours - window / HOUR

    def _lay(self, machine: Ints, chosen: NDArray[np.bool_], backwards: bool) -> tuple[Ints, Ints, Ints, int]:
        """Return the chosen rows, the machine of each, its turn to be folded in, and the number of turns."""
        rows = chosen.nonzero()[0]
        machines = machine[rows]
        counts = np.bincount(machines, minlength=self._n_machines)
        turn = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        return rows, machines, counts[machines] - 1 - turn if backwards else turn, int(counts.max())

    def totals(self, series: Sequence[tuple[Floats, Floats]]) -> list[Floats]:
        """Sum pairs of `own` and `before` over each machine's newest window, all in one go."""
        own, before = (np.concatenate(side) for side in zip(*series, strict=True))
        ends = np.cumsum([len(one) for one, _ in series])
        return np.split(self.fold(np.add, 0.0, own, before), ends[:-1])

    def fold(self, operation: np.ufunc, neutral: float, own: Floats, before: Floats | None = None) -> Floats:
        """Fold `operation` over each machine's newest window, shape (n_series, n_machines); see :class:`_Blocks`."""
        forwards = self._fold(operation, neutral, own, self._own)
        backwards = self._fold(operation, neutral, own if before is None else before, self._before)
        folded: Floats = operation(backwards, forwards)
        return folded

    def _fold(
        self, operation: np.ufunc, neutral: float, values: Floats, layout: tuple[Ints, Ints, Ints, int]
    ) -> Floats:
        rows, machines, turn, n_turns = layout
        laid = np.full((n_turns + 1, len(values), self._n_machines), neutral)
        laid[turn, :, machines] = values[:, rows].T
        # Not `reduce`: it adds in pairs where there is one series of one machine, and so in another order.
        folded: Floats = operation.accumulate(laid, axis=0, out=laid)[-1]
        return folded
