"""The model card: what the models are for, how good they are and where they fail, in words for planner and engineer.

The words are in ``templates/model_card.md`` and ``templates/verdict.md``.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from upkeep.core.params import Params
from upkeep.judging.acceptance import Check
from upkeep.judging.reports import (
    DataQuality,
    DriftReport,
    Evaluation,
    GroupReport,
    Metrics,
    TrainedPlant,
    TrainingReport,
)
from upkeep.judging.sanity import BEST_FEATURE, REFERENCES
from upkeep.reporting.markdown import Markdown, format_interval, format_names, format_table, format_value
from upkeep.reporting.templates import render_markdown

ALL_PLANTS = Markdown("**all plants**")


class Reports(NamedTuple):
    """What the card is written from."""

    delivered: DataQuality
    training: TrainingReport
    evaluation: Evaluation
    drift: DriftReport
    models: Mapping[str, Mapping[str, Any]]  # each saved model's ``model.json``, by plant
    period: Mapping[str, tuple[date, date]]  # first and last day of each plant's telemetry
    checks: Sequence[Check]  # the quality floors and whether they hold


def write_card(reports: Reports, params: Params) -> str:
    """Return the model card in Markdown; equal reports give an equal card."""
    trained = reports.training.plants
    splits = list(next(iter(trained.values())).rows) if trained else []
    return render_markdown(
        "model_card.md",
        params=params,
        horizon=params.dataset.horizon_hours,
        lead_time=params.evaluate.lead_time_hours,
        verdict=describe_verdict(reports.evaluation, reports.checks, reports.drift),
        quality=tabulate_quality(reports.evaluation),
        sanity=tabulate_sanity(reports.evaluation, trained),
        splits=splits,
        rows_of_splits=[
            [plant, *(f"{found.rows[split]:,} / {found.positives[split]:,}" for split in splits)]
            for plant, found in trained.items()
        ],
        trained=trained,
        notes=[
            *reports.evaluation.notes,
            *(f"{plant}: {note}" for plant, found in trained.items() for note in found.candidates[found.chosen].notes),
        ],
        name_floor=_name_floor,
        **reports._asdict(),
    )


def describe_verdict(evaluation: Evaluation, checks: Sequence[Check], drift: DriftReport) -> Markdown:
    """Say in a few bulleted sentences whether the models can be used; `checks` are those of the quality floors."""
    text = render_markdown(
        "verdict.md",
        overall=evaluation.overall,
        caught=_count_caught(evaluation.overall.metrics),
        false_alarms=evaluation.overall.metrics.false_alarms_per_machine_month,
        checks=checks,
        failed=[[_name_floor(check), check.found, check.expected] for check in checks if not check.passed],
        unsure=format_names([plant for plant, found in evaluation.plants.items() if not _pays_reliably(found)]),
        by_chance=format_names([plant for plant, found in evaluation.plants.items() if found.sanity.faults]),
        drifted=format_names([plant for plant, found in drift.root.items() if found.drifted]),
    )
    return Markdown(text)


def _pays_reliably(found: GroupReport) -> bool:
    """Tell whether following a plant's alarms pays even at the unlucky end of the interval."""
    interval, value = found.intervals["cost_saving"], found.metrics.cost_saving
    return value is not None and value > 0 and (interval is None or interval[0] > 0)


def tabulate_quality(evaluation: Evaluation) -> Markdown:
    """Return a table of how good the models are, plant by plant and over all."""
    header = ["plant", "model of", "average precision", "failures caught", "false alarms", "saved", "share of possible"]
    rows: list[list[object]] = []
    for plant, found in (*evaluation.plants.items(), (ALL_PLANTS, evaluation.overall)):
        precision, false_alarms, saving = (
            format_interval(getattr(found.metrics, name), found.intervals[name])
            for name in ("average_precision", "false_alarms_per_machine_month", "cost_saving")
        )
        caught = _count_caught(found.metrics)
        rows.append([plant, found.chosen or "", precision, caught, false_alarms, found.costs.saved, saving])
    return format_table(header, rows)


def tabulate_candidates(evaluation: Evaluation, training: Mapping[str, TrainedPlant]) -> Markdown:
    """Return a table of the average precision of what was tried in each plant, the winner's bold, and why it won."""
    names = sorted({name for found in evaluation.plants.values() for name in found.candidates})
    rows: list[list[object]] = []
    for plant, found in evaluation.plants.items():
        figures = {name: format_value(each.metrics.average_precision) for name, each in found.candidates.items()}
        chosen = training[plant].chosen
        figures[chosen] = Markdown(f"**{figures[chosen]}**")
        rows.append([plant, *(figures.get(name, "") for name in names), training[plant].why])
    return format_table(["plant", *names, "why"], rows)


def tabulate_sanity(evaluation: Evaluation, training: Mapping[str, TrainedPlant]) -> Markdown:
    """Return the average precision of each plant's model beside that of candidates that know little or nothing."""
    rows: list[list[object]] = []
    for plant, found in (*evaluation.plants.items(), (ALL_PLANTS, evaluation.overall)):
        rule = training[plant].candidates.get(BEST_FEATURE) if plant in training else None
        reached = [found.sanity.average_precision.get(name) for name in REFERENCES]
        described = rule.notes[0] if rule else ""
        rows.append([plant, found.metrics.average_precision, found.sanity.base_rate, *reached, described])
    names = [words.removesuffix(" alone") for words in REFERENCES.values()]
    return format_table(["plant", "the model", "share of failing rows", *names, "which feature"], rows)


def _count_caught(metrics: Metrics) -> str:
    if metrics.failures_caught is None:
        return "no failures"
    return f"{round(metrics.failures_caught * metrics.failures)} of {metrics.failures}"


def _name_floor(check: Check) -> str:
    place, _, figure = check.name.removeprefix("plants.").rpartition(".")
    return f"{place}{': ' if place else ''}{figure.replace('_', ' ')}"
