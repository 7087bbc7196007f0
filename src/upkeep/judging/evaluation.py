"""Judging candidates on rows that none was fitted on: per plant, per machine model and overall."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Costs, Evaluate
from upkeep.core.types import Floats
from upkeep.judging import metrics as row_metrics
from upkeep.judging.economics import cost_by_threshold, oracle_cost, run_to_failure_cost, tally_metrics
from upkeep.judging.events import MACHINE, judge_failures, read_timeline, tally_machines
from upkeep.judging.resampling import draw_machines, interval, resample_average_precision

WITH_INTERVAL = ["average_precision", "failures_caught", "false_alarms_per_machine_month", "cost_saving"]
MAX_CURVE_POINTS = 200
DECIMALS = 6


class Judgement(NamedTuple):
    """One candidate's figures on one group of rows.

    Attributes
    ----------
    metrics
        Single numbers by name; NaN where not defined.
    resamples
        Those of them that are given an interval, once per resample of machines; shape (n_resamples,).
    machines
        Plant and machine of those judged.
    """

    metrics: dict[str, float]
    resamples: dict[str, Floats]
    machines: pl.DataFrame


def evaluate(predictions: Mapping[str, pl.DataFrame], how: Evaluate, horizon_hours: int, seed: int) -> dict[str, Any]:
    """Judge all candidates.

    Parameters
    ----------
    predictions
        By plant, rows of all splits and candidates, as ``train`` writes them.
    how
        Lead time, costs, resamples and confidence.
    horizon_hours
        The horizon of the labels.
    seed
        Of the resamples.

    Returns
    -------
    dict
        On test rows: ``overall`` and ``plants`` (each with metrics, intervals, costs and candidates),
        ``machine_models`` (metrics) and ``notes`` on what could not be judged; and the metrics of the chosen models on
        ``validation`` rows. Ready for JSON: floats are rounded to six decimals, what is not defined is None.

    Raises
    ------
    UpkeepError
        If the lead time exceeds the horizon, so that no alarm could be in time.
    """
    if how.lead_time_hours > horizon_hours:
        raise UpkeepError(
            f"evaluate.lead_time_hours is {how.lead_time_hours}",
            expected=f"at most dataset.horizon_hours, {horizon_hours}",
            remedy="correct either in params.yaml",
            stage="evaluate",
        )
    rows = pl.concat(predictions.values()).sort("plant", "candidate", "machine", "time")
    test, validation = (rows.filter(pl.col("split") == split) for split in ("test", "validation"))
    chosen = test.filter("chosen").with_columns(pl.col("machine_model").fill_null("unknown"))
    plants = {
        plant: judge_group(test.filter(pl.col("plant") == plant), how, horizon_hours, seed)
        for plant in sorted(predictions)
    }
    report: dict[str, Any] = {
        "overall": judge_group(test, how, horizon_hours, seed),
        "plants": plants,
        "machine_models": _metrics_by("machine_model", chosen, how, horizon_hours),
        "validation": {
            "overall": judge(validation.filter("chosen"), how, horizon_hours).metrics,
            "plants": _metrics_by("plant", validation.filter("chosen"), how, horizon_hours),
        },
        "notes": [note for plant, found in plants.items() for note in _notes(plant, found["metrics"])],
    }
    return {name: ready_for_json(part) for name, part in report.items()}


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what DVC tracks as metrics: the chosen models' single numbers, overall and per plant."""
    plants = {plant: found["metrics"] for plant, found in report["plants"].items()}
    return {"overall": report["overall"]["metrics"], "plants": plants}


