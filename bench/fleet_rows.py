"""A fleet's model of at most ``model.fleet_rows`` rows beside one of all rows, on several simulated fleets."""

from contextlib import chdir
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from bench.checkout import BY_WINDOW, clone, set_fleet
from bench.measuring import Row, take_seconds
from upkeep.core import paths
from upkeep.core.params import Params, load_params
from upkeep.core.plants import list_plants, name_file
from upkeep.features.split import SPLITS
from upkeep.judging.metrics import average_precision
from upkeep.model.labelled_rows import LabelledRows
from upkeep.model.storage import to_matrix
from upkeep.model.training import FleetModel, Splits, train_fleet
from upkeep.stages import dataset, fetch, validate

START, WEEKS = date(2025, 1, 6), 52
PLANTS, MACHINES = 40, 10
SEEDS = (1, 2, 3)
MOST = 70_000  # a tenth of these fleets' rows, as the shipped million is of those of 300 plants of 20 machines
SIGNIFICANT = 0.005  # of average precision


def measure() -> list[Row]:
    """Return the average precision of both models on test rows, the mean over plants and fleets, and the time."""
    found = {"most": list[float](), "all": list[float]()}
    seconds = {"most": list[float](), "all": list[float]()}
    rows = list[int]()
    with TemporaryDirectory() as name:
        checkout = Path(name) / "checkout"
        clone(checkout)
        with chdir(checkout):
            for seed in SEEDS:
                params = _make_dataset(seed)
                plants = {plant: _scan(plant) for plant in list_plants(paths.PROCESSED, "*/train.parquet")}
                for way, most in (("most", MOST), ("all", None)):
                    fleet = _train(plants, params, most, seconds[way])
                    rows.append(fleet.trained.rows)
                    found[way] += [_judge(fleet, splits) for splits in plants.values()]
    gains = np.subtract(found["most"], found["all"])
    note = (
        f"{len(SEEDS)} fleets of {PLANTS} plants of {MACHINES} machines, {WEEKS} weeks: {min(rows):,} of {max(rows):,} "
        f"rows; {(gains < -SIGNIFICANT).sum()} plants lose more than {SIGNIFICANT}, {(gains > SIGNIFICANT).sum()} gain "
        f"as much; mean difference {gains.mean():.4f}, standard error {gains.std() / len(gains) ** 0.5:.4f}"
    )
    (precision, all_precision), (time, all_time) = (
        [float(np.mean(of[way])) for way in ("most", "all")] for of in (found, seconds)
    )
    name = "fleet's model of a tenth of the rows"
    return [
        Row(f"{name}, average precision", precision, "", all_precision, "ratio >= 0.99", note),
        Row(f"{name}, training", time, "s", all_time),
    ]


def _make_dataset(seed: int) -> Params:
    plants = {f"plant{number:02}": MACHINES for number in range(PLANTS)}
    set_fleet(Path(), plants, START + timedelta(weeks=WEEKS), dataset={**BY_WINDOW, "max_single_feature_auc": 1})
    params = load_params(paths.PARAMS)
    options = {**params.fetch.options, "seed": seed}
    params = params.model_copy(update={"fetch": params.fetch.model_copy(update={"options": options})})
    for stage in (fetch, validate, dataset):
        stage.run(params)
    return params


def _scan(plant: str) -> Splits:
    return Splits(*(pl.scan_parquet(paths.PROCESSED / name_file(plant) / f"{split}.parquet") for split in SPLITS))


def _train(plants: dict[str, Splits], params: Params, most: int | None, seconds: list[float]) -> FleetModel:
    made = list[FleetModel]()
    model = params.model.model_copy(update={"fleet_rows": most})
    seconds.append(take_seconds(lambda: made.append(train_fleet(plants, params.model_copy(update={"model": model})))))
    return made[0]


def _judge(fleet: FleetModel, splits: Splits) -> float:
    rows = splits.test.lazy().collect()
    features = to_matrix(rows, LabelledRows(rows).features)
    return average_precision(rows["label"].cast(pl.Boolean).to_numpy(), fleet.trained.fitted.score(features))
