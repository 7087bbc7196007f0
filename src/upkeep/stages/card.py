"""All reports in; the model card out."""

import polars as pl

from upkeep.core import paths
from upkeep.core.files import read_json
from upkeep.core.params import Params
from upkeep.core.plants import list_plants, read_spans
from upkeep.judging.acceptance import check_floors
from upkeep.judging.reports import REMEDY, DataQuality, DriftReport, Evaluation, TrainingReport, read_report
from upkeep.reporting.card import Reports, write_card


def run(params: Params) -> None:
    """Write ``reports/model_card.md``."""
    models = [read_json(file, remedy=REMEDY) for file in sorted(paths.MODELS.glob(f"*/{paths.MODEL_METADATA}"))]
    telemetry = paths.INTERIM / "telemetry"
    evaluation = read_report(Evaluation)
    plants = list_plants(telemetry, made_by="validate")
    spans = read_spans(telemetry, plants).with_columns(pl.col("first", "last").dt.date())
    reports = Reports(
        delivered=read_report(DataQuality),
        training=read_report(TrainingReport),
        evaluation=evaluation,
        drift=read_report(DriftReport),
        models={model["plant"]: model for model in models},
        period={plant: (first, last) for plant, first, last in spans.iter_rows()},
        checks=check_floors(evaluation, params.evaluate.floors),
    )
    paths.MODEL_CARD.write_text(write_card(reports, params), encoding="utf-8")
