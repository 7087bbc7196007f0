"""Saved models: LightGBM text and JSON, never a pickle; and scoring with them, by LightGBM, NumPy and Polars only."""

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, model_validator

from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_json, read_regular, write_json, write_whole
from upkeep.core.objects import read_object
from upkeep.core.params import Dataset
from upkeep.core.paths import MODEL_METADATA
from upkeep.core.plants import name_file
from upkeep.core.types import Floats, Floats32, Frozen, Single
from upkeep.features.inputs import Preparation
from upkeep.model.calibration import Calibration, apply_calibration
from upkeep.model.trees import check_trees

if TYPE_CHECKING:
    import lightgbm as lgb

# A stranger's metadata must not name a file outside its folder.
FileName = Annotated[str, StringConstraints(pattern=r"^model(_\d+)?\.txt$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class TrainingRange(Frozen):
    """The range of one feature in training rows; None if no value was known."""

    minimum: Single | None
    low: Single | None = Field(description="1% quantile")
    high: Single | None = Field(description="99% quantile")
    maximum: Single | None


class Metadata(Frozen):
    """Everything about a saved model but its trees: ``model.json``.

    The model was trained on `rows` of its plant or of the whole fleet (`scope`), of which `positives` precede a
    failure. `features` are in the boosters' order; they are computed by `dataset` and by `preparation`, which was
    fitted for this plant, from telemetry with one row per machine and `near_duplicate_seconds` (0: per instant). The
    alarm is raised at `threshold` and above. `boosters` are checksums by file, `data_version` is the checksum of the
    raw data's manifest.
    """

    format: Literal[2] = 2
    plant: str
    scope: Literal["plant", "fleet"]
    kind: Literal["lightgbm"] = "lightgbm"
    features: list[str] = Field(min_length=1)
    near_duplicate_seconds: int = Field(ge=0, le=10**9)
    dataset: Dataset
    preparation: Preparation
    calibration: Calibration
    threshold: float = Field(ge=0, lt=1.001)  # just above 1 if no alarm is to be raised at all
    training_ranges: dict[str, TrainingRange]
    boosters: dict[FileName, Sha256] = Field(min_length=1)
    data_version: str
    rows: int = Field(ge=0)
    positives: int = Field(ge=0)

    @model_validator(mode="after")
    def _knows_each_range(self) -> "Metadata":
        if self.training_ranges.keys() != set(self.features):
            raise ValueError("training_ranges are of other features")
        return self


class SavedModel(NamedTuple):
    """A saved model, ready to score."""

    metadata: Metadata
    boosters: "tuple[lgb.Booster, ...]"


def name_files(texts: Sequence[str]) -> dict[str, str]:
    """Return the boosters' texts by file name: ``model.txt``, or ``model_0.txt`` and so on if there are several."""
    return {"model.txt" if len(texts) == 1 else f"model_{index}.txt": text for index, text in enumerate(texts)}


def checksum(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def to_text(booster: "lgb.Booster", rounds: int) -> str:
    """Return the first `rounds` trees as text that is the same however many threads grew them."""
    text: str = booster.model_to_string(num_iteration=rounds)
    return re.sub(r"(?m)^\[num_threads: \d+\]$", "[num_threads: 0]", text)


def booster_names(features: Sequence[str]) -> list[str]:
    """Return names that LightGBM accepts: it refuses spaces, brackets and the like, which error codes may hold."""
    return [quote(feature, safe="") for feature in features]


def save_model(folder: Path, metadata: Metadata, texts: Sequence[str]) -> None:
    """Write a model into its folder, replacing what was there; the metadata holds the checksums of the texts."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("model*.txt"):
        stale.unlink()
    for name, text in name_files(texts).items():
        write_whole(folder / name, text.encode())
    write_json(folder / MODEL_METADATA, metadata.model_dump(mode="json"))


def find_models(folder: Path) -> dict[str, Path]:
    """Return the folders of saved models by plant, sorted.

    A damaged model, or one of another plant than its folder, is listed by the folder's name: loading it says why.
    """
    folders = sorted(file.parent for file in folder.glob(f"*/{MODEL_METADATA}"))
    return dict(sorted((_read_plant_name(own), own) for own in folders))


def _read_plant_name(folder: Path) -> str:
    with suppress(UpkeepError, LookupError, TypeError):
        plant = str(read_json(folder / MODEL_METADATA, remedy="")["plant"])
        if name_file(plant) == folder.name:
            return plant
    return folder.name


def load_model(folder: Path) -> SavedModel:
    """Read a saved model, and check that it is whole and consistent.

    An UpkeepError is raised if a file is missing, was changed or has another format, or if the boosters take other
    features than the metadata says.
    """
    file = folder / MODEL_METADATA
    if not file.exists():
        raise UpkeepError("there is no model", remedy="run `upkeep train`, or `dvc pull`", file=file)
    remedy = "restore the model's folder, train again, or use the version of upkeep that wrote it"
    metadata = read_object(Metadata, file, what="the model's metadata", remedy=remedy)
    boosters = tuple(_read_booster(folder / name, sha256, metadata) for name, sha256 in metadata.boosters.items())
    return SavedModel(metadata, boosters)


def predict(model: SavedModel, features: pl.DataFrame | NDArray[np.floating[Any]]) -> Floats:
    """Return calibrated probabilities of failure within the horizon, shape (n_rows,); see :func:`to_matrix`."""
    matrix = to_matrix(features, model.metadata.features)
    return apply_calibration(model.metadata.calibration, mean_log_odds(model.boosters, matrix))


def contributions(model: SavedModel, features: pl.DataFrame | NDArray[np.floating[Any]]) -> Floats:
    """Return what each feature adds to the log-odds before calibration, shape (n_rows, n_features + 1).

    These are LightGBM's own SHAP values (Lundberg et al. 2020, From local explanations to global understanding with
    explainable AI for trees), averaged over the boosters; the last column is the expected log-odds.
    """
    return _average_boosters(model.boosters, to_matrix(features, model.metadata.features), pred_contrib=True)


def mean_log_odds(boosters: "Sequence[lgb.Booster]", matrix: Floats32) -> Floats:
    """Return the log-odds averaged over the boosters, shape (n_rows,)."""
    return _average_boosters(boosters, matrix, raw_score=True) if len(matrix) else np.empty(0)


def _average_boosters(boosters: "Sequence[lgb.Booster]", matrix: Floats32, **asked: bool) -> Floats:
    mean: Floats = np.mean([booster.predict(matrix, num_threads=1, **asked) for booster in boosters], axis=0)
    return mean


def to_matrix(features: pl.DataFrame | NDArray[np.floating[Any]], names: Sequence[str]) -> Floats32:
    """Return features as boosters take them, in training and in scoring: float32, NaN where one is unknown.

    `features` is a frame that has them by name, or an array of shape (n_rows, n_features) in the order of `names`. An
    UpkeepError is raised if one is missing.
    """
    if not isinstance(features, pl.DataFrame):
        return np.ascontiguousarray(features, dtype=np.float32)
    if missing := [name for name in names if name not in features.columns]:
        raise UpkeepError(
            f"{len(missing)} features are missing: {', '.join(missing[:5])}",
            remedy="build the features with the dataset parameters saved in the model",
            column=missing[0],
        )
    return features.select(pl.col(names).cast(pl.Float32)).to_numpy(order="c")


def _read_booster(file: Path, sha256: str, metadata: Metadata) -> "lgb.Booster":
    import lightgbm as lgb  # it loads scikit-learn, too: what reads no model starts in half the time without it

    try:
        content = read_regular(file)
    except OSError as error:
        raise _damaged_model(f"the booster cannot be read: {error.strerror}", file) from error
    if checksum(content) != sha256:
        raise _damaged_model(f"the booster's SHA-256 is {checksum(content)}, not {sha256}", file)
    try:
        text = content.decode()
        check_trees(text, booster_names(metadata.features))
        return lgb.Booster(model_str=text)
    except (lgb.basic.LightGBMError, ValueError) as error:
        raise _damaged_model(f"the booster cannot be used: {error}", file) from error


def _damaged_model(what: str, file: Path) -> UpkeepError:
    return UpkeepError(what, remedy="restore the model's folder, or train again", file=file)
