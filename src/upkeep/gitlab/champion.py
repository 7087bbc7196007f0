"""What an earlier commit's models say of the newest rows: their own run's predictions, and those of what came later."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.parallel import map_plants
from upkeep.core.params import Parallel, Params
from upkeep.core.plants import name_file, table_file
from upkeep.gitlab import dvc
from upkeep.gitlab.markdown import sentence
from upkeep.gitlab.snapshot import CommitFiles, Snapshot, locate_own
from upkeep.model.storage import load_model
from upkeep.releases.rescoring import PlantTables, rescore
from upkeep.releases.succession import Succession, find_newer, judge_succession


def judge_sides(
    champion: Snapshot | None, challenger: Snapshot, params: Params, missed_floors: Mapping[str, float]
) -> Succession:
    """Judge both by their predictions, or say why they cannot be: they come from a branch, and may be anything."""
    try:
        said, silent = predict_newest(champion or Snapshot(""), challenger.predictions, params.parallel)
        found = judge_succession(said, challenger.predictions, params, missed_floors)
    except (ArithmeticError, LookupError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        words = "the predictions of both sides cannot be compared: {}; run `dvc repro`, then `dvc push`"
        return judge_succession({}, {}, params)._replace(reasons=[sentence(words, error)])
    words = "{}: of the rows that came after the champion's own run it says nothing: {}"
    return found._replace(remarks=[*found.remarks, *(sentence(words, *each) for each in silent.items())])


def predict_newest(
    champion: Snapshot, newest: Mapping[str, pl.DataFrame], how: Parallel
) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
    """Return by plant what the champion says of rows that it did not see, and why it says nothing of the newest ones.

    Rows that its own run judged have that run's predictions, made by the code that is live. For later ones its models
    come from the commit, by DVC, and score the interim tables here. Where they cannot, its own predictions stand alone.
    """
    said, silent = dict(champion.predictions), dict[str, str]()
    newer = {plant: find_newer(said[plant], newest[plant]) for plant in sorted(said.keys() & newest.keys())}
    newer = {plant: rows for plant, rows in newer.items() if rows.height}
    if not newer:
        return said, silent
    try:
        dvc.pull(*(table for table in dvc.outputs(paths.INTERIM, paths.MODELS) if not table.exists()))
    except UpkeepError as error:
        return said, dict.fromkeys(newer, error.what)
    files, models = CommitFiles(champion.commit), dict[str, Path]()
    threads = how.model_copy(update={"backend": "threads"})  # which share the rows
    with tempfile.TemporaryDirectory() as folder:
        for plant in newer:
            try:
                models[plant] = files.copy_model(plant, Path(folder))
            except UpkeepError as error:
                silent[plant] = error.what
        found = map_plants(_score, models, threads, models, newer)
    for plant, rows in found.items():
        if isinstance(rows, str):
            silent[plant] = rows
        else:
            said[plant] = pl.concat([said[plant], rows], how="diagonal_relaxed")
    return said, dict(sorted(silent.items()))


def _score(plant: str, models: Mapping[str, Path], newer: Mapping[str, pl.DataFrame]) -> pl.DataFrame | str:
    """Return the plant's newer rows with predictions, or why there are none."""
    try:
        present = load_model(paths.MODELS / name_file(plant)).metadata
        files = (locate_own(table_file(paths.INTERIM / table, plant)) for table in PlantTables._fields)
        return rescore(models[plant], newer[plant], PlantTables(*map(pl.scan_parquet, files)), present)
    except UpkeepError as error:
        return error.what
    except (OSError, pl.exceptions.PolarsError):  # a branch may hold anything, and its words may quote it
        return f"{paths.INTERIM} is not what upkeep writes"
