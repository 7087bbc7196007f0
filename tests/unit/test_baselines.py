import math

import numpy as np
import polars as pl
import pytest
from sklearn import metrics

from upkeep.model.baselines import RANKINGS, find_best_feature, fit_baseline, hours_in_service, recent_errors
from upkeep.model.calibration import logistic, prior_log_odds

NAN = math.nan


def prior_share(train):
    return logistic(prior_log_odds(train["label"].to_numpy(), train["weight"].to_numpy()))


def training(n_rows=400, **features):
    """Rows of which the second half precedes a failure."""
    label = [0] * (n_rows // 2) + [1] * (n_rows // 2)
    return pl.DataFrame({"label": pl.Series(label, dtype=pl.UInt8), "weight": [1.0] * n_rows, **features})


def test_hours_in_service_start_at_whichever_came_last():
    rows = pl.DataFrame({"hours_since_scheduled": [30.0, NAN], "hours_since_failure": [70.0, 5.0], "age_hours": 900.0})
    assert hours_in_service(rows).tolist() == [30.0, 5.0]


def test_a_machine_never_maintained_is_in_service_since_it_was_installed():
    rows = pl.DataFrame({"hours_since_failure": [NAN, None], "age_hours": [900.0, NAN]}, strict=False)
    assert hours_in_service(rows).tolist() == [900.0, 0.0]


def test_a_machine_installed_after_its_first_reading_leaves_the_baseline_a_number():
    train = training(400, age_hours=np.linspace(-500, 500, 400))
    assert np.isfinite(fit_baseline(RANKINGS["fixed_interval"], [train])(train)).all()


def test_recent_errors_are_those_of_all_codes_in_the_largest_window():
    rows = pl.DataFrame({"errors_E1_8h": [9.0], "errors_E1_48h": [2.0], "errors_E2_48h": [3.0]})
    assert recent_errors(rows).tolist() == [5.0]


@pytest.mark.parametrize("name", RANKINGS)
def test_a_plant_without_events_gets_the_class_prior(name):
    train = training(400)
    assert logistic(fit_baseline(RANKINGS[name], [train])(train.head(3))) == pytest.approx([prior_share(train)] * 3)


@pytest.mark.parametrize(
    ("name", "column"), [("fixed_interval", "hours_since_failure"), ("error_count", "errors_E1_48h")]
)
def test_risk_rises_with_what_the_baseline_ranks_by(name, column):
    train = training(400, **{column: np.concatenate([np.linspace(0, 8, 200), np.linspace(2, 10, 200)])})
    log_odds = fit_baseline(RANKINGS[name], [train])(train.sort(column))
    assert np.all(np.diff(log_odds) >= 0)
    assert logistic(log_odds[[0, -1]]) == pytest.approx([0, 1], abs=0.3)
    assert logistic(log_odds).mean() == pytest.approx(0.5, abs=0.01)


def test_the_prior_counts_weights_and_is_never_zero():
    healthy = pl.DataFrame({"label": [0] * 3, "weight": [4.0] * 3})
    assert prior_share(healthy) == pytest.approx(1 / 14, rel=1e-5)
    assert prior_share(training(100).with_columns(weight=pl.lit(4.0))) == pytest.approx(201 / 402)


@pytest.mark.parametrize("name", RANKINGS)
def test_no_rows_at_all_are_scored_without_a_crash(name):
    empty = training(400, age_hours=1.0).clear()
    assert fit_baseline(RANKINGS[name], [empty])(empty).shape == (0,)


@pytest.mark.parametrize(("sign", "rises"), [(1, True), (-1, False)])
def test_the_best_rule_is_the_feature_that_alone_ranks_best_upwards_or_downwards(sign, rises):
    noise = np.random.default_rng(1).normal(size=400)
    wear = sign * (np.repeat([0.0, 1.0], 200) + 0.3 * noise)
    train = training(400, noise=noise, wear=wear, silent=[None] * 400)
    rule = find_best_feature(train.select, ["noise", "wear", "silent"])
    assert (rule.feature, rule.rises) == ("wear", rises)
    log_odds = fit_baseline(rule.rank, [train])(train)
    assert log_odds[200:].mean() > log_odds[:200].mean()


def test_the_best_rule_has_the_average_precision_that_scikit_learn_finds_highest_ties_included():
    for seed in range(20):
        draw = np.random.default_rng(seed)
        train = training(60, **{f"of {steps}": draw.integers(0, steps, 60) / steps for steps in (2, 3, 9, 60)})
        label = train["label"].to_numpy()
        areas = {
            (name, rises): metrics.average_precision_score(label, train[name].to_numpy() * (1 if rises else -1))
            for name in train.columns
            if name.startswith("of ")
            for rises in (True, False)
        }
        found = find_best_feature(train.select, [name for name in train.columns if name.startswith("of ")])
        assert (found.feature, found.rises) == max(areas, key=areas.get)


def test_a_value_that_the_best_rule_does_not_know_counts_as_the_lowest():
    train = training(400, wear=np.linspace(0, 1, 400))
    rule = find_best_feature(train.select, ["wear"])
    rows = pl.DataFrame({"wear": [None, NAN, -9.0, 0.5, 9.0]}, strict=False)
    assert rule.rank(rows).tolist() == [0.0, 0.0, 0.0, 0.5, 1.0]


def test_rows_of_one_class_tell_no_rule():
    train = training(400, wear=np.linspace(0, 1, 400))
    assert find_best_feature(train.filter(label=1).select, ["wear"]) is None
    assert find_best_feature(train.clear().select, ["wear"]) is None
    assert find_best_feature(train.select, []) is None
