"""Each kind of leak is found and named; clean splits pass."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from fleet_cases import telemetry
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from upkeep.core.errors import UpkeepError
from upkeep.features.leakage import (
    MIN_POSITIVES,
    check_leakage,
    check_no_feature_separates,
    fingerprint,
    single_feature_auc,
)

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


def find_leak(by="time", max_auc=0.999, **changes):
    """Return what is said of the splits, none if nothing leaks."""
    try:
        given = splits(**changes)
        check_leakage(
            {name: fingerprint(own, FEATURES) for name, own in given.items()}, timedelta(hours=4), by, readings=True
        )
        check_no_feature_separates(given["train"], FEATURES, max_auc)
    except UpkeepError as error:
        return str(error)
    return "none"


def test_clean_splits_pass_unless_they_were_meant_to_be_by_machine():
    assert find_leak() == "none"
    assert find_leak(by="machine").startswith("machines m1 are in both train and validation")


COPIED = splits()["train"].head(2).with_columns(pl.col("time") + timedelta(hours=170))
TELLING = splits()["train"].with_columns(b=-pl.col("label").cast(pl.Float64))


@pytest.mark.parametrize(
    ("changes", "leak"),
    [
        ({"validation": rows([99], seed=1)}, "1 rows are in both train and validation, first ('m1'"),
        ({"test": COPIED}, "2 rows of test have the very features of a row of train, first machine m1"),
        ({"validation": rows(range(102, 150), seed=1)}, "labels of train look until"),
        (
            {"train": TELLING},
            "the feature alone separates failing from healthy rows (ROC AUC 1.0000) [stage=dataset, col",
        ),
    ],
)
def test_a_leak_is_named(changes, leak):
    assert find_leak(**changes).startswith(leak)


def test_a_handful_of_failures_may_be_separated_by_chance():
    def telling(failures):
        label = [1] * failures + [0] * (100 - failures)
        noise = pl.int_range(100) * 1e-3  # else rows of other splits would have the very same features
        return rows(range(100)).with_columns(label=pl.Series(label, dtype=pl.UInt8), b=pl.Series(label) * 9.0 + noise)

    assert find_leak(train=telling(MIN_POSITIVES - 1)) == "none"
    assert "alone separates" in find_leak(train=telling(MIN_POSITIVES))


@pytest.mark.parametrize("by", ["time", "machine"])
def test_empty_splits_leak_nothing(by):
    assert find_leak(by, train=rows([]), validation=rows([]), test=rows([])) == "none"


def test_the_rows_of_a_machine_at_rest_are_no_copies_of_each_other():
    idle = [frame.with_columns(pl.lit(0.0).alias(name) for name in FEATURES) for frame in splits().values()]
    assert find_leak(max_auc=1.0, **dict(zip(splits(), idle, strict=True))) == "none"


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_the_auc_of_one_feature_equals_scikit_learns(pairs):
    values, label = np.array([v for v, _ in pairs], dtype=float), np.array([p for _, p in pairs])
    assume(not label.all() and label.any())
    expected = roc_auc_score(label, values)
    assert single_feature_auc(values, label) == pytest.approx(max(expected, 1 - expected))
