import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upkeep.judging.drift import measure_distance
from upkeep.model.storage import TrainingRange
from upkeep.production.logged_drift import (
    BINS,
    FEWEST_VALUES,
    Bins,
    compare_logged,
    count_values,
    measure_distances,
    place_bins,
)


def seen(values):
    low, high = (float(np.quantile(values, at)) for at in (0.01, 0.99))
    return TrainingRange(minimum=float(values.min()), low=low, high=high, maximum=float(values.max()))


def log(features, probability=0.2):
    rows = pl.DataFrame({"features": features.tolist()}, schema={"features": pl.List(pl.Float32)})
    return rows.with_columns(probability=pl.lit(probability))


def compare(logged, training):
    ranges = {name: seen(training[name].drop_nulls().to_numpy()) for name in training.columns}
    judged = pl.DataFrame({"probability": [0.2] * 500})
    return compare_logged(logged, [training.with_columns(weight=pl.lit(1.0))], judged, ranges)


@given(st.integers(0, 2**32), st.floats(-2, 2), st.floats(0.5, 2))
def test_the_distance_is_that_of_the_rows_but_for_a_bin(seed, shift, scale):
    rng = np.random.default_rng(seed)
    reference, current = rng.normal(size=2_000), rng.normal(shift, scale, 500)
    bins = Bins(np.array([-10.0]), np.array([20 / BINS]))
    counts = [count_values([(values[:, None].astype(np.float32), None)], bins) for values in (current, reference)]
    exact = measure_distance(current, reference)
    assert measure_distances(*counts, bins)[0] == pytest.approx(exact, abs=20 / BINS)


def test_files_in_another_order_or_cut_otherwise_count_the_same():
    values = np.random.default_rng(1).normal(size=(20_000, 2)).astype(np.float32)
    values[::7, 1] = np.nan
    bins = place_bins({"a": seen(values[:, 0])})
    whole = count_values([(values, None)], bins)
    parts = np.array_split(values, 5)[::-1]
    assert np.array_equal(whole, count_values([(part, None) for part in parts], bins))
    assert whole.sum(axis=1).tolist() == [20_000, np.isfinite(values[:, 1]).sum()]


def test_a_row_that_weighs_three_counts_as_three_rows():
    values = np.random.default_rng(2).normal(size=(100, 1)).astype(np.float32)
    bins = Bins(np.array([-5.0]), np.array([10 / BINS]))
    thrice = count_values([(np.repeat(values, 3, axis=0), None)], bins)
    assert np.array_equal(thrice, count_values([(values, np.full(100, 3.0))], bins))


def test_only_the_feature_that_moved_has_drifted_and_so_has_the_answer():
    rng = np.random.default_rng(3)
    training = pl.DataFrame(rng.normal(size=(20_000, 2)), schema=["still", "moved"])
    asked = rng.normal([0, 0.5], size=(20_000, 2))
    found = compare([log(part, probability=0.4) for part in np.array_split(asked, 3)], training)
    assert [name for name, column in found.items() if column.drifted] == ["moved", "probability"]
    assert found["moved"].score == pytest.approx(0.5, abs=0.05)


def test_values_far_outside_and_other_than_the_one_known_are_drift():
    training = pl.DataFrame({"wild": np.linspace(0, 1, 5_000), "constant": np.full(5_000, 7.0)})
    found = compare([log(np.tile([1e9, 8.0], (5_000, 1)))], training)
    assert found["wild"].drifted
    assert found["constant"].drifted


@pytest.mark.parametrize("rows", [[], [log(np.zeros((FEWEST_VALUES - 1, 1)))], [log(np.zeros((500, 3)))]])
def test_too_few_rows_and_those_of_a_model_with_other_features_are_not_judged(rows):
    found = compare(rows, pl.DataFrame({"a": np.linspace(0, 1, 500)}))
    assert (found["a"].score, found["a"].threshold, found["a"].drifted) == (None, None, False)
