"""How well probabilities and alarms tell apart single rows: the figures that data scientists compare models by.

All take arrays of shape (n_rows,): `label` (Boolean), `probability` and `alarm` (Boolean). What is not defined for the
rows at hand, such as an average precision without a positive row, is NaN. They are written out because importing
scikit-learn for them would last longer than computing them; the tests hold them to scikit-learn's.
"""

import numpy as np
import polars as pl

from upkeep.core.types import Booleans, Floats

CALIBRATION_BINS = 10


def precision_recall(label: Booleans, probability: Floats) -> tuple[Floats, Floats, Floats]:
    """Return precision and recall at each distinct probability of a positive row, descending.

    Between two of them recall cannot change and precision can only fall, so nothing worth choosing is left out.

    Returns
    -------
    threshold, precision, recall
        Each of shape (n_thresholds,).
    """
    positive, negative = np.sort(probability[label]), np.sort(probability[~label])
    threshold = np.unique(positive)[::-1]
    found = positive.size - np.searchsorted(positive, threshold)
    false = negative.size - np.searchsorted(negative, threshold)
    return threshold, found / (found + false), found / max(positive.size, 1)


def average_precision(label: Booleans, probability: Floats) -> float:
    """Return the step-wise area under the precision-recall curve, as scikit-learn defines it."""
    _, precision, recall = precision_recall(label, probability)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision)) if recall.size else np.nan


def roc_auc(label: Booleans, probability: Floats) -> float:
    """Return the chance that a positive row is ranked above a negative one, ties counting half."""
    positive, negative = probability[label], np.sort(probability[~label])
    if positive.size == 0 or negative.size == 0:
        return np.nan
    below = np.searchsorted(negative, positive) + np.searchsorted(negative, positive, side="right")
    return float(below.sum() / (2 * positive.size * negative.size))


def brier_score(label: Booleans, probability: Floats) -> float:
    """Return the mean squared distance between probability and outcome."""
    return float(np.mean((probability - label) ** 2)) if label.size else np.nan


def log_loss(label: Booleans, probability: Floats) -> float:
    """Return the mean negative logarithm of the probability given to what happened; certainty is taken as 1 - 1e-15."""
    given = np.clip(np.where(label, probability, 1 - probability), 1e-15, 1.0)
    return float(-np.mean(np.log(given))) if label.size else np.nan


def recall_at_precision(label: Booleans, probability: Floats, least: float) -> float:
    """Return the highest recall that comes with a precision of at least `least`; 0 if none does."""
    _, precision, recall = precision_recall(label, probability)
    return float(recall[precision >= least].max(initial=0.0)) if recall.size else np.nan


def alarm_quality(label: Booleans, alarm: Booleans) -> dict[str, float]:
    """Return precision, recall and f1 of the rows that raise the alarm."""
    found, raised, positive = int((label & alarm).sum()), int(alarm.sum()), int(label.sum())
    return {
        "precision": found / raised if raised else np.nan,
        "recall": found / positive if positive else np.nan,
        "f1": 2 * found / (raised + positive) if raised + positive else np.nan,
    }


def calibration_curve(label: Booleans, probability: Floats) -> pl.DataFrame:
    """Compare what was predicted with what happened, in ten bins of equal width.

    Returns
    -------
    polars.DataFrame
        lower, upper, rows, predicted (mean probability), observed (share of positive rows); empty bins left out.
    """
    position = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    rows = np.bincount(position, minlength=CALIBRATION_BINS)
    edges = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS
    filled = rows > 0
    sums = [np.bincount(position, weights=values, minlength=CALIBRATION_BINS) for values in (probability, label)]
    predicted, observed = (total[filled] / rows[filled] for total in sums)
    return pl.DataFrame(
        {
            "lower": edges[:-1][filled],
            "upper": edges[1:][filled],
            "rows": rows[filled],
            "predicted": predicted,
            "observed": observed,
        }
    )
