"""Whatever a plant calls its sensors and codes, each feature has a name of its own, and the same one every time."""

import polars as pl
import pytest
from fleet_cases import dataset_params
from hypothesis import given
from hypothesis import strategies as st

from upkeep.core.names import OWN_COLUMNS
from upkeep.features.conditions import Conditions
from upkeep.features.definition import feature_names
from upkeep.features.inputs import Preparation, Vocabulary
from upkeep.model.baselines import hours_in_service, recent_errors
from upkeep.model.explanation import Explainer

PARAMS = dataset_params(windows_hours=[8, 48])
NASTY = [
    *OWN_COLUMNS,
    *("age_hours", "model_code", "errors", "errors_E1", "errors_E1_8h", "hours_since", "hours_since_failure"),
    *("vibration", "vibration_mean_8h", "vibration_mean_8h_mean_8h", "weight_mean_8h", "vibration_from_baseline"),
    *("value", "failure", "hours_since_@failure@", "x@", "é", "a\nb_std_8h", "{0}", "", " "),
]
SENSORS = st.lists((st.sampled_from(NASTY) | st.text(max_size=8)).filter(lambda name: name[:1] != "@"), unique=True)
CODES = st.lists(st.sampled_from(["failure", "@failure@", "@failure", "E1", "E1_8h"]) | st.text(), unique=True)


def row_of_positions(names):
    """A row in which each feature has its position, counted from 1, as its value."""
    return pl.DataFrame(
        {name: [position] for position, name in enumerate(names, 1)}, schema_overrides=dict.fromkeys(names, pl.Float32)
    )


def vocabulary(sensors=(), errors=(), maintenance=()):
    return Vocabulary(
        settings=[], widths=[], sensors=sensors, error_codes=errors, maintenance_codes=maintenance, machine_models=[]
    )


def explainer_of(known):
    conditions = Conditions(widths=[], centres=[[]], levels=[[]], spreads=[[]])
    return Explainer(Preparation(vocabulary=known, conditions=conditions, baselines={}, records={}), PARAMS)


@given(SENSORS, CODES, CODES)
def test_no_two_features_share_a_name_and_none_has_a_column_of_ours(sensors, errors, maintenance):
    names = feature_names(vocabulary(sensors, errors, maintenance), PARAMS)
    assert len(names) == len({*names, *OWN_COLUMNS}) - len(OWN_COLUMNS)


@given(SENSORS, SENSORS)
def test_a_sensors_features_are_called_the_same_whatever_other_sensors_there_are(sensors, others):
    every = vocabulary(list(dict.fromkeys([*sensors, *others])))
    assert set(feature_names(vocabulary(sensors), PARAMS)) <= set(feature_names(every, PARAMS))


@pytest.mark.parametrize("sensor", ["vibration_mm_s", "pressure", "error", "mean_8h", "Druck (bar)", "labels"])
def test_a_name_that_nothing_can_be_taken_for_stays_as_it_is(sensor):
    assert f"{sensor}_mean_8h" in feature_names(vocabulary([sensor]), PARAMS)


@pytest.mark.parametrize(
    ("sensor", "feature"),
    [
        ("age_hours", "@age_hours@"),
        ("weight", "@weight@"),
        ("vibration_mean_8h", "@vibration_mean_8h@"),
        ("hours_since_start", "@hours_since_start@"),
        ("errors", "@errors@"),
    ],
)
def test_words_tell_a_sensor_from_what_its_name_looks_like(sensor, feature):
    explainer = explainer_of(vocabulary([sensor]))
    reading, *others = explainer.features
    assert reading.name == feature
    assert explainer.name(reading) == f"newest {sensor}"
    assert explainer.name(others[0]) == f"mean of {sensor} over 8 h"


def test_words_tell_codes_apart():
    explainer = explainer_of(vocabulary([], ["E_mean"], ["failure", "x_std_8h"]))
    assert [explainer.name(feature) for feature in explainer.features][:-2] == [
        "errors (E_mean) in 8 h",
        "errors (E_mean) in 48 h",
        "time since maintenance (failure)",
        "time since maintenance (x_std_8h)",
        "time since the last failure",
    ]


def test_simple_rules_rank_by_counters_only_not_by_sensors_that_look_like_one():
    names = feature_names(vocabulary(["errors_total", "hours_since_start"], ["a\nb"], ["failure"]), PARAMS)
    one_row = row_of_positions(names)
    counted = {name: index + 1.0 for index, name in enumerate(names) if name.startswith(("errors_", "hours_since_"))}
    assert recent_errors(one_row).tolist() == [counted["errors_a\nb_48h"]]
    assert hours_in_service(one_row).tolist() == [counted["hours_since_@failure@"]]
