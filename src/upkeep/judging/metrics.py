"""Metrics of single rows: scikit-learn's, and NaN where all rows are of one class.

There they would mislead: where all rows precede a failure, noise has an average precision of 1, and a constant of 1 a
perfect Brier score.

All functions take arrays of shape (n_rows,): `label` (Boolean), `probability` and `alarm` (Boolean).
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn import metrics

from upkeep.core.types import Booleans, Floats
from upkeep.judging.reports import OF_ALARMS, ROW_FIGURES

CALIBRATION_BINS = 10
MOST_CERTAIN = 1e-15  # probabilities are clipped this far from 0 and 1, where the log loss of an error is infinite


def has_both_classes(label: Booleans | NDArray[np.integer]) -> bool:
    """Return whether there are failing and healthy rows."""
    return bool(label.any() and not label.all())


def precision_recall(label: Booleans, probability: Floats) -> tuple[Floats, Floats, Floats]:
    """Return thresholds, precision and recall at each distinct probability of a positive row, descending.

    Between these recall cannot change and precision can only fall, so no threshold worth choosing is left out.
    """
    if not has_both_classes(label):
        return np.empty(0), np.empty(0), np.empty(0)
    precision, recall, threshold = metrics.precision_recall_curve(label, probability)
    rising = np.flatnonzero(np.diff(recall))[::-1]
    return threshold[rising], precision[rising], recall[rising]


def average_precision(label: Booleans, probability: Floats) -> float:
    """Return the step-wise area under the precision-recall curve."""
    return float(metrics.average_precision_score(label, probability)) if has_both_classes(label) else np.nan


def judge_rows(label: Booleans, probability: Floats, alarm: Booleans, least_precision: float) -> dict[str, float]:
    """Return all of :data:`upkeep.judging.reports.ROW_FIGURES`.

    ``recall_at_precision`` is the highest recall that comes with a precision of at least `least_precision`, 0 if none
    does.
    """
    if not has_both_classes(label):
        return dict.fromkeys(ROW_FIGURES, np.nan)
    _, precision, recall = precision_recall(label, probability)
    return {
        "average_precision": average_precision(label, probability),
        "roc_auc": float(metrics.roc_auc_score(label, probability)),
        "brier": float(metrics.brier_score_loss(label, probability)),
        "log_loss": float(metrics.log_loss(label, np.clip(probability, MOST_CERTAIN, 1 - MOST_CERTAIN))),
        "recall_at_precision": float(recall[precision >= least_precision].max(initial=0.0)),
        **alarm_quality(label, alarm),
    }


def alarm_quality(label: Booleans, alarm: Booleans) -> dict[str, float]:
    """Return precision, recall and f1 of the rows that raise the alarm."""
    figures = [np.nan] * len(OF_ALARMS)
    if has_both_classes(label):
        figures = metrics.precision_recall_fscore_support(label, alarm, average="binary", zero_division=np.nan)
    return {name: float(figure) for name, figure in zip(OF_ALARMS, figures, strict=False)}


def calibration_curve(label: Booleans, probability: Floats) -> pl.DataFrame:
    """Return the calibration curve in ten bins of equal width, without empty ones.

    Columns are lower, upper, rows (which scikit-learn's curve lacks), predicted (mean probability) and observed (share
    of positive rows).
    """
    position = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts, predicted, observed = (
        np.bincount(position, weights, CALIBRATION_BINS) for weights in (None, probability, label)
    )
    edges = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS
    bins = pl.DataFrame(
        {"lower": edges[:-1], "upper": edges[1:], "rows": counts, "predicted": predicted, "observed": observed}
    )
    return bins.filter(pl.col("rows") > 0).with_columns(pl.col("predicted", "observed") / pl.col("rows"))
