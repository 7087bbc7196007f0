"""Labels say whether a failure falls in (t, t + horizon], where that is known."""

from datetime import timedelta

import polars as pl
import pytest
from fleet_cases import at, dataset_params, events, telemetry, visits
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from upkeep.features.labels import label_rows
from upkeep.judging.episodes import judge_failures

PARAMS = dataset_params(horizon_hours=4, max_repair_hours=10)


def labels(hours, *happened, machine="m1", params=PARAMS):
    rows = label_rows(telemetry(hours, machine), events(*happened), params)
    return {(time - at(0)).total_seconds() / 3600: label for time, label in rows.select("time", "label").iter_rows()}


def test_the_horizon_is_open_at_the_row_and_closed_at_its_end():
    found = labels(range(30), (10, "failure", "x"), (11, "maintenance", "repair"))
    assert found[5] == 0
    assert found[6] == 1
    assert found[9] == 1
    assert 10 not in found  # at the failure itself the machine is down


def test_rows_whose_horizon_runs_past_what_is_known_are_dropped_not_called_healthy():
    assert max(labels(range(20))) == 15


def test_of_reduced_readings_the_last_row_may_be_under_way_and_what_is_known_ends_before_it():
    rows = label_rows(telemetry(range(20)), events(), PARAMS, timedelta(hours=1))
    assert rows["time"].max() == at(14)


def test_a_failure_and_its_repair_in_the_cell_of_the_last_reading_end_a_record_of_reduced_readings_too():
    happened = events((19.3, "failure", "x"), (19.6, "maintenance", "repair"))
    rows = label_rows(telemetry(range(21)), happened, PARAMS, timedelta(hours=1))
    assert rows["label"].to_list() == [0] * 16 + [1] * 4


def test_a_machine_that_ends_with_a_failure_has_no_unknown_future():
    found = labels(range(20), (20, "failure", "end"))
    assert found == dict.fromkeys(range(16), 0) | dict.fromkeys(range(16, 20), 1)


def test_a_machine_that_falls_silent_before_it_is_repaired_has_no_unknown_future():
    found = labels(range(22), (20, "failure", "end"))
    assert found == dict.fromkeys(range(16), 0) | dict.fromkeys(range(16, 20), 1)


def test_one_machines_failure_tells_nothing_of_another():
    two = pl.concat([telemetry(range(20), "m1"), telemetry(range(20), "m2")])
    rows = label_rows(two, events((10, "failure", "x"), (11, "maintenance", "repair")), PARAMS)
    assert rows.filter(machine="m2")["label"].sum() == 0


def test_rows_between_a_failure_and_its_repair_are_dropped():
    found = labels(range(30), (10, "failure", "x"), (13, "maintenance", "repair"))
    assert not {10, 11, 12} & set(found)
    assert found[13] == 0


def test_a_repair_that_nobody_closed_ends_after_the_longest_repair():
    found = labels(range(40), (10, "failure", "x"))
    assert [hour for hour in range(10, 25) if hour in found] == list(range(20, 25))


def test_a_late_note_of_maintenance_does_not_lengthen_a_repair():
    assert 20 in labels(range(40), (10, "failure", "x"), (30, "maintenance", "scheduled"))


def test_hours_to_failure_count_to_the_next_failure():
    rows = label_rows(telemetry([0, 9]), events((10, "failure", "x"), (20, "failure", "y")), PARAMS)
    assert rows["hours_to_failure"].to_list() == [10, 1]


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.integers(1, 20))
def test_each_label_equals_its_definition(rows, failures, repairs, horizon):
    happened = [(f, "failure", "x") for f in failures] + [(r, "maintenance", "repair") for r in repairs]
    found = labels(sorted(rows), *happened, params=dataset_params(horizon_hours=horizon, max_repair_hours=10))

    def repaired(failure):
        return min([repair for repair in repairs if repair >= failure] + [failure + 10])

    end = max(rows, default=0)
    ends_failed = any(end < repaired(failure) for failure in failures)
    for t in rows:
        last = max((f for f in failures if f <= t), default=None)
        down = last is not None and t < repaired(last)
        known = ends_failed or t + horizon <= end
        if down or not known:
            assert t not in found
        else:
            assert found[t] == any(t < f <= t + horizon for f in failures)


def test_a_plant_without_events_is_healthy_as_far_as_is_known():
    assert labels(range(10)) == dict.fromkeys(range(6), 0)
    assert labels([]) == {}


def test_what_others_deliver_tells_nothing_of_a_silent_machine():
    two = pl.concat([telemetry(range(20), "silent"), telemetry(range(60), "other")])
    rows = label_rows(two, events((80, "error", "E1"), machine="other"), PARAMS)
    assert rows.filter(machine="silent")["time"].max() == at(15)
    assert rows.filter(machine="other")["time"].max() == at(55)


def test_an_event_that_lies_ahead_of_a_machines_readings_does_not_make_them_healthy():
    assert max(labels(range(20), (43, "error", "E1"))) == 15


NEGATIVE, POSITIVE = [0] * 16, [0] * 6 + [1] * 4 + [0] * 6  # rows 0 to 15, and those with a failure at 10


