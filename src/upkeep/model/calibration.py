"""Calibration: from a model's log-odds to probabilities that agree with observed frequencies."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from upkeep.core.rounding import FITTED, LOG_ODDS, significant, single_precision
from upkeep.core.types import Floats, Frozen, Single

Method = Literal["sigmoid", "isotonic", "none"]

MIN_POSITIVES = 20  # positive rows, and negative ones, without which nothing is fitted


class Calibration(Frozen):
    """A monotone map from log-odds to probability.

    ``sigmoid`` is logistic(slope * log-odds + intercept), ``none`` the logistic function itself; ``isotonic`` has
    probability `levels` at log-odds `knots`, linear between, constant outside.
    """

    method: Method
    slope: Annotated[Single, Field(gt=0)] = 1.0
    intercept: Single = 0.0
    knots: list[Single] = Field(default=[])
    levels: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[])

    @model_validator(mode="after")
    def _is_monotone(self) -> "Calibration":
        if len(self.knots) != len(self.levels) or (self.method == "isotonic") != bool(self.knots):
            raise ValueError("isotonic needs as many levels as knots, other methods none")
        if np.any(np.diff(self.knots) <= 0) or np.any(np.diff(self.levels) < 0):
            raise ValueError("knots and levels must ascend")
        return self


def fit_calibration(
    method: Method, log_odds: Floats, label: NDArray[np.integer], weight: Floats | None = None
) -> tuple[Calibration, str | None]:
    """Fit a calibration on rows that the model was not trained on; all arrays have shape (n_rows,), labels are 0 or 1.

    It is ``none``, and a note says why, if either class has too few rows or log-odds do not rise with the label.
    """
    uncalibrated = Calibration(method="none")
    if method == "none":
        return uncalibrated, None
    positives = int(np.sum(label))
    scarce = min(positives, len(label) - positives)
    if scarce < MIN_POSITIVES:
        return uncalibrated, f"not calibrated: {scarce} rows of the rarer class, {MIN_POSITIVES} needed"
    weight = np.ones(len(label)) if weight is None else weight
    fitted = (_fit_sigmoid if method == "sigmoid" else _fit_isotonic)(log_odds, label.astype(np.float64), weight)
    return (fitted, None) if fitted else (uncalibrated, "not calibrated: the scores do not rise with the label")


def apply_calibration(calibration: Calibration, log_odds: Floats) -> Floats:
    """Return probabilities in single precision, shape (n_rows,)."""
    if calibration.method == "isotonic":
        return single_precision(np.interp(log_odds, calibration.knots, calibration.levels))
    return single_precision(logistic(calibration.slope * log_odds + calibration.intercept))


def logistic(log_odds: Floats) -> Floats:
    """Return the probability of log-odds."""
    with np.errstate(over="ignore"):  # exp(huge) is inf, and 1 / inf the right answer
        probability: Floats = 1.0 / (1.0 + np.exp(-log_odds))
    return probability


def logit(probability: Floats) -> Floats:
    """Return the log-odds of probabilities, which are clipped 1e-9 short of certainty."""
    kept = np.clip(probability.astype(np.float64), 1e-9, 1 - 1e-9)  # in float32 the upper bound would be 1
    log_odds: Floats = np.log(kept) - np.log1p(-kept)
    return log_odds


def prior_log_odds(label: NDArray[np.integer], weight: Floats) -> Floats:
    """Return the log-odds of the weighted share of positive rows, by Laplace's rule of succession; shape ()."""
    return logit((np.sum(weight * label) + 1) / (np.sum(weight) + 2)).round(LOG_ODDS)


def _fit_sigmoid(log_odds: Floats, label: Floats, weight: Floats) -> Calibration | None:
    """Fit Platt scaling with its regularised targets (Platt 1999, Probabilistic outputs for support vector machines).

    Sums are NumPy's, not BLAS's, whose results depend on the number of threads.
    """
    from scipy.optimize import minimize  # only training fits; scoring starts faster without it

    centre, spread = log_odds.mean(), log_odds.std()
    if spread <= 1e-12 * max(1.0, abs(centre)):
        return None
    scaled = (log_odds - centre) / spread
    positive, negative = weight[label == 1].sum(), weight[label == 0].sum()
    target = np.where(label == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        line = parameters[0] * scaled + parameters[1]
        error = weight * (logistic(line) - target)
        value = np.sum(weight * (np.logaddexp(0, line) - target * line))
        return value / weight.sum(), np.array([np.sum(error * scaled), np.sum(error)]) / weight.sum()

    start = np.array([0.0, np.log(positive / negative)])
    best = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-8})
    slope = best.x[0] / spread
    if not slope > 0:
        return None
    slope, intercept = significant([slope, best.x[1] - slope * centre], FITTED)
    return Calibration(method="sigmoid", slope=float(slope), intercept=float(intercept))


def _fit_isotonic(log_odds: Floats, label: Floats, weight: Floats) -> Calibration | None:
    """Fit the best non-decreasing step function, of which only the ends of its steps are kept."""
    from sklearn.isotonic import IsotonicRegression

    # n rows without a failure do not prove that none can happen: the rule of succession bounds the probability.
    bound = 1 / (len(label) + 2)
    steps = IsotonicRegression(y_min=bound, y_max=1 - bound).fit(log_odds, label, weight)
    levels = significant(steps.y_thresholds_, FITTED)
    if levels[0] == levels[-1]:
        return None
    return Calibration(method="isotonic", knots=steps.X_thresholds_.tolist(), levels=levels.tolist())
