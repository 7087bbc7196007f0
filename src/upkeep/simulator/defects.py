"""What sensors and gateways do to rows on their way: each function spoils a batch and says what it did."""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

SENSORS = ("vibration_mm_s", "temperature_c", "pressure_bar", "current_a")
FAULT_READINGS = (-999.0, 9999.0)
"""What instruments send for "no reading"; far out of any sensor's range."""
GARBLED = ("n/a", "ERR", "--")


class Spoilt(NamedTuple):
    """All rows, how many of them were lost, changed or added, and where if that is one machine or one column."""

    rows: pl.DataFrame
    touched: int
    machine: str | None = None
    column: str | None = None


Defect = Callable[[pl.DataFrame, np.random.Generator], Spoilt]


def lose_rows(rows: pl.DataFrame, rng: np.random.Generator) -> Spoilt:
    """Take a machine off the network for 8 to 30 hours."""
    machine, dark = choose_stretch(rows, rng, 8, 30)
    left = rows.filter(~dark)
    return Spoilt(left, rows.height - left.height, machine)


def lose_sensor(rows: pl.DataFrame, rng: np.random.Generator) -> Spoilt:
    """Let one sensor send nothing for 8 to 20 hours."""
    machine, dark = choose_stretch(rows, rng, 8, 20)
    column = str(rng.choice(SENSORS))
    return Spoilt(
        rows.with_columns(pl.when(~dark).then(column).alias(column)), rows.filter(dark).height, machine, column
    )


def stick_sensor(rows: pl.DataFrame, rng: np.random.Generator) -> Spoilt:
    """Let one sensor repeat one value for 30 to 60 hours."""
    machine, stuck = choose_stretch(rows, rng, 30, 60)
    column = str(rng.choice(SENSORS))
    value = rows.filter(stuck)[column][0]
    stuck_rows = rows.with_columns(pl.when(stuck).then(value).otherwise(column).alias(column))
    return Spoilt(stuck_rows, rows.filter(stuck).height, machine, column)


def add_spikes(rows: pl.DataFrame, rng: np.random.Generator) -> Spoilt:
    """Put readings far out of range into one sensor."""
    column = str(rng.choice(SENSORS))
    chosen = _choose_rows(rows, rng, 0.005)
    values = pl.Series(rng.choice(FAULT_READINGS, len(chosen)))
    return Spoilt(rows.with_columns(rows[column].scatter(chosen, values)), len(chosen), column=column)


def double_rows(rows: pl.DataFrame, rng: np.random.Generator) -> Spoilt:
    """Send some rows again as they are."""
    chosen = _choose_rows(rows, rng, 0.02)
    return Spoilt(pl.concat([rows, rows[chosen]]), len(chosen))


def double_nearly(rows: pl.DataFrame, rng: np.random.Generator) -> Spoilt:
    """Send some rows again 5 to 20 seconds later, with slightly other vibration and current."""
    chosen = _choose_rows(rows, rng, 0.02)
    seconds = pl.Series(rng.integers(5, 21, len(chosen)) * 1_000_000).cast(pl.Duration("us"))
    again = rows[chosen].with_columns(
        time=pl.col("time") + seconds,
        vibration_mm_s=(pl.col("vibration_mm_s") + 0.001).round(3),
        current_a=(pl.col("current_a") + 0.01).round(2),
    )
    return Spoilt(pl.concat([rows, again]), len(chosen))


def garble_numbers(rows: pl.DataFrame, rng: np.random.Generator) -> Spoilt:
    """Deliver one sensor as text, with some readings that are no numbers."""
    column = str(rng.choice(SENSORS))
    chosen = _choose_rows(rows, rng, 0.005)
    text = rows[column].cast(pl.String).scatter(chosen, pl.Series(rng.choice(GARBLED, len(chosen))))
    return Spoilt(rows.with_columns(text), len(chosen), column=column)


def lose_keys(rows: pl.DataFrame, rng: np.random.Generator) -> Spoilt:
    """Deliver some rows without the machine or without the time."""
    column = str(rng.choice(["machine", "time"]))
    chosen = _choose_rows(rows, rng, 0.005)
    return Spoilt(rows.with_columns(rows[column].scatter(chosen, None)), len(chosen), column=column)


def choose_stretch(rows: pl.DataFrame, rng: np.random.Generator, shortest: int, longest: int) -> tuple[str, pl.Expr]:
    """Choose a machine and some hours of it; return its name and the expression that is true there only."""
    names = rows["machine"].unique().sort()
    machine = names[int(rng.integers(len(names)))]
    times = rows.filter(machine=machine)["time"]
    hours = int(rng.integers(shortest, longest + 1))
    since = times[int(rng.integers(max(1, len(times) - hours)))]
    return machine, (pl.col("machine") == machine) & pl.col("time").is_between(
        since, since + timedelta(hours=hours), closed="left"
    )


def _choose_rows(rows: pl.DataFrame, rng: np.random.Generator, share: float) -> list[int]:
    """Choose a share of the rows, at least one."""
    chosen = rng.choice(rows.height, max(1, round(share * rows.height)), replace=False)
    return sorted(chosen.tolist())
