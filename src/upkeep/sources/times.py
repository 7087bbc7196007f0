"""Delivered times, in a plant's own clock and format, converted to UTC."""

import math

import polars as pl

from upkeep.contract.casting import CLOCK_RESET, EARLIEST, LATEST, as_text, cast_column
from upkeep.contract.dictionary import BROKEN_LINE
from upkeep.core.errors import UpkeepError
from upkeep.sources.file_options import Epoch, TableFiles

FIRST, LAST = EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None)  # bounds of local times

OFFSET = r":\d{2}(\.\d+)?\s*(Z|UTC|[+-]\d{2}(:?\d{2})?)\s*$"

PER_SECOND: dict[Epoch, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""How many of each unit of ``epoch`` make a second."""

YEAR_2000, YEAR_2045 = 946_684_800, 2_366_841_600  # seconds since 1904, as some loggers count, are later
DAY_AND_HOUR = r"^\s*(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])(\.0*)?\s*$"
"""Ten digits such as 2025010614 name a day and an hour; as seconds since 1970 they would be of 2033 or later."""
ZONE = r" [A-Z]{3,5}$"  # such as CET, at the end of a time
SPREADSHEET_DAYS = (20_000, 80_000)  # 1954 to 2119, in days since 1899-12-30

COMMON_FORMATS = (
    *("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y%m%d", "%Y%m%d%H%M"),
    *("%Y%m%d%H%M%S", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d-%m-%Y %H:%M"),
    *("%d.%m.%y %H:%M:%S", "%d.%m.%y %H:%M", "%d.%m.%Y %H:%M:%S%.f", "%d/%m/%Y", "%m/%d/%Y", "%m/%d/%Y %I:%M:%S %p"),
    *("%m/%d/%Y %I:%M %p", "%m/%d/%y %H:%M", "%d/%m/%y %H:%M", "%Y/%m/%d", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y"),
    *("%d-%b-%Y %H:%M:%S", "%d-%b-%y", "%d-%b-%y %H:%M:%S", "%Y%m%d %H%M%S", "%Y%m%d %H:%M:%S", "%Y-%m-%d-%H.%M.%S"),
    *("%Y-%m-%dT%H:%M:%S%z", "%d.%m.%Y %H:%M:%S %z", "%b %d %Y %H:%M:%S", "%d %b %Y %H:%M:%S", "%a %b %d %H:%M:%S %Y"),
    *("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S,%3f", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I:%M %p"),
    *("%Y%m%dT%H%M%S%#z", "%Y%m%dT%H%M%S", "%Y/%m/%d %H:%M:%S%.f", "%m/%d/%y %I:%M %p", "%d.%m.%Y %H.%M.%S"),
    *("%d %B %Y %H:%M", "%d/%b/%Y:%H:%M:%S %z", "%a, %d %b %Y %H:%M:%S %z", "%H:%M %d.%m.%Y", "%H:%M:%S %d.%m.%Y"),
    *("%d-%m-%y %H:%M", "%d %m %Y %H:%M", "%d %m %Y %H:%M:%S", "%G-W%V-%u", "%G-W%V-%u %H:%M", "%Y-%j %H:%M"),
    *("%Y-%m-%dT%H:%M:%S,%3f%#z", "%Y年%m月%d日 %H:%M", "%Y年%m月%d日 %H時%M分", "%Y.%m.%d %H:%M:%S"),
    *("%b %d %Y %I:%M%p", "%d-%b-%y %I.%M.%S%.f %p", "%Y-%m-%d-%H.%M.%S%.f", "%d.%m.%Y %H:%M:%S,%3f"),
)


def bring_to_utc(rows: pl.DataFrame, name: str, reading: TableFiles) -> pl.DataFrame:
    """Convert a column of times to UTC, if the reading says how; a value that cannot be read stays as it was."""
    dtype = rows.schema.get(name)
    if dtype is None or not (reading.time_zone or reading.time_format or reading.epoch):
        return rows
    local, utc = _read_times(rows[name], reading)
    if dtype != pl.String and (utc.is_null() == rows[name].is_null()).all():
        return rows.with_columns(utc.alias(name))
    delivered = as_text(name, dtype)
    unreadable = pl.when(local.is_null()).then(delivered).otherwise(delivered + f" ({reading.time_zone})")
    return rows.with_columns(pl.coalesce(utc.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ"), unreadable).alias(name))


def read_times(column: pl.Series, reading: TableFiles) -> pl.Series:
    """Return a column's times in UTC as this reading has them; null where a value is not a time."""
    return _read_times(column, reading)[1].alias(column.name)


def _read_times(column: pl.Series, reading: TableFiles) -> tuple[pl.Series, pl.Series]:
    """Return times as they are written, and in UTC; each step is a frame, since Polars repeats what is named twice."""
    clock, has_offset = _read_clock(column.name, column.dtype, reading)
    local, zone = pl.col("local"), str(reading.time_zone or "UTC")
    read = column.to_frame().select(local=clock.dt.replace_time_zone(None), has_offset=has_offset)
    read = read.with_columns(pl.when(local.is_between(FIRST, LAST)).then(local))
    # When clocks go back, an hour comes twice, of which the first is taken; when they go forward, one does not exist.
    placed = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    utc = pl.when("has_offset").then(local.dt.replace_time_zone("UTC")).otherwise(placed)
    return read["local"], read.select(utc).to_series()


def _read_clock(name: str, dtype: pl.DataType, reading: TableFiles) -> tuple[pl.Expr, pl.Expr]:
    """Return the time as it is written, and whether that is in UTC already."""
    column = pl.col(name)
    if isinstance(dtype, pl.Date | pl.Datetime):
        return cast_column(name, dtype, "time").value, pl.lit(bool(getattr(dtype, "time_zone", None)))
    text = cast_column(name, dtype, "text").value
    if reading.epoch:
        text = text.str.replace(reading.decimal or ".", ".", literal=True)
        return _since_1970(column if dtype.is_numeric() else text, reading.epoch), pl.lit(True)
    if reading.time_format:
        parsed = text.str.to_datetime(reading.time_format, time_unit="us", strict=False)
        return parsed, pl.lit(any(offset in reading.time_format for offset in ("z", "%s", "%+")))
    return cast_column(name, dtype, "time").value, text.str.contains(OFFSET)


def _since_1970(number: pl.Expr, unit: Epoch) -> pl.Expr:
    """Return numbers since 1970-01-01 UTC as times: whole numbers exactly, others to the microsecond."""
    seconds = number.cast(pl.Float64, strict=False) / PER_SECOND[unit]
    whole = number.cast(pl.Int64, strict=False)
    is_whole = whole.cast(pl.Float64) == number.cast(pl.Float64, strict=False)
    exact = whole * (10**6 // PER_SECOND[unit]) if unit != "ns" else whole // 1000
    micros = pl.when(is_whole).then(exact).otherwise((seconds * 1e6).round().cast(pl.Int64, strict=False))
    sane = seconds.is_between(EARLIEST.timestamp(), LATEST.timestamp())
    return pl.when(sane).then(micros).cast(pl.Datetime("us"))


def unit_since_1970(numbers: pl.Series) -> Epoch | None:
    """Return the unit in which numbers since 1970 are times of our years, if there is one."""
    if numbers.cast(pl.String).str.contains(DAY_AND_HOUR).all():
        return None
    middle = numbers.cast(pl.Float64, strict=False).median()
    middle = middle if isinstance(middle, float) else math.nan
    return next((unit for unit, each in PER_SECOND.items() if YEAR_2000 <= middle / each < YEAR_2045), None)


def unreadable_times(rows: pl.DataFrame, reading: TableFiles) -> UpkeepError:
    """Return the error about a file none of whose times can be read, with a remedy that fits its values."""
    delivered = rows.select(as_text("time", rows.schema["time"])).to_series().drop_nulls()
    if BROKEN_LINE in rows.columns and not rows[BROKEN_LINE].has_nulls():
        return UpkeepError(
            f"every line of the file is broken; the first is {rows[BROKEN_LINE][0]!r}",
            expected="as many fields in each line as in the header, and each quote closed on its line",
            remedy="correct separator, or export the file again",
        )
    if delivered.is_empty():
        return UpkeepError(
            "the column time is empty in the whole file",
            expected=f"times in one of the columns: {', '.join(rows.columns)}",
            remedy="name the column that holds the times in columns, as time: THEIR_NAME",
        )
    return UpkeepError(
        f"no time in the file can be read; the first is {delivered[0]!r}",
        expected=f"ISO 8601, such as 2025-01-06T13:00:00Z, or a date-time type; {CLOCK_RESET.year} or later",
        remedy=_find_remedy(delivered, reading),
    )


def _find_remedy(delivered: pl.Series, reading: TableFiles) -> str:
    plain = delivered.str.replace(",", ".", literal=True)
    number = plain[:1].cast(pl.Float64, strict=False).fill_null(math.nan)[0]
    if unit := unit_since_1970(plain):
        comma = ' and decimal: ","' if delivered.str.contains(",", literal=True).any() and not reading.decimal else ""
        return f"these look like {unit} since 1970: set epoch: {unit}{comma}"
    if reading.epoch:
        return f"correct epoch, which is {reading.epoch}"
    if SPREADSHEET_DAYS[0] <= number <= SPREADSHEET_DAYS[1]:
        return "these look like a spreadsheet's days: give the column the format yyyy-mm-dd hh:mm:ss, and export it"
    zoneless = delivered.str.replace(ZONE, "")
    for known in COMMON_FORMATS:
        times = zoneless.str.to_datetime(known, time_unit="us", strict=False).dt.replace_time_zone(None)
        if times.is_between(FIRST, LAST).fill_null(False).all():
            if (zoneless != delivered).any():
                return f"set time_format: '{known} %Z' and time_zone, if that is how they are meant"
            return f"set time_format: '{known}', if that is how they are meant"
    if not math.isnan(number):
        return "these numbers are neither since 1970 nor digits of a date: deliver ISO 8601"
    given = f"correct time_format, which is '{reading.time_format}'" if reading.time_format else "set time_format"
    return f"{given}, or deliver ISO 8601"
