"""What alarms cost, and the threshold at which they cost least."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prediction_cases import COSTS, HORIZON, LEAD, fleets, machine

from upkeep.core.params import Costs
from upkeep.judging.economics import (
    best_threshold,
    break_even,
    candidate_thresholds,
    cost_by_threshold,
    oracle_cost,
    policy_cost,
    run_to_failure_cost,
    tally_metrics,
)
from upkeep.judging.episodes import tally_machines

amounts = st.floats(0, 1e5)
any_costs = st.builds(Costs, failure=amounts, planned_repair=amounts, false_alarm=amounts)


def metrics(rows: pl.DataFrame, costs: Costs = COSTS) -> dict[str, float]:
    tally = tally_machines(rows, LEAD, HORIZON)
    return {name: values[0] for name, values in tally_metrics(tally, np.ones((tally.height, 1)), costs).items()}


def cost_of(rows: pl.DataFrame, costs: Costs = COSTS) -> float:
    tally = tally_machines(rows, LEAD, HORIZON).select(pl.exclude("plant", "machine").sum().cast(pl.Float64))
    known = tally.row(0, named=True)
    share = (known["caught"] + 1) / (known["failures"] - known["open"] + 2)
    return policy_cost(known["failures"], known["caught"] + known["open"] * share, known["false_alarms"], costs)


def cost_at(rows: pl.DataFrame, threshold: float, costs: Costs = COSTS) -> float:
    return cost_of(rows.with_columns(alarm=pl.col("probability") >= threshold), costs)


def test_a_caught_failure_costs_a_planned_repair_and_a_missed_one_an_unplanned_stop():
    assert policy_cost(failures=3.0, caught=2.0, false_alarms=4.0, costs=COSTS) == 100 + 2 * 20 + 4 * 5


def test_perfect_alarms_save_all_that_the_oracle_saves():
    assert metrics(machine(fails_at=30, alarms={25: 0.9}))["cost_saving"] == 1.0


def test_silence_saves_nothing():
    assert metrics(machine(fails_at=30))["cost_saving"] == 0.0


def test_alarms_that_cost_more_than_they_save_have_a_negative_saving():
    assert metrics(machine(fails_at=39, alarms={0: 0.9}))["cost_saving"] == pytest.approx(-5 / 80)


def test_without_a_failure_there_is_no_saving_to_share():
    found = metrics(machine(alarms={0: 0.9}))
    assert np.isnan(found["cost_saving"])
    assert np.isnan(found["failures_caught"])
    assert found["cost"] == 5.0


def test_false_alarms_are_counted_per_month_of_a_machine():
    month = machine(hours=range(0, 1461, 2), alarms={0: 0.9})
    assert metrics(month)["false_alarms_per_machine_month"] == pytest.approx(730.5 / 1462)


@pytest.mark.parametrize(
    ("happened", "caught"),
    [
        ([], 1 / 2),
        ([machine("m2", fails_at=30, alarms={25: 0.9})], 2 / 3),
        ([machine("m2", fails_at=30)], 1 / 3),
        ([machine("m2", fails_at=30), machine("m3", fails_at=30, alarms={25: 0.9})], 1 / 2),
    ],
)
def test_a_prevented_failure_without_a_warning_counts_as_those_of_which_it_is_known(happened, caught):
    rows = pl.concat([machine("m1", fails_at=30, prevented=True), *happened])
    others = metrics(pl.concat(happened))["cost"] if happened else 0.0
    assert metrics(rows)["cost"] == pytest.approx(others + caught * 20 + (1 - caught) * 100)


def test_a_prevented_failure_is_caught_by_whoever_warned_of_it():
    assert metrics(machine(fails_at=30, alarms={25: 0.9}, prevented=True))["cost"] == 20


def test_a_threshold_is_not_lowered_for_what_only_a_model_that_always_alarms_found():
    found_early = machine("m1", fails_at=30, alarms={22: 0.3}, prevented=True)
    healthy = machine("m2", range(120), alarms=dict.fromkeys(range(0, 120, 12), 0.3))
    happened = machine("m3", fails_at=30, alarms={25: 0.9})
    assert best_threshold(pl.concat([found_early, healthy, happened]), COSTS, LEAD, HORIZON) == 0.9
    failed = found_early.with_columns(prevented=False)
    assert best_threshold(pl.concat([failed, healthy, happened]), COSTS, LEAD, HORIZON) == 0.3


@given(fleets(), any_costs)
def test_no_policy_is_cheaper_than_the_oracle(rows, costs):
    failures = float(tally_machines(rows, LEAD, HORIZON)["failures"].sum())
    assert cost_of(rows, costs) >= oracle_cost(failures, costs) * (1 - 1e-12)


@given(st.integers(0, 100), any_costs)
def test_the_oracle_never_costs_more_than_run_to_failure(failures, costs):
    assert oracle_cost(float(failures), costs) <= run_to_failure_cost(float(failures), costs)


@given(fleets())
def test_the_table_of_thresholds_agrees_with_following_the_alarms_at_each(rows):
    for threshold, cost in cost_by_threshold(rows, COSTS, LEAD, HORIZON).select("threshold", "cost").iter_rows():
        assert cost == pytest.approx(cost_at(rows, threshold))


@given(fleets(), any_costs)
def test_no_candidate_threshold_is_cheaper_than_the_best(rows, costs):
    best = cost_at(rows, best_threshold(rows, costs, LEAD, HORIZON), costs)
    assert best <= cost_by_threshold(rows, costs, LEAD, HORIZON)["cost"].min() + 1e-6


@given(fleets())
def test_the_best_threshold_does_not_depend_on_the_order_of_rows(rows):
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=1)
    assert best_threshold(shuffled, COSTS, LEAD, HORIZON) == best_threshold(rows, COSTS, LEAD, HORIZON)


def test_of_equally_cheap_thresholds_the_middle_one_is_taken():
    rows = machine(fails_at=30, alarms={21: 0.5, 22: 0.6, 23: 0.7, 24: 0.8, 25: 0.9})
    assert best_threshold(rows, COSTS, LEAD, HORIZON) == 0.7


def test_without_a_failure_the_threshold_lies_above_all_that_was_seen_and_at_break_even_at_least():
    assert best_threshold(machine(alarms={5: 0.9}), COSTS, LEAD, HORIZON) > 0.9
    assert best_threshold(machine(alarms={5: 0.01}), COSTS, LEAD, HORIZON) > 0.1
    quiet = machine().with_columns(probability=pl.lit(0.001))
    assert best_threshold(quiet, COSTS, LEAD, HORIZON) == break_even(COSTS)


def test_without_a_row_the_threshold_is_the_break_even():
    assert best_threshold(machine(hours=[]), COSTS, LEAD, HORIZON) == break_even(COSTS) == 5 / 85


def test_planning_that_saves_nothing_never_breaks_even():
    assert break_even(Costs(failure=10, planned_repair=10, false_alarm=0)) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=500))
def test_candidate_thresholds_are_few_ascending_and_end_above_every_probability(probabilities):
    thresholds = candidate_thresholds(np.array(probabilities))
    assert thresholds.size <= 200
    assert (np.diff(thresholds) > 0).all()
    assert thresholds[-2] == max(probabilities) < thresholds[-1]
    assert thresholds[0] == min(probabilities)
