"""How a delivery writes its times, on which clock, and how often its machines send a row."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import polars as pl

from upkeep.adopt.words import has_word
from upkeep.contract.casting import cast_column
from upkeep.sources.times import OFFSET, PER_SECOND

FORMATS = (
    *("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d.%m.%y %H:%M:%S", "%d.%m.%y %H:%M", "%d.%m.%Y %H:%M:%S%.f"),
    *("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y"),
    *("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%m/%d/%y %H:%M", "%d/%m/%y %H:%M", "%Y/%m/%d %H:%M:%S"),
    *("%Y/%m/%d %H:%M", "%Y/%m/%d", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%d-%m-%Y", "%d-%b-%Y %H:%M:%S", "%d-%b-%y"),
    *("%d-%b-%y %H:%M:%S", "%Y%m%d%H%M%S", "%Y%m%d %H%M%S", "%Y%m%d %H:%M:%S", "%Y%m%d", "%Y-%m-%d-%H.%M.%S"),
    *("%Y-%m-%dT%H:%M:%S%z", "%d.%m.%Y %H:%M:%S %z", "%b %d %Y %H:%M:%S", "%d %b %Y %H:%M:%S", "%a %b %d %H:%M:%S %Y"),
)
YEARS = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""Within which numbers are taken for seconds since 1970, or thousandths and so on."""
ZONES = (
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Chicago",
    "America/Los_Angeles",
    "Australia/Sydney",
)
"""Clocks that are looked for, by the hour that each skips in spring."""
READABLE = 0.9
"""Share of a column's values that must be times."""
SAMPLE_ROWS = 2000
PLAIN_NUMBER = r"^([+-]?\d{0,7}([.,]\d*)?([eE][+-]?\d+)?|nan)$"
"""No format of times writes such: most columns are spared trying them all."""
UTC_TIME = pl.Datetime("us", "UTC")


class Clock(NamedTuple):
    """The column that holds the time, the options of the source ``files`` that read it, its times in UTC and why.

    `is_local` tells that the column says nothing of its offset.
    """

    column: str
    options: dict[str, str]
    times: pl.Series
    reason: str
    is_local: bool = False


def find_clock(rows: pl.DataFrame) -> Clock | None:
    """Return the column that tells each row's time, the one with the most telling name if there are several."""
    clocks = [clock for name in rows.columns if (clock := read_clock(rows[name])) is not None]
    return min(clocks, key=lambda clock: not has_word(clock.column, "time"), default=None)


def read_clock(column: pl.Series) -> Clock | None:
    """Return how a column writes times; None if it holds none."""
    dtype = column.dtype
    if isinstance(dtype, pl.Date | pl.Datetime):
        if getattr(dtype, "time_zone", None):
            return Clock(column.name, {}, column.dt.convert_time_zone("UTC").cast(UTC_TIME), "a time with its zone")
        return _place(column.name, {}, column.cast(pl.Datetime("us")), "a date-time type")
    if dtype.is_numeric():
        return _read_epoch(column)
    return _read_epoch(column) or _read_text(column) if dtype == pl.String else None


def share_of(flags: pl.Series) -> float:
    """Return which share of the flags is set."""
    return float(flags.fill_null(value=False).sum()) / max(flags.len(), 1)


def quartiles(keys: pl.DataFrame) -> tuple[timedelta, timedelta, timedelta] | None:
    """Return the quartiles of the time from a machine's row to its next one; `keys` are plant, machine and time."""
    steps = keys.drop_nulls().unique().sort(keys.columns).select(pl.col("time").diff().over("plant", "machine"))
    ordered = steps["time"].drop_nulls().sort()
    if ordered.is_empty():
        return None
    low, middle, high = (ordered[round(share * (ordered.len() - 1))] for share in (0.25, 0.5, 0.75))
    return low, middle, high


