from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from upkeep.sources.batches import batch_of, batches_between, first_day

DAYS = st.dates(date(1960, 1, 1), date(2100, 1, 1))


@given(DAYS)
def test_a_weekly_batch_starts_on_a_monday(day):
    start = first_day(day, 7)
    assert start.weekday() == 0
    assert start <= day < start + timedelta(days=7)


@given(DAYS, st.integers(1, 40), st.integers(0, 86_399))
def test_times_and_days_belong_to_the_same_batch(day, batch_days, second):
    time = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=second)
    batch = pl.select(batch_of(pl.lit(time), batch_days)).item()
    assert batch == first_day(day, batch_days)


@given(DAYS, st.integers(1, 40), st.integers(0, 200))
def test_batches_follow_each_other_without_a_gap(since, batch_days, later):
    until = since + timedelta(days=later)
    batches = batches_between(since, until, batch_days)
    assert batches[0] <= since
    assert batches[-1] <= until < batches[-1] + timedelta(days=batch_days)
    assert all(after - before == timedelta(days=batch_days) for before, after in pairwise(batches))


def test_a_time_that_is_unknown_has_no_batch():
    assert pl.select(batch_of(pl.lit(None, pl.Datetime("us", "UTC")), 7)).item() is None
