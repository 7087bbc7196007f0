import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.judging.reports import TrainedCandidate
from upkeep.model import estimators, training
from upkeep.model.alarm_rule import best_f1_threshold
from upkeep.model.labelled_rows import LabelledRows
from upkeep.model.training import (
    Splits,
    choose,
    find_ranges,
    train_fleet,
    train_plant,
)

SMALL = {"n_estimators": 15, "num_leaves": 4, "min_child_samples": 5, "learning_rate": 0.2}
START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def params():
    loaded = load_params(Path("params.yaml"))
    model = loaded.model.model_copy(update={"lightgbm": SMALL, "compare": []})
    return loaded.model_copy(
        update={"model": model, "parallel": loaded.parallel.model_copy(update={"backend": "threads", "jobs": 1})}
    )


def rows(plant="lyon", failures=5, seed=0, hours=300):
    """One machine per failure, run until it; one feature tells that it comes."""
    rng = np.random.default_rng(seed)
    machines = []
    for machine in range(max(failures, 1)):
        left = np.arange(hours, 0, -1, dtype=np.float64) if failures else np.full(hours, np.nan)
        machines.append(
            pl.DataFrame(
                {
                    "plant": plant,
                    "machine": f"M{machine}",
                    "time": [START + timedelta(hours=hour) for hour in range(hours)],
                    "machine_model": "press",
                    "label": pl.Series(left <= 48, dtype=pl.UInt8),
                    "hours_to_failure": pl.Series(left).fill_nan(None),
                    "prevented": False,
                    "weight": 1.0,
                    "vibration": (np.nan_to_num(left, nan=1e3) < 60) + rng.normal(0, 0.3, hours),
                    "hours_since_failure": np.arange(hours, dtype=np.float32) + 40 * machine,
                    "humidity": pl.Series([None] * hours, dtype=pl.Float32),
                }
            )
        )
    return pl.concat(machines)


def plant(name="lyon", train=5, validation=5, test=2):
    return Splits(rows(name, train, 0), rows(name, validation, 1), rows(name, test, 2))


def candidate(area, cost=0.0, positives=10):
    known = {"threshold": 0.5, "calibration": "none", "rounds": [], "trained_rows": 100, "notes": []}
    return TrainedCandidate(average_precision=area, cost=cost, trained_positives=positives, **known)


@pytest.mark.parametrize(
    ("own", "fleets", "failures", "chosen", "reason"),
    [
        (candidate(0.8), candidate(0.7), 5, "plant", "0.800"),
        (candidate(0.7), candidate(0.8), 5, "fleet", "0.800"),
        (candidate(0.801, cost=1.0), candidate(0.8, cost=2.0), 5, "plant", "a tie"),
        (candidate(0.801, cost=2.0), candidate(0.8, cost=1.0), 5, "fleet", "a tie"),
        (candidate(0.801), candidate(0.8), 5, "fleet", "a tie"),
        (candidate(0.9), candidate(0.1), 2, "fleet", "2 failures"),
        (candidate(None), candidate(None), 0, "fleet", "too few"),
        (candidate(0.9, positives=0), candidate(0.1), 5, "fleet", "no failure"),
        (candidate(0.1), None, 0, "plant", "no other plant"),
    ],
)
def test_the_better_of_plant_and_fleet_ships_and_the_reason_is_given(own, fleets, failures, chosen, reason):
    winner, why = choose(own, fleets, failures)
    assert winner == chosen
    assert reason in why


def test_the_f1_threshold_lies_in_the_gap_between_the_classes():
    label, probability = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])
    assert best_f1_threshold(label, probability, np.ones(4)) == pytest.approx(0.4)


