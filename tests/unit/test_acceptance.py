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
    tabulate,
)
from upkeep.judging.reports import Evaluation

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


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("precision", "no alarm was raised"),
        ("accuracy", "there is no figure of this name"),
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
    ],
)
def test_the_reason_is_what_the_rows_lack(figures, name, why):
    assert floor(name, 0.0, report(with_figures(**{name: None}, **figures))).found == f"not known: {why}"


def test_a_group_with_a_floor_must_also_be_known_to_beat_chance():
    by_chance = {**GROUP, "sanity": {**GROUP["sanity"], "faults": ["not surely above a constant"]}}
    checks = check_floors(report(GROUP, lyon=by_chance), {"average_precision": 0.5})
    assert [check.passed for check in checks] == [True, True]
    assert checks[1].found == "none is better: a constant 0.07, the luckiest model of shuffled labels 0.1"
    checks = check_floors(report(GROUP, lyon=by_chance), {"plants.lyon.f1": 0.0, "plants.lyon.recall": 0.1})
    assert checks[2][::2] == ("plants.lyon.average_precision beyond chance", "not surely above a constant")
    assert not checks[2].passed


def test_a_report_without_such_a_comparison_does_not_pass():
    old = {name: part for name, part in GROUP.items() if name != "sanity"}
    assert not check_floors(report(old), {"average_precision": 0.0})[1].passed
    assert not check_floors(report(UNKNOWN), {"rows": 0.0})[1].passed
    assert check_floors(report(old), {}) == []


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


def test_nothing_is_raised_when_everything_passed():
    require_passed([floor("average_precision", 0.5)])


def test_the_error_names_each_failed_check_with_what_was_found_and_expected_and_no_other():
    checks = [floor("average_precision", 0.5), floor("plants.lyon.average_precision", 0.5), judged("alarm", [0.2])]
    with pytest.raises(UpkeepError) as raised:
        require_passed(checks)
    assert str(raised.value).startswith(
        "2 of 3 checks failed: plants.lyon.average_precision (found 0.4);"
        " worn bearing (found highest probability 0.2, threshold 0.5)"
    )
    assert "expected: plants.lyon.average_precision: at least 0.5; worn bearing: an alarm in the last 24 h" in str(
        raised.value
    )


def test_the_table_tells_what_passed_and_what_failed():
    lines = tabulate([floor("average_precision", 0.5), judged("alarm", [0.2])]).splitlines()
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
