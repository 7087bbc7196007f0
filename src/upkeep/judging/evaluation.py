"""Judges candidates on rows that none was fitted on, per plant and overall."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.core.params import Costs, Evaluate
from upkeep.core.types import Floats, Ints
from upkeep.judging import metrics as row_metrics
from upkeep.judging.economics import cost_by_threshold, oracle_cost, run_to_failure_cost, tally_metrics
from upkeep.judging.episodes import MACHINE, TRUTH, judge_failures, tally_machines
from upkeep.judging.reports import (
    DECIMALS,
    CandidateReport,
    Evaluation,
    GroupReport,
    Headline,
    Metrics,
    PolicyCosts,
)
from upkeep.judging.resampling import draw_machines, interval, resample_average_precision
from upkeep.judging.sanity import explain_unknown, judge_sanity

OF_FAILING_MACHINES = ["average_precision", "failures_caught", "cost_saving"]
WITH_INTERVAL = ["average_precision", "failures_caught", "false_alarms_per_machine_month", "cost_saving"]
MAX_CURVE_POINTS = 200
JUDGED = [*MACHINE, "time", *TRUTH, "probability", "alarm"]  # what is judged of predictions


class Outcomes(NamedTuple):
    """What judging needs of one candidate's rows; a fleet's are its plants', one after the other.

    `rows` have label, probability (in single precision, as it is stored) and alarm, in the order of machine and time.
    `tally` is from :func:`upkeep.judging.episodes.tally_machines`; `warning_hours` are those of the failures caught.
    """

    rows: pl.DataFrame
    tally: pl.DataFrame
    warning_hours: pl.Series


class PlantOutcomes(NamedTuple):
    """One plant's outcomes on test rows, by candidate.

    `own` and `validation` are those of the `chosen` candidate on test and on validation rows; without test rows
    `chosen` is None.
    """

    chosen: str | None
    own: Outcomes
    candidates: dict[str, Outcomes]
    validation: Outcomes


class Judgement(NamedTuple):
    """One candidate's figures on one group of rows, NaN where undefined, and the machines that these are of.

    `resamples` are those of average precision and of :func:`upkeep.judging.economics.tally_metrics`, each of shape
    (n_resamples,).
    """

    figures: dict[str, float]
    resamples: dict[str, Floats]
    machines: pl.DataFrame

    @property
    def metrics(self) -> Metrics:
        """The figures as reports state them."""
        return Metrics.model_validate(self.figures, extra="forbid")  # a figure that has no field would be lost


def read_plant(predictions: pl.DataFrame | pl.LazyFrame, how: Evaluate, horizon_hours: float) -> PlantOutcomes:
    """Return what is judged of one plant's predictions, as ``train`` writes them.

    Of a scan, one candidate's rows are in memory at a time.
    """
    rows, test = predictions.lazy(), pl.col("split") == "test"

    def read(*which: pl.Expr) -> Outcomes:
        own = rows.filter(*which).select(JUDGED).sort("machine", "time").collect()
        return read_outcomes(own, how, horizon_hours)

    found = rows.filter(test).select("candidate", "chosen").unique().collect()
    chosen = next(iter(found.filter("chosen")["candidate"]), None)
    candidates = {name: read(test, pl.col("candidate") == name) for name in found["candidate"]}
    return PlantOutcomes(
        chosen=chosen,
        own=candidates[chosen] if chosen else read(test, pl.col("chosen")),
        candidates=candidates,
        validation=read(pl.col("chosen"), pl.col("split") == "validation"),
    )


def read_outcomes(rows: pl.DataFrame, how: Evaluate, horizon_hours: float) -> Outcomes:
    """Return what is judged of one candidate's rows, which are sorted by plant, machine and time."""
    return Outcomes(
        rows.select(pl.col("label").cast(pl.Boolean), pl.col("probability").cast(pl.Float32), "alarm"),
        tally_machines(rows, how.lead_time_hours, horizon_hours),
        judge_failures(rows, how.lead_time_hours, horizon_hours)["warning_hours"].drop_nulls(),
    )


