"""What differs between champion and challenger on common test rows."""

import polars as pl
import pytest
from prediction_cases import HORIZON, how, machine

from upkeep.judging.comparison import compare, share_rows

EARLY, BLIND, FALSE = {25: 0.9}, {}, {2: 0.9}


def side(**plants: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {plant: rows.with_columns(plant=pl.lit(plant)) for plant, rows in plants.items()}


def fleet(alarms: dict[int, float], false: dict[int, float] = BLIND) -> pl.DataFrame:
    """One machine that fails, one that does not."""
    return pl.concat([machine("m1", fails_at=30, alarms=alarms), machine("m2", alarms=false)])


def changes(champion: dict[str, pl.DataFrame], challenger: dict[str, pl.DataFrame]):
    return compare(champion, challenger, how(), HORIZON, seed=7)


def test_only_test_rows_of_the_chosen_models_that_both_sides_have_are_compared():
    champion = machine("m1", range(20))
    challenger = pl.concat(
        [
            machine("m1", range(10, 15), split="validation"),
            machine("m1", range(15, 30)),
            machine("m1", range(15, 30), chosen=False),
        ]
    )
    before, after = share_rows(champion, challenger)
    assert before["time"].to_list() == after["time"].to_list()
    assert after.height == 5


def test_the_champion_is_held_to_what_the_challenger_knows_of_failures():
    before, after = share_rows(machine("m1"), machine("m1", fails_at=30))
    assert before["label"].sum() == after["label"].sum() == HORIZON


def test_a_failure_that_is_caught_now_saves_money():
    overall = changes(side(lyon=fleet(BLIND)), side(lyon=fleet(EARLY))).overall
    assert (overall.failures, overall.machines, overall.rows) == (1, 2, 80)
    assert (overall.changes["cost"].before, overall.changes["cost"].after) == (100, 20)
    assert (overall.changes["failures_caught"].before, overall.changes["failures_caught"].after) == (0, 1)


def test_the_interval_of_a_change_comes_from_the_same_draws_on_both_sides():
    same = changes(side(lyon=fleet(EARLY)), side(lyon=fleet(EARLY))).overall.changes["cost"]
    assert same.before_interval[0] < same.before_interval[1]
    assert same.interval == [0, 0]


def test_one_machine_gives_no_interval():
    change = changes(side(lyon=machine(fails_at=30)), side(lyon=machine(fails_at=30))).overall.changes["cost"]
    assert change.interval is None


def test_what_is_not_defined_is_none():
    overall = changes(side(lyon=machine()), side(lyon=machine())).overall
    assert overall.changes["average_precision"].after is None
    assert overall.changes["failures_caught"].interval is None


def test_an_alarm_is_gained_only_if_none_was_raised_within_a_horizon_of_it():
    alarms = changes(side(lyon=machine(alarms={5: 0.9})), side(lyon=machine(alarms={8: 0.9, 30: 0.9}))).alarms
    assert alarms.select("gained", "false", pl.col("time").dt.hour()).rows() == [(True, True, 6)]


def test_an_alarm_before_a_failure_that_is_gone_is_lost():
    compared = changes(side(lyon=fleet(EARLY)), side(lyon=fleet(BLIND)))
    assert compared.alarms.select("machine", "gained", "false").rows() == [("m1", False, False)]
    assert compared.failures.select("machine", "gained").rows() == [("m1", False)]


def test_plants_of_one_side_only_are_left_out():
    compared = changes(side(lyon=fleet(EARLY), porto=fleet(EARLY)), side(lyon=fleet(EARLY), kolin=fleet(EARLY)))
    assert list(compared.plants) == ["lyon"]


@pytest.mark.parametrize("champion", [{}, side(porto=fleet(EARLY)), side(lyon=machine("m1", range(100, 120)))])
def test_without_common_rows_there_is_nothing_to_compare(champion):
    compared = changes(champion, side(lyon=fleet(EARLY)))
    assert compared.overall is None
    assert compared.plants == {}
    assert compared.alarms.is_empty()
