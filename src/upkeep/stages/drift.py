"""Telemetry and training rows in; per plant, what changed since training, as pages and as JSON."""

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import polars as pl

from upkeep.contract.dictionary import Dictionary, load_dictionary
from upkeep.core import paths
from upkeep.core.params import Params
from upkeep.core.plants import list_plants, name_file, table_file
from upkeep.judging.drift import Window, compare_windows, newest_window
from upkeep.judging.reports import DriftReport, PlantDrift, write_report
from upkeep.reporting.drift_pages import SCRIPT, list_pages, overview_page, plant_page, split_script


def run(params: Params) -> None:
    """Write ``drift.json``, a page of all plants, and one of each plant in which a column drifted.

    Those pages share Evidently's script, which is 3 MB. Plants are compared one after the other: importing Evidently
    takes longer than a worker process per core would save.
    """
    list_plants(paths.PROCESSED, "*/train.parquet", made_by="dataset")
    telemetry, dictionary = _read_telemetry(), load_dictionary(params.validate_.dictionary)
    window = _newest_window(telemetry, params)
    shutil.rmtree(paths.DRIFT, ignore_errors=True)  # it may hold pages of plants that are gone
    paths.DRIFT.mkdir(parents=True)
    findings: dict[str, PlantDrift] = {}
    for plant, rows in telemetry.items():
        findings[plant], draw_page = _compare_plant(plant, rows, dictionary, window, params)
        if plant in list_pages(findings):
            page, script = split_script(plant_page(plant, findings[plant], draw_page()))
            (paths.DRIFT / f"{name_file(plant)}.html").write_text(page, encoding="utf-8")
            (paths.DRIFT / SCRIPT).write_text(script, encoding="utf-8")
    (paths.DRIFT / "index.html").write_text(overview_page(findings), encoding="utf-8")
    write_report(DriftReport(findings))


def recent_drift(params: Params) -> dict[str, list[bool]]:
    """Return by plant whether it drifted in each of the last windows, the newest first.

    All are held against the same training rows, those in ``data/processed``, so nothing has to be kept between runs.
    Where the newest shows no drift, the others would change nothing and are left out. So is a plant that nothing was
    trained on yet.
    """
    telemetry = {plant: rows for plant, rows in _read_telemetry().items() if _training_rows(plant).exists()}
    if not any(rows.height for rows in telemetry.values()):
        return {}
    newest, dictionary = _newest_window(telemetry, params), load_dictionary(params.validate_.dictionary)
    return {plant: _look_back(plant, rows, dictionary, newest, params) for plant, rows in telemetry.items()}


def _look_back(plant: str, rows: pl.DataFrame, dictionary: Dictionary, newest: Window, params: Params) -> list[bool]:
    found: list[bool] = []
    while len(found) < params.retrain.drift_windows and all(found[:1]):
        earlier = timedelta(days=len(found) * params.fetch.batch_days)
        window = Window(newest.start - earlier, newest.end - earlier)
        finding, _ = _compare_plant(plant, rows, dictionary, window, params)
        found.append(finding.drifted)
    return found


def _read_telemetry() -> dict[str, pl.DataFrame]:
    folder = paths.INTERIM / "telemetry"
    return {plant: pl.read_parquet(table_file(folder, plant)) for plant in list_plants(folder)}


def _training_rows(plant: str) -> Path:
    return paths.PROCESSED / name_file(plant) / "train.parquet"


def _newest_window(telemetry: Mapping[str, pl.DataFrame], params: Params) -> Window:
    newest = pl.concat([rows.select("time") for rows in telemetry.values()])["time"].max()
    if not isinstance(newest, datetime):  # no plant has a row
        newest = datetime.combine(params.fetch.until, time(), UTC)
    return newest_window(newest, params.fetch.until, params.fetch.batch_days, params.drift.window_batches)


def _compare_plant(
    plant: str, rows: pl.DataFrame, dictionary: Dictionary, window: Window, params: Params
) -> tuple[PlantDrift, Callable[[], str]]:
    columns = [*dictionary.names("telemetry", "setting", plant), *dictionary.names("telemetry", "sensor", plant)]
    trained = pl.read_parquet(_training_rows(plant), columns=["machine", "time"])
    return compare_windows(rows, trained, columns, window, params.drift)
