"""Judging candidates on rows that none was fitted on: per plant, per machine model and overall."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Costs, Evaluate
from upkeep.core.text import name_apart
from upkeep.core.types import Booleans, Floats
from upkeep.judging import metrics as row_metrics
from upkeep.judging.economics import cost_by_threshold, oracle_cost, run_to_failure_cost, tally_metrics
from upkeep.judging.episodes import MACHINE, judge_failures, read_timeline, tally_machines
from upkeep.judging.reports import (
    DECIMALS,
    CandidateReport,
    Difference,
    Evaluation,
    GroupReport,
    Headline,
    Interval,
    Metrics,
    PolicyCosts,
)
from upkeep.judging.resampling import draw_machines, interval, resample_average_precision
from upkeep.judging.sanity import explain_unknown, judge_sanity

OF_FAILING_MACHINES = ["average_precision", "failures_caught", "cost_saving"]
WITH_INTERVAL = ["average_precision", "failures_caught", "false_alarms_per_machine_month", "cost_saving"]
MAX_CURVE_POINTS = 200


class Judgement(NamedTuple):
    """One candidate's figures on one group of rows, of the `machines` named; NaN where one is not defined.

    `resamples` are of average precision and of what planners ask, each of shape (n_resamples,).
    """

    figures: dict[str, float]
    resamples: dict[str, Floats]
    machines: pl.DataFrame

    @property
    def metrics(self) -> Metrics:
        """The figures as reports state them."""
        return Metrics.model_validate(self.figures, extra="forbid")  # a figure that has no field would be lost


def evaluate(
    predictions: Mapping[str, pl.DataFrame],
    how: Evaluate,
    horizon_hours: float,
    seed: int,
    doubts: Mapping[str, str] = MappingProxyType({}),
) -> Evaluation:
    """Judge all candidates; alarms, whose reasons need the models, are left to add.

    `predictions` are, by plant, rows of all splits and candidates, as ``train`` writes them; `seed` is that of the
    resamples, and `doubts` say of plants why their test rows may mislead. An UpkeepError is raised if the lead time
    exceeds the horizon, so that no alarm could be in time.
    """
    if how.lead_time_hours > horizon_hours:
        raise UpkeepError(
            f"evaluate.lead_time_hours is {how.lead_time_hours}, more than dataset.horizon_hours, {horizon_hours}",
            remedy="correct either in params.yaml",
            stage="evaluate",
        )
    rows = pl.concat(predictions.values()).sort("plant", "candidate", "machine", "time")
    test, seen = rows.filter(split="test"), rows.filter("chosen", split="validation")
    own = {plant: [doubts[plant]] if plant in doubts else [] for plant in sorted(predictions)}
    plants = {plant: judge_group(test.filter(plant=plant), how, horizon_hours, seed, own[plant]) for plant in own}
    unknown = name_apart("unknown", set(test["machine_model"]))
    models = test.filter("chosen").with_columns(pl.col("machine_model").fill_null(unknown))
    return Evaluation(
        overall=judge_group(test, how, horizon_hours, seed, [f"in {plant} {doubt}" for plant, doubt in doubts.items()]),
        plants=plants,
        machine_models=_metrics_by("machine_model", models, how, horizon_hours),
        validation=Headline(
            overall=judge(seen, how, horizon_hours).metrics, plants=_metrics_by("plant", seen, how, horizon_hours)
        ),
        notes=[note for plant, group in plants.items() for note in _explain_gaps(plant, group)],
    )


def judge(rows: pl.DataFrame, how: Evaluate, horizon_hours: float, seed: int | None = None) -> Judgement:
    """Judge one candidate on one group of rows, sorted by plant, machine and time.

    `seed` is that of the resamples, which are the same for as many machines; None: no resamples.
    """
    label, probability = _read_outcome(rows)
    failures = judge_failures(rows, how.lead_time_hours, horizon_hours)
    tally = tally_machines(rows, how.lead_time_hours, horizon_hours)
    once = tally_metrics(tally, np.ones((tally.height, 1)), how.costs)
    figures = {
        "rows": rows.height,
        "machines": tally.height,
        "positives": int(label.sum()),
        **row_metrics.judge_rows(label, probability, rows["alarm"].to_numpy(), how.recall_at_precision),
        "last_row_f1": last_row_f1(rows),
        "failures": failures.height,
        **{name: float(values[0]) for name, values in once.items()},
        "median_lead_time_hours": failures.select(pl.col("warning_hours").median().fill_null(np.nan)).item(),
    }
    if seed is None:
        return Judgement(figures, {}, tally.select(MACHINE))
    draws = draw_machines(tally.height, how.bootstrap, seed)
    machine = read_timeline(rows, horizon_hours).machine
    precision = resample_average_precision(label, probability, machine, draws)
    resamples = {"average_precision": precision, **tally_metrics(tally, draws, how.costs)}
    if (tally["failing"] > 0).sum() < 2:  # all resamples draw the same failures, and agree without being sure
        resamples |= dict.fromkeys(OF_FAILING_MACHINES, np.full(draws.shape[1], np.nan))
    return Judgement(figures, resamples, tally.select(MACHINE))


def _read_outcome(rows: pl.DataFrame) -> tuple[Booleans, Floats]:
    return rows["label"].cast(pl.Boolean).to_numpy(), rows["probability"].cast(pl.Float64).to_numpy()


def last_row_f1(rows: pl.DataFrame) -> float:
    """Return the f1 of each machine's last row, the figure that the literature gives for C-MAPSS."""
    last = rows.group_by(MACHINE, maintain_order=True).agg(pl.col("label", "alarm").last())
    return row_metrics.alarm_quality(last["label"].cast(pl.Boolean).to_numpy(), last["alarm"].to_numpy())["f1"]


