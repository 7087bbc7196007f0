"""From log-odds to alarms: calibration, and a threshold, both fitted on rows that the model was not trained on."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from upkeep.core.params import Params
from upkeep.core.types import Floats
from upkeep.judging.economics import best_threshold, break_even
from upkeep.model.calibration import Calibration, Method, apply_calibration, fit_calibration


class AlarmRule(NamedTuple):
    """The alarm is raised at `threshold` of the calibrated probability and above; `notes` are a candidate's."""

    calibration: Calibration
    threshold: float
    notes: list[str]


def fit_alarm_rule(rows: pl.DataFrame, log_odds: Floats, method: Method, params: Params) -> AlarmRule:
    """Fit calibration and threshold on labelled rows that the model was not trained on."""
    calibration, uncalibrated = fit_calibration(method, log_odds, rows["label"].to_numpy())
    rule = AlarmRule(calibration, 1.0, [])
    threshold, unplaced = _choose_threshold(raise_alarms(rows, log_odds, rule), params)
    return rule._replace(threshold=threshold, notes=[note for note in (uncalibrated, unplaced) if note])


def raise_alarms(rows: pl.DataFrame, log_odds: Floats, rule: AlarmRule) -> pl.DataFrame:
    """Return rows with columns ``probability`` and ``alarm``."""
    probability = pl.Series(apply_calibration(rule.calibration, log_odds), dtype=pl.Float64)
    return rows.with_columns(probability=probability, alarm=probability >= rule.threshold)


def best_f1_threshold(label: NDArray[np.integer[Any]], probability: Floats, weight: Floats) -> float:
    """Return the middle of the range of thresholds around the best one whose F1 is within 1% of the highest.

    The optimum is flat, and its exact place is chance. Arrays have shape (n_rows,) and at least one label is 1.
    """
    precision, recall, at = precision_recall_curve(label, probability, sample_weight=weight)
    f1 = (2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny))[:-1]
    worse, best = np.flatnonzero(f1 < 0.99 * f1.max()), int(f1.argmax())
    above, below = worse[worse > best], worse[worse < best]
    highest = at[above[0] - 1 if above.size else -1]
    # A threshold may lie anywhere down to the next lower probability without another row raising the alarm.
    lowest = at[below[-1] if below.size else 0]
    return float((highest + lowest) / 2)


def _choose_threshold(rows: pl.DataFrame, params: Params) -> tuple[float, str | None]:
    """Return the threshold that ``model.threshold`` asks for, and a note if rows of one class cannot tell it."""
    judge = params.evaluate
    unknown = None if rows["label"].sum() else "no failure in validation rows"
    if rows.height and rows["label"].sum() == rows.height:  # no alarm would be false, so an alarm at each costs least
        at = break_even(judge.costs) if params.model.threshold == "cost" else 0.5
        return at, f"no healthy validation row: the alarm is raised at {at:.3g}"
    if params.model.threshold == "cost":
        at = best_threshold(rows, judge.costs, judge.lead_time_hours, params.dataset.horizon_hours)
        return at, unknown and f"{unknown}: the alarm is raised above all that was seen there"
    if unknown:
        return 0.5, f"{unknown}: the alarm is raised at 0.5"
    # Each machine has the same weight, however long its record.
    weight = rows.select(1 / pl.len().over("plant", "machine")).to_series().to_numpy()
    return best_f1_threshold(rows["label"].to_numpy(), rows["probability"].to_numpy(), weight), None
