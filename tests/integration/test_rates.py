"""A fleet that reads every minute: rows by the hour, the same through pipeline, service and `upkeep score`."""

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from minute_fleet import MACHINES, WEEKS, train_minute_fleet
from starlette.testclient import TestClient
from trained_fleet import service_environment

from upkeep.contract import table_check
from upkeep.contract.reconcile import reconcile
from upkeep.core.params import load_params
from upkeep.features.inputs import read_tables
from upkeep.model.scoring import load_scorer
from upkeep.scoring import score
from upkeep.scoring.prediction_log import read_parts
from upkeep.serving.app import create_app
from upkeep.serving.settings import read_settings
from upkeep.stages import validate as validate_stage

WIDEST = timedelta(hours=24)


@pytest.fixture(scope="module")
def minutes(tmp_path_factory):
    """A folder in which all stages up to the golden requests ran, and the readings as they were delivered."""
    folder = tmp_path_factory.mktemp("minutes")
    return folder, *train_minute_fleet(folder)


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
    score.run(load_params(), datetime(2025, 1, 26, 23, 59, 59, tzinfo=UTC))
    batch = pl.concat(frame for _, frame in read_parts("data/prediction_log", date.min, set())).sort("machine")
    tables = [
        pl.read_parquet(folder / f"data/interim/{name}/lyon.parquet") for name in ("telemetry", "events", "machines")
    ]
    newest = scorer.score(*read_tables(*tables, scorer.vocabulary))
    np.testing.assert_array_equal(bits(batch["features"].to_list()), bits([answer.features for answer in newest]))


def validate(*, pieces: str | None) -> tuple[dict[str, bytes], int]:
    """Run the stage here; return what it wrote, and how many deliveries of telemetry it read."""
    params, read = load_params(), []
    settings = params.pieces.model_copy(update={"folder": pieces and Path(pieces)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_check, "reconcile", lambda *given: read.append(given[0].columns) or reconcile(*given))
        validate_stage.run(params.model_copy(update={"pieces": settings}))
    files = [*Path("data/interim").rglob("*.parquet"), Path("reports/data_quality.json")]
    return {str(file): file.read_bytes() for file in files}, sum("temperature_c" in columns for columns in read)


def test_a_delivery_is_reduced_once_and_what_was_kept_of_it_changes_no_byte(minutes, tmp_path, monkeypatch):
    shutil.copytree(minutes[0] / "data/raw", tmp_path / "data/raw")
    for name in ("params.yaml", "dictionary.yaml"):
        shutil.copy(minutes[0] / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    manifest = Path("data/raw/manifest.json")
    whole = json.loads(manifest.read_text())
    newest = max(file["batch"] for file in whole["files"])
    manifest.write_text(json.dumps(whole | {"files": [file for file in whole["files"] if file["batch"] < newest]}))
    earlier, read = validate(pieces="kept")
    assert read == WEEKS - 1
    assert validate(pieces="kept") == (earlier, 0)
    manifest.write_text(json.dumps(whole))
    later, read = validate(pieces="kept")
    assert read == 1
    assert validate(pieces=None) == (later, WEEKS)
    lost = np.random.default_rng(7).choice(sorted(Path("kept").iterdir()), 3, replace=False)
    for file in lost:
        file.unlink()
    assert validate(pieces="kept")[0] == later
