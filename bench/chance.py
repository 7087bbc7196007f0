"""Whether the shipped floors let pass what learnt nothing: from shuffled labels, or from noise instead of sensors."""

import re
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from bench.checkout import call, clone, environment
from bench.measuring import Row
from upkeep.core import paths
from upkeep.core.params import Params, load_params
from upkeep.features.split import SPLITS
from upkeep.judging.acceptance import Check, check_floors
from upkeep.judging.evaluation import evaluate, judge_group, read_plant
from upkeep.model.labelled_rows import LabelledRows
from upkeep.model.training import Splits, shuffle_labels, train_fleet, train_plant

SEEDS = 20
PLANTS = ("gdansk", "porto")
"""Two of the shipped fleet's: what is refused does not depend on how many there are, the time does."""
NOT_OF_SENSORS = re.compile(r"errors_.+|hours_since_.+|age_hours|model_code")
Fleet = dict[str, Splits]


def measure() -> list[Row]:
    """Return how many of 20 models that learnt nothing pass every floor."""
    with TemporaryDirectory() as name:
        checkout = Path(name) / "checkout"
        clone(checkout)
        for stage in ("fetch", "validate", "dataset"):
            call(["upkeep", stage], checkout, environment(checkout))
        with chdir(checkout):
            params = load_params()
            fleet = {
                plant: Splits(*(pl.read_parquet(paths.PROCESSED / plant / f"{split}.parquet") for split in SPLITS))
                for plant in PLANTS
            }
    honest = _judge(fleet, params)
    rows = [Row("shipped data, checks that fail", sum(not check.passed for check in honest), "", target="ours <= 0")]
    for words, spoil in (("shuffled labels", _shuffle), ("noise instead of sensors", _replace_sensors)):
        found = [_judge({plant: spoil(fleet[plant], seed) for plant in fleet}, params) for seed in range(SEEDS)]
        passed = sum(all(check.passed for check in checks) for checks in found)
        by_chance = sum(checks[-1].passed for checks in found)
        note = f"the comparison with chance alone lets {by_chance} pass; errors and maintenance tell something, too"
        rows.append(Row(f"{words}: models that pass", passed, f"of {SEEDS}", target="ours <= 0", note=note))
    return rows


def _judge(fleet: Fleet, params: Params) -> list[Check]:
    of_all = train_fleet(fleet, params)
    plants = {}
    for plant, splits in fleet.items():
        selection = train_plant(splits, of_all, params)
        rows = pl.concat([candidate.predictions for candidate in selection.candidates.values()])
        rows = rows.with_columns(chosen=pl.col("candidate") == selection.chosen)
        plants[plant] = read_plant(rows, params.evaluate, params.dataset.horizon_hours)
    reports = {plant: judge_group([own], params.evaluate, params.model.seed, []) for plant, own in plants.items()}
    report = evaluate(plants, reports, params.evaluate, params.model.seed, {})
    return check_floors(report, params.evaluate.floors)


def _shuffle(splits: Splits, seed: int) -> Splits:
    # Not the seeds that training itself shuffles by.
    return splits._replace(train=shuffle_labels(splits.train, 1_000 + seed))


def _replace_sensors(splits: Splits, seed: int) -> Splits:
    rng = np.random.default_rng(seed)
    sensors = [name for name in LabelledRows(splits.train).features if not NOT_OF_SENSORS.fullmatch(name)]
    return Splits(*(
        rows.with_columns(pl.Series(name, rng.normal(size=rows.height).astype(np.float32)) for name in sensors)
        for rows in splits
    ))  # fmt: skip
