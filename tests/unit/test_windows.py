"""Rolling statistics equal the plain definition, and each bit comes from the window alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from upkeep.features.windows import HOUR, roll, roll_newest

ALL = ("mean", "std", "min", "max", "slope")
MINUTE = HOUR // 60
HOURS = st.integers(1, 100) | st.sampled_from([0.25, 0.5, 1 / 3, 2.5])
"""Lengths of a window, whole hours or not."""


@st.composite
def histories(draw):
    """One machine's irregular readings of two sensors, with gaps in time and missing values."""
    steps = draw(st.lists(st.integers(1, 30 * 60), min_size=1, max_size=60))
    time = (draw(st.integers(0, 10**6)) + np.cumsum(steps)) * MINUTE
    readings = st.one_of(st.floats(-1e3, 1e3, width=32), st.just(float("nan")))
    return time.astype(np.int64), draw(arrays(float, (2, len(time)), elements=readings))


def plain(time, values, hours, row, aggregate):
    inside = (time > time[row] - round(hours * HOUR)) & (time <= time[row]) & ~np.isnan(values)
    x, t = values[inside], time[inside] / HOUR
    if len(x) < (2 if aggregate in ("std", "slope") else 1):
        return np.nan
    if aggregate == "slope":
        return np.polyfit(t - t.mean(), x, 1)[0]
    return {"mean": np.mean, "std": lambda x: np.std(x, ddof=1), "min": np.min, "max": np.max}[aggregate](x)


@given(histories(), HOURS)
def test_every_aggregate_equals_its_plain_definition_on_irregular_readings(history, hours):
    time, values = history
    rolled = roll(time, values, hours, ALL)
    row = len(time) - 1
    for aggregate in ALL:
        for sensor in range(2):
            expected = plain(time, values[sensor], hours, row, aggregate)
            tolerance = 1e-4 if aggregate == "std" else 1e-6  # the deviation of nearly equal readings near 1e3
            np.testing.assert_allclose(rolled[aggregate][sensor, row], expected, rtol=1e-6, atol=tolerance)


@given(histories(), HOURS, st.data())
def test_forgetting_what_lies_before_the_window_changes_no_bit(history, hours, data):
    time, values = history
    row = data.draw(st.integers(0, len(time) - 1))
    oldest = np.searchsorted(time, time[row] - round(hours * HOUR), side="right")
    start = data.draw(st.integers(0, int(oldest)))
    whole = roll(time, values, hours, ALL)
    recent = roll(time[start : row + 1], values[:, start : row + 1], hours, ALL)
    for aggregate in ALL:
        np.testing.assert_array_equal(recent[aggregate][:, -1], whole[aggregate][:, row])


@given(histories(), HOURS, st.data())
def test_no_row_sees_a_later_one(history, hours, data):
    time, values = history
    cut = data.draw(st.integers(1, len(time)))
    changed = values.copy()
    changed[:, cut:] = 12345.0
    before, after = roll(time, values, hours, ALL), roll(time, changed, hours, ALL)
    for aggregate in ALL:
        np.testing.assert_array_equal(after[aggregate][:, :cut], before[aggregate][:, :cut])


def test_a_reading_exactly_one_window_old_is_outside():
    time = np.array([0, 8 * HOUR])
    rolled = roll(time, np.array([[100.0, 2.0]]), 8, ["mean"])
    assert rolled["mean"][0, 1] == 2.0


@pytest.mark.parametrize("level", [0.1, 1e6 + 0.1])
def test_a_stuck_sensor_deviates_and_rises_by_exactly_nothing(level):
    rolled = roll(np.arange(100) * HOUR, np.full((1, 100), level), 24, ["std", "slope"])
    assert (rolled["std"][0, 1:] == 0).all()
    assert (rolled["slope"][0, 1:] == 0).all()


def test_only_the_aggregates_asked_for_are_returned_in_their_order():
    assert list(roll(np.array([0]), np.zeros((1, 1)), 8, ["slope", "min"])) == ["slope", "min"]


@given(st.lists(histories(), min_size=1, max_size=4), HOURS)
def test_the_newest_windows_of_many_machines_have_the_bits_of_each_machines_last_row(fleet, hours):
    time = np.concatenate([time for time, _ in fleet])
    starts = np.cumsum([0, *(len(time) for time, _ in fleet)])
    newest = roll_newest(time, starts, np.hstack([values for _, values in fleet]), hours, ALL)
    for machine, (own_time, own_values) in enumerate(fleet):
        rolled = roll(own_time, own_values, hours, ALL)
        for aggregate in ALL:
            np.testing.assert_array_equal(newest[aggregate][:, machine], rolled[aggregate][:, -1])


@given(histories(), HOURS)
def test_the_newest_window_of_one_sensor_has_the_same_bits_as_among_others(history, hours):
    time, values = history
    starts = np.array([0, len(time)])
    together, alone = (roll_newest(time, starts, chosen, hours, ALL) for chosen in (values, values[:1]))
    for aggregate in ALL:
        np.testing.assert_array_equal(together[aggregate][:1], alone[aggregate])