def judge(rows: pl.DataFrame, how: Evaluate, horizon_hours: int, multiplicity: Floats | None = None) -> Judgement:
    """Judge one candidate on one group of rows.

    Parameters
    ----------
    rows
        One candidate's predictions, sorted by plant, machine and time.
    how
        Lead time, costs and the precision at which recall is reported.
    horizon_hours
        The horizon of the labels.
    multiplicity
        How often each resample drew each machine; shape (n_machines, n_resamples). None: no resamples.
    """
    label, probability = rows["label"].cast(pl.Boolean).to_numpy(), rows["probability"].to_numpy()
    failures = judge_failures(rows, how.lead_time_hours, horizon_hours)
    tally = tally_machines(rows, how.lead_time_hours, horizon_hours)
    once = tally_metrics(tally, np.ones((tally.height, 1)), how.costs)
    metrics = {
        "rows": rows.height,
        "machines": tally.height,
        "positives": int(label.sum()),
        "average_precision": row_metrics.average_precision(label, probability),
        "roc_auc": row_metrics.roc_auc(label, probability),
        "brier": row_metrics.brier_score(label, probability),
        "log_loss": row_metrics.log_loss(label, probability),
        "recall_at_precision": row_metrics.recall_at_precision(label, probability, how.recall_at_precision),
        **row_metrics.alarm_quality(label, rows["alarm"].to_numpy()),
        "last_row_f1": last_row_f1(rows),
        "failures": failures.height,
        **{name: float(values[0]) for name, values in once.items()},
        "median_lead_time_hours": _median(failures["warning_hours"].drop_nulls().to_numpy()),
    }
    if multiplicity is None:
        return Judgement(metrics, {}, tally.select(MACHINE))
    machine = read_timeline(rows, horizon_hours).machine
    precision = resample_average_precision(label, probability, machine, multiplicity)
    resamples = {"average_precision": precision, **tally_metrics(tally, multiplicity, how.costs)}
    return Judgement(metrics, {name: resamples[name] for name in WITH_INTERVAL}, tally.select(MACHINE))


def _median(values: Floats) -> float:
    return float(np.median(values)) if values.size else np.nan


def last_row_f1(rows: pl.DataFrame) -> float:
    """Return the f1 of each machine's last row, the figure that the literature gives for C-MAPSS."""
    last = rows.group_by(MACHINE, maintain_order=True).agg(pl.col("label", "alarm").last())
    return row_metrics.alarm_quality(last["label"].cast(pl.Boolean).to_numpy(), last["alarm"].to_numpy())["f1"]


def judge_group(rows: pl.DataFrame, how: Evaluate, horizon_hours: int, seed: int) -> dict[str, Any]:
    """Judge the chosen models and every candidate on one group of rows, such as one plant's.

    Parameters
    ----------
    rows
        Test rows of all candidates, sorted by plant, candidate, machine and time.

    Returns
    -------
    dict
        The chosen models' ``metrics``, ``intervals`` and ``costs``, the name of the ``chosen`` candidate (None if it
        differs between plants), and ``candidates``: the metrics and intervals of each, and how much the chosen models
        exceed them (``chosen_exceeds``), with an interval over the same resamples.
    """

    def resampled(candidate: pl.DataFrame) -> Judgement:
        n_machines = candidate.select(pl.struct(MACHINE).n_unique()).item()
        return judge(candidate, how, horizon_hours, draw_machines(n_machines, how.bootstrap, seed))

    chosen = resampled(rows.filter("chosen"))
    names = rows.filter("chosen")["candidate"].unique().to_list()
    candidates = {str(name): resampled(group) for (name,), group in rows.group_by("candidate", maintain_order=True)}
    return {
        "chosen": names[0] if len(names) == 1 else None,
        "metrics": chosen.metrics,
        "intervals": _intervals(chosen.resamples, how.confidence),
        "costs": _compare_costs(chosen, candidates, how.costs),
        "candidates": {
            name: {
                "metrics": candidate.metrics,
                "intervals": _intervals(candidate.resamples, how.confidence),
                "chosen_exceeds": _difference(chosen, candidate, how.confidence),
            }
            for name, candidate in sorted(candidates.items())
        },
    }


def _intervals(resamples: Mapping[str, Floats], confidence: float) -> dict[str, list[float] | None]:
    return {name: interval(values, confidence) for name, values in resamples.items()}


