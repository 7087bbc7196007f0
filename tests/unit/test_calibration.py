import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.isotonic import IsotonicRegression

from upkeep.model.calibration import Calibration, apply_calibration, fit_calibration, logistic, logit

METHODS = ["sigmoid", "isotonic", "none"]


def overconfident(n_rows=20_000, seed=0):
    """Scores whose true probability is logistic(0.5 * score - 1)."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, n_rows)
    return scores, (rng.random(n_rows) < logistic(0.5 * scores - 1)).astype(np.uint8)


def test_sigmoid_finds_how_overconfident_scores_are():
    fitted, _ = fit_calibration("sigmoid", *overconfident())
    assert fitted.slope == pytest.approx(0.5, rel=0.05)
    assert fitted.intercept == pytest.approx(-1, rel=0.05)


def test_sigmoid_stays_finite_when_scores_separate_the_classes():
    scores, label = np.linspace(-5, 5, 200), np.repeat([0, 1], 100)
    probability = apply_calibration(fit_calibration("sigmoid", scores, label)[0], scores)
    assert 0 < probability.min() < 0.1 < 0.9 < probability.max() < 1


def test_isotonic_agrees_with_scikit_learn_at_every_training_score():
    scores, label = overconfident(2_000)
    scores = scores.round(1)  # ties
    ours = apply_calibration(fit_calibration("isotonic", scores, label)[0], scores)
    theirs = IsotonicRegression(y_min=1 / 2_002, y_max=1 - 1 / 2_002).fit(scores, label).predict(scores)
    np.testing.assert_allclose(ours, theirs, rtol=3e-6)  # levels have six digits


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_a_row_of_weight_three_counts_like_three_rows(method):
    scores, label = overconfident(1_000)
    weight = np.where(label == 1, 1.0, 3.0)
    times = weight.astype(int)
    weighted, _ = fit_calibration(method, scores, label, weight)
    repeated, _ = fit_calibration(method, np.repeat(scores, times), np.repeat(label, times))
    np.testing.assert_allclose(
        apply_calibration(weighted, scores), apply_calibration(repeated, scores), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_too_few_failing_rows_leave_scores_uncalibrated_and_say_so(method):
    label = np.zeros(500, dtype=np.uint8)
    label[:5] = 1
    fitted, note = fit_calibration(method, np.linspace(1, -1, 500), label)
    assert fitted.method == "none"
    assert "5 rows of the rarer class" in note


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("scores", [np.linspace(1, -1, 200), np.zeros(200)], ids=["reversed", "constant"])
def test_scores_that_do_not_rise_with_the_label_are_left_uncalibrated(method, scores):
    fitted, note = fit_calibration(method, scores, np.repeat([0, 1], 100))
    assert fitted.method == "none"
    assert "do not rise" in note


@given(
    st.sampled_from(METHODS),
    st.integers(0, 1_000),
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20).map(sorted),
)
def test_a_higher_score_never_means_a_lower_probability(method, seed, scores):
    rng = np.random.default_rng(seed)
    fitted, _ = fit_calibration(method, rng.normal(size=80), rng.integers(0, 2, 80))
    probability = apply_calibration(fitted, np.array(scores))
    assert np.all(np.diff(probability) >= 0)
    assert np.all((probability >= 0) & (probability <= 1))


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_read_back_from_json_gives_the_same_bits(method):
    scores, label = overconfident(500)
    fitted, _ = fit_calibration(method, scores, label)
    read = Calibration.model_validate_json(fitted.model_dump_json())
    assert apply_calibration(read, scores).tobytes() == apply_calibration(fitted, scores).tobytes()


@pytest.mark.parametrize(
    "content",
    [
        {"method": "sigmoid", "slope": -1.0},
        {"method": "sigmoid", "slope": float("nan")},
        {"method": "isotonic"},
        {"method": "none", "knots": [0.0], "levels": [0.5]},
        {"method": "isotonic", "knots": [0.0, 1.0], "levels": [0.5, 0.4]},
        {"method": "isotonic", "knots": [1.0, 1.0], "levels": [0.5, 0.6]},
        {"method": "isotonic", "knots": [0.0, 1.0], "levels": [0.5, 1.2]},
    ],
)
def test_a_map_that_is_no_calibration_is_refused(content):
    with pytest.raises(ValidationError):
        Calibration.model_validate(content)


@given(st.floats(1e-8, 1 - 1e-8))
def test_log_odds_and_probability_are_inverse(probability):
    assert logistic(logit(np.array(probability))) == pytest.approx(probability, rel=1e-6)


def test_a_certain_score_in_single_precision_has_finite_log_odds():
    assert np.isfinite(logit(np.array([0, 1], dtype=np.float32))).all()
