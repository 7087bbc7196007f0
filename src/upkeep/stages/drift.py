"""Telemetry and training rows in; per plant, what changed since training, as pages and as JSON."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta

import polars as pl

from upkeep.contract.dictionary import Dictionary, load_dictionary
from upkeep.core import paths
from upkeep.core.files import write_whole
from upkeep.core.parallel import map_plants
from upkeep.core.params import Params
from upkeep.core.plants import list_plants, name_file, read_spans, table_file
from upkeep.judging.drift import Window, compare_windows, newest_window, read_windows
from upkeep.judging.reports import DriftReport, PlantDrift, write_report
from upkeep.reporting.drift_pages import SCRIPT, draw_page, list_pages, overview_page, plant_page, split_script

TELEMETRY = paths.INTERIM / "telemetry"
TRAINED = "*/train.parquet"


def run(params: Params) -> None:
    """Write ``drift.json``, a page of all plants, and one of each plant that :func:`list_pages` names.

    The plants' pages share Evidently's script, which is 3 MB.
    """
    list_plants(paths.PROCESSED, TRAINED, made_by="dataset")
    plants, dictionary = list_plants(TELEMETRY, made_by="validate"), load_dictionary(params.validate_.dictionary)
    window = _find_window(plants, params)
    findings = map_plants(_compare_plant, plants, params.parallel, dictionary, window, params)
    shutil.rmtree(paths.DRIFT, ignore_errors=True)  # it may hold pages of plants that are gone
    paths.DRIFT.mkdir(parents=True)
    drawn = {plant: findings[plant] for plant in list_pages(findings)}
    map_plants(_write_page, drawn, params.parallel, drawn, window, params)
    (paths.DRIFT / "index.html").write_text(overview_page(findings), encoding="utf-8")
    write_report(DriftReport(findings))


def recent_drift(params: Params) -> dict[str, list[bool]]:
    """Return by plant whether it drifted in each of the last windows, the newest first.

    All are compared with the same training rows, those in ``data/processed``, so nothing has to be kept between runs. A
    plant without training rows is left out.
    """
    trained = list_plants(paths.PROCESSED, TRAINED)
    plants = [plant for plant in list_plants(TELEMETRY) if plant in trained]
    if not plants:
        return {}
    dictionary, window = load_dictionary(params.validate_.dictionary), _find_window(plants, params)
    return map_plants(_look_back, plants, params.parallel, dictionary, window, params)


def look_back(windows: int, has_drifted: Callable[[int], bool]) -> list[bool]:
    """Return whether something drifted in each of the last windows, the newest first.

    `has_drifted` takes the number of batches since the window's end. Without drift in the newest window the others
    decide nothing, and are left out.
    """
    newest = has_drifted(0)
    return [newest, *(has_drifted(ago) for ago in range(1, windows) if newest)]


def _look_back(plant: str, dictionary: Dictionary, newest: Window, params: Params) -> list[bool]:
    def has_drifted(batches_ago: int) -> bool:
        earlier = timedelta(days=batches_ago * params.fetch.batch_days)
        window = Window(newest.start - earlier, newest.end - earlier)
        return _compare_plant(plant, dictionary, window, params).drifted

    return look_back(params.retrain.drift_windows, has_drifted)


def _find_window(plants: Sequence[str], params: Params) -> Window:
    """Return the newest window of the fleet's telemetry; without any row, the one that ``fetch.until`` allows."""
    fetch, newest = params.fetch, read_spans(TELEMETRY, plants).select(pl.max("last")).item()
    newest = newest or datetime.combine(fetch.until, time(), UTC)
    return newest_window(newest, fetch.until, fetch.batch_days, params.drift.window_batches)


def _compare_plant(plant: str, dictionary: Dictionary, window: Window, params: Params) -> PlantDrift:
    return compare_windows(*_read_sides(plant), dictionary.readings(plant), window, params.drift)


def _write_page(plant: str, findings: Mapping[str, PlantDrift], window: Window, params: Params) -> None:
    found = findings[plant]
    current, reference = read_windows(*_read_sides(plant), [*found.columns], window, params.drift)
    page, script = split_script(plant_page(plant, found, draw_page(current, reference, found, params.drift)))
    write_whole(paths.DRIFT / f"{name_file(plant)}.html", page.encode())
    write_whole(paths.DRIFT / SCRIPT, script.encode())


def _read_sides(plant: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    trained = paths.PROCESSED / name_file(plant) / "train.parquet"
    return pl.read_parquet(table_file(TELEMETRY, plant)), pl.read_parquet(trained, columns=["machine", "time"])
