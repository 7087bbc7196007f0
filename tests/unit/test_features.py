"""One definition of a feature, blind to the future and to what lies outside its windows."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from fleet_cases import at, dataset_params, events, machines, telemetry
from polars.testing import assert_frame_equal

from upkeep.features.definition import build_features, feature_names, fit_preparation, newest_features
from upkeep.features.inputs import Vocabulary, read_matrix, read_tables

PARAMS = dataset_params(windows_hours=[2, 6], baseline_hours=5)
VOCABULARY = Vocabulary(
    settings=["speed"],
    widths=[100.0],
    sensors=["heat", "hum"],
    error_codes=["E1", "E2"],
    maintenance_codes=["repair", "scheduled"],
    machine_models=["A", "B"],
)
HAPPENED = events(
    (3.5, "error", "E1"),
    (9, "error", "E1"),
    (9, "error", "E2"),
    (10, "error", "E9"),
    (12, "maintenance", "scheduled"),
    (20, "failure", "bearing"),
    (22, "maintenance", "repair"),
)
KNOWN = machines(("m1", "A", -100), ("m2", "C", None))


def record(hours=40, machine="m1", seed=0):
    rng = np.random.default_rng(seed)
    speed = np.where(np.arange(hours) % 7 < 3, 20.0, 80.0)
    heat = speed + rng.normal(size=hours)
    return telemetry(list(range(hours)), machine, speed=speed.tolist(), heat=heat.tolist())


def build(rows=None, happened=HAPPENED, known=KNOWN, history=None, params=PARAMS):
    rows = record() if rows is None else rows
    preparation = fit_preparation(
        rows if history is None else history, rows if history is None else history, VOCABULARY, params
    )
    return build_features(rows, happened, known, preparation, params)


def test_a_feature_is_named_after_its_sensor_statistic_and_window():
    names = build().columns
    assert names[:5] == ["plant", "machine", "time", "heat", "hum"]
    assert {"heat_mean_2h", "heat_slope_6h", "heat_from_baseline_6h", "errors_E2_6h", "hours_since_repair"} <= set(
        names
    )
    assert len(names) == len(set(names))


def test_errors_are_counted_per_code_in_the_window_with_the_row_itself():
    features = build()
    assert features["errors_E1_6h"].to_list()[2:16] == [0, 0, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 0]
    assert features["errors_E2_2h"].to_list()[8:12] == [0, 1, 1, 0]


def test_hours_count_from_the_last_maintenance_of_each_kind_and_the_last_failure():
    features = build()
    assert np.isnan(features["hours_since_scheduled"][11])
    assert features["hours_since_scheduled"][12] == 0
    assert features["hours_since_repair"][30] == 8
    assert features["hours_since_failure"][30] == 10


def test_age_counts_from_installation_and_is_not_known_without():
    both = pl.concat([record(), record(machine="m2", seed=1)])
    ages = build(both).group_by("machine", maintain_order=True).agg(pl.col("age_hours").first())
    assert ages["age_hours"][0] == 100
    assert np.isnan(ages["age_hours"][1])


def test_an_unknown_machine_model_has_no_code():
    both = pl.concat([record(), record(machine="m2", seed=1)])
    codes = dict(build(both).group_by("machine").agg(pl.col("model_code").first()).iter_rows())
    assert codes["m1"] == 0
    assert np.isnan(codes["m2"])


def test_a_column_that_is_text_in_this_plant_is_no_sensor_of_its():
    np.testing.assert_array_equal(read_matrix(pl.DataFrame({"oil": ["half full", "3"]}), ["oil"]), [[np.nan], [np.nan]])


def test_a_sensor_that_a_plant_lacks_is_nan_throughout():
    features = build()
    lacked = [name for name in features.columns if name.startswith("hum")]
    assert lacked
    assert all(features[name].is_nan().all() for name in lacked)


def test_the_baseline_settles_after_the_first_hours():
    features = build()
    scaled = features["heat"].to_numpy()
    distance = features["heat_mean_2h"].to_numpy() - features["heat_from_baseline_2h"].to_numpy()
    assert distance[2] == pytest.approx(scaled[:3].mean(), rel=1e-5)
    np.testing.assert_allclose(distance[5:], scaled[:5].mean(), rtol=1e-4)


def test_changing_the_future_changes_no_feature_of_the_past():
    rows = record()
    cut = 25
    preparation = fit_preparation(rows.head(cut), rows, VOCABULARY, PARAMS)
    later = rows.with_columns(heat=pl.when(pl.col("time") >= at(cut)).then(999.0).otherwise("heat"))
    changed = fit_preparation(later.head(cut), later, VOCABULARY, PARAMS)
    happened = pl.concat([HAPPENED, events((26, "error", "E1"), (27, "failure", "x"), (28, "maintenance", "repair"))])
    before = build_features(rows, HAPPENED, KNOWN, preparation, PARAMS).head(cut)
    after = build_features(later, happened, KNOWN, changed, PARAMS).head(cut)
    assert_frame_equal(before, after, check_exact=True)


def test_the_newest_features_have_the_bits_of_each_machines_last_row():
    rows = pl.concat([record(), record(30, machine="m2", seed=1), record(3, machine="m3", seed=2)])
    preparation = fit_preparation(rows, rows.filter(pl.col("machine") != "m3"), VOCABULARY, PARAMS)
    whole = build_features(rows, HAPPENED, KNOWN, preparation, PARAMS).group_by("machine", maintain_order=True).last()
    newest = newest_features(*read_tables(rows, HAPPENED, KNOWN, VOCABULARY), preparation, PARAMS)
    names = feature_names(VOCABULARY, PARAMS)
    np.testing.assert_array_equal(newest, whole.select(names).to_numpy())


def test_the_last_hours_alone_give_the_same_bits_as_the_whole_history():
    rows = pl.concat([record(), record(machine="m2", seed=1)])
    preparation = fit_preparation(rows, rows, VOCABULARY, PARAMS)
    whole = build_features(rows, HAPPENED, KNOWN, preparation, PARAMS).filter(pl.col("time") == at(39))
    recent = rows.filter(pl.col("time") > at(39) - timedelta(hours=6)).reverse()
    alone = build_features(recent, HAPPENED, KNOWN, preparation, PARAMS).filter(pl.col("time") == at(39))
    assert_frame_equal(whole, alone, check_exact=True)


def test_the_bits_do_not_depend_on_which_other_machines_are_there():
    rows = pl.concat([record(), record(machine="m2", seed=1)])
    preparation = fit_preparation(rows, rows, VOCABULARY, PARAMS)
    together = build_features(rows, HAPPENED, KNOWN, preparation, PARAMS).filter(machine="m2")
    alone = build_features(rows.filter(machine="m2"), HAPPENED, KNOWN, preparation, PARAMS)
    assert_frame_equal(together, alone, check_exact=True)


def test_a_saved_preparation_gives_the_same_bits():
    rows = record()
    preparation = fit_preparation(rows, rows, VOCABULARY, PARAMS)
    again = type(preparation).model_validate_json(preparation.model_dump_json())
    assert_frame_equal(
        build_features(rows, HAPPENED, KNOWN, preparation, PARAMS),
        build_features(rows, HAPPENED, KNOWN, again, PARAMS),
        check_exact=True,
    )


def test_no_rows_and_one_row_are_answered():
    assert build(record().head(0), history=record()).is_empty()
    one = build(record().head(1), history=record())
    assert one["heat_mean_2h"][0] == one["heat"][0]
    assert np.isnan(one["heat_std_2h"][0])


def test_a_dead_sensor_is_answered_with_nan_and_never_with_null():
    dead = build(record().with_columns(heat=pl.lit(None, pl.Float64)), history=record())
    assert all(dead[name].is_nan().all() for name in dead.columns if name.startswith("heat"))
    assert dead.null_count().sum_horizontal().item() == 0


def test_without_training_rows_readings_are_taken_as_they_are():
    rows = record()
    preparation = fit_preparation(rows.head(0), rows, VOCABULARY, PARAMS)
    features = build_features(rows, HAPPENED, KNOWN, preparation, PARAMS)
    assert features["heat"].to_list() == rows["heat"].cast(pl.Float32).to_list()


def test_a_setting_that_is_an_input_and_what_is_on_record_of_a_machine_are_features():
    vocabulary = VOCABULARY.model_copy(
        update={"inputs": ["speed"], "attributes": {"power": None, "hall": ["east", "west"]}}
    )
    rows = pl.concat([record(), record(machine="m2"), record(machine="m3")])
    known = pl.concat([KNOWN, machines(("m3", "A", 0))]).with_columns(
        power=pl.Series([5.5, None, 7.0]), hall=pl.Series(["west", "roof", "east"])
    )
    preparation = fit_preparation(rows, rows, vocabulary, PARAMS)
    built = build_features(rows, HAPPENED, known, preparation, PARAMS)
    newest = built.group_by("machine", maintain_order=True).last()
    assert built["setting_speed"].to_list() == rows["speed"].to_list()
    assert newest["attribute_power"].to_list() == pytest.approx([5.5, np.nan, 7.0], nan_ok=True)
    assert newest["attribute_hall"].to_list() == pytest.approx([1.0, np.nan, 0.0], nan_ok=True)
    scored = newest_features(*read_tables(rows, HAPPENED, known, vocabulary), preparation, PARAMS)
    names = feature_names(vocabulary, PARAMS)
    np.testing.assert_array_equal(scored, newest.select(names).to_numpy())
