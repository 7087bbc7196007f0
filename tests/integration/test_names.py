"""Names change nothing: a fleet with the worst names that plants could give goes through the pipeline as any other."""

import html
import json
from contextlib import chdir
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT
from starlette.testclient import TestClient
from trained_fleet import service_environment

from upkeep.cli import run_stage
from upkeep.core.params import load_params
from upkeep.core.plants import name_file, table_file
from upkeep.reporting.markdown import format_value
from upkeep.reporting.notebooks import rendering_of, resolve_parameters, run_notebook
from upkeep.reporting.tracking import connect
from upkeep.scoring import score
from upkeep.scoring.prediction_log import read_parts
from upkeep.serving.app import create_app
from upkeep.serving.settings import read_settings

START = datetime(2025, 1, 6, tzinfo=UTC)
HOURS = 7 * 168
FAILS_EVERY, WEARS = 240, 48
"""Hours."""
TEXT = {"model": pl.String}


class Names(NamedTuple):
    """What a fleet calls things; each list is in alphabetical order where the pipeline sorts."""

    plants: list[str]
    machines: list[str]
    settings: list[str]
    sensors: list[str]
    errors: list[str]
    maintenance: list[str]
    models: list[str]
    attributes: list[str]


WORST = Names(
    plants=["..", "7", "Nord/ö|<b>", "nord/ö|<b>"],
    machines=["..", "a/b"],
    settings=["rank", "split"],
    sensors=[
        *("value", "row", "weight", "label", "others", "Time", "machine_model", "hours_to_failure", "probability"),
        *("vibration", "vibration_mean_8h", "before vibration", "age_hours", "model_code", "hours_since_failure"),
        *("errors_E1_8h", "column", "literal", "begins", "failed", "ahead", "failures", "tenth", "last", "target"),
        *('a "quoted", name', "100 % [x]{y}:z", "Öl|`<b>", "^x", "$z$", "_hidden", "null"),
    ],
    errors=["E1", "E1_8h", "[e1]", "e1", 'é,"{}:'],
    maintenance=["@failure@", "failure"],
    models=["not known", "unknown"],
    attributes=["last", "weight", "attribute_x", "split"],
)
PLAIN = Names(*([f"{kind}{number:02}" for number in range(len(names))] for kind, names in WORST._asdict().items()))


def deliver(names: Names, folder: Path) -> None:
    """Write three tables of machines whose first sensor rises before they fail."""
    rng = np.random.default_rng(1)
    tables = {"telemetry": [], "events": [], "machines": []}
    hours = np.arange(HOURS)
    for number, (plant, machine) in enumerate((plant, machine) for plant in names.plants for machine in names.machines):
        left = (-hours - 31 * number) % FAILS_EVERY
        columns = {setting: np.where(hours % 5 < 2, 20.0, 80.0) for setting in names.settings}
        columns |= {sensor: rng.normal(size=HOURS).round(3) for sensor in names.sensors}
        columns[names.sensors[0]] += np.where(left < WEARS, 4.0, 0.0)
        time = pl.Series([START + timedelta(hours=int(hour)) for hour in hours])
        place = {"plant": plant, "machine": machine}
        tables["telemetry"].append(pl.DataFrame({"time": time, **columns}).with_columns(**lit(place)))
        for hour in hours[left == 0].tolist():
            happened = [("failure", "bearing", 0), ("maintenance", names.maintenance[hour % 2], 3)]
            happened += [("error", code, -position) for position, code in enumerate(names.errors)]
            for kind, code, after in happened:
                at = START + timedelta(hours=hour + after, minutes=1)
                tables["events"].append(
                    pl.DataFrame({"time": [at], "kind": kind, "code": code}).with_columns(**lit(place))
                )
        model = [*names.models, None][number % 3]
        facts = {name: float(number % 4) for name in names.attributes}
        tables["machines"].append(
            pl.DataFrame({"model": [model], **facts}, schema_overrides=TEXT).with_columns(**lit(place))
        )
    for table, frames in tables.items():
        pl.concat(frames).write_parquet(folder / f"{table}.parquet")


def lit(values):
    return {name: pl.lit(value) for name, value in values.items()}


