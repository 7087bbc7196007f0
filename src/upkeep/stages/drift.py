"""Telemetry and training rows in; per plant, what changed since training, as pages and as JSON."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, time

import polars as pl

from upkeep.contract.dictionary import load_dictionary
from upkeep.core import paths
from upkeep.core.params import Params
from upkeep.judging.drift import ROLES, compare, newest_window
from upkeep.judging.reports import DriftReport, PlantDrift, write_report
from upkeep.reporting.drift_pages import overview_page, plant_page


def run(params: Params) -> None:
    """Write ``drift.json``, an overview page and a detail page per plant.

    Plants are compared one after the other: importing Evidently takes longer than comparing four of them, so a
    worker process per core would cost more than it saves.
    """
    dictionary = load_dictionary(params.validate_.dictionary)
    telemetry = {file.stem: pl.read_parquet(file) for file in sorted((paths.INTERIM / "telemetry").glob("*.parquet"))}
    window = _newest_window(telemetry, params)
    shutil.rmtree(paths.DRIFT, ignore_errors=True)  # it may hold pages of plants that are gone
    paths.DRIFT.mkdir(parents=True)
    findings: dict[str, PlantDrift] = {}
    for plant, rows in telemetry.items():
        columns = [name for role in ROLES for name in dictionary.names("telemetry", role, plant)]
        findings[plant], detail = compare(rows, _training_keys(plant), columns, window, params.drift)
        page = plant_page(plant, findings[plant].model_dump(by_alias=True), detail)
        (paths.DRIFT / f"{plant}.html").write_text(page, encoding="utf-8")
    report = DriftReport(findings)
    (paths.DRIFT / "index.html").write_text(overview_page(report.model_dump(by_alias=True)), encoding="utf-8")
    write_report(report)


def _newest_window(telemetry: Mapping[str, pl.DataFrame], params: Params) -> tuple[datetime, datetime]:
    newest = pl.concat([rows.select("time") for rows in telemetry.values()])["time"].max()
    if not isinstance(newest, datetime):  # no plant has a row
        newest = datetime.combine(params.fetch.until, time(), UTC)
    return newest_window(newest, params.fetch.until, params.fetch.batch_days, params.drift.window_batches)


def _training_keys(plant: str) -> pl.DataFrame:
    return pl.read_parquet(paths.PROCESSED / plant / "train.parquet", columns=["machine", "time"])
