"""What is asked of models and answered, beside what they learnt from; and a sample of a log of any size."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from parameters import SHIPPED

from upkeep.judging.drift import Window
from upkeep.production.logged_drift import ANSWERS, TrainingValues, draw_rows, find_usual, judge_plant, sample_log
from upkeep.scoring.prediction_log import SCHEMA, write_part

MONDAY, WEEK = datetime(2025, 1, 6, tzinfo=UTC), timedelta(weeks=1)
WINDOW = Window(MONDAY, MONDAY + 2 * WEEK)
USUAL = np.random.default_rng(1).normal(size=2_000)


def judge(values, usual=USUAL, weeks=10):
    """Judge answers beside those of a reference that is spread over several weeks, by two weeks of it."""
    times = [MONDAY + weeks * WEEK * row / len(usual) for row in range(len(usual))]
    known = find_usual(pl.Series(usual, dtype=pl.Float64), pl.Series(times, dtype=pl.Datetime("us", "UTC")), WINDOW)
    answers = pl.Series("probability", values, dtype=pl.Float64, strict=False)
    return judge_plant("lyon", ("live", [TrainingValues(ANSWERS, None, *known)]), answers.to_frame())


def draw(mean, rows=2_000):
    return np.random.default_rng(2).normal(mean, size=rows)


def test_a_distance_is_in_standard_deviations_and_drift_begins_a_tenth_of_one_away_at_least():
    signal = judge(draw(0.5))
    assert (signal.status, signal.words) == ("watch", "unlike what its live model learnt from: its answers")
    assert signal.value == pytest.approx(0.5, abs=0.05)
    assert 0.1 <= signal.limit < 0.3
    assert judge(draw(0)).status == "fine"


@pytest.mark.parametrize("weeks", [10, 3])  # of three, two leave no rest that would tell anything
def test_what_training_rows_have_seen_happen_is_no_drift(weeks):
    rows = USUAL.copy()
    rows[800:1_200] += 3
    assert judge(draw(1), rows, weeks).status == "fine"
    assert judge(draw(9), rows, weeks).status == "watch"


def test_few_predictions_have_to_be_farther_away_than_many():
    assert judge(draw(0.4)).status == "watch"
    assert judge(draw(0.4, rows=30)).status == "fine"


@pytest.mark.parametrize(
    ("values", "usual"), [([], USUAL), (draw(9, rows=29), USUAL), ([None, float("nan")] * 99, USUAL), (USUAL, [])]
)
def test_too_few_values_are_not_judged(values, usual):
    signal = judge(values, usual)
    assert (signal.status, signal.remedy, signal.value) == ("unknown", "run `upkeep score`", None)


def test_training_rows_of_a_single_instant_have_nothing_usual_about_them():
    assert judge(draw(0.05), weeks=0).limit == pytest.approx(0.1)


def test_a_sensor_has_moved_once_most_of_what_is_made_of_it_has():
    usual = [
        TrainingValues(sensor, place, USUAL, 0.1) for place, sensor in enumerate(["heat", "heat", "noise", "noise"])
    ]
    rows = pl.DataFrame(
        {"features": np.column_stack([draw(9), draw(0), draw(9), draw(9)])}, {"features": pl.List(float)}
    )
    assert judge_plant("lyon", ("live", usual), rows).words == "unlike what its live model learnt from: noise"


def test_rows_are_drawn_as_often_as_their_weights_ask_for():
    rows = pl.DataFrame({"weight": [1.0, 3.0], "name": ["rare", "usual"]})
    assert 1_350 < draw_rows(rows, SHIPPED.drift)["name"].to_list().count("usual") < 1_650
    assert draw_rows(rows.clear(), SHIPPED.drift).is_empty()


def log(url, rows, **columns):
    """Log rows of machines at a scoring each."""
    said = {"plant": "lyon", "model_version": "live", "source": "batch", "warnings": [], "alarm": False}
    said |= {"probability": 0.1, "threshold": 0.5, "scored_at": MONDAY, "time": MONDAY} | columns
    frame = pl.DataFrame([{**said, "machine": f"M{row}"} for row in rows], schema=SCHEMA)
    write_part(str(url), f"part-{rows[0]}", frame)


def sample(url, most=1_000):
    return sample_log(str(url), {"lyon": "live"}, WINDOW, most).get("lyon", SCHEMA.to_frame())["machine"].to_list()


def test_however_the_log_is_cut_into_files_the_same_rows_are_drawn(tmp_path):
    log(tmp_path / "whole", range(300))
    for first in (200, 0, 100):
        log(tmp_path / "parts", range(first, first + 100))
    found = sample(tmp_path / "whole", 50)
    assert len(set(found)) == 50
    assert sorted(sample(tmp_path / "parts", 50)) == sorted(found)


@pytest.mark.parametrize(
    "column",
    [
        {"role": "challenger"},
        {"source": "smoke"},
        {"model_version": "older"},
        {"plant": "porto"},
        {"scored_at": MONDAY - timedelta(seconds=1)},
        {"scored_at": WINDOW.end},
    ],
)
def test_what_people_were_not_shown_lately_by_the_live_model_is_left_out(tmp_path, column):
    log(tmp_path, [1])
    log(tmp_path, [2], **column)
    assert sample(tmp_path) == ["M1"]
