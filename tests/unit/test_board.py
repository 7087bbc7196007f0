"""What the page knows of each machine, whatever order predictions come in."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from board_cases import HOUR, NOW, prediction

from upkeep.serving.board import HISTORY_POINTS, Board


def board_of(*predictions):
    board = Board("", 20_000)
    for each in predictions:
        board.add(each)
    return board


def history(board):
    return [
        (round((NOW / 1000 - time) / 3_600_000), risk) for time, risk in board.get("lyon", "press").history.tolist()
    ]


def test_a_newer_prediction_replaces_an_older_one():
    board = board_of(prediction(probability=0.1, hours_ago=1), prediction(probability=0.7))
    assert board.get("lyon", "press").newest["probability"] == 0.7


def test_golden_requests_stay_off_the_board():
    board = board_of(prediction(probability=0.7, source="smoke"))
    assert board.get("lyon", "press") is None


def test_a_challenger_stays_off_the_board():
    board = board_of(prediction(probability=0.1), prediction(probability=0.7, role="challenger", scored_at=NOW + HOUR))
    assert history(board) == [(0, 0.1)]
    assert not board.get("lyon", "press").newest["alarm"]


def test_an_older_prediction_that_comes_late_does_not_hide_a_newer_one_but_joins_the_history():
    board = board_of(*(prediction(probability=risk, hours_ago=hours) for hours, risk in [(0, 0.7), (4, 0.1), (2, 0.3)]))
    assert board.get("lyon", "press").newest["probability"] == 0.7
    assert history(board) == [(4, 0.1), (2, 0.3), (0, 0.7)]


def test_a_reading_scored_again_has_one_point_in_the_history_with_its_newest_probability():
    first, again = prediction(probability=0.1), prediction(probability=0.6, scored_at=NOW + HOUR)
    for order in [(first, again), (again, first)]:
        board = board_of(*order)
        assert history(board) == [(0, 0.6)]
        assert board.get("lyon", "press").newest["probability"] == 0.6


def test_a_prediction_seen_before_changes_nothing():
    board = board_of(prediction(), prediction(hours_ago=1))
    assert not board.add(prediction())
    assert not board.add(prediction(hours_ago=1))
    assert board.add(prediction(hours_ago=2))


def test_the_history_holds_the_newest_points_only():
    hours = range(HISTORY_POINTS + 10)
    for order in [hours, reversed(hours)]:
        board = board_of(*(prediction(hours_ago=hour) for hour in order))
        assert [hour for hour, _ in history(board)] == [*range(HISTORY_POINTS - 1, -1, -1)]


def test_the_history_ends_after_thirty_days():
    days = [40, 29, 31, 0]
    assert [hour // 24 for hour, _ in history(board_of(*(prediction(hours_ago=24 * day) for day in days)))] == [29, 0]


def test_the_last_maintenance_stays_known_when_later_requests_leave_it_out():
    maintained = {"maintained_at": NOW - 9 * HOUR, "maintenance_code": "bearing"}
    earlier = {"maintained_at": NOW - 99 * HOUR, "maintenance_code": "inspection"}
    board = board_of(prediction(hours_ago=2, **maintained), prediction(hours_ago=1, **earlier), prediction())
    assert board.get("lyon", "press").maintenance == (NOW - 9 * HOUR, "bearing")


def test_alarms_come_first_then_the_highest_risk():
    sensitive = prediction("sensitive", 0.2, threshold=0.1, alarm=True)
    board = board_of(prediction("calm", 0.1), prediction("risky", 0.4), sensitive, prediction("failing", 0.9))
    assert [each.newest["machine"] for each in board.rank()] == ["failing", "sensitive", "risky", "calm"]


def test_an_alarm_stands_until_a_maintenance_after_its_reading():
    at = prediction()["time"]
    alarms = [
        prediction(name, 0.9, maintained_at=maintained)
        for name, maintained in [("never", None), ("before", at - HOUR), ("then", at), ("since", at + HOUR)]
    ]
    board = board_of(prediction("risky", 0.4), *alarms)
    assert {each.newest["machine"] for each in board.rank() if each.stands} == {"never", "before", "then"}
    assert [each.newest["machine"] for each in board.rank()][-2:] == ["since", "risky"]


def test_an_alarm_of_a_machine_that_failed_or_is_under_repair_does_not_stand():
    at = prediction()["time"]
    alarms = [prediction(name, 0.9, serviced_at=ends) for name, ends in [("then", at), ("failed", at + HOUR)]]
    assert [each.newest["machine"] for each in board_of(*alarms).rank() if each.stands] == ["then"]


def test_machines_of_the_same_name_in_two_plants_are_two_machines():
    board = board_of(prediction(), prediction(plant="porto"))
    assert len(board.rank()) == 2
    assert board.get("gdansk", "press") is None


def test_above_the_limit_those_scored_longest_ago_are_forgotten():
    board = Board("", 10)
    for number in [*range(5, 12), *range(5)]:
        board.add(prediction(f"{number:02d}", hours_ago=20 - number))
    assert sorted(each.newest["machine"] for each in board.rank()) == [f"{number:02d}" for number in range(2, 12)]


def test_above_a_number_of_bytes_those_scored_longest_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr("upkeep.serving.board.MOST_BYTES", 500_000)
    board = Board("", 20_000)
    for number in range(200):
        board.add(prediction(f"{number:03d}", hours_ago=200 - number, features=np.zeros(1000, dtype=np.float32)))
    names = sorted(each.newest["machine"] for each in board.rank())
    assert 50 < len(names) < 100
    assert names[-1] == "199"


@pytest.mark.parametrize(
    "long",
    [
        {"machine": "m" * 20_000},
        {"plant": "p" * 20_000},
        {"maintenance_code": "c" * 20_000},
        {"warnings": [{"code": "unknown_column", "message": "m" * 600_000, "column": None}]},
    ],
)
def test_what_is_longer_than_this_version_writes_stays_off_the_board(long):
    board = board_of(prediction(), prediction(**{"machine": "saw", **long}))
    assert [each.newest["machine"] for each in board.rank()] == ["press"]


def test_the_features_of_one_machine_do_not_keep_those_of_a_whole_batch_in_memory():
    batch = np.zeros((1000, 2), dtype=np.float32)
    board = board_of(prediction(features=batch[0]))
    assert board.get("lyon", "press").newest["features"].base is None


@pytest.fixture
def hasty_threads():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_predictions_from_several_threads_are_all_kept():
    board, threads, points = Board("", 20_000), 4, 10
    with ThreadPoolExecutor(threads) as pool:
        for machine in range(100):
            rounds = [
                [prediction(str(machine), hours_ago=hour) for hour in range(first, threads * points, threads)]
                for first in range(threads)
            ]
            list(pool.map(lambda predictions: [board.add(each) for each in predictions], rounds))
    assert {len(each.history) for each in board.rank()} == {threads * points}
