"""Deliveries held against what is usual for them."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parameters import SHIPPED, changed

from upkeep.judging.reports import PlantQuality
from upkeep.production.health import (
    LEAST_HISTORY,
    Arrival,
    PlantDeliveries,
    Poll,
    explain_retraining,
    find_limit,
    judge_arrival,
    judge_deliveries,
    judge_freshness,
    judge_polls,
)
from upkeep.sources.manifest import RawFile

MONDAY = date(2025, 1, 6)
WEEKS = 12
NEWEST = MONDAY + timedelta(weeks=WEEKS - 1)
QUARANTINE = {"table": pl.String, "batch": pl.String, "column": pl.String}
FETCH = changed(SHIPPED.fetch, batch_days=7)


def week(number: int) -> date:
    return MONDAY + timedelta(weeks=number)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def delivered(weeks=range(WEEKS), *, heat=1.0, dark=(), copies=0, broken=0, findings=()):
    """A machine's ten readings a week; `dark` weeks have no heat, the last one also copies and broken values."""
    weeks = list(weeks)
    rows = pl.DataFrame(
        [
            {
                "machine": "M1",
                "time": noon(week(number)) + timedelta(hours=hour),
                "heat": None if number in dark else heat,
            }
            for number in weeks
            for hour in range(10)
        ],
        schema={"machine": pl.String, "time": pl.Datetime("us", "UTC"), "heat": pl.Float64},
    )
    lost = [{"table": "telemetry", "batch": str(week(weeks[-1])), "column": "heat"}] * broken
    files = [
        RawFile(
            table="telemetry",
            plant="lyon",
            batch=week(number),
            delivery=1,
            file=str(number),
            rows=10 + (copies + broken) * (number == weeks[-1]),
            bytes=1,
            sha256="0",
        )
        for number in weeks
    ]
    table = {"rows_in": 1, "clean": 1, "duplicates": {}, "quarantined": {}}
    quality = PlantQuality.model_validate({"tables": {"telemetry": table}, "findings": list(findings)})
    return PlantDeliveries(files, rows.lazy(), ["heat"], pl.DataFrame(lost, schema=QUARANTINE), quality)


def judged(found, as_of=None, seen=(), listed=()):
    as_of = as_of or noon(week(WEEKS))
    batches = sorted({*listed, *(file.batch for file in found.files)})
    signals = [judge_arrival(batches, seen, FETCH, as_of, is_listed=True), *judge_deliveries(found, FETCH.batch_days)]
    return {(signal.measure, signal.place): signal for signal in signals}


def test_deliveries_as_ever_are_fine_in_all_respects():
    assert {signal.status for signal in judged(delivered()).values()} == {"fine"}


@pytest.mark.parametrize(
    ("found", "measure", "place"),
    [
        (delivered(copies=3), "duplicates", ""),
        (delivered(broken=3), "quarantine", ""),
        (delivered(broken=3), "broken", "heat"),
        (delivered(dark=[WEEKS - 1]), "missing", "heat"),
        (delivered(dark=[WEEKS - 1]), "freshness", "heat"),
    ],
)
def test_what_the_newest_batch_has_more_of_than_any_before_is_to_be_watched(found, measure, place):
    assert judged(found)[measure, place].status == "watch"


def test_fewer_rows_than_usual_are_a_gap():
    found = delivered()
    fewer = found.telemetry.filter(pl.col("time") < noon(week(WEEKS - 1)) + timedelta(hours=5))
    assert judged(found._replace(telemetry=fewer))["gaps", ""].status == "watch"


def test_a_plant_without_sensors_or_rows_has_shares_all_the_same():
    assert judged(delivered()._replace(sensors=[]))["quarantine", ""].status == "fine"
    nothing = delivered()._replace(telemetry=delivered().telemetry.clear())
    empty = nothing._replace(files=[file.model_copy(update={"rows": 0}) for file in nothing.files])
    assert all(0 <= signal.value <= 1 for (measure, _), signal in judged(empty).items() if measure != "freshness")


def test_what_has_always_been_so_is_usual():
    found = delivered()
    doubled = [file.model_copy(update={"rows": 20}) for file in found.files]
    assert judged(found._replace(files=doubled))["duplicates", ""].status == "fine"


def test_a_plant_that_is_younger_than_what_is_needed_is_unknown_and_not_fine():
    young = judged(delivered(range(LEAST_HISTORY)), noon(week(LEAST_HISTORY)))
    assert young["quarantine", ""].status == "unknown"
    assert str(LEAST_HISTORY) in young["quarantine", ""].words


@pytest.mark.parametrize(
    ("days", "state", "status"),
    [(7, "fresh", "fine"), (13, "fresh", "fine"), (14, "late", "watch"), (21, "stale", "act"), (210, "stale", "act")],
)
def test_deliveries_that_stop_are_late_and_then_stale(days, state, status):
    signal = judged(delivered(), noon(week(WEEKS - 1) + timedelta(days=days)))["freshness", ""]
    assert (signal.words.split(":")[0], signal.status) == (state, status)