def judge_group(
    rows: pl.DataFrame, how: Evaluate, horizon_hours: float, seed: int, doubts: Sequence[str] = ()
) -> GroupReport:
    """Judge the chosen models and every candidate on test rows of one group, such as one plant's.

    `rows` are those of all candidates, sorted by plant, candidate, machine and time; `doubts` are those about them.
    """
    chosen = judge(rows.filter("chosen"), how, horizon_hours, seed)
    names = rows.filter("chosen")["candidate"].unique().to_list()
    candidates = {name: judge(own, how, horizon_hours, seed) for name, own in _split_by("candidate", rows)}
    reports = {
        name: CandidateReport(
            metrics=candidate.metrics,
            intervals=_find_intervals(candidate, how.confidence),
            chosen_exceeds=_measure_lead(chosen, candidate, how.confidence),
        )
        for name, candidate in candidates.items()
    }
    return GroupReport(
        chosen=names[0] if len(names) == 1 else None,
        metrics=chosen.metrics,
        intervals=_find_intervals(chosen, how.confidence),
        costs=_compare_costs(chosen, candidates, how.costs),
        candidates=reports,
        sanity=judge_sanity(chosen.metrics, reports, how.confidence, doubts),
    )


def _find_intervals(judgement: Judgement, confidence: float) -> dict[str, Interval]:
    return {name: interval(judgement.resamples[name], confidence) for name in WITH_INTERVAL}


def _compare_costs(chosen: Judgement, candidates: Mapping[str, Judgement], costs: Costs) -> PolicyCosts:
    failures, fixed = chosen.figures["failures"], candidates.get("fixed_interval")
    same_failures = fixed is not None and fixed.machines.equals(chosen.machines)
    return PolicyCosts(
        run_to_failure=run_to_failure_cost(failures, costs),
        fixed_interval=fixed.figures["cost"] if fixed and same_failures else None,
        alarms=chosen.figures["cost"],
        oracle=oracle_cost(failures, costs),
    )


def _measure_lead(chosen: Judgement, other: Judgement, confidence: float) -> dict[str, Difference] | None:
    if not chosen.machines.equals(other.machines):
        return None
    return {
        name: Difference(
            difference=chosen.figures[name] - other.figures[name],
            interval=interval(chosen.resamples[name] - other.resamples[name], confidence),
        )
        for name in WITH_INTERVAL
    }


def _metrics_by(column: str, rows: pl.DataFrame, how: Evaluate, horizon_hours: float) -> dict[str, Metrics]:
    return {name: judge(group, how, horizon_hours).metrics for name, group in _split_by(column, rows)}


def _split_by(column: str, rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Return the rows of each value of a column of text, in the order of the values."""
    return sorted((str(name), group) for (name,), group in rows.group_by(column, maintain_order=True))


def _explain_gaps(plant: str, group: GroupReport) -> Iterator[str]:
    """Say which of a plant's figures are not known, and why; and why those that are may not be relied on."""
    unknown: dict[str, list[str]] = {}
    for name in WITH_INTERVAL:
        if getattr(group.metrics, name) is None:
            unknown.setdefault(explain_unknown(group.metrics, name), []).append(name.replace("_", " "))
    for reason, names in unknown.items():
        yield f"{plant}: {reason}, so not known: {', '.join(names)}"
    if not unknown and group.metrics.machines < 2:
        yield f"{plant}: one machine only, so no intervals"
    # Where average precision is not known, the last fault says so once more.
    faults = group.sanity.faults if group.metrics.average_precision is not None else group.sanity.faults[:-1]
    yield from (f"{plant}: average precision is {fault}" for fault in faults)


def draw_curves(
    predictions: Mapping[str, pl.DataFrame], how: Evaluate, horizon_hours: float
) -> dict[str, pl.DataFrame]:
    """Return the chosen models' curves on test rows, one table each with a column ``plant``.

    They are ``calibration`` (ten bins at most), ``precision_recall`` (200 points at most) and ``cost_by_threshold``.
    """
    curves: dict[str, list[pl.DataFrame]] = {"calibration": [], "precision_recall": [], "cost_by_threshold": []}
    for plant, rows in sorted(predictions.items()):
        group = rows.filter("chosen", split="test")
        label, probability = _read_outcome(group)
        tables = (
            row_metrics.calibration_curve(label, probability),
            _thin_curve(*row_metrics.precision_recall(label, probability)),
            cost_by_threshold(group, how.costs, how.lead_time_hours, horizon_hours),
        )
        for name, table in zip(curves, tables, strict=True):
            curves[name].append(table.select(pl.lit(plant).alias("plant"), pl.all()))
    return {name: pl.concat(tables).with_columns(pl.col(pl.Float64).round(DECIMALS)) for name, tables in curves.items()}


def _thin_curve(threshold: Floats, precision: Floats, recall: Floats) -> pl.DataFrame:
    kept = np.unique(np.linspace(0, max(threshold.size - 1, 0), MAX_CURVE_POINTS).astype(np.int64))[: threshold.size]
    return pl.DataFrame({"threshold": threshold[kept], "precision": precision[kept], "recall": recall[kept]})
