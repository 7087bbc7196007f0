"""How a delivery writes its times, on which clock, and how often its machines send a row."""

import re
from collections.abc import Sequence
from datetime import timedelta
from statistics import mean
from typing import Any, NamedTuple

import polars as pl

from upkeep.adopt.words import has_word
from upkeep.contract.casting import cast_column
from upkeep.sources.file_options import TableFiles
from upkeep.sources.times import COMMON_FORMATS, OFFSET, read_times, unit_since_1970

TIME_OPTIONS = ("time_of_day", "time_format", "time_zone", "epoch")
"""The options of the source ``files`` that tell how times are written."""

ZONES = ("Europe/Berlin", "Europe/London", "America/New_York", "America/Chicago", "America/Los_Angeles")
"""Clocks that are looked for, by the hour that each skips in spring, or repeats in autumn."""
AROUND = [timedelta(hours=hours) for hours in (-3, -2, -1, 1, 2, 3)]
LEAST_DIGITS = 5  # of a date
MANY_TIMES = 50  # of one file, by which it shows that day and month are exchanged in it
READABLE = 0.9  # share of a column's values that must be times
SAMPLE_ROWS = 2000
UNTOLD = "; taken for UTC, as nothing tells the clock"
PLAIN_NUMBER = r"^([+-]?\d{0,7}([.,]\d*)?([eE][+-]?\d+)?|nan)$"
"""No format of times writes such: most columns are spared trying them all."""


class Clock(NamedTuple):
    """The column of times, the options of the source ``files`` that read it, its times in UTC, and the reason.

    `is_local` tells that the column does not give its offset.
    """

    column: str
    options: dict[str, str]
    times: pl.Series
    reason: str
    is_local: bool


