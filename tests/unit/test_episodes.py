"""Failures caught in time and alarms that nothing followed."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from prediction_cases import HORIZON, LEAD, fleets, machine

from upkeep.judging.episodes import find_episodes, judge_failures, opens_episode, read_timeline, tally_machines


def episodes(rows: pl.DataFrame) -> list[tuple[int, bool]]:
    starts, false = find_episodes(read_timeline(rows, HORIZON), rows["alarm"].to_numpy())
    return list(zip(starts.tolist(), false.tolist(), strict=True))


def caught(fails_at: int, *alarm_hours: int) -> tuple[bool, float | None]:
    rows = machine(fails_at=fails_at, alarms=dict.fromkeys(alarm_hours, 0.9))
    return judge_failures(rows, LEAD, HORIZON).select("caught", "warning_hours").row(0)


def test_an_alarm_at_the_horizon_and_one_at_the_lead_time_are_both_in_time():
    assert caught(30, 20) == (True, 10.0)
    assert caught(30, 28) == (True, 2.0)


def test_an_alarm_after_the_lead_time_or_before_the_horizon_does_not_catch_the_failure():
    assert caught(30, 29) == (False, None)
    assert caught(30, 19) == (False, None)


def test_the_warning_counts_from_the_first_alarm_in_time():
    assert caught(30, 5, 22, 25, 29) == (True, 8.0)


def test_a_failure_is_counted_once_however_many_rows_precede_it():
    assert judge_failures(machine(fails_at=30), LEAD, HORIZON).height == 1


def test_a_failure_whose_time_suffers_rounding_is_still_one_failure():
    rows = machine(fails_at=30).with_columns(pl.col("hours_to_failure") + pl.Series(range(40)) * 1e-9)
    assert judge_failures(rows, LEAD, HORIZON).height == 1


def test_a_failure_without_rows_early_enough_to_catch_it_is_not_counted():
    assert judge_failures(machine(hours=[28, 29], fails_at=30), lead_time_hours=3, horizon_hours=HORIZON).is_empty()


def test_the_peak_is_the_highest_threshold_that_still_catches_the_failure():
    rows = machine(fails_at=30, alarms={19: 0.99, 22: 0.7, 29: 0.95})
    assert judge_failures(rows, LEAD, HORIZON)["peak"].to_list() == [0.7]


def test_alarms_within_a_horizon_are_one_episode():
    assert episodes(machine(alarms={3: 0.9, 7: 0.9, 12: 0.9})) == [(3, True)]


def test_an_alarm_a_horizon_later_opens_a_new_episode():
    assert episodes(machine(alarms={3: 0.9, 13: 0.9})) == [(3, True), (13, True)]


def test_an_alarm_that_never_stops_is_answered_once_per_horizon():
    assert [start for start, _ in episodes(machine(alarms=dict.fromkeys(range(40), 0.9)))] == [0, 10, 20, 30]


def test_an_episode_that_reaches_into_the_horizon_is_not_false():
    assert episodes(machine(fails_at=30, alarms={15: 0.9, 20: 0.9})) == [(15, False)]


def test_an_episode_that_ends_before_the_horizon_is_false():
    assert episodes(machine(fails_at=30, alarms={15: 0.9, 19: 0.9})) == [(15, True)]


def test_an_alarm_too_late_to_act_on_is_not_a_false_one():
    assert episodes(machine(fails_at=30, alarms={29: 0.9})) == [(29, False)]


def test_machines_do_not_share_episodes():
    rows = pl.concat([machine("m1", alarms={39: 0.9}), machine("m2", alarms={0: 0.9})])
    assert episodes(rows) == [(39, True), (40, True)]


def test_a_tally_counts_the_time_that_was_judged_even_across_gaps():
    hours = [*range(10), *range(30, 40)]
    assert tally_machines(machine(hours=hours), LEAD, HORIZON)["hours"].to_list() == [20.0]


def test_no_rows_have_no_events():
    assert tally_machines(machine(hours=[]), LEAD, HORIZON).is_empty()


@given(fleets())
def test_a_table_of_alarms_and_a_stream_of_them_open_the_same_episodes(rows):
    """A slow, obvious count: walk through the rows, alarm by alarm."""
    expected, latest = [], {}
    for index, row in enumerate(rows.iter_rows(named=True)):
        if not row["alarm"]:
            continue
        if opens_episode(latest.get(row["machine"]), row["time"], timedelta(hours=HORIZON)):
            latest[row["machine"]] = row["time"]
            expected.append([index, True])
        if row["label"]:
            expected[-1][1] = False
    assert episodes(rows) == [tuple(episode) for episode in expected]


def test_an_alarm_that_pauses_goes_on_until_a_horizon_has_passed():
    start, horizon = datetime(2025, 1, 6, tzinfo=UTC), timedelta(hours=HORIZON)
    assert opens_episode(None, start, horizon)
    assert not opens_episode(start, start + horizon - timedelta(seconds=1), horizon)
    assert opens_episode(start, start + horizon, horizon)


@given(fleets())
def test_machines_are_tallied_in_the_order_of_their_rows_and_add_up(rows):
    tally = tally_machines(rows, LEAD, HORIZON)
    assert tally["machine"].to_list() == rows["machine"].unique(maintain_order=True).to_list()
    assert tally["failures"].sum() == judge_failures(rows, LEAD, HORIZON).height
    assert tally["false_alarms"].sum() == sum(false for _, false in episodes(rows))
    assert (tally["caught"] <= tally["failures"]).all()