@pytest.mark.parametrize(("days", "status"), [(0, "fine"), (14, "unknown"), (60, "unknown")])
def test_while_the_source_cannot_be_listed_a_missing_batch_may_be_there(days, status):
    weeks, as_of = [week(number) for number in range(WEEKS)], noon(NEWEST) + timedelta(days=7 + days)
    assert judge_arrival(weeks, [], FETCH, as_of, is_listed=False).status == status


def test_a_batch_that_the_source_lists_is_there_before_it_is_fetched():
    found = judged(delivered(), noon(week(WEEKS + 1)), listed=[week(WEEKS)])
    assert found["freshness", ""].status == "fine"


@pytest.mark.parametrize(
    ("batches", "due", "state"),
    [
        ([*range(10), 12], 12, "recovered"),
        (range(0, 20, 2), 19, "fresh"),
        (range(0, 20, 2), 20, "late"),
        (range(0, 20, 2), 22, "stale"),
        (range(3), 4, "unknown"),
        (range(3), 2, "fresh"),
    ],
)
def test_how_late_is_late_depends_on_how_often_the_plant_delivers(batches, due, state):
    assert judge_freshness([week(number) for number in batches], week(due), 7).words.startswith(state)


def test_a_plant_that_is_usually_three_days_late_is_not_late_after_two():
    ends = {number: noon(week(number + 1)) for number in range(WEEKS)}
    seen = [Arrival(plant="lyon", batch=week(0), at=noon(MONDAY))]
    seen += [
        Arrival(plant="lyon", batch=week(number), at=ends[number] + timedelta(days=3)) for number in range(1, WEEKS)
    ]
    two_days_late = noon(week(WEEKS + 1)) + timedelta(days=2)
    signal = judged(delivered(), two_days_late, seen)["freshness", ""]
    assert (signal.status, signal.limit) == ("fine", 84)
    assert judged(delivered(), two_days_late)["freshness", ""].status == "watch"


def test_what_was_there_before_anybody_looked_tells_nothing_of_how_late_it_came():
    seen = [Arrival(plant="lyon", batch=week(number), at=noon(week(WEEKS))) for number in range(WEEKS)]
    assert judged(delivered(), seen=seen)["freshness", ""].limit == 1  # batches, not hours


def change(kind, began, until=NEWEST):
    place = {"machine": None, "column": "heat", "batch": None}
    return {"kind": kind, "table": "telemetry", **place, "from": str(began), "to": str(until), "detail": "°F for °C"}


@pytest.mark.parametrize(
    ("finding", "is_told"),
    [
        (change("unit_converted", week(WEEKS - 2)), True),
        (change("unit_converted", week(1)), False),  # usual by now
        (change("unit_converted", week(0)), False),  # ever since
        (change("unit_converted", week(WEEKS - 4), week(WEEKS - 3)), False),  # over
        (change("stuck_sensor", week(WEEKS - 2)), False),
    ],
)
def test_a_unit_that_has_just_changed_is_told_and_one_that_is_usual_is_not(finding, is_told):
    assert (("units", "heat") in judged(delivered(findings=[finding]))) is is_told


@given(st.integers(2, 50), st.floats(0, 1))
def test_one_bad_week_in_five_does_not_move_the_limit(weeks, bad):
    assert find_limit([0.0] * 4 * weeks + [bad] * weeks) == 0


def polls(*faults, seconds=0.2, last=0.2):
    times = [seconds] * (len(faults) - 1) + [last]
    return [
        Poll(name="historian", at=noon(MONDAY) + timedelta(hours=hour), seconds=took, fault=fault)
        for hour, (fault, took) in enumerate(zip(faults, times, strict=True))
    ]


@pytest.mark.parametrize(
    ("asked", "state", "status"),
    [
        (polls(""), "fresh", "fine"),
        (polls("", "HTTP status 503"), "late", "watch"),
        (polls("", *["HTTP status 503"] * 3), "stale", "act"),
        (polls("HTTP status 503", ""), "recovered", "fine"),
        (polls(*[""] * 20, last=9.0), "fresh", "watch"),
        (polls(*[""] * 5, last=9.0), "fresh", "fine"),
    ],
)
def test_a_source_is_judged_by_whether_and_how_fast_it_answers(asked, state, status):
    signal = judge_polls("historian", asked)
    assert signal.words.startswith(state)
    assert signal.status == status


@pytest.mark.parametrize(
    ("arrived", "said"),
    [
        ([], "simulator has no complete batch after that of 2025-12-22"),
        ([week(60)], "1 new batch up to that of 2026-03-02, retrain.new_batches asks for 2"),
        (
            [week(60), week(61)],
            "2 new batches up to that of 2026-03-09 yet: `upkeep retrain` said last: offered; the gate: kept",
        ),
    ],
)
def test_one_sentence_says_why_no_model_was_trained_again(arrived, said):
    params = SHIPPED.model_copy(update={"retrain": changed(SHIPPED.retrain, new_batches=2)})
    sentence = explain_retraining(arrived, params, "offered; the gate:\nkept")
    assert said in sentence
    assert sentence.count(". ") == 0


def test_what_a_simple_policy_does_not_ask_for_is_no_reason():
    params = SHIPPED.model_copy(update={"retrain": changed(SHIPPED.retrain, new_batches=2, policy="every_batch")})
    assert "new_batches" not in explain_retraining([week(60)], params, "")
