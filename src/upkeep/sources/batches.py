"""The calendar of batches, which is the same for every source."""

from datetime import date, timedelta

import polars as pl

EPOCH = date(1970, 1, 1)


def first_day(day: date, batch_days: int) -> date:
    """Return the first day of the batch that holds `day`.

    Batches of `batch_days` days are counted from 1 January of the year 1, a Monday: weekly ones start on Mondays.
    """
    return day - timedelta(days=(day.toordinal() - 1) % batch_days)


def batch_of(time: pl.Expr, batch_days: int) -> pl.Expr:
    """Return the first day, as a date, of the batch that holds each UTC time; null where the time is null."""
    days = time.dt.date().cast(pl.Int32)
    into_batch = (days + EPOCH.toordinal() - 1) % batch_days
    return (days - into_batch).cast(pl.Date)


def batches_between(since: date, until: date, batch_days: int) -> list[date]:
    """List the first days of batches, from the one that holds `since` to the last one that starts by `until`."""
    first = first_day(since, batch_days)
    return [first + timedelta(days=days) for days in range(0, (until - first).days + 1, batch_days)]
