"""Whether drift lasts: what the drift report would have said as of each of the last batches."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from upkeep.contract.dictionary import load_dictionary
from upkeep.core import paths
from upkeep.core.params import Params
from upkeep.judging.drift import ROLES, compare, newest_window

TIME = pl.Datetime("us", "UTC")

Window = tuple[datetime, datetime]


def recent_drift(params: Params) -> dict[str, list[bool]]:
    """Compare the last windows of each plant's telemetry with what its models were trained on.

    All are held against the same training rows, those in ``data/processed``, so nothing has to be kept between runs.

    Returns
    -------
    dict
        By plant, whether it drifted in each window, the newest first. Where the newest shows no drift, the others
        would change nothing and are left out. So is a plant that nothing was trained on yet.
    """
    dictionary = load_dictionary(params.validate_.dictionary)
    files = sorted((paths.INTERIM / "telemetry").glob("*.parquet"))
    telemetry = {file.stem: pl.read_parquet(file) for file in files if _training_rows(file.stem).exists()}
    newest = pl.Series([rows["time"].max() for rows in telemetry.values()], dtype=TIME).max()
    if not isinstance(newest, datetime):  # no plant has a row
        return {}
    window = newest_window(newest, params.fetch.until, params.fetch.batch_days, params.drift.window_batches)
    columns = {
        plant: [name for role in ROLES for name in dictionary.names("telemetry", role, plant)] for plant in telemetry
    }
    return {plant: _look_back(plant, rows, columns[plant], window, params) for plant, rows in telemetry.items()}


def _training_rows(plant: str) -> Path:
    return paths.PROCESSED / plant / "train.parquet"


def _look_back(plant: str, rows: pl.DataFrame, columns: Sequence[str], newest: Window, params: Params) -> list[bool]:
    trained = pl.read_parquet(_training_rows(plant), columns=["machine", "time"])
    found: list[bool] = []
    while len(found) < params.retrain.drift_windows and all(found[:1]):
        earlier = timedelta(days=len(found) * params.fetch.batch_days)
        window = (newest[0] - earlier, newest[1] - earlier)
        finding, _ = compare(rows, trained, columns, window, params.drift)
        found.append(finding.drifted)
    return found