def _compare_costs(chosen: Judgement, candidates: Mapping[str, Judgement], costs: Costs) -> dict[str, float]:
    failures, fixed = chosen.metrics["failures"], candidates.get("fixed_interval")
    same_failures = fixed is not None and fixed.machines.equals(chosen.machines)
    return {
        "run_to_failure": run_to_failure_cost(failures, costs),
        "fixed_interval": fixed.metrics["cost"] if fixed and same_failures else np.nan,
        "alarms": chosen.metrics["cost"],
        "oracle": oracle_cost(failures, costs),
    }


def _difference(chosen: Judgement, other: Judgement, confidence: float) -> dict[str, Any] | None:
    if not chosen.machines.equals(other.machines):
        return None
    return {
        name: {
            "difference": chosen.metrics[name] - other.metrics[name],
            "interval": interval(values - other.resamples[name], confidence),
        }
        for name, values in chosen.resamples.items()
    }


def _metrics_by(column: str, rows: pl.DataFrame, how: Evaluate, horizon_hours: int) -> dict[str, dict[str, float]]:
    groups = {str(name): group for (name,), group in rows.group_by(column, maintain_order=True)}
    return {name: judge(group, how, horizon_hours).metrics for name, group in sorted(groups.items())}


def _notes(plant: str, metrics: Mapping[str, float]) -> list[str]:
    if not metrics["rows"]:
        return [f"{plant}: no test rows, so nothing about this plant's model is known"]
    if not metrics["positives"]:
        return [f"{plant}: no failure ahead of any test row, so only its false alarms are known"]
    if not metrics["failures"]:
        return [f"{plant}: no failure with test rows early enough to catch it, so no share caught is known"]
    return [f"{plant}: one machine only, so no intervals"] if metrics["machines"] < 2 else []


def draw_curves(predictions: Mapping[str, pl.DataFrame], how: Evaluate, horizon_hours: int) -> dict[str, pl.DataFrame]:
    """Return the chosen models' curves on test rows, one table each with a column ``plant``.

    Parameters
    ----------
    predictions
        By plant, as for :func:`evaluate`.

    Returns
    -------
    dict
        ``calibration`` (ten bins at most), ``precision_recall`` (200 points at most) and ``cost_by_threshold``.
    """
    curves: dict[str, list[pl.DataFrame]] = {"calibration": [], "precision_recall": [], "cost_by_threshold": []}
    for plant, rows in sorted(predictions.items()):
        group = rows.filter((pl.col("split") == "test") & pl.col("chosen"))
        label, probability = group["label"].cast(pl.Boolean).to_numpy(), group["probability"].to_numpy()
        tables = (
            row_metrics.calibration_curve(label, probability),
            _thin_curve(*row_metrics.precision_recall(label, probability)),
            cost_by_threshold(group, how.costs, how.lead_time_hours, horizon_hours),
        )
        for name, table in zip(curves, tables, strict=True):
            curves[name].append(_at_plant(table, plant))
    return {name: pl.concat(tables) for name, tables in curves.items()}


def _at_plant(table: pl.DataFrame, plant: str) -> pl.DataFrame:
    return table.select(pl.lit(plant).alias("plant"), pl.all()).with_columns(pl.col(pl.Float64).round(DECIMALS))


def _thin_curve(threshold: Floats, precision: Floats, recall: Floats) -> pl.DataFrame:
    kept = np.unique(np.linspace(0, max(threshold.size - 1, 0), MAX_CURVE_POINTS).astype(np.int64))[: threshold.size]
    return pl.DataFrame({"threshold": threshold[kept], "precision": precision[kept], "recall": recall[kept]})


def ready_for_json(value: Any) -> Any:
    """Round floats to six decimals and turn NaN into None, throughout a nested value."""
    if isinstance(value, Mapping):
        return {key: ready_for_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [ready_for_json(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, DECIMALS)
    return value
