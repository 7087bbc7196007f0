"""Drift of logged predictions: a sample of all rows, drawn file by file, against Evidently on all rows in memory."""

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from bench.measuring import Row, run_module, take_seconds
from upkeep.judging.drift import Window
from upkeep.production.logged_drift import TrainingValues, find_usual, judge_plant, sample_log
from upkeep.scoring.prediction_log import SCHEMA, write_part

FEATURES = [f"feature_{number}" for number in range(30)]
NOW, DAY = datetime(2025, 3, 31, tzinfo=UTC), timedelta(days=1)
WINDOW = Window(NOW - 56 * DAY, NOW + DAY)
SAMPLE = 2_000  # drift.sample_rows of params.yaml
FILE_ROWS, TRAINING_ROWS = 50_000, 100_000
SMALL, LARGE = 200_000, 10_000_000


def measure() -> list[Row]:
    """Return seconds for a small log with its peer, seconds for a large one, and its memory."""
    small, peer, large = (
        run_module("bench.logged_drift", who, str(rows))
        for who, rows in (("ours", SMALL), ("evidently", SMALL), ("ours", LARGE))
    )
    name = "drift of {:,} logged predictions"
    note = f"{len(FEATURES)} features and the answer; ours from the log's files, Evidently from rows in memory"
    scaled = f"peer: Evidently's time for {SMALL:,} rows, as many times as there are"
    return [
        Row(name.format(SMALL), small["seconds"], "s", peer["seconds"], "ratio <= 0.05", note),
        Row(name.format(LARGE), large["seconds"], "s", peer["seconds"] * LARGE / SMALL, "ratio <= 0.05", scaled),
        Row(name.format(LARGE) + ", memory", large["megabytes"], "MB", target="ours <= 2000"),
    ]


def _draw(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, len(FEATURES))).astype(np.float32)


def _write_log(root: Path, rows: int) -> None:
    """Write one file of the log and, for the others, links to it."""
    row = dict.fromkeys(("id", "plant", "machine", "model_version", "inputs"), pl.lit("lyon"))
    row |= dict.fromkeys(("scored_at", "time"), pl.lit(NOW)) | dict.fromkeys(("probability", "threshold"), pl.lit(0.2))
    row |= {"source": pl.lit("batch"), "alarm": pl.lit(value=False), "features": pl.Series(_draw(FILE_ROWS, 1))}
    row |= {"warnings": pl.lit([], SCHEMA["warnings"])}
    absent = {name: pl.lit(None, kind) for name, kind in SCHEMA.items() if name not in row}
    frame = (
        pl.select(row["features"])
        .select(**(row | absent))
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    )
    (name,) = write_part(str(root), "part", frame)
    for number in range(1, rows // FILE_ROWS):
        os.link(root / name, (root / name).with_stem(f"part-{number}"))


def _ours(rows: int) -> float:
    values = _draw(TRAINING_ROWS, 2)
    hours = pl.datetime_range(NOW - 365 * DAY, NOW, "1h", eager=True)
    times = hours.sample(TRAINING_ROWS, with_replacement=True, seed=4)
    with tempfile.TemporaryDirectory() as root:
        _write_log(Path(root), rows)
        started = time.perf_counter()
        asked = sample_log(root, {"lyon": "lyon"}, WINDOW, SAMPLE)["lyon"]
        known = np.random.default_rng(5).choice(TRAINING_ROWS, SAMPLE)
        usual = [
            TrainingValues(name, place, *find_usual(pl.Series(values[known, place or 0]), times[known], WINDOW))
            for name, place in {"its answers": None, **{name: place for place, name in enumerate(FEATURES)}}.items()
        ]
        judge_plant("lyon", ("lyon", usual), asked)
        return time.perf_counter() - started


def _evidently(rows: int) -> float:
    os.environ["DO_NOT_TRACK"] = "1"
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = [*FEATURES, "probability"]
    sides = []
    for size, seed in ((rows, 1), (TRAINING_ROWS, 2)):
        frame = (
            pl.DataFrame(_draw(size, seed), schema=FEATURES)
            .with_columns(probability=pl.Series(_draw(size, 3)[:, 0]))
            .to_pandas()
        )
        sides.append(Dataset.from_pandas(frame, data_definition=DataDefinition(numerical_columns=columns)))
    report = Report([DataDriftPreset(num_method="wasserstein")])
    return take_seconds(lambda: report.run(*sides).dict())


if __name__ == "__main__":
    work = {"ours": _ours, "evidently": _evidently}[sys.argv[1]]
    print(json.dumps({"seconds": work(int(sys.argv[2]))}))
