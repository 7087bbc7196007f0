"""Row metrics: what they were before scikit-learn computed them, and not a number where they are not defined."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upkeep.judging import metrics as row_metrics
from upkeep.judging.resampling import draw_machines, interval, resample_average_precision

TIED = st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]) | st.floats(0, 1)
both_classes = (
    st.lists(st.tuples(st.booleans(), TIED), min_size=2, max_size=60)
    .map(lambda rows: (np.array([label for label, _ in rows]), np.array([value for _, value in rows])))
    .filter(lambda rows: 0 < rows[0].sum() < rows[0].size)
)


LABEL = np.array([0, 1, 0, 1, 1, 0, 0, 1], bool)
PROBABILITY = np.array([0.1, 0.9, 0.4, 0.4, 0.7, 0.0, 0.8, 0.2])
NOT_DEFINED = math.nan


def figures(label, probability, least_precision=0.6):
    return row_metrics.judge_rows(label, probability, probability >= 0.5, least_precision)


def test_figures_that_reports_have_always_stated_stay_what_they_are():
    assert figures(LABEL, PROBABILITY) == pytest.approx(
        {
            "average_precision": 0.733333333333,
            "roc_auc": 0.71875,
            "brier": 0.23875,
            "log_loss": 0.651673519470,
            "recall_at_precision": 1.0,
            "precision": 2 / 3,
            "recall": 1 / 2,
            "f1": 4 / 7,
        },
        abs=1e-9,
    )
    assert figures(LABEL, PROBABILITY, 0.7)["recall_at_precision"] == 0.25


@given(both_classes)
def test_a_curve_has_a_point_for_each_probability_at_which_recall_rises(rows):
    label, probability = rows
    at = np.unique(probability[label])[::-1]
    raised = probability >= at[:, None]
    found = (raised & label).sum(axis=1)
    for values, expected in zip(
        row_metrics.precision_recall(*rows), (at, found / raised.sum(axis=1), found / label.sum()), strict=True
    ):
        assert values == pytest.approx(expected)


def test_certainty_that_was_wrong_costs_much_but_not_infinitely_much():
    assert figures(np.array([False, True]), np.array([1.0, 0.0]))["log_loss"] == pytest.approx(34.539, abs=1e-3)


@pytest.mark.parametrize(
    ("label", "alarm", "expected"),
    [
        ([0, 1, 1, 1], [1, 1, 0, 0], (1 / 2, 1 / 3, 2 / 5)),
        ([0, 1], [0, 0], (NOT_DEFINED, 0, 0)),
        ([1, 1], [1, 0], (NOT_DEFINED, NOT_DEFINED, NOT_DEFINED)),
        ([0, 0], [1, 0], (NOT_DEFINED, NOT_DEFINED, NOT_DEFINED)),
        ([0, 0], [0, 0], (NOT_DEFINED, NOT_DEFINED, NOT_DEFINED)),
        ([], [], (NOT_DEFINED, NOT_DEFINED, NOT_DEFINED)),
    ],
)
def test_alarms_are_judged_on_rows_of_both_classes_and_precision_needs_an_alarm(label, alarm, expected):
    found = row_metrics.alarm_quality(np.array(label, bool), np.array(alarm, bool))
    assert tuple(found.values()) == pytest.approx(expected, nan_ok=True)


@given(both_classes)
def test_calibration_bins_hold_every_row_once(rows):
    label, probability = rows
    curve = row_metrics.calibration_curve(label, probability)
    assert curve["rows"].sum() == label.size
    assert (curve["rows"] * curve["observed"]).sum() == pytest.approx(label.sum())
    assert ((curve["predicted"] >= curve["lower"] - 1e-12) & (curve["predicted"] <= curve["upper"] + 1e-12)).all()


@pytest.mark.parametrize("label", [[], [False, False], [True, True]])
def test_rows_of_one_class_have_no_figure_that_tells_classes_apart(label):
    rows = np.array(label, bool), np.linspace(0, 1, len(label))
    assert list(figures(*rows)) == list(figures(LABEL, PROBABILITY))
    assert all(map(math.isnan, [*figures(*rows).values(), row_metrics.average_precision(*rows)]))


@given(both_classes, st.integers(0, 10))
def test_counting_a_machine_twice_equals_concatenating_its_rows_twice(rows, seed):
    label, probability = rows
    machine = np.arange(label.size) % 4
    multiplicity = draw_machines(4, 3, seed)
    found = resample_average_precision(label, probability, machine, multiplicity)
    for counts, area in zip(multiplicity.T.astype(int), found, strict=True):
        drawn = np.repeat(np.arange(label.size), counts[machine])
        assert area == pytest.approx(row_metrics.average_precision(label[drawn], probability[drawn]), nan_ok=True)


def test_resampling_in_blocks_changes_nothing(monkeypatch):
    label, probability = np.arange(50) % 3 == 0, np.linspace(0, 1, 50) % 0.37
    arguments = label, probability, np.arange(50) % 5, draw_machines(5, 20, seed=1)
    whole = resample_average_precision(*arguments)
    monkeypatch.setattr("upkeep.judging.resampling.MAX_CELLS", 64)
    assert (resample_average_precision(*arguments) == whole).all()


def test_each_resample_draws_as_many_machines_as_there_are():
    multiplicity = draw_machines(7, 30, seed=3)
    assert multiplicity.shape == (7, 30)
    assert (multiplicity.sum(axis=0) == 7).all()


def test_one_machine_has_no_interval():
    assert draw_machines(1, 30, seed=3).shape == (1, 0)
    assert interval(np.array([]), 0.9) is None


def test_an_interval_leaves_out_resamples_without_a_failure():
    assert interval(np.array([np.nan, 0.0, 1.0, np.nan]), 0.8) == pytest.approx([0.1, 0.9])
