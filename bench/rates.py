"""Readings a few seconds apart reduced to hourly rows, against decoding the same files.

Plants of 20 machines with a week of a million readings each, five sensors, one file a plant; half of the files are in
order of time, the others machine by machine. Both sides take the plants on two workers. Ours goes from ``data/raw`` to
``data/interim`` as `validate` does: checksums, types, units, ranges, duplicates, quarantine, reduction, findings.
"""

import json
import sys
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import yaml

from bench.measuring import ROOT, Row, interleave, run_module, take_seconds
from upkeep.contract.dictionary import Dictionary, load_dictionary
from upkeep.core.parallel import map_plants
from upkeep.core.params import Parallel, Params, load_params
from upkeep.sources import Key
from upkeep.sources.interim import check_deliveries, write_tables
from upkeep.sources.manifest import RawFile
from upkeep.sources.store import store

PLANTS, MACHINES, READINGS = 6, 20, 50_000
SENSORS = {"vibration_mm_s": 3, "temperature_c": 60, "pressure_bar": 6, "current_a": 40, "humidity_pct": 50}
MONDAY = date(2025, 1, 6)
ROUNDS = 3
WHOLE = 300  # plants of the week that the sample stands for: five gigabytes


def measure() -> list[Row]:
    """Return the time for the sample and its peak memory."""
    with TemporaryDirectory() as name:
        megabytes = _write_fleet(Path(name))
        sides = {
            side: partial(run_module, "bench.rates", side, name, TQDM_DISABLE="1") for side in ("reduce", "decode")
        }
        ours, peer = interleave(ROUNDS, sides)
    million = PLANTS * MACHINES * READINGS / 1e6
    note = (
        f"medians of {ROUNDS} interleaved runs, after a first pass that starts workers; {million:.0f} M readings in "
        f"{megabytes:.0f} MB: {WHOLE} such plants take {WHOLE / PLANTS * ours['seconds']:.0f} s"
    )
    peak = "sum over processes, shared pages counted in each"
    return [
        Row("a week of readings to hourly rows", ours["seconds"], "s", peer["seconds"], "ratio <= 4", note),
        Row("memory for a week of readings", ours["megabytes"], "MB", peer["megabytes"], "ours <= 1000", peak),
    ]


def _write_fleet(folder: Path) -> float:
    """Write raw files and their list; return how many megabytes they are."""
    draw = np.random.default_rng(7)
    files = []
    for plant in range(PLANTS):
        second = 7 * 86_400 / READINGS * np.arange(1, READINGS + 1)
        rows = pl.DataFrame(
            {
                "plant": f"plant{plant}",
                "machine": np.repeat([f"machine-{number:02d}" for number in range(MACHINES)], READINGS),
                "time": pl.Series(np.tile((second * 1e6).astype(np.int64), MACHINES)).cast(pl.Datetime("us", "UTC"))
                + (datetime.combine(MONDAY, datetime.min.time(), UTC) - datetime(1970, 1, 1, tzinfo=UTC)),
                "speed_rpm": np.repeat(draw.integers(800, 3000, MACHINES * READINGS // 100), 100).astype(float),
                "load_pct": np.repeat(draw.integers(20, 90, MACHINES * READINGS // 100), 100).astype(float),
                **{
                    name: np.round(level * (1 + 0.05 * draw.normal(size=MACHINES * READINGS)), 2)
                    for name, level in SENSORS.items()
                },
            }
        )
        ordered = rows.sort("time", maintain_order=True) if plant % 2 else rows
        files.append(store(folder, Key("telemetry", f"plant{plant}", MONDAY), 1, ordered))
    (folder / "files.json").write_text(json.dumps([file.model_dump(mode="json") for file in files]), encoding="utf-8")
    dictionary = yaml.safe_load((ROOT / "data/references/dictionary.yaml").read_text(encoding="utf-8"))
    (folder / "dictionary.yaml").write_text(yaml.safe_dump({"rows_every": "1h", **dictionary}), encoding="utf-8")
    return sum(file.bytes for file in files) / 1e6


def _decode(plant: str, files: list[RawFile], folder: Path, *_: object) -> None:
    for file in files:
        if file.plant == plant:
            pl.read_parquet(folder / file.file)


def _reduce(plant: str, files: list[RawFile], folder: Path, dictionary: Dictionary, params: Params) -> None:
    own = [file for file in files if file.plant == plant]
    write_tables(plant, check_deliveries(plant, own, folder, dictionary, params), folder / "interim")


def _run(side: str, folder: Path) -> dict[str, float]:
    files = [RawFile.model_validate(file) for file in json.loads((folder / "files.json").read_text(encoding="utf-8"))]
    work = {"reduce": _reduce, "decode": _decode}[side]
    plants = [file.plant for file in files]
    settings = load_dictionary(folder / "dictionary.yaml"), load_params(ROOT / "params.yaml")
    go = partial(map_plants, work, plants, Parallel(backend="loky", jobs=2), files, folder, *settings)
    go()
    return {"seconds": take_seconds(go)}


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], Path(sys.argv[2]))))
