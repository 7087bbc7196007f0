"""Readings by the minute and by the second through the service, whose model was trained on hourly rows of them."""

import json
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from tests.minute_fleet import START, train_minute_fleet

from bench import environments, servers
from bench.measuring import Row
from upkeep.contract.dictionary import load_dictionary
from upkeep.contract.reconcile import Delivered
from upkeep.contract.validation import check_table
from upkeep.core.params import load_params
from upkeep.core.types import Floats32
from upkeep.features.inputs import read_tables
from upkeep.model.scoring import load_scorer
from upkeep.scoring.prediction_log import read_parts

PLANT, MACHINE = "lyon", "M0"
HOURS = 48
END = START + timedelta(hours=HOURS)
SECONDS = 10


def measure() -> list[Row]:
    """Return requests a second with two days by the minute, and features that differ with two days by the second."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        telemetry, _ = train_minute_fleet(folder, windows_hours=[8, HOURS])
        by_minute, by_second = telemetry.filter(machine=MACHINE).tail(HOURS * 60), _draw_readings()
        settings = {
            "UPKEEP_MODELS": str(folder / "models/plants"),
            "UPKEEP_GOLDEN": str(folder / "models/golden"),
            "UPKEEP_DICTIONARY": str(folder / "dictionary.yaml"),
        }
        packages = environments.install_service()
        server = servers.service(packages, folder, _write_request(by_minute), **settings)
        with servers.running(server, folder) as process:
            found = servers.load(server, process, folder, SECONDS)
            servers.ask(process.port, _write_request(by_second))
        logged = pl.concat(part for _, part in read_parts(servers.log_url(folder), date.min, set()))
        answered = np.array(logged.filter(pl.col("time") == END)["features"].to_list(), dtype=np.float32)
        differing = (answered.view(np.uint32) != _make_features(folder, by_second).view(np.uint32)).sum(axis=1)
    load = (
        f"{by_minute.height:,} rows each, wrk -t1 -c{servers.CONNECTIONS}, {SECONDS} s; p99 {found['p99']:.0f} ms; "
        f"failed: {found['failed']}"
    )
    parity = f"{by_second.height:,} readings in one request, against the hourly rows that `validate` makes of them"
    other = float(differing.item()) if differing.size else None  # it was not answered
    return [
        Row(f"service, {HOURS} h by the minute", found["rate"], "requests/s", target="ours >= 50", note=load),
        Row(f"service, {HOURS} h by the second, other features", other, "", target="ours <= 0", note=parity),
    ]


def _draw_readings() -> pl.DataFrame:
    """Return two days of a machine by the second."""
    seconds = np.arange(1, HOURS * 3600 + 1)
    vibration, temperature = np.random.default_rng(7).normal([[5], [60]], 0.5, (2, seconds.size)).round(3)
    return pl.DataFrame({"second": seconds, "vibration_mm_s": vibration, "temperature_c": temperature}).select(
        plant=pl.lit(PLANT),
        machine=pl.lit(MACHINE),
        time=pl.lit(START) + pl.duration(seconds="second"),
        load_pct=pl.lit(50.0),
        vibration_mm_s="vibration_mm_s",
        temperature_c="temperature_c",
    )


def _write_request(readings: pl.DataFrame) -> bytes:
    rows = readings.with_columns(pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    split = {"columns": rows.columns, "data": [list(values) for values in rows.iter_rows()]}
    return json.dumps({"dataframe_split": split}).encode()


def _make_features(folder: Path, readings: pl.DataFrame) -> Floats32:
    """Return the features of the hourly rows that these readings make, by the pipeline's way."""
    dictionary, params = load_dictionary(folder / "dictionary.yaml"), load_params(folder / "params.yaml")
    delivered = [Delivered(START.date(), 1, readings.lazy)]
    columns = dictionary.columns("telemetry", PLANT)
    checked = check_table("telemetry", PLANT, delivered, columns, params.validate_, 7, dictionary.row_length)
    events, machines = (
        pl.read_parquet(folder / f"data/interim/{name}/{PLANT}.parquet") for name in ("events", "machines")
    )
    scorer = load_scorer(folder / "models/plants" / PLANT)
    (answer,) = scorer.score(
        *read_tables(checked.clean, events.clear(), machines.filter(machine=MACHINE), scorer.vocabulary)
    )
    return answer.features
