import copy
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from upkeep.core.params import load_params
from upkeep.judging.acceptance import Check
from upkeep.reporting.card import Evidence, state_verdict, write_card
from upkeep.reporting.markdown import format_interval, format_table

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
PASSED = Check("average_precision", "at least 0.5", "0.71", True)
FAILED = Check("plants.lyon.failures_caught", "at least 0.6", "0.4", False)

FOUND = {
    "chosen": "plant",
    "metrics": {
        "average_precision": 0.71,
        "brier": 0.02,
        "log_loss": 0.1,
        "failures": 10,
        "failures_caught": 0.8,
        "false_alarms_per_machine_month": 0.4,
        "cost_saving": 0.75,
    },
    "intervals": {
        "average_precision": [0.6, 0.8],
        "false_alarms_per_machine_month": [0.1, 0.7],
        "cost_saving": [0.5, 0.9],
    },
    "costs": {"run_to_failure": 200000.0, "fixed_interval": None, "alarms": 80000.0, "oracle": 40000.0},
}
TRAINED = {
    "chosen": "plant",
    "why": "it ranked better",
    "rows": {"train": 1000, "validation": 200, "test": 300},
    "positives": {"train": 90, "validation": 10, "test": 20},
    "candidates": {"plant": {"threshold": 0.31, "calibration": "sigmoid", "notes": ["few failures to calibrate on"]}},
}
DRIFTED = {"drifted": True, "share": 1.0, "columns": {"load_pct": {"drifted": True}, "current_a": {"drifted": False}}}
COUNTS = {"rows_in": 12345, "clean": 12000, "duplicates": {"exact": 300}, "quarantined": {"out of range": 45}}


def make_evidence(found: dict[str, Any] = FOUND, checks: tuple[Check, ...] = (PASSED,)) -> Evidence:
    return Evidence(
        quality={"plants": {"lyon": {"tables": {"telemetry": COUNTS}, "findings": []}}},
        training={"plants": {"lyon": TRAINED}},
        evaluation={"overall": found, "plants": {"lyon": found}, "notes": ["lyon: one machine only, so no intervals"]},
        drift={"lyon": DRIFTED},
        models={
            "lyon": {"data_version": "ab" * 32, "boosters": {"model.txt": "cd" * 32}},
        },
        period={"lyon": (date(2025, 1, 6), date(2025, 12, 28))},
        checks=checks,
    )


def make_unknown() -> dict[str, Any]:
    found = copy.deepcopy(FOUND)
    found["metrics"] = {**dict.fromkeys(found["metrics"]), "failures": 0}
    found["intervals"] = dict.fromkeys(found["intervals"])
    found["costs"] = {"run_to_failure": 0.0, "fixed_interval": None, "alarms": 0.0, "oracle": 0.0}
    return found


def judge(found: dict[str, Any], *checks: Check, drift: dict[str, Any] | None = None) -> str:
    return " ".join(state_verdict({"overall": found, "plants": {"lyon": found}}, checks, drift or {}))


def test_the_verdict_says_what_was_caught_and_what_it_saves() -> None:
    verdict = judge(FOUND, PASSED)
    assert verdict.startswith("**All quality floors hold.**")
    assert "8 of 10 failures were caught in time, with 0.4 false alarms" in verdict
    assert "cost 80,000, against 200,000" in verdict


def test_the_verdict_names_the_floor_that_fails() -> None:
    verdict = judge(FOUND, PASSED, FAILED)
    assert verdict.startswith("**Below its quality floors**: lyon: failures caught is 0.4, at least 0.6 is asked.")


def test_no_floors_are_not_called_floors_that_hold() -> None:
    assert judge(FOUND).startswith("**No quality floors are set")


def test_the_verdict_warns_of_a_plant_where_alarms_may_not_pay() -> None:
    unlucky = copy.deepcopy(FOUND)
    unlucky["intervals"]["cost_saving"] = [-0.1, 0.9]
    assert "rely" not in judge(FOUND, PASSED)
    assert "Do not rely on it alone in lyon" in judge(unlucky, PASSED)


def test_the_verdict_names_a_plant_whose_data_drifted() -> None:
    assert "newest data of lyon" in judge(FOUND, PASSED, drift={"lyon": DRIFTED})


def test_the_verdict_does_not_invent_a_share_caught_without_failures() -> None:
    verdict = judge(make_unknown(), PASSED)
    assert "is not known" in verdict
    assert "None" not in verdict


def test_the_card_holds_what_planner_and_engineer_look_for() -> None:
    card = write_card(make_evidence(), PARAMS)
    for words in (
        "# Model card: risk of a failure within 48 hours",
        "| lyon | plant | 0.71 (0.60 to 0.80) | 8 of 10 |",
        "| lyon | 2025-01-06 | 2025-12-28 | 12,345 | 12,000 | 300 | 45 |",
        "| lyon | 0.31 | sigmoid |",
        "- lyon: few failures to calibrate on",
        "- lyon: one machine only, so no intervals",
        "| lyon | yes | 100% | load_pct |",
        "| average precision | at least 0.5 | 0.71 | yes |",
        "`abababababab` | `cdcdcdcdcdcd`",
    ):
        assert words in card


def test_equal_evidence_gives_an_equal_card() -> None:
    assert write_card(make_evidence(), PARAMS) == write_card(make_evidence(), PARAMS)


def test_a_card_of_a_plant_that_could_not_be_judged_says_so() -> None:
    card = write_card(make_evidence(make_unknown()), PARAMS)
    assert "| lyon | plant | not known | no failures | not known |" in card
    assert "None" not in card


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "not known"), (12345, "12,345"), (12345.6, "12,346"), (0.12345, "0.123"), (True, "yes"), ("a|b", "a\\|b")],
)
def test_a_cell_is_written_for_a_reader(value: object, shown: str) -> None:
    assert format_table(["x"], [[value]]).splitlines()[2] == f"| {shown} |"


def test_only_columns_of_numbers_are_aligned_right() -> None:
    assert format_table(["plant", "rows_in"], [["lyon", 1], ["porto", None]]).splitlines()[:2] == [
        "| plant | rows in |",
        "| :-- | --: |",
    ]


def test_an_interval_that_is_not_known_is_left_out() -> None:
    assert format_interval(0.7, None) == "0.70"
