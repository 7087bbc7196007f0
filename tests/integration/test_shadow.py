"""A challenger in the service: it answers in the log only, and costs the champion nothing."""

import json
import shutil
import time
from datetime import date

import pytest
from starlette.testclient import TestClient
from trained_fleet import service_environment

from upkeep.scoring.prediction_log import read_parts
from upkeep.serving.app import create_app
from upkeep.serving.service import Service
from upkeep.serving.settings import read_settings


@pytest.fixture
def environment(trained_fleet, tmp_path, unasked):  # noqa: ARG001  # for its effect
    found = service_environment(trained_fleet, tmp_path)
    models = tmp_path / "challenger"
    shutil.copytree(found.get("UPKEEP_MODELS", trained_fleet / "models/plants"), models)
    log = {"UPKEEP_LOG_URL": str(tmp_path / "log"), "UPKEEP_SPOOL": str(tmp_path / "spool")}
    return {**found, **log, "UPKEEP_SHADOW_MODELS": str(models)}


@pytest.fixture
def request_(trained_fleet):
    file = sorted((trained_fleet / "models/golden").glob("*.json"))[0]
    return json.loads(file.read_text())[0]["request"]


def ask(environment, request, state):
    """Return the answer, the fleet and the counters, once the challenger is in `state`."""
    with TestClient(create_app(read_settings(environment))) as client:
        answer = client.post("/invocations", json=request).json()
        until = time.monotonic() + 20
        while state not in (counters := client.get("/metrics").text) and time.monotonic() < until:
            time.sleep(0.02)
        return answer, client.get("/fleet").json(), counters


def logged(environment):
    parts = read_parts(environment["UPKEEP_LOG_URL"], date.min, set())
    return {row["role"]: row for _, rows in parts for row in rows.rows(named=True)}


def test_a_challengers_answers_are_logged_and_shown_to_nobody(environment, request_):
    answer, fleet, counters = ask(environment, request_, 'upkeep_shadow_requests_total{state="answered"} 1.0')
    assert [one["machine"] for one in answer["predictions"]] == [one["machine"] for one in fleet["machines"]]
    assert "role" not in answer["predictions"][0]
    rows = logged(environment)
    assert rows.keys() == {"champion", "challenger"}
    assert rows["challenger"]["probability"] == rows["champion"]["probability"]
    assert rows["challenger"]["id"] == f"{rows['champion']['id']}/challenger"
    assert 'alarm="same"' in counters
    assert 'alarm="differs"' not in counters


def test_a_challenger_that_raises_costs_nothing(environment, request_, monkeypatch):
    champion = Service.answer

    def raise_as_challenger(service, *asked):
        if service._role == "challenger":
            raise MemoryError("no room")
        return champion(service, *asked)

    monkeypatch.setattr(Service, "answer", raise_as_challenger)
    answer, _, counters = ask(environment, request_, 'upkeep_shadow_requests_total{state="failed"} 1.0')
    assert answer["predictions"]
    assert "upkeep_shadow_up 1.0" in counters
    assert logged(environment).keys() == {"champion"}


def test_a_challenger_that_does_not_keep_up_leaves_requests_out(environment, request_, monkeypatch):
    monkeypatch.setattr("upkeep.serving.shadow.MOST_BYTES", 10)
    answer, _, _ = ask(environment, request_, 'upkeep_shadow_requests_total{state="left_out"} 1.0')
    assert answer["predictions"]
    assert logged(environment).keys() == {"champion"}


def test_a_damaged_challenger_is_a_warning_and_a_metric(environment, request_, caplog):
    for file in (read_settings(environment).shadow_models).glob("*/model.json"):
        file.write_text("{")
    answer, _, counters = ask(environment, request_, "upkeep_shadow_up 0.0")
    assert answer["predictions"]
    assert "upkeep_shadow_up 0.0" in counters
    assert "the challenger is not run" in caplog.text
