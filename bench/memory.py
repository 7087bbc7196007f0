"""Memory and time of training on many rows: a fleet against one matrix, a plant in chunks against the whole."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from bench.measuring import Row, run_module, take_seconds
from upkeep.core.params import load_params
from upkeep.features.split import SPLITS
from upkeep.model.estimators import Rows, fit
from upkeep.model.labelled_rows import LabelledRows
from upkeep.model.storage import to_matrix
from upkeep.model.training import Splits, train_fleet, train_plant

PLANTS = 20
FEATURES = 80
HOURS = 1_000  # rows of a machine; every other one fails at the end of them
FLEET_MACHINES = {"train": 20, "validation": 4, "test": 1}
PLANT_MACHINES = {"train": 300, "validation": 50, "test": 50}
TREES = 50


def measure() -> list[Row]:
    """Return seconds and megabytes."""
    with TemporaryDirectory() as name:
        for number in range(PLANTS):
            _write_plant(Path(name) / f"plant{number:02d}", FLEET_MACHINES)
        ours, matrix = (run_module("bench.memory", way, name) for way in ("fleet", "matrix"))
    rows = PLANTS * FLEET_MACHINES["train"] * HOURS
    note = (
        f"{rows:,} rows of {FEATURES} features, {rows * FEATURES * 4 / 1e6:.0f} MB, from files; peer: LightGBM's own "
        "train on one matrix in memory"
    )
    return [
        Row("fleet training", ours["seconds"], "s", matrix["seconds"], "ratio <= 1.3", note),
        Row("fleet training, memory", ours["megabytes"], "MB", matrix["megabytes"], "ratio <= 0.8", note),
        *measure_plant(PLANT_MACHINES),
    ]


def measure_plant(machines: Mapping[str, int], bound: int | None = None) -> list[Row]:
    """Return what a plant's training takes by chunks, beside the whole in memory; `bound` is in megabytes."""
    with TemporaryDirectory() as name:
        _write_plant(Path(name) / "plant00", machines)
        chunks, whole = (run_module("bench.memory", way, name) for way in ("chunks", "whole"))
    size = sum(machines.values()) * HOURS * FEATURES * 4 / 1e6
    what, note = f"a plant of {size:,.0f} MB, by chunks", "with all its candidates; peer: the same rows held in memory"
    return [
        Row(what, chunks["seconds"], "s", whole["seconds"], note=note),
        Row(f"{what}, memory", chunks["megabytes"], "MB", whole["megabytes"], bound and f"ours <= {bound}", note),
    ]


def _write_plant(folder: Path, machines: Mapping[str, int]) -> None:
    """Write splits of noise, in which one feature tells wear."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    hours = np.datetime64("2025-01-01", "us") + np.arange(HOURS) * np.timedelta64(1, "h")
    for split, count in machines.items():
        rows = count * HOURS
        left = np.tile(np.append(np.arange(HOURS, 0, -1.0), np.full(HOURS, np.nan)), -(-count // 2))[:rows]
        features = {f"sensor{number}": rng.standard_normal(rows, dtype=np.float32) for number in range(FEATURES)}
        features["sensor0"] += left <= 60
        pl.DataFrame(
            {
                "plant": folder.name,
                "machine": np.repeat([f"m{number:04d}" for number in range(count)], HOURS),
                "time": pl.Series(np.tile(hours, count)).dt.replace_time_zone("UTC"),
                "machine_model": "press",
                "label": pl.Series(left <= 48, dtype=pl.UInt8),
                "hours_to_failure": pl.Series(left).fill_nan(None),
                "prevented": False,
                "weight": 1.0,
                **features,
            }
        ).write_parquet(folder / f"{split}.parquet", row_group_size=50_000)


def _scan(folder: Path) -> dict[str, Splits]:
    return {
        plant.name: Splits(*(pl.scan_parquet(plant / f"{split}.parquet") for split in SPLITS))
        for plant in sorted(folder.iterdir())
    }


def _read_matrix(plants: Mapping[str, Splits]) -> list[Rows]:
    """Return all rows of training and validation as one does: in one frame each, and from it one matrix."""
    parts = []
    for split in ("train", "validation"):
        rows = pl.concat([getattr(splits, split) for splits in plants.values()]).collect()
        label, weight = rows["label"].to_numpy(), rows["weight"].to_numpy()
        parts.append(Rows(to_matrix(rows, LabelledRows(rows).features), label, weight))
    return parts


def _run(way: str, folder: Path) -> float:
    loaded = load_params()
    model = loaded.model.model_copy(update={"lightgbm": {**loaded.model.lightgbm, "n_estimators": TREES}})
    params = loaded.model_copy(update={"model": model, "parallel": loaded.parallel.model_copy(update={"jobs": 2})})
    plants = _scan(folder)
    first = next(iter(plants.values()))
    if way == "fleet":
        return take_seconds(lambda: train_fleet(plants, params))
    if way == "matrix":
        parts, names = _read_matrix(plants), LabelledRows(first.train).features
        return take_seconds(lambda: fit("lightgbm", *parts, names, model, threads=1))
    splits = first if way == "chunks" else Splits(*(rows.lazy().collect() for rows in first))
    return take_seconds(lambda: train_plant(splits, None, params))


if __name__ == "__main__":
    print(json.dumps({"seconds": _run(sys.argv[1], Path(sys.argv[2]))}))
