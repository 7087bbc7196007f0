"""What a model must hold before it may be shipped."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_cases import GROUP, UNKNOWN, evaluation

from upkeep.core.errors import UpkeepError
from upkeep.judging.acceptance import (
    AcceptanceCase,
    Check,
    check_case,
    check_floors,
    load_cases,
    require_passed,
    tabulate_checks,
)
from upkeep.judging.reports import Evaluation
from upkeep.judging.sanity import explain_unknown

START = datetime(2025, 1, 6, tzinfo=UTC)


def with_figures(**figures: float | int | None) -> dict[str, Any]:
    return {**GROUP, "metrics": {**GROUP["metrics"], **figures}}


def report(overall: Mapping[str, Any], **plants: Mapping[str, Any]) -> Evaluation:
    return evaluation({"all": overall, **plants})


REPORT = report(with_figures(average_precision=0.7, precision=None), lyon=with_figures(average_precision=0.4))


def floor(name: str, value: float, judged: Evaluation = REPORT) -> Check:
    return check_floors(judged, {name: value})[0]


def judged(expect: str, probability: list[float], threshold: float = 0.5) -> Check:
    case = AcceptanceCase(name="worn bearing", plant="lyon", expect=expect, telemetry="worn.csv")
    time = [START + timedelta(hours=hour) for hour in range(len(probability))]
    return check_case(case, time, np.array(probability), threshold)


def test_a_metric_at_its_floor_passes_and_one_below_does_not():
    assert floor("average_precision", 0.7).passed
    assert not floor("average_precision", 0.71).passed


def test_a_dotted_name_holds_one_plant_to_a_floor():
    assert floor("plants.lyon.average_precision", 0.5) == Check(
        "plants.lyon.average_precision", "at least 0.5", "0.4", False
    )


@pytest.mark.parametrize("name", ["brier", "log_loss", "cost", "false_alarms_per_machine_month"])
def test_a_figure_of_which_less_is_better_has_no_floor_and_is_not_offered_as_one(name):
    assert not floor(name, 0.0).passed
    offered = {*floor(name, 0.0).found.partition("floors can be set for ")[2].split(", ")}
    assert {"average_precision", "cost_saving", "failures_caught"} <= offered
    assert name not in offered


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("precision", "no alarm was raised"),
        ("accuracy", "floors can be set for rows, "),
        ("plants.porto.average_precision", "no such plant was judged"),
        ("plants.lyon", "no such plant was judged"),
    ],
)
def test_a_metric_that_is_not_known_does_not_pass_and_the_reason_is_given(name, why):
    assert not floor(name, 0.0).passed
    assert floor(name, 0.0).found.startswith(f"not known: {why}")


@pytest.mark.parametrize(
    ("figures", "name", "why"),
    [
        ({"rows": 0, "positives": 0}, "average_precision", "no test rows"),
        ({"positives": 0}, "average_precision", "no failure ahead of any test row"),
        ({"positives": 300}, "average_precision", "no healthy test row"),
        ({"positives": 300}, "cost", "no healthy test row"),
        ({"failures": 0}, "failures_caught", "no failure with test rows early enough to catch it"),
        ({}, "median_lead_time_hours", "no failure was caught"),
        ({}, "false_alarms_per_machine_month", "one row a machine spans no time"),
        ({}, "cost_saving", "even perfect foresight saves nothing, as a failure costs no more than a planned repair"),
    ],
)
def test_the_reason_is_what_the_rows_lack(figures, name, why):
    metrics = report(with_figures(**{name: None}, **figures)).overall.metrics
    assert explain_unknown(metrics, name) == why


def compared(*interval: float) -> dict[str, Any]:
    """A group whose model exceeds one of shuffled labels by this much, which its report found too little."""
    shuffled = {"metrics": GROUP["metrics"], "lead": sum(interval) / 2, "lead_interval": list(interval)}
    return {**with_faults("not surely above a constant"), "candidates": {"shuffled_labels": shuffled}}


def with_faults(*faults: str) -> dict[str, Any]:
    return {**GROUP, "sanity": {**GROUP["sanity"], "faults": list(faults)}}


def beyond_chance(floors: dict[str, float], lyon: dict[str, Any]) -> dict[str, bool]:
    """Whether what is asked beyond floors holds of a fleet that beats chance, and of one of its plants."""
    checks = check_floors(report(GROUP, lyon=lyon), floors)[len(floors) :]
    return {check.name.removesuffix("beyond chance").strip(): check.passed for check in checks}


FLEET, LYON = {"average_precision": 0.5}, {"plants.lyon.f1": 0.0}
OVERALL, PLANTS, OF_LYON = "average_precision", "plants", "plants.lyon.average_precision"
TOO_FEW = with_faults("not known to be above chance: failures in test rows are 3, 6 are needed")


@pytest.mark.parametrize(
    ("floors", "lyon", "passed"),
    [
        (FLEET, GROUP, {OVERALL: True, PLANTS: True}),
        (FLEET, compared(-0.1, 0.2), {OVERALL: True, PLANTS: False}),
        (FLEET, compared(0.1, 0.6), {OVERALL: True, PLANTS: True}),
        (FLEET, TOO_FEW, {OVERALL: True, PLANTS: True}),
        (FLEET | LYON, TOO_FEW, {OVERALL: True, OF_LYON: False, PLANTS: True}),
        (FLEET | LYON, compared(0.1, 0.6), {OVERALL: True, OF_LYON: False, PLANTS: True}),
        (LYON | {"plants.lyon.recall": 0.1}, compared(0.1, 0.6), {OF_LYON: False}),
        ({"plants.porto.f1": 0.0}, compared(-0.1, 0.2), {}),
        ({}, compared(-0.1, 0.2), {}),
    ],
)
def test_what_has_a_floor_must_be_known_to_beat_chance_and_its_plants_not_known_to_rank_as_chance_does(
    floors, lyon, passed
):
    assert beyond_chance(floors, lyon) == passed


def test_plants_at_chance_level_are_named_with_the_reason():
    named = check_floors(report(GROUP, lyon=compared(-0.1, 0.2)), FLEET)[-1]
    assert named.found.startswith(
        "lyon: not surely above the luckiest model of shuffled labels: 0.710 against 0.710, at worst by"
    )
    assert check_floors(report(GROUP, lyon=GROUP), FLEET)[-1].found == "none of 2"


def test_of_a_fleet_of_one_plant_a_fault_is_told_once():
    checks = check_floors(report(compared(-0.1, 0.2)), FLEET)
    assert [check.name for check in checks if not check.passed] == ["average_precision beyond chance"]


def test_what_the_model_was_held_against_is_told():
    checks = check_floors(REPORT, {"average_precision": 0.5})
    assert checks[1].found == "none is better: a constant 0.07, the luckiest model of shuffled labels 0.1"


def test_what_was_not_compared_does_not_pass():
    assert not check_floors(report(UNKNOWN), {"rows": 0.0})[1].passed


@given(st.floats(0, 1) | st.just(math.nan), st.floats(allow_nan=False, allow_infinity=False))
def test_a_floor_passes_exactly_what_is_not_below_it(value, least):
    check = floor("f1", least, report(with_figures(f1=value)))
    assert check.passed == (not math.isnan(value) and round(value, 6) >= least)


def test_an_expected_alarm_may_come_at_any_of_the_last_24_hours():
    assert judged("alarm", [0.1] * 10 + [0.9] + [0.1] * 23).passed
    assert not judged("alarm", [0.1] * 10 + [0.9] + [0.1] * 24).passed


def test_a_healthy_machine_may_not_alarm_at_any_row():
    assert judged("no_alarm", [0.1] * 100).passed
    assert not judged("no_alarm", [0.9] + [0.1] * 99).passed


def test_an_answer_is_any_probability_at_the_last_row():
    assert judged("answer", [math.nan, 0.9]).passed
    assert not judged("answer", [0.9, math.nan]).passed


@pytest.mark.parametrize("expect", ["alarm", "no_alarm", "answer"])
def test_a_case_that_gets_no_answer_does_not_pass(expect):
    assert not judged(expect, []).passed
    assert not judged(expect, [math.nan]).passed


def refusal(*checks: Check) -> str:
    try:
        require_passed(checks)
    except UpkeepError as error:
        return str(error)
    return "none"


def test_the_error_names_each_failed_check_with_what_was_found_and_expected_and_no_other():
    passed, failed, case = (
        floor("average_precision", 0.5),
        floor("plants.lyon.average_precision", 0.5),
        judged("alarm", [0.2]),
    )
    assert refusal() == refusal(passed) == "none"
    assert refusal(passed, failed, case).startswith(
        "2 of 3 checks failed: plants.lyon.average_precision (found 0.4);"
        " worn bearing (found highest probability 0.2, threshold 0.5) [stage=check]\n"
        "  expected: plants.lyon.average_precision: at least 0.5; worn bearing: an alarm in the last 24 h\n"
    )


def test_the_table_tells_what_passed_and_what_failed():
    lines = tabulate_checks([floor("average_precision", 0.5), judged("alarm", [0.2])]).splitlines()
    assert lines[1].split() == ["ok", "average_precision", "at", "least", "0.5", "0.7"]
    assert lines[2].startswith("FAILED  worn bearing")


def test_acceptance_cases_are_read_from_yaml(tmp_path):
    file = tmp_path / "cases.yaml"
    file.write_text(
        "- {name: worn, plant: lyon, expect: alarm, telemetry: worn.csv, machines: {model: A, installed: 2024-01-01}}\n"
    )
    (case,) = load_cases(file)
    assert (case.name, case.machines.model) == ("worn", "A")


@pytest.mark.parametrize("text", ["- {name: worn}", "- {", "[{name: a, plant: b, expect: panic, telemetry: c}]"])
def test_a_broken_list_of_cases_is_refused(tmp_path, text):
    file = tmp_path / "cases.yaml"
    file.write_text(text)
    with pytest.raises(UpkeepError, match="acceptance cases cannot be used"):
        load_cases(file)
