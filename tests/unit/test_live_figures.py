"""Live figures count episodes and failures, and say what is not known."""

import polars as pl
import pytest
from fleet_cases import at
from outcome_cases import PARAMS, ends, event, judge, said

from upkeep.core.params import Costs
from upkeep.production.figures import OUTCOMES, find_losing_shadows, live_figures, show_outcomes
from upkeep.production.outcomes import LEDGER

COSTS = PARAMS.evaluate.costs  # 20000 a failure, 4000 a planned repair, 600 a false alarm
FAILURES = ("caught", "missed", "not_covered")


def ledger(*found: str, **columns: object) -> pl.DataFrame:
    """Return a row per outcome, each of another machine."""
    rows = [
        {"kind": "failure" if outcome in FAILURES else "alarm", "machine": f"m{number % 3}", "outcome": outcome}
        for number, outcome in enumerate(found)
    ]
    rest = {"plant": "lyon", "at": at(0), "role": "champion", "model_version": "v1", "probability": 0.9} | columns
    return pl.DataFrame([rest | row for row in rows], schema=LEDGER)


def figures(*found: str) -> dict[str, float | None]:
    return live_figures(ledger(*found), PARAMS).row(0, named=True)


def test_precision_is_that_of_alarms_with_a_code_and_the_coded_share_stands_beside_it():
    found = figures("defect_found", "failed", "nothing_found", "no_code", "survived", "pending", "censored", "void")
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["coded"] == pytest.approx(3 / 5)
    assert (found["defect_found"], found["failed"]) == (1, 1)  # told apart


def test_recall_is_known_but_for_visits_without_a_code():
    found = figures("caught", "defect_found", "missed", "not_covered", "no_code")
    assert found["recall_from"] == pytest.approx(2 / 4)
    assert found["recall_to"] == pytest.approx(3 / 5)
    assert figures("caught", "missed")["recall_from"] == figures("caught", "missed")["recall_to"]


def test_money_is_counted_as_in_the_report_and_a_visit_without_a_code_was_a_repair_or_an_inspection():
    found = figures("caught", "failed", "defect_found", "missed", "nothing_found", "survived", "no_code")
    rest = 2 * COSTS.planned_repair + COSTS.failure + 2 * COSTS.false_alarm
    assert found["cost_from"] == rest + COSTS.false_alarm
    assert found["cost_to"] == rest + COSTS.planned_repair


def test_failures_before_any_model_was_in_force_count_for_none():
    rows = ledger("missed").vstack(ledger("not_covered", model_version=None))
    assert live_figures(rows, PARAMS)["not_covered"].to_list() == [0]
    classes, figures, left_out = show_outcomes(rows, PARAMS).split("\n\n")
    assert classes.splitlines()[1].split()[-2:] == ["1", "0"]
    assert len(figures.splitlines()) == 2
    assert left_out == "left out: 1 failure before the first prediction, or too soon after it"


NOTHING = "nothing is known yet: no prediction was judged"


def test_where_nothing_is_known_one_sentence_says_so():
    assert show_outcomes(LEDGER.to_frame(), PARAMS) == NOTHING
    early = ledger(*["not_covered"] * 3, model_version=None)
    assert show_outcomes(early, PARAMS).splitlines()[::2] == [
        NOTHING,
        "left out: 3 failures before the first prediction, or too soon after it",
    ]


def test_what_nothing_tells_is_null_not_zero():
    found = figures("pending")
    assert found["precision"] is found["recall_from"] is found["precision_interval"] is None
    assert "unknown" in show_outcomes(ledger("pending"), PARAMS)


def test_an_interval_reaches_from_the_low_end_of_the_lower_bound_to_the_high_end_of_the_upper_one():
    found = figures("defect_found", "no_code", "nothing_found", "defect_found", "missed", "no_code")
    low, high = found["recall_interval"]
    assert low <= found["recall_from"] < found["recall_to"] <= high
    assert figures("failed")["precision_interval"] is None  # of one machine


def test_roles_are_kept_apart_and_groups_are_of_any_kind():
    rows = ledger("failed", "caught").vstack(ledger("nothing_found", role="challenger", model_version="v2"))
    rows = rows.vstack(ledger("survived", at=at(7 * 24), plant="porto"))
    assert live_figures(rows, PARAMS, ())["role"].to_list() == ["challenger", "champion"]
    weeks = live_figures(rows, PARAMS, ("plant", "model_version", "week"))
    assert weeks.select("model_version", "role", pl.col("week").cast(pl.String)).rows() == [
        ("v2", "challenger", "2025-01-06"),
        ("v1", "champion", "2025-01-06"),
        ("v1", "champion", "2025-01-13"),
    ]
    assert live_figures(LEDGER.to_frame(), PARAMS).is_empty()


def test_how_often_a_machine_is_scored_changes_no_figure():
    happened = [event(50, "failure"), event(30, "maintenance", "m2", finding="nothing")]

    def scored(every: int) -> pl.DataFrame:
        rows = [said(hour, machine=name) for hour in range(20, 50, every) for name in ("m1", "m2")]
        return live_figures(judge(rows, happened, ends(90, m2=90)), PARAMS).select(*OUTCOMES)

    assert scored(1).equals(scored(2))


def test_costs_that_favour_inspections_leave_the_lower_end_below():
    dear = PARAMS.evaluate.model_copy(update={"costs": Costs(failure=1, planned_repair=1, false_alarm=5)})
    found = live_figures(ledger("no_code"), PARAMS.model_copy(update={"evaluate": dear})).row(0, named=True)
    assert (found["cost_from"], found["cost_to"]) == (1, 5)


JUDGED = PARAMS.model_copy(update={"gate": PARAMS.gate.model_copy(update={"min_failures": 3})})
THREE_CAUGHT, THREE_MISSED = ledger(*["caught"] * 3), ("missed",) * 3


def in_shadow(*found: str, live: pl.DataFrame = THREE_CAUGHT) -> dict[str, str]:
    """Return what is said of a challenger beside a champion that has missed failures before it ran."""
    before = ledger(*["missed"] * 9, at=at(-99))
    rows = pl.concat([before, live, ledger(*found, role="challenger", model_version="v2")])
    return find_losing_shadows(rows, {"lyon": "v2", "porto": "v2"}, JUDGED)


@pytest.mark.parametrize("uncovered", [0, 9])
def test_a_challenger_that_has_surely_cost_more_than_what_is_live_is_told_with_both_costs(uncovered):
    others = ledger(*["missed"] * uncovered, at=at(5))  # which it was not asked about
    words = "run in the shadow, its alarms have cost 60,000 at least, those live 12,000 at most"
    assert in_shadow(*THREE_MISSED, live=pl.concat([THREE_CAUGHT, others])) == {"lyon": words}


@pytest.mark.parametrize("found", [(), THREE_MISSED[:2], ("missed", "caught", "caught"), ("caught",) * 3])
def test_nothing_is_said_of_a_challenger_that_nobody_ran_or_of_which_too_little_is_known(found):
    assert in_shadow(*found) == {}
