"""Readings that come faster than rows, reduced to one row per cell: the same bits in whatever order they arrive.

A row stands for the cell (t - every, t] and has the time t, so it never looks ahead. Sums of floating-point numbers
depend on their order, so a cell is summed once, from all of its readings, in order of time.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.contract.dictionary import DELIVERY, STATISTICS, Column, name_statistic
from upkeep.core.types import Booleans, Floats, Ints


class Cells(NamedTuple):
    """The position of each cell's first reading, and its end in microseconds since 1970, shape (n_cells,) each."""

    starts: Ints
    ends: Ints


def end_of_cell(time: pl.Expr, every: int) -> pl.Expr:
    """Return the end of the cell that holds each time, in microseconds, as is `every`."""
    return -(-time.dt.timestamp("us") // every) * every


def cut_cells(time: Ints, every: int, starts: Ints | None = None) -> Cells:
    """Cut readings at these times, in microseconds, shape (n_readings,), into cells of `every` microseconds.

    They are grouped by machine, each machine's in order of time; `starts` are the positions of the machines' first
    ones; without it there is one machine.
    """
    ends = -(-time // every) * every
    opens = np.ones(len(time), dtype=np.bool_)
    opens[1:] = ends[1:] != ends[:-1]
    if starts is not None:
        opens[starts] = True
    first = np.flatnonzero(opens)
    return Cells(first, ends[first])


def reduce_readings(values: Floats, cells: Cells) -> dict[str, Floats]:
    """Return a column's ``mean`` and :data:`~upkeep.contract.dictionary.STATISTICS` per cell, shape (n_cells,) each.

    `values` are of shape (n_readings,), NaN where one is missing. A cell without any has a count of 0, and all else is
    NaN; the standard deviation has n - 1 in the denominator and is NaN for a single reading. A mean is clipped to the
    bounds of its readings, so that equal ones deviate by exactly 0. A sum beyond float64 gives NaN.
    """
    starts, known = cells.starts, ~np.isnan(values)
    sizes = np.diff(starts, append=len(values))
    complete = known.all()  # as nearly always, which saves half the time
    count = sizes.astype(np.float64) if complete else np.add.reduceat(known, starts, dtype=np.float64)
    low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = np.add.reduceat(values if complete else np.where(known, values, 0.0), starts)
        mean = np.clip(np.where(np.isinf(total), np.nan, total / count), low, high)
        deviation = values - np.repeat(mean, sizes)
        if not complete:
            deviation[~known] = 0.0
        spread = np.sqrt(np.add.reduceat(deviation * deviation, starts) / np.where(count > 1, count - 1, np.nan))
    last = np.append(values, np.nan)[find_last(known, cells)]
    spread[np.isinf(spread)] = np.nan
    return {"mean": mean, "std": spread, "min": low, "max": high, "last": last, "count": count}


def find_last(known: Booleans, cells: Cells) -> Ints:
    """Return the position of each cell's last known reading, -1 where none is known."""
    if known.all():
        return cells.starts + np.diff(cells.starts, append=len(known)) - 1
    positions: Ints = np.maximum.reduceat(np.where(known, np.arange(len(known)), -1), cells.starts)
    return positions


def reduce_numbers(numbers: Mapping[str, Floats], columns: Mapping[str, Column], cells: Cells) -> dict[str, Floats]:
    """Return telemetry's numeric columns per cell: means of settings and sensors, and statistics of sensors.

    Any other column has its last value.
    """
    reduced: dict[str, Floats] = {}
    for name, values in numbers.items():
        role, found = columns[name].role, reduce_readings(values, cells)
        reduced[name] = found["mean" if role in ("setting", "sensor") else "last"]
        if role == "sensor":
            reduced |= {name_statistic(name, statistic): found[statistic] for statistic in STATISTICS}
    return reduced


def reduce_rows(rows: pl.DataFrame, columns: Mapping[str, Column], every: int) -> pl.DataFrame:
    """Return a row per machine and cell of a plant's telemetry, which is sorted by machine and time.

    Columns are those of :func:`reduce_numbers`, the last known value of any other, and the newest of the deliveries
    that the readings come from.
    """
    runs = rows["machine"].rle().struct.field("len")
    cells = cut_cells(rows["time"].dt.timestamp("us").to_numpy(), every, (runs.cum_sum() - runs).to_numpy())
    numbers = {name: rows[name].to_numpy() for name, column in columns.items() if column.type == "number"}
    reduced = {
        name: pl.Series(values, nan_to_null=True) for name, values in reduce_numbers(numbers, columns, cells).items()
    }
    for name in columns.keys() - numbers.keys():
        last = pl.Series(find_last(rows[name].is_not_null().to_numpy(), cells))
        reduced[name] = rows[name].gather(last.replace(-1, None))
    reduced["time"] = pl.Series(cells.ends).cast(columns["time"].dtype)
    newest = np.maximum.reduceat(rows[DELIVERY].to_numpy(), cells.starts)
    return pl.DataFrame({**{name: reduced[name] for name in columns}, **reduced, DELIVERY: newest})