def describe(names: Names) -> dict:
    key = {"type": "text", "role": "key", "meaning": "it"}
    keys = {"plant": key, "machine": key}
    timed = {**keys, "time": {**key, "type": "time"}}
    settings = {name: {"role": "setting", "range": [0, 100], "meaning": "it"} for name in names.settings}
    sensors = {name: {"role": "sensor", "range": [-100, 100], "meaning": "it"} for name in names.sensors}
    attribute = {"type": "text", "role": "attribute", "meaning": "it", "required": False}
    attributes = {name: {**attribute, "type": "number"} for name in names.attributes}
    return {
        "tables": {
            "telemetry": {**timed, **settings, **sensors},
            "events": {**timed, "kind": key, "code": attribute},
            "machines": {**keys, **attributes, "model": attribute, "installed": {**attribute, "type": "time"}},
        }
    }


def prepare(names: Names, folder: Path) -> None:
    """Put a fleet's deliveries, data dictionary and parameters into a folder."""
    deliver(names, folder)
    dictionary = folder / "dictionary.yaml"
    dictionary.write_text(yaml.safe_dump(describe(names), allow_unicode=True, sort_keys=False), encoding="utf-8")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tables = {table: {"path": f"{folder}/{table}.parquet"} for table in ("telemetry", "events", "machines")}
    params["fetch"] |= {"source": "files", "until": "2025-02-17", "options": tables}
    params["validate"]["dictionary"] = str(dictionary)
    params["dataset"] |= {"aggregates": ["mean"], "windows_hours": [8, 24], "baseline_hours": 24}
    params["model"] |= {"compare": [], "lightgbm": params["model"]["lightgbm"] | {"n_estimators": 10}}
    params["evaluate"] |= {"bootstrap": 10, "golden": None}
    params["evaluate"]["floors"] = {f"plants.{plant}.average_precision": 0.1 for plant in names.plants}
    params["drift"] |= {"window_batches": 1, "sample_rows": 200}
    params["parallel"]["backend"] = "sequential"
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")


def run(names: Names, folder: Path, *stages: str) -> Path:
    prepare(names, folder)
    with chdir(folder):
        for stage in stages:
            run_stage(stage)
    return folder


@pytest.fixture(scope="module")
def worst(tmp_path_factory):
    return run(WORST, tmp_path_factory.mktemp("worst"), "fetch", "validate", "dataset", "train", "golden", "evaluate")


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


@pytest.fixture(scope="module")
def reported(worst):
    """The fleet with everything that people read."""
    with chdir(worst):
        run_stage("drift")
        for name in ("01_eda", "02_model_quality"):
            notebook = ROOT / "notebooks" / f"{name}.ipynb"
            parameters = resolve_parameters(notebook, load_params())
            run_notebook(notebook, Path("reports") / rendering_of(notebook).name, parameters)
        for stage in ("card", "record"):
            run_stage(stage)
    return worst


def test_every_report_calls_each_plant_as_it_is_called(reported):
    pages = {file.name: file.read_text(encoding="utf-8") for file in (reported / "reports").glob("*.*")}
    drift = (reported / "reports/drift/index.html").read_text(encoding="utf-8")
    for plant in WORST.plants:
        escaped = html.escape(plant)
        assert escaped in drift
        page = f"{name_file(plant)}.html"  # of plants in which something drifted only
        assert (reported / "reports/drift" / page).exists() == (page in drift)
        assert format_value(plant) in pages["model_card.md"]
        assert f"test_average_precision_{plant}" in pages["experiments.csv"]
        assert all(escaped in pages[page] for page in ("eda.html", "model_quality.html"))


def test_a_run_waits_for_nothing_but_is_in_mlflow(reported):
    assert not list((reported / ".upkeep/pending").glob("*"))
    client = connect(f"sqlite:///{reported}/mlflow.db")
    [experiment] = [found.experiment_id for found in client.search_experiments() if found.name == "upkeep"]
    runs = client.search_runs([experiment])
    assert {run.data.params["plant"] for run in runs if "plant" in run.data.params} == set(WORST.plants)


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
        score.run(load_params(), date(2025, 2, 17))
        logged = pl.concat(rows for _, rows in read_parts("data/prediction_log", date.min, set()))
    scored = [(plant, machine) for plant in WORST.plants for machine in WORST.machines]
    assert sorted(logged.select("plant", "machine").rows()) == sorted(scored)
    assert logged["id"].n_unique() == len(scored)
