"""What an earlier commit's models say of the newest rows: their own run's predictions, and those of what came later."""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.parallel import map_plants
from upkeep.core.params import Parallel
from upkeep.core.plants import name_file, table_file
from upkeep.gitlab import dvc
from upkeep.gitlab.snapshot import Files, Snapshot, locate_own
from upkeep.model.storage import load_model
from upkeep.releases.rescoring import Tables, rescore
from upkeep.releases.succession import find_newer


def predict_newest(
    champion: Snapshot, newest: Mapping[str, pl.DataFrame], how: Parallel
) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
    """Return by plant what the champion says of rows that it did not see, and why it says nothing of the newest ones.

    Rows that its own run judged have that run's predictions, made by the code that is live. For later ones its models
    come from the commit, by DVC, and score the interim tables here. Where they cannot, its own predictions stand alone.
    """
    own = champion.predictions
    newer = {plant: find_newer(own[plant], newest[plant]) for plant in sorted(own.keys() & newest.keys())}
    newer = {plant: rows for plant, rows in newer.items() if rows.height}
    if not newer:
        return dict(own), {}
    try:
        dvc.pull(*(table for table in dvc.outputs(paths.INTERIM, paths.MODELS) if not table.exists()))
    except UpkeepError as error:
        return dict(own), dict.fromkeys(newer, error.what)
    files, threads = Files(champion.commit), how.model_copy(update={"backend": "threads"})  # which share the rows
    with tempfile.TemporaryDirectory() as folder:
        models = {plant: _copy(files, plant, Path(folder)) for plant in newer}
        found = map_plants(partial(_score, models, newer), newer, threads)
    scored = {plant: rows for plant, rows in found.items() if isinstance(rows, pl.DataFrame)}
    joined = {plant: pl.concat([own[plant], rows], how="diagonal_relaxed") for plant, rows in scored.items()}
    return {**own, **joined}, {plant: why for plant, why in found.items() if isinstance(why, str)}


def _copy(files: Files, plant: str, folder: Path) -> Path | str:
    try:
        return files.copy_model(plant, folder)
    except UpkeepError as error:
        return error.what


def _score(models: Mapping[str, Path | str], newer: Mapping[str, pl.DataFrame], plant: str) -> pl.DataFrame | str:
    """Return the plant's newer rows with predictions, or why there are none."""
    model = models[plant]
    if isinstance(model, str):
        return model
    try:
        present = load_model(paths.MODELS / name_file(plant)).metadata
        files = (locate_own(table_file(paths.INTERIM / table, plant)) for table in Tables._fields)
        return rescore(model, newer[plant], Tables(*map(pl.scan_parquet, files)), present)
    except UpkeepError as error:
        return error.what
    except (OSError, pl.exceptions.PolarsError):  # a branch may hold anything, and its words may quote it
        return f"{paths.INTERIM} is not what upkeep writes"
