"""What the page is given: the fleet and single machines as JSON, and its own files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from board_cases import HOUR, NOW, prediction
from fastapi import FastAPI
from fastapi.testclient import TestClient

from upkeep.serving.board import Board
from upkeep.serving.page import page_routes
from upkeep.serving.protocol import Refused
from upkeep.serving.settings import Settings

REASON = {"feature": "vibration", "value": 7.5, "contribution": 1.5, "words": "vibration is 7.5"}


async def answer(_, refused):
    return refused.to_response()


def client_of(*predictions, explain=lambda *_: [REASON], monitoring=None):
    board = Board("", 20_000)
    for each in predictions:
        board.add(each)
    app = FastAPI()
    app.exception_handler(Refused)(answer)
    service = SimpleNamespace(explain=explain, horizon_hours=48)
    app.include_router(page_routes(board, service, Settings(monitoring=monitoring)))
    return TestClient(app)


def names(answer):
    return [each["machine"] for each in answer.json()["machines"]]


def test_a_machine_is_shown_with_all_that_a_planner_needs():
    warning = {"code": "gap", "message": "No readings for 9 h", "column": None}
    maintained = {"maintained_at": NOW - 9 * HOUR, "maintenance_code": "bearing"}
    old, new = prediction(hours_ago=1), prediction(probability=0.4, warnings=[warning], **maintained)
    [machine] = client_of(old, new).get("/fleet").json()["machines"]
    assert machine.pop("time").endswith(":00:00+00:00")
    assert machine.pop("scored_at").endswith(":00:00+00:00")
    assert machine.pop("last_maintenance").keys() == {"time", "code"}
    assert machine == {
        "plant": "lyon",
        "machine": "press",
        "probability": 0.4,
        "alarm": False,
        "threshold": 0.5,
        "model_version": "3f9ac1d2",
        "warnings": [warning],
        "stands": False,
        "maintained_since": False,
        "history": [[(NOW - HOUR) / 1000, 0.1], [NOW / 1000, 0.4]],
    }


def test_a_maintenance_after_the_reading_is_said_to_be_one():
    at = prediction()["time"]
    client = client_of(*(prediction(f"{hours}", 0.9, maintained_at=at + hours * HOUR) for hours in (-1, 0, 1)))
    machines = client.get("/fleet").json()["machines"]
    found = {each["machine"]: (each["maintained_since"], each["stands"]) for each in machines}
    assert found == {"-1": (False, True), "0": (False, True), "1": (True, False)}


def test_the_fleet_says_how_far_it_looks_and_counts_alarms_per_plant():
    answer = client_of(prediction(), prediction("saw", 0.9), prediction(plant="porto")).get("/fleet?plant=porto").json()
    assert answer["horizon_hours"] == 48
    assert answer["total"] == 1
    assert answer["plants"] == [
        {"plant": "lyon", "machines": 2, "alarms": 1},
        {"plant": "porto", "machines": 1, "alarms": 0},
    ]


def test_the_fleet_is_cut_to_a_plant_a_name_and_a_number():
    client = client_of(prediction("Press 1", 0.9), prediction("press 2"), prediction("saw", 0.3, plant="porto"))
    assert names(client.get("/fleet")) == ["Press 1", "saw", "press 2"]
    assert names(client.get("/fleet?plant=porto")) == ["saw"]
    assert names(client.get("/fleet?search=PRESS")) == ["Press 1", "press 2"]
    assert names(client.get("/fleet?limit=1")) == ["Press 1"]
    assert client.get("/fleet?limit=0").status_code == 422


def test_an_alarm_comes_with_its_reasons_and_other_machines_give_them_when_asked():
    client = client_of(prediction("failing", 0.9), prediction("calm"))
    assert [each.get("reasons") for each in client.get("/fleet").json()["machines"]] == [[REASON], None]
    assert client.get("/fleet/machine?plant=lyon&machine=calm").json()["reasons"] == [REASON]


def test_a_prediction_is_explained_once_from_what_it_was_made_of():
    asked = []
    client = client_of(prediction(probability=0.9), explain=lambda *arguments: asked.append(arguments) or [])
    for _ in range(2):
        client.get("/fleet")
        client.get("/fleet/machine?plant=lyon&machine=press")
    [(explained,)] = asked
    assert (explained["plant"], explained["model_version"]) == ("lyon", "3f9ac1d2")
    np.testing.assert_array_equal(explained["features"], np.array([1.5, np.nan], dtype=np.float32))
    assert explained["readings"].tolist() == [41.0, 29.0]


@pytest.mark.parametrize(
    ("plant", "machine"), [("Hall 1/a", "b"), ("Hall 1", "a/b"), ("..", "."), ("北京", "&=+# Säge 50 %")]
)
def test_a_machine_of_any_name_is_found(plant, machine):
    client = client_of(
        prediction("a/b", plant="Hall 1"), prediction("b", plant="Hall 1/a"), prediction(machine, plant=plant)
    )
    found = client.get("/fleet/machine", params={"plant": plant, "machine": machine}).json()
    assert (found["plant"], found["machine"]) == (plant, machine)


def test_an_unknown_machine_is_named_in_the_answer():
    answer = client_of().get("/fleet/machine?plant=lyon&machine=press")
    assert answer.status_code == 404
    [error] = answer.json()["errors"]
    assert (error["plant"], error["machine"]) == ("lyon", "press")
    assert error["expected"] == "a machine that GET /fleet lists"


@pytest.mark.parametrize("name", ["missing.js", "..%2Fpage.py", "%2Fetc%2Fpasswd"])
def test_only_the_files_of_the_page_are_served(name):
    assert client_of().get(f"/static/{name}").status_code == 404


def test_the_fleet_says_how_the_plants_stand_where_a_file_says_so(tmp_path):
    file = tmp_path / "monitoring.json"
    standing = {"status": "watch", "since": "2025-01-06T00:00:00Z", "why": ["drift: 5 of 7 columns"], "told": "fine"}
    file.write_text(json.dumps({"as_of": "2025-01-07T00:00:00Z", "signals": [], "standings": {"lyon": standing}}))
    found = client_of(monitoring=file).get("/fleet").json()["monitoring"]
    assert found["standings"]["lyon"]["status"] == "watch"
    assert client_of().get("/fleet").json()["monitoring"] is None


@pytest.mark.parametrize(
    "text", ["{", '{"as_of": "2025-01-07T00:00:00Z", "standings": {"lyon": {"status": "good"}}}', None]
)
def test_a_file_that_says_nothing_of_the_plants_is_shown_as_not_known_and_never_as_fine(tmp_path, text):
    file = tmp_path / "monitoring.json"
    if text:
        file.write_text(text)
    answer = client_of(monitoring=file).get("/fleet")
    assert (answer.status_code, answer.json()["monitoring"]["as_of"]) == (200, None)
