"""Each kind of leak is found and named; clean splits pass."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from fleet_cases import telemetry
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from upkeep.core.errors import UpkeepError
from upkeep.features.leakage import MIN_POSITIVES, check_leakage, single_feature_auc

FEATURES = ["a", "b"]


def rows(hours, machine="m1", seed=0):
    rng = np.random.default_rng(seed)
    n = len(hours)
    frame = telemetry(list(hours), machine, a=rng.normal(size=n).tolist(), b=rng.normal(size=n).tolist())
    return frame.with_columns(label=pl.Series(rng.random(n) < 0.5).cast(pl.UInt8))


def splits(**changes):
    return {
        "train": rows(range(100)),
        "validation": rows(range(110, 150), seed=1),
        "test": rows(range(160, 200), seed=2),
    } | changes


def check(by="time", **changes):
    check_leakage(splits(**changes), FEATURES, timedelta(hours=4), by, 0.999)


def test_clean_splits_pass():
    check()
    with pytest.raises(UpkeepError):  # the same splits, were they meant to be by machine
        check(by="machine")


def test_a_machine_hour_in_two_splits_is_named():
    with pytest.raises(UpkeepError, match=r"1 rows are in both train and validation.*m1"):
        check(validation=rows([99], seed=1))


def test_identical_features_in_two_splits_are_named():
    copied = splits()["train"].head(2).with_columns(pl.col("time") + timedelta(hours=170))
    with pytest.raises(UpkeepError, match="2 rows of test have the very features of a row of train, first machine m1"):
        check(test=copied)


def test_a_label_window_that_crosses_a_boundary_is_named():
    with pytest.raises(UpkeepError, match="labels of train look until"):
        check(validation=rows(range(102, 150), seed=1))


def test_a_feature_that_alone_tells_the_classes_apart_is_named():
    train = splits()["train"].with_columns(b=-pl.col("label").cast(pl.Float64))
    with pytest.raises(UpkeepError, match="alone separates") as raised:
        check(train=train)
    assert raised.value.where["column"] == "b"


def test_a_handful_of_failures_may_be_separated_by_chance():
    def telling(failures):
        label = [1] * failures + [0] * (100 - failures)
        noise = pl.int_range(100) * 1e-3  # else rows of other splits would have the very same features
        return rows(range(100)).with_columns(label=pl.Series(label, dtype=pl.UInt8), b=pl.Series(label) * 9.0 + noise)

    check(train=telling(MIN_POSITIVES - 1))
    with pytest.raises(UpkeepError, match="alone separates"):
        check(train=telling(MIN_POSITIVES))


@pytest.mark.parametrize("by", ["time", "machine"])
def test_empty_splits_leak_nothing(by):
    check(by, train=rows([]), validation=rows([]), test=rows([]))


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_the_auc_of_one_feature_equals_scikit_learns(pairs):
    values, label = np.array([v for v, _ in pairs], dtype=float), np.array([p for _, p in pairs])
    if label.all() or not label.any():
        return
    expected = roc_auc_score(label, values)
    assert single_feature_auc(values, label) == pytest.approx(max(expected, 1 - expected))


def test_the_rows_of_a_machine_at_rest_are_no_copies_of_each_other():
    idle = {
        split: frame.with_columns(pl.lit(0.0).alias(name) for name in FEATURES) for split, frame in splits().items()
    }
    check_leakage(idle, FEATURES, timedelta(hours=4), "time", 1.0)