def read_clock(column: pl.Series) -> Clock | None:
    """Return how a column writes times; None if it does not hold times."""
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        has_zone = bool(getattr(column.dtype, "time_zone", None))
        return _read_by(column, {}, "a time with its zone" if has_zone else "a date-time type", is_local=not has_zone)
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        return None
    known = column.drop_nulls()
    sample = known.gather_every(max(1, known.len() // SAMPLE_ROWS))
    if column.dtype == pl.String and share_of(sample.str.strip_chars().str.contains(PLAIN_NUMBER)) > 1 - READABLE:
        return None
    if unit := _find_epoch(sample):
        return _read_by(column, {"epoch": unit}, f"numbers: {unit} since 1970 make times of our years", is_local=False)
    if column.dtype != pl.String:
        return None
    if _is_read(sample, {}):
        has_offset = share_of(sample.str.contains(OFFSET)) >= READABLE
        return _read_by(column, {}, f"ISO 8601{' with its offset' if has_offset else ''}", is_local=not has_offset)
    return _fit_format(column, _list_formats(sample))


def in_zone(clock: Clock, zone: str, why: str) -> Clock:
    """Return the same clock, read as local time in a zone."""
    times = _read_as(clock.times.dt.replace_time_zone(None), {"time_zone": zone})
    options = {**clock.options, "time_zone": zone}
    return Clock(clock.column, options, times, f"{clock.reason.replace(UNTOLD, '')}; local{why}", is_local=False)


def holds_a_time(texts: Sequence[str]) -> bool:
    """Tell whether any of these texts is a date, or a date and time."""
    long = pl.Series("texts", texts, pl.String)
    long = long.filter(long.str.count_matches(r"\d") >= LEAST_DIGITS)
    return any(
        _read_as(long, {"time_format": form} if form else {}).count() for form in ("", *COMMON_FORMATS) if long.len()
    )


def find_exchanged(column: pl.Series, clock: Clock) -> str | None:
    """Return the clock's format with day and month exchanged, if a column of many times is clearly written so."""
    form, known = clock.options.get("time_format", ""), column.drop_nulls().unique(maintain_order=True)
    exchanged = re.sub("%[dm]", lambda sign: "%m" if sign[0] == "%d" else "%d", form)
    forms = [each for each in (form, exchanged) if known.len() >= MANY_TIMES and _is_read(known, {"time_format": each})]
    best = _fit_format(known, forms) if form else None
    return exchanged if best and best.options["time_format"] != form else None


def share_of(flags: pl.Series) -> float:
    """Return the share of flags that are true."""
    return float(flags.fill_null(value=False).sum()) / max(flags.len(), 1)


def quartiles(keys: pl.DataFrame) -> tuple[timedelta, timedelta, timedelta] | None:
    """Return the quartiles of the time from a machine's row to its next one; `keys` are plant, machine and time."""
    steps = keys.drop_nulls().unique().sort(keys.columns).select(pl.col("time").diff().over("plant", "machine"))
    ordered = steps["time"].drop_nulls().sort()
    if ordered.is_empty():
        return None
    low, middle, high = (ordered[round(share * (ordered.len() - 1))] for share in (0.25, 0.5, 0.75))
    return low, middle, high


def _read_as(column: pl.Series, options: dict[str, Any]) -> pl.Series:
    return read_times(column, TableFiles(path="", **options))


def _is_read(sample: pl.Series, options: dict[str, str]) -> bool:
    return share_of(_read_as(sample, options).is_not_null()) >= READABLE


def _list_formats(sample: pl.Series) -> list[str]:
    """Return the common formats by which most of a sample are times."""
    text = sample.to_frame("text").select(cast_column("text", sample.dtype, "text").value.alias("text"))
    # Parsing alone, of all formats at once, rules nearly all of them out in a tenth of the time of reading by each.
    parsed = text.select(
        pl.col("text").str.to_datetime(form, time_unit="us", strict=False).count().alias(form)
        for form in COMMON_FORMATS
    )
    likely = [form for form, count in parsed.row(0, named=True).items() if count >= READABLE * sample.len()]
    return [form for form in likely if _is_read(sample, {"time_format": form})]


def _find_epoch(sample: pl.Series) -> str | None:
    """Return the unit of numbers since 1970, if their name or their order shows that they are times."""
    if sample.dtype == pl.String and share_of(sample.str.contains(r"^\s*\d{9,19}(\.\d*)?\s*$")) < READABLE:
        return None
    counts_up = sample.is_sorted() and sample.n_unique() > sample.len() / 2
    return unit_since_1970(sample) if counts_up or has_word(sample.name, "time") else None


def _fit_format(column: pl.Series, forms: list[str]) -> Clock | None:
    """Return the format with the fewest steps back in time and, of several such, with the shortest span."""
    read = {form: _read_as(column, {"time_format": form}) for form in forms}
    if not read:
        return None
    backwards = {form: int((times.diff() < timedelta()).sum()) for form, times in read.items()}
    spans = {form: times.dt.epoch("us").sort().drop_nulls() for form, times in read.items()}
    best = min(forms, key=lambda form: (backwards[form], spans[form][-1] - spans[form][0]))
    as_good = [form for form in forms if form != best and backwards[form] == backwards[best]]
    reason = f"written as {best}" + (f", or else as {as_good[0]}, over a longer time" if as_good else "")
    return _read_by(column, {"time_format": best}, reason, is_local="z" not in best)


def _read_by(column: pl.Series, options: dict[str, str], reason: str, *, is_local: bool) -> Clock:
    """Return times; local ones are of the zone whose changes of clocks they show, if there is one, else in UTC."""
    clock = Clock(column.name, options, _read_as(column, options), reason, is_local)
    if not is_local:
        return clock
    written = clock.times.dt.replace_time_zone(None)
    for shows, what in (
        (_skips_hours_of, "is missing that clocks of {} skip in spring"),
        (_repeats_hours_of, "is there twice that clocks of {} repeat in autumn"),
    ):
        if zone := next((zone for zone in ZONES if shows(zone, written)), None):
            return in_zone(clock, zone, f": the hour {what.format(zone)}")
    return clock._replace(reason=f"{reason}{UNTOLD}")


def _skips_hours_of(zone: str, times: pl.Series) -> bool:
    """Tell whether times lack the hours that a zone's clocks skip, and have the three hours before and after."""
    known = set(times.dt.truncate("1h").drop_nulls())
    hours = pl.Series([hour + timedelta(hours=1) for hour in sorted(known)], dtype=pl.Datetime("us"))
    skipped = hours.filter(hours.dt.replace_time_zone(zone, non_existent="null", ambiguous="earliest").is_null())
    return bool(skipped.len()) and all(
        hour not in known and known >= {hour + step for step in AROUND} for hour in skipped
    )


def _repeats_hours_of(zone: str, times: pl.Series) -> bool:
    """Tell whether the hours that a zone's clocks repeat have about twice the rows of the three before and after."""
    rows = dict(times.dt.truncate("1h").drop_nulls().rename("hour").value_counts(name="rows").iter_rows())
    hours = pl.Series(sorted(rows), dtype=pl.Datetime("us"))
    repeated = hours.filter(hours.dt.replace_time_zone(zone, non_existent="null", ambiguous="null").is_null())
    around = {hour: [rows.get(hour + step, 0) for step in AROUND] for hour in repeated}
    # Machines that stand still leave out some rows.
    return bool(around) and all(
        0 < max(usual) <= 1.5 * min(usual) and 1.6 <= rows[hour] / mean(usual) <= 2.4 for hour, usual in around.items()
    )
