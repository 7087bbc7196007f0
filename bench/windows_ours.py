"""Feature windows by this package."""

from pathlib import Path

import numpy as np
import polars as pl

from upkeep.features.windows import roll

SENSORS = ["vibration_mm_s", "temperature_c", "pressure_bar", "current_a"]
AGGREGATES = ["mean", "std", "min", "max", "slope"]
WINDOWS_HOURS = [8, 48]
NAMES = [f"{sensor}_{aggregate}_{hours}h" for hours in WINDOWS_HOURS for aggregate in AGGREGATES for sensor in SENSORS]


def build(telemetry: Path) -> pl.DataFrame:
    """Read telemetry, sorted by machine and time, and return its windows."""
    rows = pl.read_parquet(telemetry)
    time = rows["time"].dt.timestamp("us").to_numpy()
    readings = np.ascontiguousarray(rows.select(SENSORS).to_numpy().T)
    features = np.empty((len(WINDOWS_HOURS), len(AGGREGATES), len(SENSORS), rows.height))
    start = 0
    for length in rows["machine"].rle().struct.field("len"):
        machine = slice(start, start + length)
        for window, hours in zip(features, WINDOWS_HOURS, strict=True):
            rolled = roll(time[machine], readings[:, machine], hours, AGGREGATES)
            for aggregate, column in zip(window, rolled.values(), strict=True):
                aggregate[:, machine] = column
        start += length
    columns = dict(zip(NAMES, features.reshape(len(NAMES), -1), strict=True))
    return rows.select("machine", "time").hstack(pl.DataFrame(columns))


def save(table: pl.DataFrame, file: Path) -> None:
    """Write windows to Parquet."""
    table.write_parquet(file, compression="snappy")