def pool(parts: Sequence[Outcomes]) -> Outcomes:
    """Return the outcomes of several plants as those of one fleet."""
    rows, tallies, warnings = zip(*parts, strict=True)
    return Outcomes(pl.concat(rows), pl.concat(tallies), pl.concat(warnings))


def evaluate(
    plants: Mapping[str, PlantOutcomes],
    reports: Mapping[str, GroupReport],
    how: Evaluate,
    seed: int,
    doubts: Mapping[str, str],
) -> Evaluation:
    """Report on all plants; alarms, whose reasons need the models, are to be added.

    `reports` are each plant's own from :func:`judge_group`; `seed` is that of the resamples, and `doubts` say why a
    plant's test rows may mislead.
    """
    outcomes = list(plants.values())
    seen = {name: plant.validation for name, plant in plants.items()}
    return Evaluation(
        overall=judge_group(outcomes, how, seed, [f"in {name} {doubt}" for name, doubt in doubts.items()]),
        plants=dict(reports),
        validation=Headline(
            overall=judge(pool(list(seen.values())), how).metrics,
            plants={name: judge(own, how).metrics for name, own in seen.items() if own.rows.height},
        ),
        notes=[note for name, report in reports.items() for note in _explain_gaps(name, report)],
    )


def judge(outcomes: Outcomes, how: Evaluate, seed: int | None = None) -> Judgement:
    """Judge one candidate on one group of rows.

    `seed` is that of the resamples, which are the same for any rows of as many machines; None: no resamples.
    """
    rows, tally, warning_hours = outcomes
    label, probability = rows["label"].to_numpy(), rows["probability"].cast(pl.Float64).to_numpy()
    alarm = rows["alarm"].to_numpy()
    once = tally_metrics(tally, np.ones((tally.height, 1)), how.costs)
    figures = {
        "rows": rows.height,
        "machines": tally.height,
        "positives": int(label.sum()),
        **row_metrics.judge_rows(label, probability, alarm, how.recall_at_precision),
        "last_row_f1": last_row_f1(outcomes),
        "failures": int(tally["failures"].sum()),
        **{name: float(values[0]) for name, values in once.items()},
        "median_lead_time_hours": float(np.median(warning_hours)) if warning_hours.len() else np.nan,
    }
    if seed is None:
        return Judgement(figures, {}, tally.select(MACHINE))
    draws = draw_machines(tally.height, how.bootstrap, seed)
    machine = np.repeat(np.arange(tally.height), _count_rows_of_machines(tally))
    precision = resample_average_precision(label, probability, machine, draws)
    resamples = {"average_precision": precision, **tally_metrics(tally, draws, how.costs)}
    if (tally["failing"] > 0).sum() < 2:  # all resamples draw the same failures, and agree without being sure
        resamples |= dict.fromkeys(OF_FAILING_MACHINES, np.full(draws.shape[1], np.nan))
    return Judgement(figures, resamples, tally.select(MACHINE))


def last_row_f1(outcomes: Outcomes) -> float:
    """Return the f1 over each machine's last row, which the literature reports for C-MAPSS."""
    last = outcomes.rows[np.cumsum(_count_rows_of_machines(outcomes.tally)) - 1]
    return row_metrics.alarm_quality(last["label"].to_numpy(), last["alarm"].to_numpy())["f1"]


def _count_rows_of_machines(tally: pl.DataFrame) -> Ints:
    return (tally["healthy"] + tally["failing"]).cast(pl.Int64).to_numpy()


