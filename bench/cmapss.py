"""NASA's C-MAPSS as examples/cmapss sets it: quality on the official test engines, and that no choice saw them."""

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.checkout import call, clone, environment
from bench.measuring import ROOT, Row
from upkeep.core import paths

PLANTS = ("fd001", "fd002", "fd003", "fd004")
AT_LAST_ROWS = "; threshold from validation engines; published on fd001: 0.870 by Microsoft's template, its best model"
FIGURES = (
    ("average_precision", "average precision", "", (0.964, 0.967, 0.961, 0.918)),
    ("last_row_f1", "F1 at last rows", AT_LAST_ROWS, (0.94, 0.96, 0.95, 0.93)),
)
"""Each figure's name in the report, its words, what to note besides, and what it must reach at each plant."""
PEER_WINDOWS = ("5h", "15h", "30h")
PEER = "peer: scikit-learn's HistGradientBoostingClassifier as it comes, on raw readings and their rolling means"


def measure() -> list[Row]:
    """Return average precision over all rows, F1 at last rows, and how many model files the test rows can change."""
    folder = Path(os.environ.get("UPKEEP_CMAPSS") or ROOT.parent / "shared/data/cmapss")
    if not list(folder.glob("train_FD00?.txt*")):
        return [Row("C-MAPSS", None, "", note=f"not measured: no files in {folder}; set UPKEEP_CMAPSS to their folder")]
    with TemporaryDirectory() as name:
        checkout, blind, scrambled = (Path(name) / part for part in ("seeing", "blind", "scrambled"))
        _run(checkout, folder, "fetch", "validate", "dataset", "train", "evaluate")
        ours = json.loads((checkout / paths.METRICS).read_text(encoding="utf-8"))["plants"]
        peer = {plant: _judge_peer(checkout, plant) for plant in PLANTS}
        _scramble_test_engines(folder, scrambled)
        _run(blind, scrambled, "fetch", "validate", "dataset", "train")
        changed = sum(_choices(checkout, plant) != _choices(blind, plant) for plant in PLANTS)
    rows = [
        Row(f"C-MAPSS {plant}, {words}", ours[plant][metric], "", peer[plant][place], f"ours >= {target}", PEER + more)
        for place, (metric, words, more, targets) in enumerate(FIGURES)
        for plant, target in zip(PLANTS, targets, strict=True)
    ]
    note = "trained once more with the test engines' readings and lives shuffled: trees, features, scales, calibration "
    note += "and threshold, compared byte by byte; one setting for all plants"
    return [*rows, Row("C-MAPSS models that test rows change", changed, "of 4", target="ours <= 0", note=note)]


def _run(checkout: Path, cmapss: Path, *stages: str) -> None:
    clone(checkout)
    shutil.copy(checkout / "examples/cmapss/params.yaml", checkout / "params.yaml")
    (checkout / paths.REPORTS).mkdir(exist_ok=True)
    for stage in stages:
        call(["upkeep", stage], checkout, environment(checkout, UPKEEP_CMAPSS=str(cmapss.resolve())))


def _scramble_test_engines(folder: Path, scrambled: Path) -> None:
    """Copy NASA's files, with readings and remaining lives of test engines in another order."""
    rng = np.random.default_rng(7)
    scrambled.mkdir()
    for file in folder.glob("*FD00?.txt*"):
        if file.name.startswith("train"):
            shutil.copy(file, scrambled)
            continue
        text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text("ascii")
        table = np.array([line.split() for line in text.splitlines()])
        # Unit and cycle stay where they are; a file of lives has one column only.
        keys = 2 if file.name.startswith("test") else 0
        table[:, keys:] = table[rng.permutation(len(table)), keys:]
        lines = "".join(" ".join(row) + "\n" for row in table)
        (scrambled / file.name.removesuffix(".gz")).write_text(lines, encoding="ascii")


def _choices(checkout: Path, plant: str) -> list[Any]:
    """Return the bytes of a plant's trees and of what its metadata holds beside the record of test engines."""
    folder = checkout / paths.MODELS / plant
    metadata = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    # The manifest covers test files too, and an engine's baseline is its own past, as at scoring time.
    del metadata["data_version"]
    baselines = metadata["preparation"]["baselines"]
    metadata["preparation"]["baselines"] = {name: baselines[name] for name in baselines if not name.startswith("test")}
    return [metadata, *(file.read_bytes() for file in sorted(folder.glob("*.txt")))]


def _judge_peer(checkout: Path, plant: str) -> tuple[float, float]:
    """Return the peer's average precision over all test rows and F1 at each test engine's last row."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import average_precision_score, f1_score

    telemetry = pl.read_parquet(checkout / paths.INTERIM / f"telemetry/{plant}.parquet")
    train, validation, test = _peer_rows(checkout / paths.PROCESSED / plant, telemetry)
    model = HistGradientBoostingClassifier(random_state=7).fit(_matrix(train), train["label"])
    probability = model.predict_proba(_matrix(test))[:, 1]
    threshold = _best_threshold(validation["label"].to_numpy(), model.predict_proba(_matrix(validation))[:, 1])
    last = (test["machine"] != test["machine"].shift(-1)).fill_null(True).to_numpy()
    label = test["label"].to_numpy()
    return average_precision_score(label, probability), f1_score(label[last], probability[last] >= threshold)


def _peer_rows(processed: Path, telemetry: pl.DataFrame) -> Iterator[pl.DataFrame]:
    readings = telemetry.drop("plant", "machine", "time").columns
    means = [
        pl.col(readings).rolling_mean_by("time", window).over("machine").name.suffix(f"_{window}")
        for window in PEER_WINDOWS
    ]
    features = telemetry.drop("plant").with_columns(*means)
    for split in ("train", "validation", "test"):
        labels = pl.read_parquet(processed / f"{split}.parquet", columns=["machine", "time", "label"])
        yield labels.join(features, on=["machine", "time"]).sort("machine", "time")


def _matrix(rows: pl.DataFrame) -> NDArray[np.float64]:
    return rows.drop("machine", "time", "label").to_numpy()


def _best_threshold(label: NDArray[np.uint8], probability: NDArray[np.float64]) -> float:
    """Return the threshold of the highest F1."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(label, probability)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[np.argmax(f1[:-1])])
