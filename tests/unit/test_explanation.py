"""Reasons for single alarms and the ranking of features."""

from types import MappingProxyType

import numpy as np
import polars as pl
import pytest
from fleet_cases import START, dataset_params
from prediction_cases import HORIZON, machine

from upkeep.contract.dictionary import Column, call_columns
from upkeep.features.conditions import Conditions
from upkeep.features.definition import Feature, newest_features
from upkeep.features.inputs import Baseline, Events, Preparation, Quantity, Telemetry, Vocabulary
from upkeep.features.windows import HOUR
from upkeep.judging.episodes import pick_alarms
from upkeep.model.explanation import Explainer, MeanReading, rank_features, summarise_readings

PARAMS = dataset_params(windows_hours=[8])
NOW = int(START.timestamp()) * 1_000_000
NAMED = {"current_a": Quantity(name="motor current", unit="A")}
SEEN = MeanReading(reading=41.2, level=30.0, healthy=29.0, spread=4.0)


def feature(kind, of="current_a", hours=8):
    return Feature("any_name", kind, of, hours)


def preparation_of(baselines=MappingProxyType({}), **vocabulary):
    """Two operating conditions of one setting."""
    given = {
        "attributes": {"power": None, "hall": ["north", "south"]},
        "settings": ["load"],
        "widths": [1.0],
        "sensors": ["current_a"],
        "error_codes": [],
        **vocabulary,
    }
    return Preparation(
        vocabulary=Vocabulary(**{"maintenance_codes": [], "machine_models": ["VM-20", "HX-5"]} | given),
        conditions=Conditions(widths=[1.0], centres=[[0.0], [1.0]], levels=[[10.0], [40.0]], spreads=[[1.0], [2.0]]),
        baselines=dict(baselines),
        records={},
        quantities={"telemetry": NAMED, "machines": {"power": Quantity(name="rated power", unit="kW")}},
    )


EXPLAINER = Explainer(preparation_of(), PARAMS)


def find(features, contributions, values):
    explainer = Explainer(preparation_of(), PARAMS)
    explainer.features = features
    return explainer.find_reasons(np.array(values), np.array(contributions), np.array([]))


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("newest", 2.8, "motor current 41 A over the last 8 h, its healthy level is 29 A"),
        ("mean", 2.8, "motor current 41 A over the last 8 h, its healthy level is 29 A"),
        ("from_baseline", 3.05, "motor current 41 A over the last 8 h, its healthy level is 29 A"),
        ("std", 2.5, "motor current varied by 10.0 A over the last 8 h, usual is 4.0 A"),
        ("std", 1.0, "motor current varied by 4.0 A over the last 8 h"),
        ("max", 3.0, "motor current up to 13 A above its healthy level over the last 8 h"),
        ("max", -3.0, "motor current never less than 11 A below its healthy level over the last 8 h"),
        ("min", -3.0, "motor current up to 11 A below its healthy level over the last 8 h"),
        ("min", 3.0, "motor current never less than 13 A above its healthy level over the last 8 h"),
        ("slope", 0.125, "motor current rising by 0.50 A an hour over the last 8 h"),
        ("slope", -0.125, "motor current falling by 0.50 A an hour over the last 8 h"),
        ("slope", 0.0, "motor current steady over the last 8 h"),
        ("mean", np.nan, "motor current: no reading over the last 8 h"),
    ],
)
def test_a_reading_is_told_in_its_unit_beside_what_is_healthy(kind, value, words):
    assert EXPLAINER.describe(feature(kind), value, SEEN) == words


def test_the_newest_reading_is_of_no_window():
    words = EXPLAINER.describe(feature("newest", hours=0), 2.8, SEEN)
    assert words == "motor current 41 A at the newest reading, its healthy level is 29 A"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (
            MeanReading(0.04321, 0.04, 0.04, 0.002),
            "motor current 0.043 A over the last 8 h, its healthy level is 0.040 A",
        ),
        (
            MeanReading(1590.21, 1587, 1587.04, 0.8),
            "motor current 1,590.2 A over the last 8 h, its healthy level is 1,587.0 A",
        ),
        (MeanReading(41321, 4, 2100, 900), "motor current 41,321 A over the last 8 h, its healthy level is 2,100 A"),
    ],
)
def test_as_many_decimals_are_shown_as_the_spread_is_worth(seen, words):
    assert EXPLAINER.describe(feature("mean"), 1.6, seen) == words


@pytest.mark.parametrize(
    ("kind", "of", "value", "words"),
    [
        ("errors", "E3", 0, "no error (E3) in the last 48 h"),
        ("errors", "E3", 1, "1 error (E3) in the last 48 h"),
        ("errors", "E3", 4, "4 errors (E3) in the last 48 h"),
        ("since_maintenance", "scheduled", 30, "last maintenance (scheduled) 30 h ago"),
        ("since_maintenance", "scheduled", 1438.7, "last maintenance (scheduled) 60 days ago"),
        ("since_maintenance", "scheduled", np.nan, "no maintenance (scheduled) on record"),
        ("since_failure", "", 0.5, "last failure 30 min ago"),
        ("since_failure", "", 100, "last failure 4 days ago"),
        ("since_failure", "", np.nan, "no failure on record"),
        ("age", "", 17532, "the machine is 2.0 years old"),
        ("age", "", np.nan, "age not known"),
        ("model", "", 1, "machine model HX-5"),
        ("model", "", np.nan, "unknown machine model"),
        ("setting", "current_a", 12.5, "motor current: 12.5 A"),
        ("attribute", "power", 15, "rated power: 15.0 kW"),
        ("attribute", "hall", 1, "hall: south"),
        ("attribute", "hall", np.nan, "hall: not known"),
        ("of a new kind", "", np.nan, "any_name: not known"),
    ],
)
def test_counts_times_and_what_is_new_are_told_in_words(kind, of, value, words):
    assert EXPLAINER.describe(feature(kind, of, 48), value) == words


