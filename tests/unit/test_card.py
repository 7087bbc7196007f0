import copy
from datetime import date
from typing import Any

from parameters import SHIPPED as PARAMS
from report_cases import GROUP, UNKNOWN, evaluation, with_candidates

from upkeep.judging.acceptance import Check
from upkeep.judging.reports import DataQuality, DriftReport, TrainedPlant, TrainingReport
from upkeep.reporting.card import Reports, describe_verdict, tabulate_candidates, write_card

PASSED = Check("average_precision", "at least 0.5", "0.71", True)
FAILED = Check("plants.lyon.failures_caught", "at least 0.6", "0.4", False)

TRAINED = {
    "chosen": "plant",
    "why": "it ranked better",
    "saved": True,
    "rows": {"train": 1000, "validation": 200, "test": 300},
    "positives": {"train": 90, "validation": 10, "test": 20},
    "validation_failures": 5,
    "candidates": {
        "plant": {
            "average_precision": 0.7,
            "cost": 100.0,
            "threshold": 0.31,
            "calibration": "sigmoid",
            "rounds": [],
            "trained_rows": 1000,
            "trained_positives": 90,
            "notes": ["few failures to calibrate on"],
        }
    },
}
DRIFTED = {
    "drifted": True,
    "share": 1.0,
    "columns": {
        name: {"method": "wasserstein", "score": 0.4, "threshold": 0.2, "drifted": drifted}
        for name, drifted in {"load_pct": True, "current_a": False}.items()
    },
    "current_rows": 100,
    "reference_rows": 1000,
    "window": {"from": "2025-12-01T00:00:00+00:00", "to": "2025-12-29T00:00:00+00:00"},
    "notes": [],
}
COUNTS = {"rows_in": 12345, "clean": 12000, "duplicates": {"exact": 300}, "quarantined": {"out of range": 45}}


def make_reports(group: dict[str, Any] = GROUP, plant: str = "lyon") -> Reports:
    return Reports(
        delivered=DataQuality.model_validate({"plants": {plant: {"tables": {"telemetry": COUNTS}, "findings": []}}}),
        training=TrainingReport.model_validate({"kind": "lightgbm", "plants": {plant: TRAINED}}),
        evaluation=evaluation({plant: group}, notes=["lyon: one machine only, so no intervals"]),
        drift=DriftReport.model_validate({plant: DRIFTED}),
        models={plant: {"data_version": "ab" * 32, "boosters": {"model.txt": "cd" * 32}}},
        period={plant: (date(2025, 1, 6), date(2025, 12, 28))},
        checks=[PASSED],
    )


def judge(group: dict[str, Any], *checks: Check, drift: dict[str, Any] | None = None) -> str:
    return describe_verdict(evaluation({"lyon": group}), checks, DriftReport.model_validate(drift or {}))


def test_the_verdict_says_what_was_caught_and_what_it_saves() -> None:
    verdict = judge(GROUP, PASSED)
    assert verdict.startswith("- **All quality floors hold.**")
    assert "8 of 10 failures were caught in time, with 0.4 false alarms" in verdict
    assert "cost 80,000, against 200,000" in verdict


def test_the_verdict_names_the_floor_that_fails() -> None:
    verdict = judge(GROUP, PASSED, FAILED)
    assert verdict.startswith("- **Below its quality floors**: lyon: failures caught is 0.4, at least 0.6 is asked.\n")


def test_the_verdict_tells_floors_that_fail_apart_and_counts_those_after_the_sixth() -> None:
    assert "0.6 is asked; lyon: failures caught is" in judge(GROUP, FAILED, FAILED)
    assert "at least 0.6 is asked; and 2 more.\n" in judge(GROUP, *[FAILED] * 8)


def test_no_floors_are_not_called_floors_that_hold() -> None:
    assert judge(GROUP).startswith("- **No quality floors are set")


def test_the_verdict_warns_of_a_plant_where_alarms_may_not_pay() -> None:
    unlucky = copy.deepcopy(GROUP)
    assert "rely" not in judge(GROUP, PASSED)
    for interval in ([-0.1, 0.9], None):
        unlucky["intervals"]["cost_saving"] = interval
        assert "Do not rely on it alone in lyon" in judge(unlucky, PASSED)


def test_the_verdict_names_a_plant_whose_data_drifted() -> None:
    assert "newest data of lyon" in judge(GROUP, PASSED, drift={"lyon": DRIFTED})


def test_the_verdict_does_not_invent_a_share_caught_without_failures() -> None:
    verdict = judge(UNKNOWN, PASSED)
    assert "is not known" in verdict
    assert "None" not in verdict


def test_the_card_holds_what_planner_and_engineer_look_for() -> None:
    card = write_card(make_reports(), PARAMS)
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


def test_a_card_of_a_plant_that_could_not_be_judged_says_so() -> None:
    card = write_card(make_reports(UNKNOWN), PARAMS)
    assert "| lyon | plant | not known | no failures | not known |" in card
    assert "None" not in card


def test_names_that_look_like_markup_format_nothing_in_the_card() -> None:
    odd = "a*b*<b>|c"
    card = write_card(make_reports(plant=odd), PARAMS)
    assert r"The newest data of a\*b\*\<b>\|c no longer" in card
    assert card.count(r"a\*b\*\<b>\|c") == 10
    assert odd not in card


def test_candidates_are_called_by_the_same_words_in_their_table_and_on_the_card() -> None:
    group = with_candidates(GROUP, plant=0.7, random_forest=0.6, class_prior=0.1)
    table = tabulate_candidates(evaluation({"lyon": group}), {"lyon": TrainedPlant.model_validate(TRAINED)})
    header, _, row, *_ = table.splitlines()
    assert header.startswith(
        "| plant | its own model | random forest | a constant | the luckiest model of shuffled labels |"
    )
    assert row.startswith("| lyon | **0.7** | 0.6 | 0.1 |  |")
    assert header.partition(" a constant ")[2] in write_card(make_reports(), PARAMS)
