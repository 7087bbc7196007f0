"""Features in; a model and predictions per plant out."""

import logging
import shutil
from functools import partial

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import TooLittleDataError
from upkeep.core.parallel import count_workers, map_plants
from upkeep.core.params import Params
from upkeep.core.pieces import Recall, drop_oldest, make_anew, recall
from upkeep.core.plants import list_plants, name_file, table_file, write_table
from upkeep.core.threads import start_beside
from upkeep.features.inputs import Preparation
from upkeep.features.split import SPLITS
from upkeep.judging.reports import TrainedPlant, TrainingReport, write_report
from upkeep.model.estimators import KEPT
from upkeep.model.labelled_rows import LabelledRows
from upkeep.model.storage import Metadata, checksum, name_files, save_model
from upkeep.model.training import FleetModel, Selection, Splits, train_fleet, train_own, train_plant

CODE = ("core", "features", "judging", "model", "stages/train.py")
COLUMNS = [
    *("plant", "machine", "time", "machine_model", "split", "candidate", "chosen"),
    *("label", "hours_to_failure", "prevented", "probability", "alarm"),
]

logger = logging.getLogger(__name__)


def run(params: Params) -> None:
    """Write ``models/plants``, ``data/predictions`` and ``reports/training.json``."""
    plants = list_plants(paths.PROCESSED, "*/train.parquet", made_by="dataset")
    for folder in (paths.MODELS, paths.PREDICTIONS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    if params.model.kind != "lightgbm":
        logger.warning(
            "models of kind %s are judged, but not saved: only LightGBM's can be read without unpickling. The service "
            "and `upkeep score` have none",
            params.model.kind,
        )
    keep, version = _choose_recall(params), checksum(paths.MANIFEST.read_bytes())
    fleet = start_beside(train_fleet, {plant: _scan_splits(plant) for plant in plants}, params, keep)
    # The fleet's model leaves cores idle, for minutes. In one process LightGBM has one number of threads for all.
    is_apart = params.parallel.backend in ("loky", "dask") and count_workers(params.parallel) > 1
    if len(plants) > 1 and keep is not make_anew and is_apart:
        map_plants(_train_own, plants, params.parallel, params)
    report = map_plants(_train_plant, plants, params.parallel, fleet.result(), params, version)
    write_report(TrainingReport(kind=params.model.kind, plants=report))
    drop_oldest(params.pieces)


def _train_own(plant: str, params: Params) -> None:
    train_own(_open_splits(plant, params.parallel.memory), params, _choose_recall(params))


def _train_plant(plant: str, fleet: FleetModel | None, params: Params, data_version: str) -> TrainedPlant:
    """Write one plant's predictions and model; return what the report says of it."""
    splits = _open_splits(plant, params.parallel.memory)
    selection = train_plant(splits, fleet, params, _choose_recall(params))
    predictions = pl.concat([candidate.predictions for candidate in selection.candidates.values()])
    chosen = pl.col("candidate") == selection.chosen
    # Probabilities are in single precision already.
    stored = predictions.with_columns(pl.col("probability").cast(pl.Float32), chosen=chosen).select(COLUMNS)
    write_table(stored, table_file(paths.PREDICTIONS, plant), plant)
    saved = params.model.kind == "lightgbm"
    if saved:
        fitted = Preparation.model_validate_json((paths.PROCESSED / name_file(plant) / "preparation.json").read_bytes())
        save_model(paths.MODELS / name_file(plant), *describe_model(plant, selection, fitted, params, data_version))
    labels = {name: rows.lazy().select("label").collect()["label"] for name, rows in splits._asdict().items()}
    return TrainedPlant(
        chosen=selection.chosen,
        why=selection.why,
        saved=saved,
        rows={name: label.len() for name, label in labels.items()},
        positives={name: int(label.sum()) for name, label in labels.items()},
        validation_failures=selection.failures,
        candidates={name: candidate.report for name, candidate in selection.candidates.items()},
    )


def _choose_recall(params: Params) -> Recall:
    """Return what keeps results for the next run, if models of this kind can be written as text."""
    # Forced splits and bins are read from a file, whose content the parameters do not tell.
    reads_file = any(name.startswith(("forced", "fs")) for name in params.model.lightgbm)
    keeps = params.pieces.folder is not None and params.model.kind in KEPT and not reads_file
    return partial(recall, params.pieces, CODE) if keeps else make_anew


def _scan_splits(plant: str) -> Splits:
    return Splits(*(pl.scan_parquet(paths.PROCESSED / name_file(plant) / f"{split}.parquet") for split in SPLITS))


def _open_splits(plant: str, megabytes: int | None) -> Splits:
    """Return a plant's rows, which are read many times: in memory if they fit into so much of it, else as scans."""
    splits = _scan_splits(plant)
    size = sum(4 * table.height * len(table.features) for table in map(LabelledRows, splits))  # in single precision
    return splits if megabytes and size > megabytes * 1e6 else Splits(*(rows.lazy().collect() for rows in splits))


def describe_model(
    plant: str, selection: Selection, preparation: Preparation, params: Params, data_version: str
) -> tuple[Metadata, list[str]]:
    """Return what is saved of the chosen model, and its boosters; a TooLittleDataError is raised if it has none."""
    winner = selection.candidates[selection.chosen]
    if winner.trained is None or not winner.trained.fitted.boosters:
        raise TooLittleDataError(
            "there is no model to save, for want of training rows", remedy="fetch more history", plant=plant
        )
    texts = winner.trained.fitted.boosters
    metadata = Metadata(
        plant=plant,
        scope="fleet" if selection.chosen == "fleet" else "plant",
        features=list(winner.trained.ranges),
        near_duplicate_seconds=params.validate_.near_duplicate_seconds,
        dataset=params.dataset,
        preparation=preparation,
        calibration=winner.calibration,
        threshold=winner.report.threshold,
        training_ranges=winner.trained.ranges,
        boosters={name: checksum(text.encode()) for name, text in name_files(texts).items()},
        data_version=data_version,
        rows=winner.trained.rows,
        positives=winner.trained.positives,
    )
    return metadata, texts
