"""Whether a challenger succeeds its champion, by what both say of the newest rows."""

from collections.abc import Mapping
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from merge_request_cases import BLIND, GOOD, NO_FLOORS, params, plant
from parameters import SHIPPED, changed
from prediction_cases import START, machine

from upkeep.releases.succession import Succession, explain_loss, find_newer, judge_succession

LATE = {29: 0.9}
"""Ranked as well as ever, but too late to act upon."""


def succeed(
    champion: pl.DataFrame | Mapping[str, pl.DataFrame],
    challenger: pl.DataFrame | Mapping[str, pl.DataFrame],
    missed: Mapping[str, float] = NO_FLOORS,
    **limits: float,
) -> Succession:
    sides = [{"lyon": side} if isinstance(side, pl.DataFrame) else side for side in (champion, challenger)]
    told = params().model_copy(update={"gate": changed(SHIPPED.gate, **{"min_failures": 1, **limits})})
    return judge_succession(*sides, told, missed)


def test_what_is_as_good_is_promoted():
    assert succeed(plant("lyon"), plant("lyon"))[:3] == ("promote", [], [])


def test_what_is_not_a_number_is_never_good_enough():
    assert explain_loss(float("nan"), None, 0.1, 0.2)
    assert explain_loss(float("nan"), [-1.0, 1.0], 0.1, 0.2)


def test_a_small_fall_that_every_machine_shows_is_more_than_chance_explains():
    found = succeed(plant("lyon"), plant("lyon", {25: 0.9}), largest_precision_fall=1.0)
    assert found.decision == "keep"
    assert found.reasons == ["lyon: average precision falls from 0.30 to 0.21, more than chance explains"]


def test_a_fall_that_chance_may_explain_is_let_pass_unless_it_is_too_large():
    one_blind = plant("lyon", machines=8).with_columns(
        probability=_unless_m1("probability", 0.1), alarm=_unless_m1("alarm", False)
    )
    limits = {"cost_rise": 9.0, "largest_cost_rise": 9.0}
    assert succeed(plant("lyon", machines=8), one_blind, **limits).decision == "promote"
    found = succeed(plant("lyon", machines=8), one_blind, largest_precision_fall=0.03, **limits)
    assert "more than gate in params.yaml lets pass" in found.reasons[0]


def _unless_m1(column: str, value: object):
    return pl.when(pl.col("machine") == "m1").then(pl.lit(value)).otherwise(pl.col(column))


def test_alarms_that_cost_more_keep_the_champion_even_if_machines_are_ranked_as_well():
    found = succeed(plant("lyon"), plant("lyon", LATE))
    assert [reason for reason in found.reasons if "costs 300 instead of 60" in reason]


def costless_plant(*false_alarms: int) -> pl.DataFrame:
    """One machine whose failure is caught, and eight that never fail; these raise one false alarm each."""
    rows = [machine(f"m{number}", alarms={9: 0.9} if number in false_alarms else {}) for number in range(8)]
    return pl.concat([machine("failing", fails_at=30, alarms=GOOD), *rows])


@pytest.mark.parametrize(
    ("false_alarms", "found"),
    [
        ((1,), ""),
        ((1, 2, 3, 4), "costs 40 instead of 20 on the newest rows, more than chance explains"),
        (range(6), "costs 50 instead of 20 on the newest rows, which is more than gate"),
    ],
)
def test_after_a_champion_that_cost_little_a_rise_is_measured_against_a_missed_failure(false_alarms, found):
    limits = {"precision_fall": 1.0, "largest_precision_fall": 1.0, "cost_rise": 0.05}
    decided = succeed(costless_plant(), costless_plant(*false_alarms), **limits)
    assert (decided.decision == "promote") is not bool(found)
    assert found in "".join(decided.reasons)


def overseen_plant(champion: Mapping[int, float], challenger: Mapping[int, float]) -> list[pl.DataFrame]:
    """Four machines whose failures the champion's alarms prevented, as both sides see them, and four without one.

    `champion` and `challenger` are the alarms that either raises on these four.
    """
    prevented = [machine(f"m{number}", fails_at=30, prevented=True) for number in range(4)]
    failed = machine("failed", fails_at=30, alarms=GOOD)
    sides = []
    for at, false in ((GOOD, champion), ({}, challenger)):
        warned = [rows.with_columns(_raise(at)) for rows in prevented]
        sides.append(pl.concat([failed, *warned, *(machine(f"h{number}", alarms=false) for number in range(4))]))
    return sides


def _raise(alarms: Mapping[int, float]) -> list[pl.Expr]:
    hour = ((pl.col("time") - START).dt.total_hours()).cast(pl.Int64)
    return [
        hour.replace_strict(dict(alarms), default=0.1, return_dtype=pl.Float64).alias("probability"),
        hour.is_in(list(alarms)).alias("alarm"),
    ]


