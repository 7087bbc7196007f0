"""Each alarm episode and each failure ends in one class."""

import pytest
from fleet_cases import at
from outcome_cases import HORIZON, PARAMS, SILENT, ends, event, events, judge, outcomes, predictions, said

from upkeep.core.errors import UpkeepError
from upkeep.production import outcomes as production
from upkeep.production.outcomes import LEDGER


def visit(hour: float, finding: str | None = None, answers: float | None = None) -> dict[str, object]:
    return event(hour, "maintenance", finding=finding, alarm_at=None if answers is None else at(answers))


@pytest.mark.parametrize(
    ("happened", "until", "expected"),
    [
        ([], 5, "pending"),
        ([], HORIZON, "survived"),
        ([], ends(5, m2=5 + SILENT), "pending"),
        ([], ends(5, m2=6 + SILENT), "censored"),
        ([visit(4)], 4, "no_code"),
        ([visit(4, "defect")], 4, "defect_found"),
        ([visit(HORIZON, "nothing")], 4, "nothing_found"),
        ([visit(HORIZON + 1, "nothing")], 30, "survived"),
        ([visit(HORIZON + 5, "nothing", answers=0)], 30, "nothing_found"),
        ([visit(4), visit(6, "defect")], 6, "defect_found"),
        ([visit(4, "nothing", answers=-3)], HORIZON, "survived"),
    ],
)
def test_an_alarm_ends_in_one_class(happened, until, expected):
    assert outcomes([said(0)], happened, until) == [(0, expected)]


@pytest.mark.parametrize("happened", [[], [visit(3, "nothing")]])
def test_an_alarm_within_a_horizon_of_which_the_machine_failed_was_right_whatever_a_visit_found(happened):
    failure = event(HORIZON, "failure")
    assert outcomes([said(0)], [failure, *happened], 0) == [(0, "failed"), (HORIZON, "caught")]


def test_an_alarm_that_is_too_late_still_failed_and_the_failure_is_missed():
    assert outcomes([said(0, 0.1), said(9)], [event(10, "failure")], 10) == [(9, "failed"), (10, "missed")]


def test_a_failure_that_no_prediction_covers_is_not_missed_by_a_model():
    judged = judge([said(0, 0.1), said(9)], [event(10.5, "failure"), event(-20, "failure")], 11).filter(kind="failure")
    assert judged["outcome"].to_list() == ["not_covered", "not_covered"]
    assert judged["model_version"].to_list() == [None, "v1"]


def test_alarms_within_a_horizon_are_one_episode_and_the_highest_counts():
    judged = judge([said(hour, 0.5 + hour / 100) for hour in range(12)], [], 5)
    assert judged["at"].to_list() == [at(0), at(10)]
    assert judged["probability"].to_list() == [0.59, 0.61]


def test_an_episode_that_goes_on_waits_a_horizon_from_its_last_alarm():
    assert outcomes([said(0), said(6)], [], 15) == [(0, "pending")]
    assert outcomes([said(0), said(6)], [], 16) == [(0, "survived")]


def test_a_visit_ends_an_episode_and_the_next_alarm_opens_another():
    assert outcomes([said(0), said(3)], [visit(2, "nothing")], 13) == [(0, "nothing_found"), (3, "survived")]


def test_an_alarm_made_after_its_machine_had_failed_warned_nobody_of_that_failure():
    happened, late = [event(4, "failure"), event(5, "maintenance")], {"scored_at": at(6), "serviced_at": at(5)}
    calm = said(0, 0.1, machine="m2")
    assert outcomes([said(0, **late), calm], happened, 20) == [(0, "void"), (4, "not_covered")]
    again = [said(0, 0.8), said(0, **late), calm]  # first shown in time
    assert outcomes(again, happened, 20) == [(0, "failed"), (4, "caught")]


@pytest.mark.parametrize(("told", "expected"), [(2, "caught"), (8, "caught"), (8.5, "not_covered")])
def test_a_row_is_of_use_from_when_it_was_told(told, expected):
    calm = said(0, 0.1, machine="m2")
    late = said(0, scored_at=at(told))
    assert outcomes([late, calm], [event(10, "failure")], 10) == [(0, "failed"), (10, expected)]


def test_an_alarm_that_was_told_when_its_horizon_was_over_is_void_and_replaces_none_that_was_told_before():
    late = said(0, 0.95, scored_at=at(HORIZON))
    assert outcomes([late], [], 20) == [(0, "void")]
    assert judge([said(0), late], [], 20).equals(judge([said(0)], [], 20))


@pytest.mark.parametrize("void", [{"source": "smoke"}, {}])
def test_smoke_tests_and_alarms_of_machines_under_repair_are_void(void):
    happened = [] if void else [event(-1, "failure"), event(4, "maintenance")]
    judged = judge([said(0, **void)], happened, 20).filter(kind="alarm")
    assert judged["outcome"].to_list() == ["void"]


def test_a_row_that_is_scored_twice_by_one_model_is_one_prediction():
    twice = [said(0), said(0), said(0, 0.7, scored_at=at(9)), said(0, source="smoke")]
    assert judge(twice, [], 5).equals(judge(twice[:1], [], 5))


def test_a_challenger_is_judged_apart_and_answered_by_visits_to_the_champions_alarms():
    rows = [said(0), said(1, role="challenger", model_version="v2"), said(-20, role=None)]
    judged = judge(rows, [visit(4, "defect", answers=0), event(-11, "failure"), event(30, "failure")], 30)
    assert judged.filter(role="challenger").select("at", "outcome").rows() == [(at(1), "defect_found")]
    champion = judged.filter(role="champion")
    assert champion["outcome"].to_list() == ["failed", "defect_found", "caught", "not_covered"]


def test_tables_without_findings_and_machines_without_readings_are_judged_too():
    no_codes = events(visit(4), event(2, "error")).drop("finding", "alarm_at")
    none = ends(0).clear()
    found = production.judge_outcomes(predictions(said(0)), no_codes, none, PARAMS, at(9))
    assert found.select("outcome", "known_at").rows() == [("no_code", at(9))]
    assert outcomes([said(0)], [], none) == [(0, "pending")]
    assert found.schema == LEDGER


def test_rows_that_do_not_add_up_are_an_error(monkeypatch):
    lossy = production._settle_alarms
    monkeypatch.setattr(production, "_settle_alarms", lambda *given: lossy(*given).head(0))
    with pytest.raises(UpkeepError, match="do not add up: 0 of 1 episodes"):
        judge([said(0)], [], 5)