def _spread(column: pl.Series) -> pl.Series:
    """Return values from all of a column, evenly by their place in it."""
    known = column.drop_nulls()
    return known.gather_every(max(1, known.len() // SAMPLE_ROWS))


def _read_epoch(column: pl.Series) -> Clock | None:
    """Return numbers as times, if their name or their order says that they are such."""
    sample = _spread(column)
    if column.dtype == pl.String and share_of(sample.str.contains(r"^\s*\d{9,19}(\.\d*)?\s*$")) < READABLE:
        return None
    numbers = column.cast(pl.Float64, strict=False)
    middle = sample.cast(pl.Float64, strict=False).median()
    if not isinstance(middle, float) or not (has_word(column.name, "time") or _counts_up(sample)):
        return None
    low, high = (year.timestamp() for year in YEARS)
    for unit, per_second in PER_SECOND.items():
        if low < middle / per_second < high:
            times = (numbers / per_second * 1e6).round().cast(pl.Int64, strict=False).cast(UTC_TIME)
            return Clock(column.name, {"epoch": unit}, times, f"numbers: {unit} since 1970 make times of our years")
    return None


def _counts_up(sample: pl.Series) -> bool:
    return sample.is_sorted() and sample.n_unique() > sample.len() / 2


def _read_text(column: pl.Series) -> Clock | None:
    sample = _spread(column).str.strip_chars()
    if share_of(sample.str.contains(PLAIN_NUMBER)) > 1 - READABLE:
        return None
    iso = cast_column(column.name, pl.String(), "time").value
    if share_of(sample.to_frame().select(iso).to_series().is_not_null()) >= READABLE:
        times = column.to_frame().select(iso).to_series()
        if share_of(sample.str.contains(OFFSET)) >= READABLE:
            return Clock(column.name, {}, times, "ISO 8601 with its offset")
        return _place(column.name, {}, times.dt.replace_time_zone(None), "ISO 8601")
    return _fit_format(column, [form for form in FORMATS if share_of(_parse(sample, form).is_not_null()) >= READABLE])


def _fit_format(column: pl.Series, forms: Sequence[str]) -> Clock | None:
    """Return the format by which the fewest rows go back in time and, of several such, all lie closest together."""
    read = {form: _parse(column.str.strip_chars(), form) for form in forms}
    if not read:
        return None
    backwards = {form: int((times.diff() < timedelta()).sum()) for form, times in read.items()}
    spans = {form: times.dt.epoch("us").sort().drop_nulls() for form, times in read.items()}
    best = min(forms, key=lambda form: (backwards[form], spans[form][-1] - spans[form][0]))
    as_good = [form for form in forms if form != best and backwards[form] == backwards[best]]
    reason = f"written as {best}" + (f", or else as {as_good[0]}, over a longer time" if as_good else "")
    if "%z" in best:
        return Clock(column.name, {"time_format": best}, read[best].dt.replace_time_zone("UTC"), reason)
    return _place(column.name, {"time_format": best}, read[best], reason)


def _parse(text: pl.Series, form: str) -> pl.Series:
    return text.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone(None)


def in_zone(clock: Clock, zone: str, why: str) -> Clock:
    """Return the same clock read as local time of a zone."""
    local = clock.times.dt.replace_time_zone(None)
    placed = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    return clock._replace(options={**clock.options, "time_zone": zone}, times=placed, reason=f"{clock.reason}; {why}")


def _place(name: str, options: dict[str, str], local: pl.Series, reason: str) -> Clock:
    """Return times without offset in UTC, by the clock of which they skip the hours that it skips, if there is one."""
    clock = Clock(name, options, local.dt.replace_time_zone("UTC"), reason, is_local=True)
    zone = next((zone for zone in ZONES if _skips_hours_of(zone, local)), None)
    if zone is None:
        return clock._replace(reason=f"{reason}; taken for UTC, as nothing tells the clock")
    return in_zone(clock, zone, f"local: the hour is missing that clocks of {zone} skip in spring")


def _skips_hours_of(zone: str, times: pl.Series) -> bool:
    """Tell whether times lack the hours that this zone's clocks skip, and have all of the three before and after."""
    known = set(times.dt.truncate("1h").drop_nulls())
    hours = pl.Series([hour + timedelta(hours=1) for hour in sorted(known)], dtype=pl.Datetime("us"))
    skipped = hours.filter(hours.dt.replace_time_zone(zone, non_existent="null", ambiguous="earliest").is_null())
    around = [timedelta(hours=hours) for hours in (-3, -2, -1, 1, 2, 3)]
    return bool(skipped.len()) and all(
        hour not in known and known >= {hour + step for step in around} for hour in skipped
    )