def test_the_f1_threshold_counts_rows_by_their_weight():
    label, probability = np.array([1, 0, 1]), np.array([0.9, 0.5, 0.3])
    assert best_f1_threshold(label, probability, np.array([1.0, 0.1, 1.0])) == 0.3
    assert best_f1_threshold(label, probability, np.array([1.0, 9.0, 1.0])) > 0.5


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=1, max_size=30))
def test_no_threshold_beats_the_f1_threshold_by_more_than_a_hundredth(drawn):
    label, probability = (np.array(values) for values in zip(*drawn, strict=True))
    if not label.any():
        return
    probability = probability / 10

    def f1(threshold):
        alarm = probability >= threshold
        return 2 * (label & alarm).sum() / (alarm.sum() + label.sum())

    found = best_f1_threshold(label.astype(int), probability, np.ones(label.size))
    assert f1(found) >= 0.99 * max(f1(threshold) for threshold in probability) - 1e-12


def test_features_are_the_columns_after_the_weight():
    assert LabelledRows(rows()).features == ["vibration", "hours_since_failure", "humidity"]


def test_many_rows_are_thinned_evenly_whether_they_are_in_memory_or_in_files(tmp_path):
    hours = [20_000, 3, 0, 7_000]
    plants = [pl.DataFrame({"label": 0, "weight": 1.0, "hour": np.arange(rows, dtype=np.float32)}) for rows in hours]
    for number, plant in enumerate(plants):
        plant.write_parquet(tmp_path / f"{number}.parquet", row_group_size=5_000)
    taken = LabelledRows(*plants, most=3_000)
    assert taken.height == pytest.approx(3_000, abs=10)
    times = taken.read("hour")["hour"].cast(pl.Int64)
    assert (times % 24).value_counts()["count"].is_between(110, 140).all()
    assert (times % 168).n_unique() == 168
    scanned = LabelledRows(*(pl.scan_parquet(tmp_path / f"{number}.parquet") for number in range(4)), most=3_000)
    assert_frame_equal(pl.concat(scanned.chunks()), pl.concat(taken.chunks()))
    assert scanned.checksum == taken.checksum != LabelledRows(*plants).checksum
    assert LabelledRows(*plants, most=sum(hours)).height == sum(hours)