def label_visits(*found, happened=(), hours=range(20)):
    """Return the labels of hours 0 to 15, None where the row is left out, as a horizon of four hours makes them."""
    both = pl.concat([events(*happened), visits(*found)], how="diagonal")
    rows = label_rows(telemetry(hours), both, PARAMS).select("time", "label")
    return (
        telemetry(range(16)).select("time").join(rows, on="time", how="left", maintain_order="left")["label"].to_list()
    )


def without(labels, *hours):
    return [None if hour in hours else label for hour, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("visit", "expected"),
    [
        ((10, "defect", 8), without(POSITIVE, 6, 7)),
        ((10, "defect", 6), POSITIVE),
        ((10, "defect", 3), POSITIVE),  # an alarm more than a horizon before was too early
        ((10, "defect", None), without(NEGATIVE, 6, 7, 8, 9)),
        ((10, "defect", 10), without(NEGATIVE, 6, 7, 8, 9)),  # the visit was under way
        ((10, None, 8), without(NEGATIVE, 6, 7, 8, 9)),
        ((10, None, None), NEGATIVE),
        ((10, "nothing", 8), NEGATIVE),
        ((10, "nothing", None), NEGATIVE),
    ],
)
def test_what_a_visit_found_tells_of_the_rows_before_it(visit, expected):
    assert label_visits(visit) == expected


def test_a_visit_that_found_nothing_does_not_take_a_failure_away():
    assert label_visits((9, "nothing", 8), happened=[(10, "failure", "x"), (10, "maintenance", "repair")]) == POSITIVE


def test_a_failures_repair_that_found_its_defect_is_no_second_failure():
    repair = (12, "defect", 9)
    assert label_visits(repair, happened=[(10, "failure", "x")]) == without(POSITIVE, 10, 11)


def test_a_visit_that_found_a_defect_repairs_the_machine():
    rows = label_rows(telemetry(range(20)), visits((10, "defect", 8)), PARAMS)
    assert rows.filter(pl.col("time") < at(10))["repaired"].null_count() == 8
    assert set(rows.filter(pl.col("time") >= at(10))["repaired"]) == {at(10)}


def test_a_machine_that_falls_silent_before_a_visit_finds_its_defect_has_no_unknown_future():
    assert label_visits((16, "defect", 14), hours=range(16)) == without([0] * 12 + [None] * 2 + [1] * 2)
    assert label_visits((16, None, 14), hours=range(16)) == without(NEGATIVE, 12, 13, 14, 15)


def test_a_prevented_failure_is_judged_as_one_at_the_visit():
    rows = label_rows(telemetry(range(20)), visits((10, "defect", 8)), PARAMS)
    told = rows.with_columns(plant=pl.lit("p"), alarm=pl.col("time") == at(8), probability=0.5)
    [failure] = judge_failures(told, lead_time_hours=1, horizon_hours=4).rows(named=True)
    assert (failure["failed_at"], failure["prevented"], failure["caught"]) == (at(10), True, True)
    assert failure["warning_hours"] == 2
    # Nobody knows whether a warning would have come in time where the visit was faster than that.
    assert judge_failures(told, lead_time_hours=3, horizon_hours=4).is_empty()


def test_of_two_codes_of_one_visit_the_defect_counts():
    assert label_visits((10, None, 8), (10, "defect", 8)) == without(POSITIVE, 6, 7)


HOURS = st.integers(0, 40)
VISITS = st.lists(st.tuples(HOURS, st.sampled_from(["defect", "nothing", None]), st.none() | HOURS), max_size=4)


@given(VISITS, st.sets(HOURS, max_size=3), st.integers(10, 40))
def test_labels_after_visits_say_no_more_than_is_known(found, failures, until):
    """None is healthy before a defect, none positive without a failure or a defect, and none changes later."""
    happened = pl.concat([events(*((hour, "failure", "x") for hour in failures)), visits(*found)], how="diagonal")
    rows = label_rows(telemetry(range(60)), happened, PARAMS)
    defects = [(hour, alarm) for hour, finding, alarm in found if finding == "defect"]
    for time, label, prevented in rows.select("time", "label", "prevented").iter_rows():
        t = (time - at(0)).total_seconds() / 3600
        fails = any(t < failure <= t + 4 for failure in failures)
        near = [alarm for hour, alarm in defects if t < hour <= t + 4]
        assert label == 1 if near else label == fails
        assert label == 0 or fails or any(alarm is not None and alarm <= t for alarm in near)
        first = min((hour for hour in (*failures, *(hour for hour, _ in defects)) if t < hour), default=None)
        assert prevented == (label == 1 and first not in failures)
    known = label_rows(telemetry(range(until + 1)), happened.filter(pl.col("time") <= at(until)), PARAMS)
    settled = known.filter(pl.col("time") <= at(until - 4)).select("machine", "time", "label")
    again = settled.join(rows, on=["machine", "time"], how="left", maintain_order="left")
    assert again["label"].to_list() == settled["label"].to_list()


def test_tables_that_do_not_say_what_visits_found_are_labelled_as_those_in_which_nobody_says():
    happened = events((10, "failure", "x"), (11, "maintenance", "repair"), (15, "maintenance", "inspection"))
    silent = happened.with_columns(finding=pl.lit(None, pl.String), alarm_at=pl.lit(None, pl.Datetime("us", "UTC")))
    assert_frame_equal(*(label_rows(telemetry(range(30)), given_, PARAMS) for given_ in (happened, silent)))
