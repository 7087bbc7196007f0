"""What planners say of visits: which words are taken, from whom, and in whose name they are kept."""

from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest
from board_cases import NOW, prediction
from fastapi import FastAPI
from fastapi.testclient import TestClient

from upkeep.contract.dictionary import FINDINGS, VISITS
from upkeep.scoring.prediction_log import VISIT_LOG
from upkeep.serving.access import Access
from upkeep.serving.board import Board
from upkeep.serving.counters import Counters
from upkeep.serving.page import VISIT_BYTES, Visit, visit_route
from upkeep.serving.protocol import Refused

HOST = "http://localhost"
ALARM, VISITED = (datetime.fromtimestamp(NOW / 1e6, UTC) - timedelta(hours=hours) for hours in (9, 2))
WORD = {"plant": "lyon", "machine": "press", "finding": "defect"}
WORD |= {"alarm_at": ALARM.isoformat(), "visited_at": VISITED.isoformat()}


class Kept:
    """A log that keeps what it is given, up to its room."""

    def __init__(self, room=1, write_error=""):
        self.rows, self.room, self.write_error = [], room, write_error

    def append(self, row, log):
        assert log is VISIT_LOG
        self.rows.append(row)
        return len(self.rows) <= self.room


async def answer(_, refused):
    return refused.to_response()


def client_of(kept, tokens=None):
    board = Board("", 20_000)
    board.add(prediction("press", 0.9))
    app = FastAPI()
    app.exception_handler(Refused)(answer)
    app.include_router(visit_route(board, kept))
    app.add_middleware(Access, tokens=tokens or {}, metrics=Counters({}, None), hosts=())
    return TestClient(app, base_url=HOST)


def test_a_word_is_kept_with_its_request_its_time_and_the_name_of_its_token():
    kept = Kept()
    headers = {"Authorization": "Bearer horse", "X-Request-Id": "r1"}
    said = client_of(kept, {b"horse": "shift planner", b"mule": "other"}).post("/findings", json=WORD, headers=headers)
    assert said.status_code == 202
    [row] = kept.rows
    assert row.keys() == VISITS.keys()
    assert timedelta() <= datetime.now(UTC) - row.pop("said_at") < timedelta(minutes=5)
    who = {"id": "r1", "said_by": "shift planner"}
    assert row == WORD | {"alarm_at": ALARM, "visited_at": VISITED} | who


def test_a_visit_in_another_zone_is_kept_in_utc_and_one_without_an_alarm_or_a_token_has_none():
    kept = Kept()
    word = {name: value for name, value in WORD.items() if name != "alarm_at"}
    word["visited_at"] = VISITED.astimezone(timezone(timedelta(hours=-9))).isoformat()
    assert client_of(kept).post("/findings", json=word).status_code == 202
    [row] = kept.rows
    assert (row["visited_at"], row["visited_at"].tzinfo, row["alarm_at"], row["said_by"]) == (VISITED, UTC, None, None)


def test_a_time_without_an_offset_is_refused_with_an_example():
    [error] = client_of(Kept()).post("/findings", json=WORD | {"visited_at": "2025-01-06T10:00:00"}).json()["errors"]
    assert error["expected"] == "a time with its offset, such as 2025-12-29T09:30:00Z"


@pytest.mark.parametrize(
    ("changes", "status", "pointer"),
    [
        pytest.param({"finding": "maybe"}, 400, "/finding", id="no finding"),
        pytest.param({"finding": None}, 400, "/finding", id="null"),
        pytest.param({"visited_at": "2025-01-06T10:00:00"}, 400, "/visited_at", id="a time without an offset"),
        pytest.param({"visited_at": "0001-01-01T00:00:00+14:00"}, 400, "/visited_at", id="a time before all others"),
        pytest.param({"visited_at": (VISITED + timedelta(days=9)).isoformat()}, 400, "/visited_at", id="next week"),
        pytest.param(
            {"visited_at": (ALARM - timedelta(hours=1)).isoformat()}, 400, "/visited_at", id="before its alarm"
        ),
        pytest.param({"mood": "good"}, 400, "/mood", id="an unknown field"),
        pytest.param({"machine": "saw"}, 404, "", id="a machine that nobody scored"),
        pytest.param({"machine": "x" * VISIT_BYTES}, 413, "", id="too large"),
    ],
)
def test_words_that_say_nothing_of_a_visit_are_refused_and_not_kept(changes, status, pointer):
    kept = Kept()
    answer = client_of(kept).post("/findings", json=WORD | changes)
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (status, pointer)
    assert kept.rows == []


@pytest.mark.parametrize(
    ("tokens", "headers", "status"),
    [
        pytest.param({}, {"content-type": "text/plain"}, 415, id="a form of any site"),
        pytest.param({}, {"origin": "http://other.example"}, 403, id="another site's script"),
        pytest.param({}, {"host": "other.example"}, 403, id="a name that somebody pointed here"),
        pytest.param({b"horse": "one"}, {}, 401, id="no token"),
        pytest.param(
            {b"horse": "one"}, {"cookie": "upkeep-token=horse"}, 401, id="a cookie, which any site sends along"
        ),
        pytest.param({b"horse": "one"}, {"authorization": "Bearer mule"}, 401, id="another token"),
    ],
)
def test_other_sites_and_strangers_say_nothing_in_a_planners_name(tokens, headers, status):
    kept = Kept()
    assert client_of(kept, tokens).post("/findings", json=WORD, headers=headers).status_code == status
    assert kept.rows == []


@pytest.mark.parametrize("kept", [Kept(room=0), Kept(write_error="the disk is full")])
def test_a_planner_hears_that_a_word_could_not_be_kept(kept):
    answer = client_of(kept).post("/findings", json=WORD)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def test_what_can_be_said_is_what_the_dictionary_knows():
    assert get_args(Visit.model_fields["finding"].annotation) == FINDINGS
