"""A fleet that reads every minute: rows by the hour, the same through pipeline, service and `upkeep score`."""

import json
from contextlib import chdir
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT
from starlette.testclient import TestClient
from trained_fleet import service_environment

from upkeep.cli import run_stage
from upkeep.core.params import load_params
from upkeep.features.inputs import read_tables
from upkeep.model.scoring import load_scorer
from upkeep.scoring import score
from upkeep.scoring.prediction_log import read_parts
from upkeep.serving.app import create_app
from upkeep.serving.settings import read_settings

START = datetime(2025, 1, 6, tzinfo=UTC)
WEEKS, MACHINES, FAILS_EVERY = 3, 4, 90
SENSORS = ["vibration_mm_s", "temperature_c"]
COLUMNS = ["plant", "machine", "time", "load_pct", *SENSORS]
WIDEST = timedelta(hours=24)


def write_deliveries(folder):
    """Machines that shake ever more unevenly before they fail, while their means stay."""
    draw = np.random.default_rng(3)
    minutes = np.arange(WEEKS * 7 * 24 * 60)
    tables, happened = [], []
    for machine in range(MACHINES):
        hours = minutes / 60 + 17 * machine
        wear = np.exp((hours % FAILS_EVERY - FAILS_EVERY) / 12)
        noise = draw.normal(size=(2, len(minutes)))
        columns = {"plant": "lyon", "machine": f"M{machine}", "load_pct": 50.0, "temperature_c": 60 + noise[0]}
        columns["vibration_mm_s"] = 5 + (0.1 + wear) * noise[1]
        tables.append(pl.DataFrame(columns).with_columns(time=START + pl.duration(minutes=pl.Series(minutes))))
        for fails in range(FAILS_EVERY - 17 * machine % FAILS_EVERY, WEEKS * 168, FAILS_EVERY):
            for hour, kind in ((fails, "failure"), (fails + 2, "maintenance")):
                happened.append(("lyon", f"M{machine}", START + timedelta(hours=hour), kind, "bearing"))
    telemetry = pl.concat(tables).select(COLUMNS).sort("time", maintain_order=True)
    spiked = pl.when(pl.int_range(pl.len()) == 777).then(999.0).otherwise("temperature_c").alias("temperature_c")
    telemetry = telemetry.with_columns(spiked)
    telemetry.write_parquet(folder / "telemetry.parquet")
    events = pl.DataFrame(happened, schema=["plant", "machine", "time", "kind", "code"], orient="row")
    events.write_parquet(folder / "events.parquet")
    return telemetry, events


@pytest.fixture(scope="module")
def minutes(tmp_path_factory):
    """A folder in which all stages up to the golden requests ran, and the readings as they were delivered."""
    folder = tmp_path_factory.mktemp("minutes")
    dictionary = yaml.safe_load((ROOT / "data/references/dictionary.yaml").read_text())
    columns = dictionary["tables"]["telemetry"]
    dictionary["tables"]["telemetry"] = {name: columns[name] for name in COLUMNS}
    (folder / "dictionary.yaml").write_text(yaml.safe_dump({"rows_every": "1h", **dictionary}))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    options = {table: {"path": str(folder / f"{table}.parquet")} for table in ("telemetry", "events")}
    params["fetch"] |= {"source": "files", "until": "2025-01-20", "options": options}
    params["validate"]["dictionary"] = "dictionary.yaml"
    params["dataset"] |= {"horizon_hours": 24, "windows_hours": [6, 24], "baseline_hours": 24, "max_repair_hours": 12}
    params["dataset"]["max_single_feature_auc"] = 1  # the spread tells all here, as it shall
    params["model"] |= {"compare": [], "lightgbm": params["model"]["lightgbm"] | {"n_estimators": 20}}
    params["score"] |= {"history_batches": 2}
    params["parallel"]["backend"] = "sequential"
    delivered = write_deliveries(folder)
    with chdir(folder):
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        for stage in ("fetch", "validate", "dataset", "train", "golden"):
            run_stage(stage)
    return folder, *delivered


def bits(features):
    return np.asarray(features, dtype=np.float32).view(np.uint32)


def test_raw_rows_are_accounted_for_and_reduced_to_hours(minutes):
    folder, telemetry, _ = minutes
    quality = json.loads((folder / "reports/data_quality.json").read_text())["plants"]["lyon"]
    found = quality["tables"]["telemetry"]
    assert found["rows_in"] == telemetry.height == found["clean"] + 1
    assert found["quarantined"] == {"out of range": 1}
    rows = pl.read_parquet(folder / "data/interim/telemetry/lyon.parquet")
    assert found["reduced_to"] == rows.height == (WEEKS * 168 + 1) * MACHINES
    assert set(rows["temperature_c.count"]) == {1.0, 59.0, 60.0}
    assert {finding["kind"] for finding in quality["findings"]} <= {"missing_column", "extra_column"}


def test_features_know_the_spread_within_the_hour(minutes):
    folder, *_ = minutes
    model = load_scorer(folder / "models/plants/lyon").model
    assert {"vibration_mm_s.std", "vibration_mm_s.std_mean_24h", "vibration_mm_s.count"} <= set(model.metadata.features)
    gains = dict(zip(model.metadata.features, model.boosters[0].feature_importance("gain"), strict=True))
    assert max(gains, key=gains.__getitem__).startswith("vibration_mm_s")


def test_pipeline_service_and_batch_scoring_agree_to_the_bit_on_readings_of_a_minute(minutes, tmp_path, monkeypatch):
    folder, telemetry, events = minutes
    scorer = load_scorer(folder / "models/plants/lyon")
    names = scorer.model.metadata.features
    made = pl.read_parquet(folder / "data/processed/plants/lyon/test.parquet")
    rows = made.gather(np.linspace(0, made.height - 1, 5).astype(int))
    environment = service_environment(folder, tmp_path, UPKEEP_DICTIONARY=str(folder / "dictionary.yaml"))
    settings = read_settings(environment)
    times = pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    with TestClient(create_app(settings)) as client:
        for row in rows.iter_rows(named=True):
            own, until = pl.col("machine") == row["machine"], pl.col("time") <= row["time"]
            readings = telemetry.filter(own, until, pl.col("time") > row["time"] - WIDEST)
            table = pl.concat(
                [readings.sample(fraction=1, shuffle=True, seed=1), events.filter(own, until)], how="diagonal"
            )
            body = json.dumps({"dataframe_records": table.with_columns(times).to_dicts()}).encode()
            (answer,) = client.post("/invocations", content=body).json()["predictions"]
            assert datetime.fromisoformat(answer["time"]) == row["time"]
        for case in json.loads((folder / "models/golden/lyon.json").read_text()):
            (answer,) = client.post("/invocations", content=json.dumps(case["request"]).encode()).json()["predictions"]
            assert answer["probability"] == case["answer"]["probability"]
    logged = pl.concat(frame for _, frame in read_parts(settings.log_url, date.min, set()))
    np.testing.assert_array_equal(
        bits(logged["features"].to_list()[: rows.height]), bits(rows.select(names).to_numpy())
    )

    monkeypatch.chdir(folder)
    score.run(load_params(), date(2025, 1, 20))
    batch = pl.concat(frame for _, frame in read_parts("data/prediction_log", date.min, set())).sort("machine")
    tables = [
        pl.read_parquet(folder / f"data/interim/{name}/lyon.parquet") for name in ("telemetry", "events", "machines")
    ]
    newest = scorer.score(*read_tables(*tables, scorer.vocabulary))
    np.testing.assert_array_equal(bits(batch["features"].to_list()), bits([answer.features for answer in newest]))
