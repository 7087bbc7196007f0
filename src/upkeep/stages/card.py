"""All reports in; the model card out."""

from datetime import date
from pathlib import Path

import polars as pl

from upkeep.core import paths
from upkeep.core.files import read_json
from upkeep.core.params import Params
from upkeep.core.plants import list_plants, table_file
from upkeep.judging.acceptance import check_floors
from upkeep.judging.reports import REMEDY, DataQuality, DriftReport, Evaluation, TrainingReport, read_report
from upkeep.reporting.card import Reports, write_card


def run(params: Params) -> None:
    """Write ``reports/model_card.md``."""
    models = [read_json(file, remedy=REMEDY) for file in sorted(paths.MODELS.glob("*/model.json"))]
    telemetry = paths.INTERIM / "telemetry"
    evaluation = read_report(Evaluation)
    reports = Reports(
        delivered=read_report(DataQuality),
        training=read_report(TrainingReport),
        evaluation=evaluation,
        drift=read_report(DriftReport),
        models={model["plant"]: model for model in models},
        period={plant: _period(table_file(telemetry, plant)) for plant in list_plants(telemetry)},
        checks=check_floors(evaluation, params.evaluate.floors),
    )
    paths.MODEL_CARD.write_text(write_card(reports, params), encoding="utf-8")


def _period(file: Path) -> tuple[date, date]:
    time = pl.col("time").dt.date()
    first, last = pl.scan_parquet(file).select(first=time.min(), last=time.max()).collect().row(0)
    return first, last
