"""Splits share no row, no machine-hour and no label window."""

from datetime import timedelta

import polars as pl
import pytest
from fleet_cases import at, split_params, telemetry
from hypothesis import given
from hypothesis import strategies as st

from upkeep.core.errors import UpkeepError
from upkeep.features.split import split_by_time, split_machines, thin_negatives, time_boundaries

HORIZON = timedelta(hours=4)


def by_time(hours=range(101)):
    boundaries = time_boundaries(at(0), at(100), split_params(validation_share=0.2, test_share=0.3))
    return telemetry(list(hours)).with_columns(split=split_by_time(boundaries, HORIZON))


def test_time_is_cut_into_the_shares_asked_for():
    rows = by_time().group_by("split").agg(first=pl.col("time").min(), last=pl.col("time").max())
    spans = {split: (first, last) for split, first, last in rows.iter_rows()}
    assert spans["train"] == (at(0), at(46))
    assert spans["validation"] == (at(51), at(66))
    assert spans["test"] == (at(71), at(100))


def test_a_split_by_date_puts_each_day_where_the_dates_say():
    dates = split_params(by="date", validation_from="2025-01-08", test_from="2025-01-09")
    rows = telemetry(list(range(101))).with_columns(
        split=split_by_time(time_boundaries(at(0), at(100), dates), HORIZON)
    )
    spans = rows.group_by("split").agg(first=pl.col("time").min(), last=pl.col("time").max())
    assert {split: (first, last) for split, first, last in spans.drop_nulls().iter_rows()} == {
        "train": (at(0), at(43)),
        "validation": (at(48), at(67)),
        "test": (at(72), at(100)),
    }


def test_a_split_by_dates_that_the_data_does_not_have_names_both():
    with pytest.raises(UpkeepError, match="2026-01-08 and 2026-01-09, the data is from 2025-01-06 to 2025-01-10"):
        time_boundaries(at(0), at(100), split_params(by="date", validation_from="2026-01-08", test_from="2026-01-09"))


@pytest.mark.parametrize("dates", [{}, {"validation_from": "2025-01-09", "test_from": "2025-01-08"}])
def test_a_split_by_date_needs_two_dates_in_order(dates):
    with pytest.raises(ValueError, match="validation_from and test_from"):
        split_params(by="date", **dates)


WINDOW = {"validation_weeks": 2, "test_weeks": 1, "every_weeks": 2}


def windows(weeks, **changes):
    """The hours at which training and validation end, of a record of so many weeks from Monday 2025-01-06."""
    split = split_params(by="window", window=WINDOW | changes)
    ends = time_boundaries(at(0), at(weeks * 168 - 1), split)
    return [(end - at(0)) / timedelta(hours=1) for end in ends]


def test_windows_hold_the_newest_weeks_and_move_on_in_steps():
    moved = [windows(weeks) for weeks in range(5, 10)]
    assert all(validation - train == pytest.approx(2 * 168) for train, validation in moved)
    tested = [weeks - validation / 168 for weeks, (_, validation) in zip(range(5, 10), moved, strict=True)]
    assert tested == pytest.approx([1, 2, 1, 2, 1])
    assert windows(9, every_weeks=1)[1] == pytest.approx(8 * 168)


def test_windows_begin_on_mondays_and_do_not_depend_on_where_the_record_begins():
    split = split_params(by="window", window=WINDOW)
    ends = time_boundaries(at(0), at(1500), split)
    assert ends == time_boundaries(at(-999), at(1500), split)
    assert [((end + timedelta(microseconds=1)).weekday(), end.hour) for end in ends] == [(0, 23)] * 2


def test_a_record_shorter_than_the_windows_says_what_to_lower():
    with pytest.raises(UpkeepError, match="the data is from 2025-01-06 to 2025-01-26") as raised:
        windows(3)
    assert "validation_weeks" in raised.value.remedy


def test_a_split_by_window_needs_all_three_lengths():
    with pytest.raises(ValueError, match="by: window needs window"):
        split_params(by="window")
    with pytest.raises(ValueError, match="every_weeks"):
        split_params(by="window", window={"validation_weeks": 2, "test_weeks": 1})


def test_windows_that_are_off_leave_no_mark_in_descriptions_of_models():
    assert "window" not in split_params().model_dump(mode="json")
    assert split_params(by="window", window=WINDOW).model_dump(mode="json")["window"] == WINDOW


def test_between_two_splits_lies_a_gap_of_one_horizon():
    rows = by_time()
    first = rows.filter(split="validation")["time"].min()
    assert rows.filter(split="train")["time"].max() + HORIZON <= first
    assert rows.filter(pl.col("split").is_null()).height > 0


@given(st.sets(st.text(min_size=1, max_size=3), max_size=30), st.floats(0.05, 0.45), st.floats(0.05, 0.45))
def test_each_machine_is_in_exactly_one_split(names, validation, test):
    assigned = split_machines(list(names), set(), split_params(validation_share=validation, test_share=test))
    assert set(assigned) == names
    assert sum(split == "test" for split in assigned.values()) == round(test * len(names))


def test_pinned_machines_are_the_whole_test_set():
    assigned = split_machines([f"m{i}" for i in range(20)], {"m3", "m5"}, split_params(test_share=0.5))
    assert {name for name, split in assigned.items() if split == "test"} == {"m3", "m5"}
    assert sum(split == "validation" for split in assigned.values()) == round(0.2 * 18)


def test_the_order_in_which_machines_are_named_does_not_matter():
    names = [f"m{i}" for i in range(9)]
    assert split_machines(names, set(), split_params()) == split_machines(names[::-1], set(), split_params())


def test_thinned_negatives_weigh_as_much_as_before_and_no_failure_is_lost():
    rows = telemetry(list(range(4000))).with_columns(label=(pl.int_range(pl.len()) % 100 == 0).cast(pl.UInt8))
    thinned = thin_negatives(rows, kept=0.25, seed=7)
    assert thinned.filter(label=1).height == 40
    assert thinned.filter(label=1)["weight"].unique().to_list() == [1.0]
    healthy = thinned.filter(label=0)
    assert healthy.height < 1200
    assert abs(healthy["weight"].sum() - 3960) < 0.05 * 3960
