"""Defects that sensors and gateways cause: each function spoils a batch."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl

SENSORS = ("vibration_mm_s", "temperature_c", "pressure_bar", "current_a")
FAULT_READINGS = (-999.0, 9999.0)  # what instruments send for "no reading"; far out of any sensor's range
GARBLED = ("n/a", "ERR", "--")

Defect = Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]


def lose_rows(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Drop the rows of a machine that is off the network for 8 to 30 hours."""
    return rows.filter(~choose_stretch(rows, rng, 8, 30))


def lose_sensor(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Let one sensor send nothing for 8 to 20 hours."""
    dark = choose_stretch(rows, rng, 8, 20)
    column = str(rng.choice(SENSORS))
    return rows.with_columns(pl.when(~dark).then(column).alias(column))


def stick_sensor(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Let one sensor repeat one value for 30 to 60 hours."""
    stuck = choose_stretch(rows, rng, 30, 60)
    column = str(rng.choice(SENSORS))
    value = rows.filter(stuck)[column][0]
    return rows.with_columns(pl.when(stuck).then(value).otherwise(column).alias(column))


def add_spikes(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Put readings far out of range into one sensor."""
    column = str(rng.choice(SENSORS))
    chosen = _choose_rows(rows, rng, 0.005)
    return rows.with_columns(rows[column].scatter(chosen, pl.Series(rng.choice(FAULT_READINGS, len(chosen)))))


def double_rows(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Send some rows again as they are."""
    return pl.concat([rows, rows[_choose_rows(rows, rng, 0.02)]])


def double_nearly(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Send some rows again 5 to 20 seconds later, with slightly different vibration and current."""
    chosen = _choose_rows(rows, rng, 0.02)
    seconds = pl.Series(rng.integers(5, 21, len(chosen)) * 1_000_000).cast(pl.Duration("us"))
    again = rows[chosen].with_columns(
        time=pl.col("time") + seconds,
        vibration_mm_s=(pl.col("vibration_mm_s") + 0.001).round(3),
        current_a=(pl.col("current_a") + 0.01).round(2),
    )
    return pl.concat([rows, again])


def garble_numbers(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Deliver one sensor as text, with some readings that are no numbers."""
    column = str(rng.choice(SENSORS))
    chosen = _choose_rows(rows, rng, 0.005)
    garbled = pl.Series(rng.choice(GARBLED, len(chosen)))
    return rows.with_columns(rows[column].cast(pl.String).scatter(chosen, garbled))


def lose_keys(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Deliver some rows without the machine or without the time."""
    column = str(rng.choice(["machine", "time"]))
    return rows.with_columns(rows[column].scatter(_choose_rows(rows, rng, 0.005), None))


def choose_stretch(rows: pl.DataFrame, rng: np.random.Generator, shortest: int, longest: int) -> pl.Expr:
    """Choose a machine and some of its hours; return an expression that is true of these rows only."""
    names = rows["machine"].unique().sort()
    machine = names[int(rng.integers(len(names)))]
    times = rows.filter(machine=machine)["time"]
    hours = int(rng.integers(shortest, longest + 1))
    since = times[int(rng.integers(max(1, len(times) - hours)))]
    return pl.all_horizontal(
        pl.col("machine") == machine, pl.col("time").is_between(since, since + timedelta(hours=hours), closed="left")
    )


def _choose_rows(rows: pl.DataFrame, rng: np.random.Generator, share: float) -> list[int]:
    chosen = rng.choice(rows.height, max(1, round(share * rows.height)), replace=False)
    return sorted(chosen.tolist())


AT_THE_SENSOR: dict[str, Defect] = {
    "outage": lose_rows,
    "null_sensor": lose_sensor,
    "stuck_sensor": stick_sensor,
    "spike": add_spikes,
}
IN_THE_FILE: dict[str, Defect] = {
    "exact_duplicate": double_rows,
    "near_duplicate": double_nearly,
    "unparsable": garble_numbers,
    "null_key": lose_keys,
}