def test_without_readings_no_figure_is_made_up():
    assert EXPLAINER.describe(feature("mean"), 2.8) == "motor current unusual over the last 8 h"


def test_every_kind_of_feature_has_words_and_none_shows_a_name_of_ours():
    explainer = Explainer(preparation_of(error_codes=["E"], maintenance_codes=["oil"], inputs=["load"]), PARAMS)
    for known in explainer.features:
        for words in (explainer.name(known), explainer.describe(known, 0.0)):
            assert known.name not in words
            assert "_" not in words


def test_a_sensor_is_called_by_its_label_or_its_meaning_or_its_name_in_words():
    columns = {
        "current_a": Column(role="sensor", unit="A", label="motor current", meaning="Current of phase 1"),
        "t30": Column(role="sensor", unit="°R", meaning="Total temperature at the outlet"),
        "NOx": Column(role="sensor", meaning="NOx\n in the exhaust\n"),
        "wear_index": Column(role="sensor", meaning="As the vendor's software works it out" + " and so on" * 9),
    }
    assert call_columns(columns) == {
        "current_a": "motor current",
        "t30": "total temperature at the outlet",
        "NOx": "NOx in the exhaust",
        "wear_index": "wear index",
    }


def test_readings_are_the_true_means_whatever_the_settings_were_in_between():
    preparation = preparation_of({"m1": Baseline(start=NOW - 1000 * HOUR, levels=[0.5])})
    load = np.array([0.0] * 4 + [1.0] * 4)
    readings = np.array([14.0] * 4 + [47.0] * 3 + [np.nan])
    rows = Telemetry(["m1"], np.array([0, 8]), NOW + np.arange(8) * HOUR, load[:, None], readings[:, None])
    newest, window = summarise_readings(rows, preparation, PARAMS)[0, :, :, 0]
    assert window.tolist() == pytest.approx(
        MeanReading(
            reading=(4 * 14 + 3 * 47) / 7, level=(4 * 10 + 3 * 40) / 7, healthy=(4 * 10.5 + 3 * 41) / 7, spread=10 / 7
        )
    )
    assert np.isnan(newest).all()
    explainer = Explainer(preparation, PARAMS)
    values = newest_features(rows, Events(*np.empty((3, 0), dtype=np.int64)), {}, preparation, PARAMS)[0]
    shap = np.array([float(known.kind == "mean") for known in explainer.features])
    (reason,) = explainer.find_reasons(values, shap, np.stack([newest, window]))
    assert reason["words"] == "motor current 28 A over the last 8 h, its healthy level is 24 A"


def test_only_what_raises_the_probability_is_a_reason_and_the_strongest_comes_first():
    found = find([Feature(name, "any", name) for name in "abc"], [0.5, -2.0, 0.7, 9.0], [1.0, 2.0, np.nan])
    assert [(reason["feature"], reason["value"], reason["words"]) for reason in found] == [
        ("c", None, "c: not known"),
        ("a", 1.0, "a: 1.00"),
    ]
    assert found[0]["odds"] == pytest.approx(np.exp(found[0]["contribution"]))


def test_a_planner_reads_three_reasons_at_most_and_none_twice():
    features = [feature("mean"), feature("from_baseline"), *(Feature(name, "any", name) for name in "abc")]
    found = find(features, [5.0, 4.0, 3.0, 2.0, 1.0], [1.0] * 5)
    assert [reason["words"] for reason in found] == [
        "motor current unusual over the last 8 h",
        "a: 1.00",
        "b: 1.00",
    ]


def test_each_episode_is_picked_once_at_its_first_row_and_the_most_probable_come_first():
    rows = machine(alarms={3: 0.6, 4: 0.99, 20: 0.8, 35: 0.7})
    assert pick_alarms(rows, HORIZON, count=2)["probability"].to_list() == [0.8, 0.7]


def test_gains_of_several_boosters_are_shared_out():
    ranked = rank_features("lyon", ["a", "b"], ["A", "B"], [np.array([1.0, 0.0]), np.array([0.0, 3.0])])
    assert ranked.rows() == [("lyon", "b", "B", 0.75), ("lyon", "a", "A", 0.25)]


def test_boosters_that_never_split_rank_every_feature_at_zero():
    assert rank_features("lyon", ["b", "a"], ["B", "A"], [np.zeros(2)])["gain"].to_list() == [0.0, 0.0]
    assert rank_features("", [], [], []).schema["gain"] == pl.Float64
