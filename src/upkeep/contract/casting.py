"""Delivered values cast to the dictionary's types: a value that cannot be cast is marked, never guessed."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple

import polars as pl

from upkeep.contract.dictionary import DECIMAL, DTYPES
from upkeep.core.types import CALENDAR

EARLIEST, LATEST = (datetime(year, 1, 1, tzinfo=UTC) for year in (CALENDAR.start, CALENDAR.stop))
"""Times outside these bounds are garbage, and Polars cannot even print the worst of them."""

CLOCK_RESET = datetime(1981, 1, 1, tzinfo=UTC)
"""Rows before it are of clocks that lost the time, and began again at 1970 or 1980."""

LOW, HIGH = (int(time.timestamp()) * 1_000_000 for time in (EARLIEST, LATEST))
DAY, MILLISECOND = 86_400_000_000, 1000  # in microseconds, as are the bounds

ISO_TIME = r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d+)?)?)?\s*(?:Z|UTC|([+-]\d{2}(?::?\d{2})?))?$"
"""Date; then, each optional: hours and minutes, seconds, offset. Without an offset a time is in UTC."""

TIME_OF_DAY = r"(?i)^\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*([ap]\.?m\.?)?\s*$"
"""Such as 14:30, 14:30:05.5 or 2:30 PM, without a day."""

MINUS = "\N{MINUS SIGN}"
GROUPING = "'\N{RIGHT SINGLE QUOTATION MARK} \N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}"


def _local_number(sign: str, other: str) -> str:
    """Return the pattern of numbers with this decimal sign, their thousands grouped by one mark throughout, or not."""
    grouped = "|".join(rf"[1-9][0-9]{{0,2}}(?:[{mark}][0-9]{{3}})+" for mark in other + GROUPING)
    return rf"^[+-]?(?:(?:{grouped}|[0-9]+)(?:[{sign}][0-9]*)?|[{sign}][0-9]+)(?:[eE][+-]?[0-9]+)?$"


LOCAL_NUMBERS = {",": _local_number(",", "."), ".": _local_number(".", ",")}


class Cast(NamedTuple):
    """The expression of a column's values in the wanted type, and that of the rows whose value could not be cast."""

    value: pl.Expr
    failed: pl.Expr = pl.lit(False)


@lru_cache(maxsize=1024)  # building them takes as long as casting the fifty rows of a request
def cast_column(name: str, delivered: pl.DataType, wanted: Literal["text", "number", "time"]) -> Cast:
    """Return the expressions that cast one delivered column to a type of the dictionary.

    Empty text and NaN are gaps, so they become null without having failed. Text is trimmed. Whole floats become text
    without a decimal point, so that machine 7 is the same machine in a delivery with numbers and in one with text.
    A number in text has ASCII digits, at most one decimal point and an exponent, or is ``inf``; 1_000 and 1,5 are not
    numbers. Booleans are 1 and 0. Times in text match :data:`ISO_TIME` and are cut to microseconds; second 60 is
    the first of the next minute. Integers are never times: their unit and epoch would be a guess.
    """
    column = pl.col(name)
    if isinstance(delivered, pl.Null):
        return Cast(column.cast(DTYPES[wanted]))
    cast = {"text": _to_text, "number": _to_number, "time": _to_time}[wanted](column, delivered)
    return cast or Cast(pl.lit(None, DTYPES[wanted]), column.is_not_null())


def cast_local(name: str, plain: Cast) -> Cast:
    """Return the cast `plain` of a column of text, with numbers read by the decimal sign in the row's ``@decimal``.

    The other of point and comma, blanks and apostrophes group thousands, if there are three digits to each group and
    the first digit is not 0: with a decimal comma 1.001,5 and 1 001,5 are 1001.5, and neither 12.5 nor 0.001 is a
    number.
    """
    text = _trim_text(pl.col(name)).str.replace(MINUS, "-", literal=True)
    value, failed = plain
    for sign, pattern in LOCAL_NUMBERS.items():
        bare = text.str.replace_all(f"[^0-9eE{sign}+-]", "").str.replace(sign, ".", literal=True)
        number = pl.when(text.str.contains(pattern)).then(bare.cast(pl.Float64, strict=False))
        here = (pl.col(DECIMAL) == sign).fill_null(False) & text.str.contains("[0-9]")
        value = pl.when(here).then(number).otherwise(value)
        failed = pl.when(here).then(number.is_null()).otherwise(failed)
    return Cast(value, failed)


def cast_truths(name: str, plain: Cast) -> Cast:
    """Return the cast `plain` of a column of text to numbers, with true as 1 and false as 0 in any case of letters."""
    text = _trim_text(pl.col(name)).str.to_lowercase()
    value = pl.when(text == "true").then(1.0).when(text == "false").then(0.0).otherwise(plain.value)
    return Cast(value, plain.failed & ~text.is_in(["true", "false"]).fill_null(False))


