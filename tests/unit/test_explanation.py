"""Reasons for single alarms and the ranking of features."""

import numpy as np
import polars as pl
import pytest
from prediction_cases import HORIZON, machine

from upkeep.judging.episodes import pick_alarms
from upkeep.model.explanation import describe_feature, find_reasons, rank_features


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ("vibration_mm_s", "vibration_mm_s"),
        ("vibration_mm_s_mean_8h", "mean of vibration_mm_s over 8 h"),
        ("vibration_mm_s_from_baseline_48h", "vibration_mm_s over 48 h against the machine's own healthy level"),
        ("errors_E1_48h", "errors E1 in 48 h"),
        ("hours_since_failure", "time since the last failure"),
        ("hours_since_scheduled", "time since maintenance (scheduled)"),
    ],
)
def test_a_feature_is_told_in_words(feature, words):
    assert describe_feature(feature) == words


def test_sensors_are_called_what_planners_call_them():
    labels = {"vibration_mm_s": "vibration"}
    assert describe_feature("vibration_mm_s_mean_8h", labels) == "mean of vibration over 8 h"
    (reason,) = find_reasons(["vibration_mm_s"], np.array([1.0]), np.array([1.0]), labels)
    assert reason["words"].startswith("vibration is 1 times its usual spread above normal")


def test_only_what_raises_the_probability_is_a_reason_and_the_strongest_comes_first():
    reasons = find_reasons(["a", "b", "c"], np.array([1.0, 2.0, np.nan]), np.array([0.1, -2.0, 0.7, 9.0]))
    assert [reason["feature"] for reason in reasons] == ["c", "a"]
    assert reasons[0]["value"] is None
    assert reasons[0]["words"] == "c is not known: the odds of failing times 2"


@pytest.mark.parametrize(
    ("feature", "value", "words"),
    [
        ("heat", -1.25, "heat is 1.2 times its usual spread below normal"),
        ("heat_mean_8h", 3, "mean of heat over 8 h is 3 times its usual spread above normal"),
        ("heat_std_8h", 2.5, "spread of heat over 8 h is 2.5 times normal"),
        ("heat_slope_8h", 0.12, "trend of heat over 8 h is +0.12 times its usual spread an hour"),
        (
            "heat_from_baseline_8h",
            -3,
            "heat over 8 h against the machine's own healthy level is 3 times its usual spread lower",
        ),
        ("errors_E1_48h", 2, "errors E1 in 48 h is 2"),
        ("hours_since_scheduled", 1275.6, "time since maintenance (scheduled) is 1276 h"),
        ("age_hours", 17532, "age is 2.0 years"),
    ],
)
def test_a_reason_gives_its_value_with_its_unit(feature, value, words):
    (reason,) = find_reasons([feature], np.array([value]), np.array([1.0]))
    assert reason["words"] == f"{words}: the odds of failing times 2.7"


def test_no_more_reasons_than_a_planner_reads():
    assert len(find_reasons(list("abcde"), np.ones(5), np.ones(5))) == 3


def test_each_episode_is_picked_once_at_its_first_row_and_the_most_probable_come_first():
    rows = machine(alarms={3: 0.6, 4: 0.99, 20: 0.8, 35: 0.7})
    assert pick_alarms(rows, HORIZON, count=2)["probability"].to_list() == [0.8, 0.7]


def test_gains_of_several_boosters_are_shared_out():
    ranked = rank_features(["a", "b"], [np.array([1.0, 0.0]), np.array([0.0, 3.0])])
    assert ranked.rows() == [("b", 0.75), ("a", 0.25)]


def test_boosters_that_never_split_rank_every_feature_at_zero():
    assert rank_features(["b", "a"], [np.zeros(2)])["gain"].to_list() == [0.0, 0.0]
    assert rank_features([], []).schema == {"feature": pl.String, "gain": pl.Float64}
