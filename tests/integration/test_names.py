"""Names change nothing: a fleet with the worst names that plants could give goes through the pipeline as any other."""

import json
from contextlib import chdir
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from named_fleet import HOURS, PLAIN, WORST, run
from starlette.testclient import TestClient
from trained_fleet import service_environment

from upkeep.core.params import load_params
from upkeep.core.plants import table_file
from upkeep.scoring import score
from upkeep.scoring.prediction_log import read_parts
from upkeep.serving.app import create_app
from upkeep.serving.settings import read_settings


@pytest.fixture(scope="module")
def worst(tmp_path_factory):
    return run(WORST, tmp_path_factory.mktemp("worst"), "fetch", "validate", "dataset", "train", "golden")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(PLAIN, tmp_path_factory.mktemp("plain"), "fetch", "validate", "dataset", "train")


def chosen(folder: Path, plant: str) -> pl.DataFrame:
    return pl.read_parquet(table_file(folder / "data/predictions", plant)).sort("candidate", "machine", "time")


def test_models_say_the_same_as_with_plain_names(worst, plain):
    for ours, theirs in zip(PLAIN.plants, WORST.plants, strict=True):
        expected, found = chosen(plain, ours), chosen(worst, theirs)
        unnamed = ["time", "candidate", "chosen", "label", "hours_to_failure", "probability", "alarm"]
        assert found.select(unnamed).equals(expected.select(unnamed))
        assert set(found["machine"]) == set(WORST.machines)
        assert set(found["plant"]) == {theirs}


def test_no_row_is_taken_for_another(worst):
    quality = json.loads((worst / "reports/data_quality.json").read_text(encoding="utf-8"))["plants"]
    assert list(quality) == WORST.plants
    for found in quality.values():
        assert found["tables"]["telemetry"]["clean"] == HOURS * len(WORST.machines)


def test_the_service_answers_golden_requests_as_training_did(worst, tmp_path):
    environment = service_environment(worst, tmp_path, UPKEEP_DICTIONARY=str(worst / "dictionary.yaml"))
    settings = read_settings(environment)
    with TestClient(create_app(settings)) as client:
        for file in sorted((worst / "models/golden").glob("*.json")):
            for case in json.loads(file.read_text(encoding="utf-8")):
                reply = client.post("/invocations?reasons=true", json=case["request"]).json()
                [answer] = reply["predictions"]
                assert {name: answer[name] for name in ("plant", "machine", "probability")} == {
                    name: case["answer"][name] for name in ("plant", "machine", "probability")
                }
                asked = {"plant": answer["plant"], "machine": answer["machine"]}
                assert client.get("/fleet/machine", params=asked).json()["probability"] == answer["probability"]
    logged = pl.concat(rows for _, rows in read_parts(settings.log_url, date.min, set()))
    assert set(logged["plant"]) == set(WORST.plants)


def test_the_newest_rows_are_scored(worst):
    with chdir(worst):
        score.run(load_params(), datetime(2025, 2, 23, 23, 30, tzinfo=UTC))
        logged = pl.concat(rows for _, rows in read_parts("data/prediction_log", date.min, set()))
    scored = [(plant, machine) for plant in WORST.plants for machine in WORST.machines]
    assert sorted(logged.select("plant", "machine").rows()) == sorted(scored)
    assert logged["id"].n_unique() == len(scored)
