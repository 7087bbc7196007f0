"""Feature windows of a fleet against the same time-based windows in pandas.

100 machines, a year of hourly rows, 4 sensors, windows of 8 and 48 hours. Both sides go from telemetry in Parquet to
the finished table in the memory of the process that built it; the pipeline labels and splits it there. Ours takes ten
plants on two workers, as the pipeline does; pandas takes the whole fleet in one process, as one does.
"""

import json
import statistics
import sys
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from bench.measuring import Row, interleave, run_module, take_seconds
from upkeep.core.parallel import map_plants
from upkeep.core.params import Parallel
from upkeep.features.windows import roll
from upkeep.simulator.source import Simulator

PLANTS = {f"plant{number}": 10 for number in range(10)}
SENSORS = ["vibration_mm_s", "temperature_c", "pressure_bar", "current_a"]
AGGREGATES = ["mean", "std", "min", "max", "slope"]
WINDOWS_HOURS = [8, 48]
NAMES = [f"{sensor}_{aggregate}_{hours}h" for hours in WINDOWS_HOURS for aggregate in AGGREGATES for sensor in SENSORS]
FLEET = "fleet"
ROUNDS = 3
PASSES = 3


def measure() -> list[Row]:
    """Return speed, memory and agreement."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        million = _write_telemetry(folder) / 1e6
        sides = {
            side: partial(run_module, "bench.features", side, name, TQDM_DISABLE="1") for side in ("ours", "pandas")
        }
        ours, whole = interleave(ROUNDS, sides)
        difference = _largest_difference(folder)
    speed = million / ours["warm"]
    note = (
        f"medians of {ROUNDS} interleaved runs, of {PASSES} passes each after a first one, which imports and starts "
        f"workers; that took {ours['first']:.1f} and {whole['first']:.1f} s; with Parquet written at the end "
        f"{ours['written']:.1f} and {whole['written']:.1f} s"
    )
    peak = "sum over processes, shared pages counted in each"
    return [
        Row("feature windows against pandas", speed, "million rows/s", million / whole["warm"], "ratio >= 6", note),
        Row("feature memory against pandas", ours["megabytes"], "MB", whole["megabytes"], "ratio <= 1", peak),
        Row("feature windows, largest difference from pandas", difference, "", target="ours <= 1e-9"),
    ]


def _write_telemetry(folder: Path) -> int:
    """Write a year of the simulator's hourly rows, per plant and of the whole fleet; return how many."""
    options = {"seed": 7, "start": date(2024, 1, 1), "plants": PLANTS, "defects": False}
    weeks: dict[str, list[pl.DataFrame]] = {plant: [] for plant in PLANTS}
    for delivery in Simulator(options, 7).deliveries(date(2024, 12, 23)):
        if delivery.table == "telemetry":
            weeks[delivery.plant].append(delivery.read())
    plants = {}
    for plant, parts in weeks.items():
        machine = pl.concat_str("plant", "machine", separator="-")
        rows = pl.concat(parts).select(machine.alias("machine"), "time", *SENSORS)
        plants[plant] = rows.sort("machine", "time")
        plants[plant].write_parquet(_telemetry(folder, plant))
    fleet = pl.concat(plants.values())
    fleet.write_parquet(_telemetry(folder, FLEET))
    return fleet.height


def _telemetry(folder: Path, part: str) -> Path:
    return folder / f"telemetry-{part}.parquet"


def _windows(folder: Path, library: str, part: str) -> Path:
    return folder / f"{library}-{part}.parquet"


def _largest_difference(folder: Path) -> float:
    """Return the largest absolute difference between both sides' windows, infinite where only one has a number."""
    ours = pl.concat(pl.read_parquet(_windows(folder, "ours", plant)) for plant in PLANTS)
    theirs = pl.read_parquet(_windows(folder, "pandas", FLEET))
    names = ours.columns[2:]
    one, other = (table.select(pl.col(names).fill_null(np.nan)).to_numpy() for table in (ours, theirs))
    keys = [table.select("machine", pl.col("time").dt.epoch("us")) for table in (ours, theirs)]
    if not keys[0].equals(keys[1]) or not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("inf")
    return float(np.nanmax(np.abs(one - other)))


def _run_side(library: str, folder: Path) -> dict[str, float]:
    """Return the seconds of the first pass, of the median later one, and of one that ends with files."""
    names, jobs = (list(PLANTS), 2) if library == "ours" else ([FLEET], 1)
    go = partial(map_plants, _build, names, Parallel(backend="loky", jobs=jobs), library, folder)
    first, *later = (take_seconds(partial(go, False)) for _ in range(1 + PASSES))
    return {"first": first, "warm": statistics.median(later), "written": take_seconds(partial(go, True))}


def _build(part: str, library: str, folder: Path, written: bool) -> None:
    telemetry, file = _telemetry(folder, part), _windows(folder, library, part)
    if library == "ours":
        table = build(telemetry)
        if written:
            table.write_parquet(file, compression="snappy")
    else:
        from bench import windows_pandas  # which our process must not pay for

        frame = windows_pandas.build(telemetry)
        if written:
            frame.to_parquet(file, compression="snappy")


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


if __name__ == "__main__":
    print(json.dumps(_run_side(sys.argv[1], Path(sys.argv[2]))))