def test_the_fleets_model_learns_from_so_many_rows_of_all_plants_and_of_all_their_failures(params):
    plants = {"lyon": plant(), "porto": plant("porto")}
    every = train_fleet(plants, params).trained
    model = params.model.model_copy(update={"fleet_rows": every.rows // 4})
    fewer = train_fleet(plants, params.model_copy(update={"model": model})).trained
    assert fewer.rows == pytest.approx(every.rows / 4, rel=0.02)
    assert fewer.positives == pytest.approx(every.positives / 4, rel=0.1)


def test_ranges_leave_unknown_values_out():
    features = {"known": [1.0, None, 3.0, float("nan")], "never": [None] * 4}
    ranges = find_ranges(LabelledRows(pl.DataFrame({"weight": 1.0, **features}, schema_overrides={"never": float})))
    assert (ranges["known"].minimum, ranges["known"].maximum) == (1.0, 3.0)
    assert ranges["never"].low is ranges["never"].maximum is None


def test_every_candidate_predicts_every_validation_and_test_row(params):
    plants = {"lyon": plant(), "porto": plant("porto")}
    compared = params.model_copy(
        update={"model": params.model.model_copy(update={"compare": ["logistic", "lightgbm"]})}
    )
    outcome = train_plant(plants["lyon"], train_fleet(plants, compared), compared)
    trained, rules = (
        ["plant", "fleet", "logistic", "shuffled_labels"],
        ["fixed_interval", "error_count", "best_feature"],
    )
    assert list(outcome.candidates) == [*trained, "class_prior", *rules]
    for name, found in outcome.candidates.items():
        assert found.predictions.height == plants["lyon"].validation.height + plants["lyon"].test.height
        assert found.predictions["candidate"].unique().to_list() == [name]
        assert found.predictions["probability"].is_between(0, 1).all()
        assert (found.predictions["alarm"] == (found.predictions["probability"] >= found.report.threshold)).all()


def test_a_good_model_beats_the_baselines(params):
    candidates = train_plant(plant(), None, params).candidates
    assert candidates["plant"].report.average_precision > 0.8
    assert candidates["plant"].report.average_precision > candidates["fixed_interval"].report.average_precision
    assert candidates["fixed_interval"].report.average_precision > candidates["class_prior"].report.average_precision
    assert candidates["plant"].report.cost < candidates["class_prior"].report.cost


def test_a_plant_without_failures_ships_the_fleet_model_with_the_fleets_threshold(params):
    plants = {"new": plant("new", 0, 0, 0), "lyon": plant()}
    fleet = train_fleet(plants, params)
    new, lyon = (train_plant(splits, fleet, params) for splits in plants.values())
    assert new.chosen == "fleet"
    assert "no failure" in new.why
    assert "all plants' validation rows" in new.candidates["fleet"].report.notes[0]
    assert new.candidates["fleet"].calibration.method == "sigmoid"
    assert new.candidates["fleet"].report.threshold < lyon.candidates["plant"].predictions["probability"].max()
    assert "the model is a constant" in new.candidates["plant"].report.notes[0]


@pytest.mark.parametrize("threshold", ["cost", "f1"])
@pytest.mark.parametrize("kind", ["lightgbm", "logistic"])
@pytest.mark.parametrize(("train", "validation"), [(5, 0), (0, 5), (0, 0)])
def test_a_lone_plant_without_failures_in_a_split_still_gets_a_model_and_a_note(
    params, train, validation, kind, threshold
):
    how = params.model_copy(update={"model": params.model.model_copy(update={"kind": kind, "threshold": threshold})})
    outcome = train_plant(plant("lyon", train, validation), None, how)
    assert outcome.chosen == "plant"
    assert outcome.candidates["plant"].report.notes
    assert np.isfinite(outcome.candidates["plant"].report.threshold)


@pytest.mark.parametrize("empty", ["validation", "test"])
def test_an_empty_split_is_no_obstacle(params, empty):
    splits = plant()._replace(**{empty: rows().clear()})
    outcome = train_plant(splits, train_fleet({"lyon": splits, "porto": plant("porto")}, params), params)
    assert outcome.candidates[outcome.chosen].predictions["split"].unique().to_list() == [
        "test" if empty == "validation" else "validation"
    ]


def test_a_plant_without_training_rows_ships_the_fleet_model(params):
    splits = plant()._replace(train=rows().clear())
    outcome = train_plant(splits, train_fleet({"lyon": splits, "porto": plant("porto")}, params), params)
    assert outcome.chosen == "fleet"
    assert "of 0 training rows" in outcome.candidates["plant"].report.notes[0]


def test_one_plant_is_no_fleet(params):
    assert train_fleet({"lyon": plant()}, params) is None


def test_a_fleet_is_trained_by_half_of_the_cores_that_a_container_may_use(params, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "cpu_count", lambda: 64)  # the host's
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "4")
    monkeypatch.setattr(training, "fit", lambda *args: asked.append(args[-1]) or estimators.fit(*args))
    how = params.parallel.model_copy(update={"jobs": -1})
    train_fleet({"lyon": plant(), "porto": plant("porto")}, params.model_copy(update={"parallel": how}))
    assert asked in ([1], [2])


def test_no_training_row_anywhere_is_an_error(params):
    with pytest.raises(UpkeepError, match="no plant has a training row"):
        train_fleet({"lyon": plant()._replace(train=rows().clear())}, params)


def test_the_f1_threshold_can_be_asked_for(params):
    how = params.model_copy(update={"model": params.model.model_copy(update={"threshold": "f1"})})
    own = train_plant(plant(), None, how).candidates["plant"]
    validation = own.predictions.filter(split="validation")
    found = (validation["label"] == 1) & validation["alarm"]
    assert 2 * found.sum() / (validation["label"].sum() + validation["alarm"].sum()) > 0.85
