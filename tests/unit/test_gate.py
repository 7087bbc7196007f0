"""Which challengers may ship, and why the others may not."""

import polars as pl
import pytest
from merge_request_cases import BLIND, FAILED, GOOD, PASSED, delivered, fetched, judged, plant, snapshot
from prediction_cases import machine

from upkeep.gitlab.gate import explain_loss

LATE = {29: 0.9}
"""Ranked as well as ever, but too late to act upon."""


def test_a_challenger_that_is_as_good_ships():
    assert judged(snapshot("main"), snapshot()) == (True, [])


def test_a_first_run_ships_if_its_floors_hold():
    assert judged(None, snapshot()).ships
    assert judged(None, snapshot(), checks=[PASSED, FAILED]).reasons == [
        "the check `failures_caught` does not hold: found 0.4, expected at least 0.6"
    ]


def test_what_is_not_a_number_is_never_good_enough():
    assert explain_loss(float("nan"), None, 0.1, 0.2)
    assert explain_loss(float("nan"), [-1.0, 1.0], 0.1, 0.2)


def test_without_any_check_nothing_ships():
    verdict = judged(None, snapshot(), checks=[])
    assert not verdict.ships
    assert "nothing was checked" in verdict.reasons[0]


def test_a_plant_that_is_ranked_worse_blocks_the_others_too():
    verdict = judged(snapshot("main"), snapshot("this branch", plant("lyon"), plant("porto", BLIND)))
    assert not verdict.ships
    assert verdict.reasons[0].startswith("porto: average precision falls from 0.30 to 0.12")


def test_a_small_fall_that_every_machine_shows_is_more_than_chance_explains():
    weaker = plant("lyon", {25: 0.9})
    verdict = judged(snapshot("main", plant("lyon")), snapshot("this branch", weaker), largest_precision_fall=1.0)
    assert verdict.reasons == ["lyon: average precision falls from 0.30 to 0.21, more than chance explains"]


def test_a_fall_that_chance_may_explain_ships_unless_it_is_too_large():
    champion = snapshot("main", plant("lyon", machines=8))
    one_blind = plant("lyon", machines=8).with_columns(
        probability=_unless_m1("probability", 0.1), alarm=_unless_m1("alarm", False)
    )
    limits = {"cost_rise": 9.0, "largest_cost_rise": 9.0}
    assert judged(champion, snapshot("this branch", one_blind), **limits).ships
    verdict = judged(champion, snapshot("this branch", one_blind), largest_precision_fall=0.03, **limits)
    assert "more than `gate` in params.yaml lets pass" in verdict.reasons[0]


def _unless_m1(column: str, value: object):
    return pl.when(pl.col("machine") == "m1").then(pl.lit(value)).otherwise(pl.col(column))


def test_alarms_that_cost_more_do_not_ship_even_if_machines_are_ranked_as_well():
    verdict = judged(snapshot("main", plant("lyon")), snapshot("this branch", plant("lyon", LATE)))
    assert [reason for reason in verdict.reasons if "costs 300 instead of 60" in reason]


def healthy_plant(*false_alarms: int) -> pl.DataFrame:
    """Eight machines that never fail; those of these numbers raise one false alarm each."""
    rows = [machine(f"m{number}", alarms={9: 0.9} if number in false_alarms else {}) for number in range(8)]
    return pl.concat(rows)


@pytest.mark.parametrize(
    ("false_alarms", "found"),
    [
        ((1,), ""),
        ((1, 2, 3, 4), "costs 20 instead of 0 on the common test rows, more than chance explains"),
        (range(6), "costs 30 instead of 0 on the common test rows, which is more than `gate`"),
    ],
)
def test_after_a_champion_that_cost_nothing_a_rise_is_measured_against_a_missed_failure(false_alarms, found):
    verdict = judged(snapshot("main", healthy_plant()), snapshot("this branch", healthy_plant(*false_alarms)))
    assert verdict.ships is not bool(found)
    assert found in "".join(verdict.reasons)


@pytest.mark.parametrize(
    ("loss", "interval", "found"),
    [
        (0.01, [0.005, 0.02], False),  # certain, but small
        (0.05, [0.01, 0.09], True),
        (0.05, [-0.01, 0.11], False),  # chance may explain it
        (0.05, None, True),  # nothing may explain it
        (0.3, [-0.1, 0.7], True),  # too large whatever explains it
        (-0.3, None, False),
    ],
)
def test_a_loss_is_too_much_if_it_is_certain_or_large(loss, interval, found):
    assert bool(explain_loss(loss, interval, allowed=0.02, largest=0.15)) is found


@pytest.mark.parametrize("side", ["main", "this branch"])
def test_a_missing_report_blocks_and_is_named(side):
    sides = {"main": snapshot("main"), "this branch": snapshot()}
    sides[side] = snapshot(side, evaluation=None, missing={"reports/evaluation/evaluation.json": "no remote has it"})
    verdict = judged(*sides.values())
    assert len(verdict.reasons) == 1
    assert "`reports/evaluation/evaluation.json` is missing: no remote has it" in verdict.reasons[0]


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


def test_a_plant_with_data_and_no_model_blocks():
    raw = delivered(["lyon", "porto"], "2025-01-06")
    verdict = judged(snapshot("main"), snapshot("this branch", plant("lyon"), manifest=raw))
    assert verdict.reasons == ["porto has raw data, but no model that was judged"]


def test_without_common_test_rows_each_side_stands_by_itself():
    later = plant("lyon").with_columns(time=plant("lyon")["time"].dt.offset_by("1mo"))
    assert judged(snapshot("main", plant("lyon")), snapshot("this branch", later)).ships
    blind = plant("lyon", BLIND).with_columns(time=later["time"])
    verdict = judged(snapshot("main", plant("lyon", GOOD)), snapshot("this branch", blind))
    assert "no failure lies in test rows of both sides" in verdict.reasons[0]
