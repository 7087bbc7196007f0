"""Which challengers may ship, and why the others may not."""

import pytest
from merge_request_cases import BLIND, FAILED, GOOD, PASSED, delivered, fetched, judged, plant, snapshot

MISSED = {"failures_caught": 0.6}


def test_a_challenger_that_is_as_good_ships():
    assert judged(snapshot("main"), snapshot()) == (True, [], [])


def test_a_first_run_ships_if_its_floors_hold():
    assert judged(None, snapshot()).ships
    assert judged(None, snapshot(), checks=[PASSED, FAILED], floors=MISSED).reasons == [
        "the check `failures_caught` does not hold: found 0.4, expected at least 0.6"
    ]


def test_without_any_check_nothing_ships():
    verdict = judged(None, snapshot(), checks=[])
    assert not verdict.ships
    assert "nothing was checked" in verdict.reasons[0]


def test_a_plant_that_is_ranked_worse_blocks_the_others_too():
    verdict = judged(snapshot("main"), snapshot("this branch", plant("lyon"), plant("porto", BLIND)))
    assert not verdict.ships
    assert verdict.reasons[0].startswith("porto: average precision falls from 0.30 to 0.12")


def test_a_missed_floor_is_let_pass_with_a_word_where_the_champion_is_no_better():
    late = snapshot("this branch", plant("lyon", BLIND))
    verdict = judged(snapshot("main", plant("lyon", BLIND)), late, checks=[PASSED, FAILED], floors=MISSED)
    assert verdict.ships
    (remark,) = verdict.remarks
    assert remark.startswith("failures_caught is below its floor of 0.6, but no worse than what is live")


def test_a_missed_acceptance_case_is_never_let_pass():
    assert not judged(snapshot("main"), snapshot(), checks=[PASSED, FAILED]).ships


@pytest.mark.parametrize("side", ["main", "this branch"])
def test_a_missing_report_blocks_and_is_named(side):
    sides = {"main": snapshot("main"), "this branch": snapshot()}
    sides[side] = snapshot(side, evaluation=None, missing={"reports/evaluation/evaluation.json": "no remote has it"})
    verdict = judged(*sides.values())
    assert len(verdict.reasons) == 1
    assert "`reports/evaluation/evaluation.json` is missing: no remote has it" in verdict.reasons[0]


def test_a_missing_report_lets_no_missed_floor_pass():
    lost = snapshot(missing={"reports/metrics.json": "no remote has it"})
    verdict = judged(snapshot("main"), lost, checks=[FAILED], floors=MISSED)
    assert "the check `failures_caught` does not hold" in verdict.reasons[1]


def test_a_fault_of_the_pipeline_blocks():
    assert judged(snapshot("main"), snapshot(), faults=["train did not run"]).reasons == ["train did not run"]


def test_a_new_plant_ships():
    assert judged(snapshot("main", plant("lyon")), snapshot()).ships


def test_a_plant_may_go_if_the_source_says_so():
    moved = snapshot("this branch", plant("lyon"), params=fetched("elsewhere"))
    assert judged(snapshot("main"), moved).ships


def test_a_plant_that_vanishes_from_the_data_by_itself_blocks():
    verdict = judged(snapshot("main"), snapshot("this branch", plant("lyon")))
    assert [reason for reason in verdict.reasons if reason.startswith("porto has vanished from `data/raw`")]


def test_a_plant_that_vanishes_blocks_whatever_else_changed_in_the_parameters():
    later = fetched("deliveries", until="2025-03-03")
    verdict = judged(snapshot("main"), snapshot("this branch", plant("lyon"), params=later))
    assert verdict.reasons[0].startswith("porto has vanished from `data/raw`")


def test_a_plant_with_data_and_no_model_blocks():
    raw = delivered(["lyon", "porto"], "2025-01-06")
    verdict = judged(snapshot("main"), snapshot("this branch", plant("lyon"), manifest=raw))
    assert verdict.reasons == ["porto has raw data, but no model that was judged"]


def test_a_champion_that_nobody_can_ask_about_the_newest_rows_stays():
    later = plant("lyon").with_columns(time=plant("lyon")["time"].dt.offset_by("1mo"))
    verdict = judged(snapshot("main", plant("lyon", GOOD)), snapshot("this branch", later))
    assert not verdict.ships
    assert verdict.reasons[0] == "lyon: no test row of this branch is one that the champion could be asked about"
