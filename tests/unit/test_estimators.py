from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.model.calibration import logistic
from upkeep.model.estimators import KEPT, Rows, fit, make_estimator, restore

KINDS = ["lightgbm", "hist_gradient_boosting", "random_forest", "logistic", "gaussian_process"]
NAMES = ["vibration", "errors_oil leak_48h", "empty"]
SMALL = {"n_estimators": 30, "num_leaves": 4, "min_child_samples": 5, "learning_rate": 0.2}


@pytest.fixture(scope="module")
def model():
    params = load_params(Path("params.yaml")).model
    return params.model_copy(update={"lightgbm": SMALL, "gaussian_process_rows": 100, "early_stopping_rounds": 5})


def rows(n_rows=300, seed=0, share=0.3):
    """Rows with one telling feature, one useless one and one that is always unknown."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n_rows) < share).astype(np.uint8)
    features = np.column_stack([label + rng.normal(0, 0.5, n_rows), rng.normal(size=n_rows), np.full(n_rows, np.nan)])
    features[::20, 0] = np.nan
    return Rows(features.astype(np.float32), label, np.ones(n_rows))


def fit_small(kind, model, train, validation=None, threads=1):
    return fit(kind, train, rows(seed=1) if validation is None else validation, NAMES, model, threads)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_ranks_failing_rows_higher_although_features_are_missing(kind, model):
    score = fit_small(kind, model, rows()).score
    unseen = rows(seed=2)
    log_odds = score(unseen.features)
    assert np.isfinite(log_odds).all()
    assert log_odds[unseen.label == 1].mean() > log_odds[unseen.label == 0].mean() + 1
    assert score(unseen.features[:0]).shape == (0,)


@pytest.mark.parametrize("share", [("subsample", "subsample_freq"), ("bagging_fraction", "bagging_freq")])
def test_one_row_is_enough_to_train_on_shares_of_rows(share, model):
    sampled = dict(zip(share, (0.5, 1), strict=True))
    fitted = fit_small("lightgbm", model.model_copy(update={"lightgbm": SMALL | sampled}), rows(1), rows(1, seed=1))
    assert np.isfinite(fitted.score(rows(5).features)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_scores_again(kind, model):
    first, second = (fit_small(kind, model, rows()).score(rows(seed=2).features) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("share", [0.3, 0.0])
def test_a_model_restored_from_its_state_has_the_bits_of_the_one_that_was_fitted(kind, share, model):
    fitted, unseen = fit_small(kind, model, rows(share=share)), rows(seed=2).features
    restored = restore(fitted.state.clone())
    assert restored.score(unseen).tobytes() == fitted.score(unseen).tobytes()
    assert (restored.boosters, restored.rounds) == (fitted.boosters, fitted.rounds)


def test_a_logistic_regression_scores_as_scikit_learns_pipeline_does(model):
    train, unseen = rows(), rows(seed=2).features
    pipeline = make_estimator("logistic", model, len(NAMES))
    pipeline.fit(train.features.astype(np.float64), train.label, logisticregression__sample_weight=train.weight)
    expected = pipeline.decision_function(unseen.astype(np.float64))
    np.testing.assert_allclose(fit_small("logistic", model, train).score(unseen), expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_thinned_healthy_rows_with_weights_keep_probabilities_where_they_were(kind, model):
    train = rows(4_000, share=0.1)
    kept = (train.label == 1) | (np.random.default_rng(8).random(4_000) < 0.25)
    thinned = Rows(train.features[kept], train.label[kept], np.where(train.label[kept] == 1, 1.0, 4.0))
    probability = logistic(fit_small(kind, model, thinned).score(rows(2_000, 3, 0.1).features))
    assert probability.mean() == pytest.approx(0.1, abs=0.05)  # taken for unweighted they would be 0.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [0, 50])
def test_training_rows_without_a_failure_give_a_constant_low_score(kind, model, n_rows):
    train = rows(n_rows, share=0.0)
    log_odds = fit_small(kind, model, train).score(rows(seed=2).features)
    assert np.ptp(log_odds) == 0
    assert n_rows == 0 or log_odds[0] < -3


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_are_all_unknown_give_a_constant_score(kind, model):
    train = rows()
    blind = train._replace(features=np.full_like(train.features, np.nan))
    assert np.ptp(fit_small(kind, model, blind).score(blind.features)) < 1e-9


def test_lightgbm_gives_the_same_text_on_one_thread_and_on_two(model):
    assert fit_small("lightgbm", model, rows()).boosters == fit_small("lightgbm", model, rows(), threads=2).boosters


def test_an_ensemble_averages_the_log_odds_of_models_that_differ_by_seed(model):
    bagged = model.model_copy(update={"ensemble": 3, "lightgbm": {**SMALL, "subsample": 0.5, "subsample_freq": 1}})
    fitted = fit_small("lightgbm", bagged, rows())
    unseen = rows(seed=2).features
    single = [lgb.Booster(model_str=text).predict(unseen, raw_score=True) for text in fitted.boosters]
    assert len(set(fitted.boosters)) == len(fitted.rounds) == 3
    np.testing.assert_array_equal(fitted.score(unseen), np.mean(single, axis=0))


def test_lightgbm_stops_early_and_keeps_only_the_trees_that_helped(model):
    noise = rows()._replace(features=np.random.default_rng(9).normal(size=(300, 3)).astype(np.float32))
    fitted = fit_small("lightgbm", model, noise)
    assert fitted.rounds[0] < SMALL["n_estimators"]
    assert lgb.Booster(model_str=fitted.boosters[0]).num_trees() == fitted.rounds[0]


@pytest.mark.parametrize("why", ["switched off", "one class", "no rows"])
def test_lightgbm_grows_all_trees_where_there_is_nothing_to_stop_by(model, why):
    validation = {"switched off": rows(seed=1), "one class": rows(50, share=0.0), "no rows": rows(0)}[why]
    how = model.model_copy(update={"early_stopping_rounds": 0}) if why == "switched off" else model
    assert fit_small("lightgbm", how, rows(), validation).rounds == [SMALL["n_estimators"]]


def test_parameters_that_lightgbm_refuses_are_named(model):
    wrong = model.model_copy(update={"lightgbm": {**SMALL, "num_leaves": -3}})
    with pytest.raises(UpkeepError, match="num_leaves") as error:
        fit_small("lightgbm", wrong, rows())
    assert "model.lightgbm" in error.value.remedy


@pytest.mark.parametrize(("most", "every"), [(4, 3), (5, 2), (10, 1), (99, 1)])
def test_of_too_many_rows_some_are_drawn_evenly_wherever_a_piece_begins(most, every):
    whole = rows(10)
    chunks = whole._replace(features=[whole.features[:3], whole.features[3:4], whole.features[4:]])
    for drawn, all_rows in zip(chunks.as_array(most), whole, strict=True):
        np.testing.assert_array_equal(drawn, all_rows[::every])
