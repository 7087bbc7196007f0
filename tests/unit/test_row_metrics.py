"""Row metrics held to scikit-learn's, and defined where those are not."""

import math

import numpy as np
import pytest
import sklearn.metrics
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


@given(both_classes)
def test_row_metrics_equal_those_of_scikit_learn(rows):
    label, probability = rows
    assert row_metrics.average_precision(*rows) == pytest.approx(sklearn.metrics.average_precision_score(*rows))
    assert row_metrics.roc_auc(*rows) == pytest.approx(sklearn.metrics.roc_auc_score(*rows))
    assert row_metrics.brier_score(*rows) == pytest.approx(sklearn.metrics.brier_score_loss(*rows))
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    assert row_metrics.log_loss(label, inside) == pytest.approx(sklearn.metrics.log_loss(label, inside))


@given(both_classes, st.floats(0, 1))
def test_recall_at_precision_is_the_best_over_all_thresholds(rows, least):
    precision, recall, _ = sklearn.metrics.precision_recall_curve(*rows)
    assert row_metrics.recall_at_precision(*rows, least) == pytest.approx(
        recall[:-1][precision[:-1] >= least].max(initial=0)
    )


@given(both_classes, st.floats(0, 1))
def test_alarm_quality_equals_scikit_learn_where_it_is_defined(rows, threshold):
    label, alarm = rows[0], rows[1] >= threshold
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        label, alarm, average="binary", zero_division=np.nan
    )
    found = row_metrics.alarm_quality(label, alarm)
    assert [found["precision"], found["recall"], found["f1"]] == pytest.approx([precision, recall, f1], nan_ok=True)


@given(both_classes)
def test_calibration_bins_hold_every_row_once(rows):
    label, probability = rows
    curve = row_metrics.calibration_curve(label, probability)
    assert curve["rows"].sum() == label.size
    assert (curve["rows"] * curve["observed"]).sum() == pytest.approx(label.sum())
    assert ((curve["predicted"] >= curve["lower"] - 1e-12) & (curve["predicted"] <= curve["upper"] + 1e-12)).all()


@pytest.mark.parametrize("label", [[], [False, False]])
def test_what_needs_a_positive_row_is_not_a_number_without_one(label):
    rows = np.array(label, bool), np.linspace(0, 1, len(label))
    assert math.isnan(row_metrics.average_precision(*rows))
    assert math.isnan(row_metrics.roc_auc(*rows))
    assert math.isnan(row_metrics.recall_at_precision(*rows, 0.8))
    assert math.isnan(row_metrics.alarm_quality(rows[0], rows[1] > 2)["f1"])


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