def printable(name: str, delivered: pl.DataType) -> pl.Expr:
    """Return a delivered column of any type as one that can be written as JSON."""
    column = pl.selectors.by_name(name).as_expr()  # a column may be called *, which pl.col would take for all columns
    if _is_plain(delivered):
        return column
    if isinstance(delivered, pl.Date | pl.Datetime) and (text := _to_text(column, delivered)):
        return text.value.fill_null(column.to_physical().cast(pl.String)).alias(name)
    if isinstance(delivered, pl.Binary):
        return column.bin.encode("hex")
    if isinstance(delivered, pl.Duration):
        return column.dt.to_string("iso")
    return pl.when(column.is_not_null()).then(pl.lit(f"({delivered})")).alias(name)


def as_text(name: str, delivered: pl.DataType) -> pl.Expr:
    """Return a delivered column of any type as text."""
    column = printable(name, delivered)
    if delivered.is_nested() and _is_plain(delivered):
        text = pl.struct(v=column).struct.json_encode().str.slice(5).str.head(-1)
        return pl.when(column.is_not_null()).then(text).alias(name)
    return column.cast(pl.String)


def _is_text(delivered: pl.DataType) -> bool:
    return isinstance(delivered, pl.String | pl.Categorical | pl.Enum)


def _is_plain(delivered: pl.DataType) -> bool:
    if isinstance(delivered, pl.List | pl.Array):
        return _is_plain(delivered.inner)  # type: ignore[arg-type]  # always an instance in a frame's schema
    if isinstance(delivered, pl.Struct):
        return all(_is_plain(field.dtype) for field in delivered.fields)  # type: ignore[arg-type]
    return _is_text(delivered) or delivered.is_numeric() or isinstance(delivered, pl.Boolean | pl.Null | pl.Time)


def _trim_text(column: pl.Expr) -> pl.Expr:
    text = column.cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def _to_text(column: pl.Expr, delivered: pl.DataType) -> Cast | None:
    if _is_text(delivered):
        return Cast(_trim_text(column))
    if delivered.is_float():
        whole = column.cast(pl.Int64, strict=False)
        is_whole = whole.cast(delivered) == column
        return Cast(pl.when(is_whole).then(whole.cast(pl.String)).otherwise(column.fill_nan(None)))
    if delivered.is_numeric() or isinstance(delivered, pl.Boolean):
        text = column.cast(pl.String)
        return Cast(
            text.str.replace(r"(\.[0-9]*?)0+$", "${1}").str.strip_suffix(".") if delivered.is_decimal() else text
        )
    if time := _to_time(column, delivered):
        return Cast(time.value.dt.to_string("iso:strict"), time.failed)
    return None


def _to_number(column: pl.Expr, delivered: pl.DataType) -> Cast | None:
    if _is_text(delivered):
        text = _trim_text(column)
        number = text.cast(pl.Float64, strict=False)
        return Cast(number.fill_nan(None), text.is_not_null() & number.is_null())
    if delivered.is_numeric() or isinstance(delivered, pl.Boolean):
        return Cast(column.cast(pl.Float64).fill_nan(None))
    return None


def _to_time(column: pl.Expr, delivered: pl.DataType) -> Cast | None:
    if _is_text(delivered):
        text = _trim_text(column)
        time = _parse_time(text)
        return Cast(time.cast(DTYPES["time"]), text.is_not_null() & time.is_null())
    if not isinstance(delivered, pl.Date | pl.Datetime):
        return None
    ticks = column.to_physical().cast(pl.Int64)
    if isinstance(delivered, pl.Datetime) and delivered.time_unit == "ns":
        ticks = ticks // 1000
    per_tick = DAY if isinstance(delivered, pl.Date) else MILLISECOND if delivered.time_unit == "ms" else 1
    sane = ticks.is_between(LOW // per_tick, HIGH // per_tick)
    return Cast(pl.when(sane).then(ticks * per_tick).cast(DTYPES["time"]), column.is_not_null() & ~sane)


def _parse_time(text: pl.Expr) -> pl.Expr:
    """Return the microseconds since 1970 of times in text; null where it is no time, or one out of bounds."""
    # As fields of one struct these are computed once; each mention of an expression in another is computed anew.
    field = pl.field
    whole = pl.concat_str(
        field("1"),
        pl.lit("T"),
        field("2").fill_null("00:00"),
        field("3").fill_null(":00"),
        field("4").fill_null("+00"),
    )
    time = whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False).to_physical()
    known = pl.when(field("time").is_between(LOW, HIGH)).then(field("time"))
    parts = text.str.extract_groups(ISO_TIME).struct.with_fields(time.alias("time"))
    return parts.struct.with_fields(known.alias("time")).struct.field("time")