def judge_group(plants: Sequence[PlantOutcomes], how: Evaluate, seed: int, doubts: Sequence[str]) -> GroupReport:
    """Judge the chosen models and every candidate on the test rows of plants; `doubts` say why these may mislead."""
    candidates: dict[str, Judgement] = {}
    for name in sorted({name for plant in plants for name in plant.candidates}):
        parts = [plant.candidates[name] for plant in plants if name in plant.candidates]
        candidates[name] = judge(pool(parts), how, seed)
    names = {plant.chosen for plant in plants if plant.chosen}
    same = names.pop() if len(names) == 1 else None
    chosen = candidates[same] if same else judge(pool([plant.own for plant in plants]), how, seed)
    reports = {name: _compare_candidate(other, chosen, how.confidence) for name, other in candidates.items()}
    return GroupReport(
        chosen=same,
        metrics=chosen.metrics,
        intervals={name: interval(chosen.resamples[name], how.confidence) for name in WITH_INTERVAL},
        costs=_compare_costs(chosen, candidates, how.costs),
        candidates=reports,
        sanity=judge_sanity(chosen.metrics, reports, how.confidence, doubts),
    )


def _compare_costs(chosen: Judgement, candidates: Mapping[str, Judgement], costs: Costs) -> PolicyCosts:
    failures, fixed = chosen.figures["failures"], candidates.get("fixed_interval")
    same_failures = fixed is not None and fixed.machines.equals(chosen.machines)
    return PolicyCosts(
        run_to_failure=run_to_failure_cost(failures, costs),
        fixed_interval=fixed.figures["cost"] if fixed and same_failures else None,
        alarms=chosen.figures["cost"],
        oracle=oracle_cost(failures, costs),
    )


def _compare_candidate(candidate: Judgement, chosen: Judgement, confidence: float) -> CandidateReport:
    if not chosen.machines.equals(candidate.machines):
        return CandidateReport(metrics=candidate.metrics)
    name = "average_precision"
    more = chosen.resamples[name] - candidate.resamples[name]
    lead = chosen.figures[name] - candidate.figures[name]
    return CandidateReport(metrics=candidate.metrics, lead=lead, lead_interval=interval(more, confidence))


def _explain_gaps(plant: str, group: GroupReport) -> Iterator[str]:
    """Yield notes on which of a plant's figures are unknown, and why, and on why others may not be relied on."""
    unknown: dict[str, list[str]] = {}
    for name in WITH_INTERVAL:
        if getattr(group.metrics, name) is None:
            unknown.setdefault(explain_unknown(group.metrics, name), []).append(name.replace("_", " "))
    for reason, names in unknown.items():
        yield f"{plant}: {reason}, so not known: {', '.join(names)}"
    if not unknown and group.metrics.machines < 2:
        yield f"{plant}: one machine only, so no intervals"
    # Where average precision is unknown, the last fault only repeats that.
    faults = group.sanity.faults if group.metrics.average_precision is not None else group.sanity.faults[:-1]
    yield from (f"{plant}: average precision is {fault}" for fault in faults)


def draw_curves(plant: str, rows: pl.DataFrame, how: Evaluate, horizon_hours: float) -> dict[str, pl.DataFrame]:
    """Return the curves of the chosen model on one plant's test rows, each a table with a column ``plant``.

    They are ``calibration`` (ten bins at most), ``precision_recall`` (200 points at most) and ``cost_by_threshold``.
    """
    label, probability = rows["label"].cast(pl.Boolean).to_numpy(), rows["probability"].to_numpy()
    curves = {
        "calibration": row_metrics.calibration_curve(label, probability),
        "precision_recall": _thin_curve(*row_metrics.precision_recall(label, probability)),
        "cost_by_threshold": cost_by_threshold(rows, how.costs, how.lead_time_hours, horizon_hours),
    }
    return {
        name: curve.select(pl.lit(plant).alias("plant"), pl.all()).with_columns(pl.col(pl.Float64).round(DECIMALS))
        for name, curve in curves.items()
    }


def _thin_curve(threshold: Floats, precision: Floats, recall: Floats) -> pl.DataFrame:
    kept = np.unique(np.linspace(0, max(threshold.size - 1, 0), MAX_CURVE_POINTS).astype(np.int64))[: threshold.size]
    return pl.DataFrame({"threshold": threshold[kept], "precision": precision[kept], "recall": recall[kept]})
