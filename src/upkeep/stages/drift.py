"""Telemetry and training rows in; per plant, what changed since training, as pages and as JSON."""

import json
from datetime import UTC, datetime, time
from typing import Any

import polars as pl

from upkeep.contract.dictionary import Dictionary, load_dictionary
from upkeep.core import paths
from upkeep.core.params import Params
from upkeep.judging.drift import Comparison, compare, newest_window
from upkeep.reporting.drift_pages import overview_page, plant_page


def run(params: Params) -> None:
    """Write ``drift.json``, an overview page and a detail page per plant.

    Plants are compared one after the other: importing Evidently takes longer than comparing four of them, so a
    worker process per core would cost more than it saves.
    """
    dictionary = load_dictionary(params.validate_.dictionary)
    telemetry = {file.stem: pl.read_parquet(file) for file in sorted((paths.INTERIM / "telemetry").glob("*.parquet"))}
    paths.DRIFT.mkdir(parents=True, exist_ok=True)
    findings: dict[str, dict[str, Any]] = {}
    for plant, comparison in _compare_all(telemetry, dictionary, params).items():
        findings[plant] = comparison.finding
        page = plant_page(plant, comparison.finding, comparison.detail)
        (paths.DRIFT / f"{plant}.html").write_text(page, encoding="utf-8")
    (paths.DRIFT / "index.html").write_text(overview_page(findings), encoding="utf-8")
    text = json.dumps(findings, indent=1, allow_nan=False) + "\n"
    (paths.DRIFT / "drift.json").write_text(text, encoding="utf-8")


def _compare_all(telemetry: dict[str, pl.DataFrame], dictionary: Dictionary, params: Params) -> dict[str, Comparison]:
    newest = pl.concat([rows.select("time") for rows in telemetry.values()])["time"].max()
    if not isinstance(newest, datetime):  # no plant has a row
        newest = datetime.combine(params.fetch.until, time(), UTC)
    window = newest_window(newest, params.fetch.until, params.fetch.batch_days, params.drift.window_batches)
    return {
        plant: compare(rows, _training_keys(plant), _columns(dictionary, plant), window, params.drift)
        for plant, rows in telemetry.items()
    }


def _training_keys(plant: str) -> pl.DataFrame:
    return pl.read_parquet(paths.PROCESSED / plant / "train.parquet", columns=["machine", "time"])


def _columns(dictionary: Dictionary, plant: str) -> list[str]:
    return [*dictionary.names("telemetry", "setting", plant), *dictionary.names("telemetry", "sensor", plant)]
