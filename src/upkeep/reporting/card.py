"""The model card, and parts of it that other texts share; the words are in ``templates/``."""

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
from upkeep.judging.sanity import REFERENCES
from upkeep.reporting.markdown import Markdown
from upkeep.reporting.templates import render_markdown


class Reports(NamedTuple):
    """What the card is written from."""

    delivered: DataQuality
    training: TrainingReport
    evaluation: Evaluation
    drift: DriftReport
    models: Mapping[str, Mapping[str, Any]]  # each saved model's ``model.json``, by plant
    period: Mapping[str, tuple[date, date]]  # first and last day of each plant's telemetry
    checks: Sequence[Check]  # the quality floors and whether they hold


def write_card(reports: Reports, params: Params) -> Markdown:
    """Return the model card in Markdown; equal reports give an equal card."""
    return render_markdown(
        "model_card.md",
        params=params,
        verdict=describe_verdict(reports.evaluation, reports.checks, reports.drift),
        quality=tabulate_quality(reports.evaluation),
        groups=_list_groups(reports.evaluation),
        references=REFERENCES,
        name_floor=_name_floor,
        **reports._asdict(),
    )


def describe_verdict(evaluation: Evaluation, checks: Sequence[Check], drift: DriftReport) -> Markdown:
    """Return a few bulleted sentences on whether the models can be used; `checks` are those of the quality floors."""
    savings = {plant: found.intervals["cost_saving"] for plant, found in evaluation.plants.items()}
    return render_markdown(
        "verdict.md",
        evaluation=evaluation,
        drift=drift,
        checks=checks,
        # Whose alarms are not known to pay even at the low end of the interval.
        unsure=[plant for plant, interval in savings.items() if interval is None or interval[0] <= 0],
        count_caught=_count_caught,
        name_floor=_name_floor,
    )


def tabulate_quality(evaluation: Evaluation) -> Markdown:
    """Return a table of the models' figures by plant and over all."""
    return render_markdown("quality.md", groups=_list_groups(evaluation), count_caught=_count_caught)


def tabulate_candidates(evaluation: Evaluation, training: Mapping[str, TrainedPlant]) -> Markdown:
    """Return a table of each plant's candidates by average precision, the chosen one in bold."""
    names = sorted({name for found in evaluation.plants.values() for name in found.candidates} - REFERENCES.keys())
    shipped = {"plant": "its own model", "fleet": "the fleet's"}
    headings = {name: shipped.get(name, name.replace("_", " ")) for name in names} | REFERENCES
    return render_markdown("candidates.md", plants=evaluation.plants, trained=training, headings=headings)


def _list_groups(evaluation: Evaluation) -> dict[str, GroupReport]:
    return {**evaluation.plants, Markdown("**all plants**"): evaluation.overall}


def _count_caught(metrics: Metrics) -> str:
    if metrics.failures_caught is None:
        return "no failures"
    return f"{round(metrics.failures_caught * metrics.failures)} of {metrics.failures}"


def _name_floor(check: Check) -> str:
    place, _, figure = check.name.removeprefix("plants.").rpartition(".")
    return f"{place}{': ' if place else ''}{figure.replace('_', ' ')}"
