"""One definition of a feature: training rows, batch scoring and the API agree to the last bit."""

import json
import shutil
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient
from trained_fleet import PLANTS, service_environment

from upkeep.core.params import load_params
from upkeep.features.inputs import read_tables
from upkeep.model.scoring import load_scorer
from upkeep.scoring.prediction_log import read_parts
from upkeep.serving.app import create_app
from upkeep.serving.settings import read_settings
from upkeep.stages import golden

ROWS = 12
"""Per plant, spread over machines and test rows."""


def chosen_rows(fleet, plant):
    """Test rows with the features that training made, and the probability that evaluation judged."""
    rows = pl.read_parquet(fleet / f"data/processed/plants/{plant}/test.parquet")
    judged = pl.read_parquet(fleet / f"data/predictions/{plant}.parquet").filter("chosen", split="test")
    rows = rows.join(judged.select("machine", "time", "probability"), on=["machine", "time"])
    return rows.gather(np.linspace(0, rows.height - 1, ROWS).astype(int))


def known_at(fleet, plant, row):
    """What a client knows at a row's time: two days of telemetry, and the machine's events."""
    tables = {}
    for table in ("telemetry", "events"):
        rows = pl.read_parquet(fleet / f"data/interim/{table}/{plant}.parquet")
        tables[table] = rows.filter(pl.col("machine") == row["machine"], pl.col("time") <= row["time"])
    since = row["time"] - timedelta(hours=48)
    return tables["telemetry"].filter(pl.col("time") > since), tables["events"]


@pytest.mark.parametrize("plant", PLANTS)
def test_training_batch_and_api_agree_bit_by_bit(trained_fleet, tmp_path, plant):
    scorer = load_scorer(trained_fleet / "models/plants" / plant)
    names = scorer.model.metadata.features
    no_records = pl.DataFrame(schema={"machine": pl.String, "model": pl.String, "installed": pl.Datetime("us", "UTC")})
    expected, asked = [], []
    settings = read_settings(service_environment(trained_fleet, tmp_path))
    with TestClient(create_app(settings)) as client:
        for row in chosen_rows(trained_fleet, plant).iter_rows(named=True):
            features = np.array([row[name] for name in names], dtype=np.float32)
            telemetry, events = known_at(trained_fleet, plant, row)
            (batch,) = scorer.score(*read_tables(telemetry, events, no_records, scorer.vocabulary))
            np.testing.assert_array_equal(batch.features.view(np.uint32), features.view(np.uint32))
            assert batch.probability == row["probability"]
            table = pl.concat([telemetry, events], how="diagonal").with_columns(
                pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%SZ")
            )
            assert telemetry["time"].dt.microsecond().max() == 0
            body = json.dumps({"dataframe_records": table.to_dicts()}).encode()
            (answer,) = client.post("/invocations", content=body).json()["predictions"]
            assert answer["probability"] == row["probability"]
            expected.append(features)
            asked.append((row["machine"], answer["time"]))
    logged = pl.concat(frame for _, frame in read_parts(settings.log_url, date.min, set()))
    assert logged["machine"].to_list() == [machine for machine, _ in asked]
    as_logged = np.array(logged["features"].to_list(), dtype=np.float32)
    np.testing.assert_array_equal(as_logged, np.array(expected))


def test_a_plant_whose_machines_are_on_record_only_has_no_golden_requests(trained_fleet, tmp_path, monkeypatch):
    for folder in ("data/interim", "models/plants"):
        shutil.copytree(trained_fleet / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "data/interim/telemetry/lyon.parquet"
    pl.read_parquet(file).clear().write_parquet(file)
    golden.run(load_params(trained_fleet / "params.yaml"))
    sizes = {file.stem: len(json.loads(file.read_text())) for file in (tmp_path / "models/golden").iterdir()}
    assert sizes == {"lyon": 0, "porto": golden.REQUESTS}
