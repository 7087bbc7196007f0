"""Labels say whether a failure falls in (t, t + horizon], where that is known."""

from datetime import timedelta

import polars as pl
from fleet_cases import at, dataset_params, events, telemetry
from hypothesis import given
from hypothesis import strategies as st

from upkeep.features.labels import label_rows

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
