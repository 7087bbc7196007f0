"""A model that learnt nothing is refused by the floors, whatever the seed; one that learnt something is not."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from parameters import SHIPPED, changed

from upkeep.judging.evaluation import judge_group, read_plant
from upkeep.judging.sanity import SHUFFLED
from upkeep.model.training import Splits, shuffle_labels, train_plant

START = datetime(2025, 1, 1, tzinfo=UTC)
HORIZON, LIFE, LIVES, MACHINES = 12, 60, 2, 8
PARAMS = SHIPPED.model_copy(
    update={
        "dataset": changed(SHIPPED.dataset, horizon_hours=HORIZON),
        "model": changed(
            SHIPPED.model,
            compare=[],
            lightgbm={"n_estimators": 20, "num_leaves": 4, "min_child_samples": 5, "learning_rate": 0.2},
        ),
        "evaluate": changed(SHIPPED.evaluate, lead_time_hours=2, bootstrap=50),
    }
)


def rows(rng: np.random.Generator, told: bool) -> pl.DataFrame:
    """Machines that fail every 60 hours; their wear is told by two sensors, or by none; one is noise."""
    hours = LIFE * LIVES
    left = np.tile(np.arange(LIFE, 0, -1.0), LIVES)
    machines = [
        pl.DataFrame(
            {
                "plant": "lyon",
                "machine": f"m{machine}",
                "time": [START + timedelta(hours=hour) for hour in range(hours)],
                "machine_model": "press",
                "label": pl.Series(left <= HORIZON, dtype=pl.UInt8),
                "hours_to_failure": left,
                "prevented": False,
                "weight": 1.0,
                "noise": np.cumsum(rng.normal(size=hours)) * 0.3,
                "heat": (left < 15) * told + rng.normal(0, 0.5, hours),
                "current": (left < 15) * told + rng.normal(0, 0.5, hours),
            }
        )
        for machine in range(MACHINES)
    ]
    return pl.concat(machines)


def fleet(seed: int, told: bool) -> Splits:
    rng = np.random.default_rng(seed)
    return Splits(*(rows(rng, told) for _ in range(3)))


def judge(splits: Splits) -> list[str]:
    """Train and judge; return why the model is not known to rank better than chance, which the floors then refuse."""
    selection = train_plant(splits, None, PARAMS)
    predictions = pl.concat([candidate.predictions for candidate in selection.candidates.values()])
    predictions = predictions.with_columns(chosen=pl.col("candidate") == selection.chosen)
    plant = read_plant(predictions, PARAMS.evaluate, HORIZON)
    return judge_group([plant], PARAMS.evaluate, PARAMS.model.seed, []).sanity.faults


@pytest.mark.parametrize("seed", range(10))
def test_noise_instead_of_sensors_is_refused(seed):
    assert judge(fleet(seed, told=False))


@pytest.mark.parametrize("seed", range(10))
def test_a_model_trained_on_shuffled_labels_is_refused(seed):
    splits = fleet(seed, told=True)
    assert judge(splits._replace(train=shuffle_labels(splits.train, 100 + seed)))


def test_a_model_that_learnt_something_is_not():
    assert judge(fleet(0, told=True)) == []


def test_what_chance_reaches_does_not_depend_on_the_kind_that_is_trained():
    chance = []
    for kind in ("lightgbm", "logistic"):
        params = PARAMS.model_copy(update={"model": changed(PARAMS.model, kind=kind)})
        chance.append(train_plant(fleet(0, told=True), None, params).candidates[SHUFFLED].predictions)
    assert chance[0].equals(chance[1])


def test_shuffled_labels_are_as_many_in_runs_as_long_and_keep_their_weights():
    train = fleet(0, told=True).train.with_columns(weight=pl.col("label") * 3.0)
    shuffled = shuffle_labels(train, seed=1)
    assert shuffled.drop("label", "weight").equals(train.drop("label", "weight"))
    assert shuffled["label"].sum() == train["label"].sum()
    assert (shuffled["weight"] == shuffled["label"] * 3).all()
    assert (shuffled["label"] != train["label"]).mean() > 0.2
    assert shuffled["label"].rle().len() <= 2 * train["label"].rle().len()
