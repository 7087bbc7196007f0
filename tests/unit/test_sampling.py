"""Rows that were kept because a failure came are told from rows that are missing for other reasons."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from parameters import SHIPPED, changed

from upkeep.features.labels import label_rows
from upkeep.features.leakage import find_absent_machines, find_selection

START = datetime(2025, 1, 6, tzinfo=UTC)
HORIZON, LAST = 10, 400
FAILURES = (100, 200, 300)
PARAMS = changed(SHIPPED.dataset, horizon_hours=HORIZON, max_repair_hours=5)


def is_near(hour: int) -> bool:
    return any(0 < failure - hour <= HORIZON for failure in FAILURES)


def find(kept, failures=FAILURES, step: int = 1, machines: int = 2) -> dict[str, str]:
    """Label the hours of some machines that `kept` lets pass; all are of one split."""
    names = [f"m{number}" for number in range(machines)]
    keys = [(name, START + timedelta(hours=hour)) for name in names for hour in range(0, LAST, step) if kept(hour)]
    events = [(name, START + timedelta(hours=hour), "failure") for name in names for hour in failures]
    rows = pl.DataFrame(keys, schema=["machine", "time"], orient="row")
    happened = pl.DataFrame(
        events, schema={"machine": pl.String, "time": rows.schema["time"], "kind": pl.String}, orient="row"
    )
    return find_selection(label_rows(rows, happened, PARAMS).with_columns(split=pl.lit("test")), HORIZON)


def test_rows_that_were_kept_around_failures_only_are_found_and_said():
    assert find(lambda hour: hour < 40 or is_near(hour)) == {
        "test": "test rows were kept because a failure came: 100% of the 10 h before failures have rows, "
        "and 15% of all other time"
    }


def test_healthy_rows_of_which_a_sample_was_kept_are_found():
    assert find(lambda hour: is_near(hour) or hour % 7 == 0)


@pytest.mark.parametrize(
    ("kept", "step"),
    [
        (lambda hour: hour >= 0, 1),
        (lambda hour: hour >= 0, 5),  # rows that are not hourly
        (lambda hour: not 120 <= hour < 180, 1),  # an outage
        (lambda hour: hour % 24 < 9, 1),  # one shift a day
        (lambda hour: not is_near(hour), 1),  # silent before failures: bad luck, but not chosen for them
    ],
)
def test_rows_that_are_missing_for_other_reasons_are_not(kept, step):
    assert find(kept, step=step) == {}


@pytest.mark.parametrize("failures", [(), FAILURES[:1]])
def test_a_failure_or_two_tell_nothing(failures):
    assert find(lambda hour: hour < 20 or is_near(hour), failures, machines=1) == {}


def machines(names: str, failed: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    events = pl.DataFrame(
        {"machine": list(failed), "kind": ["failure"] * len(failed)}, schema_overrides={"machine": str}
    )
    return pl.DataFrame({"machine": list(names)}), events


def test_machines_on_record_that_never_failed_and_have_no_rows_are_counted():
    assert find_absent_machines(set("abcde"), *machines("abcdefghij", "abcde")) == (
        "5 of 5 machines without rows never failed, and 0 of 5 with rows: machines were chosen because they failed"
    )


@pytest.mark.parametrize(
    ("names", "failed"), [("abcde", "abcde"), ("abcdefghij", "abf"), ("abcdef", "abcde"), ("", "")]
)
def test_machines_that_are_absent_whether_they_failed_or_not_are_no_finding(names, failed):
    assert find_absent_machines(set("abcde"), *machines(names, failed)) is None