def test_a_champion_that_always_alarms_gives_way_to_one_that_would_have_warned_later():
    limits = {"precision_fall": 1.0, "largest_precision_fall": 1.0}
    every_horizon = dict.fromkeys(range(0, 40, 10), 0.9)
    assert succeed(*overseen_plant(every_horizon, {}), **limits).decision == "promote"
    assert succeed(*overseen_plant({}, {}), **limits).decision == "keep"  # it raised no alarm in vain


def test_what_a_visit_prevented_is_no_failure_that_the_challenger_is_known_to_miss():
    limits = {"precision_fall": 1.0, "largest_precision_fall": 1.0}
    assert succeed(*overseen_plant({}, {}), **limits).figures.failures.is_empty()


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


def test_fewer_failures_than_are_needed_decide_nothing():
    found = succeed(plant("lyon", BLIND), plant("lyon"), min_failures=4)
    assert found.decision == "unknown"
    assert found.reasons == ["3 failures in the newest rows of both, 4 are needed by gate.min_failures in params.yaml"]


def test_plants_with_few_failures_are_judged_together():
    before = {"lyon": plant("lyon"), "porto": plant("porto", machines=4)}
    after = {"lyon": plant("lyon"), "porto": plant("porto", BLIND, machines=4)}
    found = succeed(before, after, min_failures=3, largest_precision_fall=0.05, largest_cost_rise=9.0, cost_rise=9.0)
    assert found.decision == "keep"
    assert [reason.partition(":")[0] for reason in found.reasons] == ["all plants together"]
    assert found.remarks == ["judged with all others, since their failures are few: porto 2"]


def test_without_any_common_row_nothing_is_known():
    found = succeed({}, {"lyon": plant("lyon")})
    assert found.decision == "unknown"


@pytest.mark.parametrize(
    ("champion", "challenger", "floor", "decision"),
    [
        (BLIND, GOOD, 1.01, "promote"),  # both below, the challenger is better
        (GOOD, BLIND, 0.5, "keep"),  # the champion holds it
        (GOOD, {25: 0.9}, 1.01, "keep"),  # both below, the challenger is worse
    ],
)
def test_a_floor_counts_for_less_where_the_champion_is_below_it(champion, challenger, floor, decision):
    limits = {"precision_fall": 1.0, "largest_precision_fall": 1.0, "cost_rise": 9.0, "largest_cost_rise": 9.0}
    found = succeed(
        plant("lyon", champion), plant("lyon", challenger), {"plants.lyon.average_precision": floor}, **limits
    )
    assert found.decision == decision
    assert "plants.lyon.average_precision is below its floor" in [*found.reasons, *found.remarks][0]


def test_a_floor_of_a_plant_that_the_champion_does_not_know_holds():
    found = succeed(plant("lyon"), plant("lyon"), {"plants.kolin.average_precision": 0.5})
    assert found.decision == "keep"
    assert "what the champion reaches is not known" in found.reasons[0]


def test_a_floor_whose_name_is_misspelt_is_not_taken_for_that_of_a_plant():
    found = succeed(plant("lyon", BLIND), plant("lyon"), {"lyon.average_precision": 1.01})
    assert found.decision == "keep"
    assert "what the champion reaches is not known" in found.reasons[0]


def hours(rows: pl.DataFrame) -> list[tuple[str, float]]:
    return [(name, (time - START) / timedelta(hours=1)) for name, time in rows.select("machine", "time").rows()]


def test_the_champion_is_asked_about_rows_after_its_own_and_about_none_that_it_learnt_from():
    champion = pl.concat([machine("m1", range(5), split="validation"), machine("m1", range(7, 12))])
    asked = find_newer(champion, machine("m1", range(3, 15)))
    assert hours(asked) == [("m1", 12.0), ("m1", 13.0), ("m1", 14.0)]


def test_a_row_between_the_champions_test_rows_is_new_to_it():
    champion = machine("m1", [7, 9])
    assert hours(find_newer(champion, machine("m1", range(6, 10)))) == [("m1", 8.0)]


def test_of_a_machine_that_the_champion_was_not_tested_on_only_later_rows_count():
    champion = machine("m1", range(7, 12))
    assert hours(find_newer(champion, machine("m2", range(9, 14)))) == [("m2", 12.0), ("m2", 13.0)]


@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 30))
def test_no_row_is_asked_about_that_the_champion_was_fitted_on(fitted, start, length):
    tested = machine("m1", range(fitted + 2, fitted + 6))
    champion = pl.concat([machine("m1", range(fitted), split="validation"), tested])
    asked = find_newer(champion, machine("m1", range(start, start + length)))
    assert all(hour >= fitted + 2 for _, hour in hours(asked))
    assert asked.join(tested, on=["machine", "time"], how="semi").is_empty()
