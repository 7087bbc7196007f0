"""Delivered columns renamed to ours, with those added that a file's path or a constant tells."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import polars as pl

from upkeep.contract.casting import as_text, cast_column
from upkeep.contract.dictionary import BROKEN_LINE, DECIMAL, RESERVED, is_reserved
from upkeep.core.errors import UpkeepError
from upkeep.core.names import KEYS
from upkeep.core.params import Limits
from upkeep.core.text import nearest_name
from upkeep.sources import bounds
from upkeep.sources.file_options import Pivot, TableFiles

MIDNIGHT = r"[ T]00:00(:00(\.0*)?)?(\+00:00)?$"  # behind a day, as spreadsheets write it
CONSTANTS = ("plant", "machine", "kind", "code")  # options that give the value of every row


def name_columns(rows: pl.DataFrame, facts: Mapping[str, str], reading: TableFiles, limits: Limits) -> pl.DataFrame:
    """Rename columns to ours, and add those that the file's path (`facts`) or a constant tells."""
    if not rows.columns:  # a file without a header
        return rows
    rows = blank_gaps(rows, reading.gaps, reading.decimal)
    if reading.time_of_day:
        rows = join_time(rows, reading.columns.get("time", "time"), reading.time_of_day)
    if reading.pivot:
        rows = _widen(rows, reading.pivot, reading.columns, limits)
    rows = rows.select(
        rows[theirs].alias(ours) for theirs in rows.columns for ours in _rename(theirs, rows.columns, reading.columns)
    )
    facts = {**reading.model_dump(include=set(CONSTANTS), exclude_none=True), **facts}
    told = {name for name in facts if name in rows.columns and rows[name].null_count() < rows.height}
    rows = rows.with_columns(pl.lit(value).alias(name) for name, value in facts.items() if name not in told)
    if reading.kinds:
        rows = _translate_kinds(rows, reading.kinds)
    return rows.with_columns(pl.lit(reading.decimal).alias(DECIMAL)) if reading.decimal else rows


def blank_gaps(rows: pl.DataFrame, gaps: Collection[str], decimal: str | None) -> pl.DataFrame:
    """Replace texts and numbers that are among `gaps`, which stand for a missing value, by null.

    A gap of -9999 is written as -9999.0, too. The sign other than `decimal`, a point if unknown, groups thousands.
    """
    zeros = f"[{decimal or '.'}]0+$"
    texts = {*gaps, *(re.sub(zeros, "", gap) for gap in gaps)}
    numbers = pl.Series([*texts], dtype=pl.String).cast(pl.Float64, strict=False).drop_nulls().implode()
    delivered, held = pl.col(pl.String).exclude(BROKEN_LINE), pl.selectors.numeric()
    text = delivered.str.strip_chars().str.replace(zeros, "")
    blanked = [pl.when(~text.is_in(texts)).then(delivered), pl.when(~held.cast(pl.Float64).is_in(numbers)).then(held)]
    return rows.with_columns(blanked) if gaps else rows


def join_time(rows: pl.DataFrame, day: str, time_of_day: str) -> pl.DataFrame:
    """Replace two columns by one of text, called as the column of the day is, with day and time of day.

    A time of day is text such as 14:30 or 14.30, or digits that are all of hours, of hours and minutes, or of seconds,
    too: 14, 1430 or 143000; it is written with colons. Where either is missing, the time is.
    """
    for name, remedy in ((day, "correct columns.time"), (time_of_day, "correct time_of_day")):
        if name not in rows.columns:
            raise absent(name, rows.columns, f"{remedy} in params.yaml")
    texts = (as_text(name, rows.schema[name]).str.strip_chars().str.replace(r"\.0$", "") for name in (day, time_of_day))
    date, clock = (text.replace("", None) for text in texts)
    digits = pl.when(clock.str.contains(r"^\d{1,6}$")).then(clock)
    width = (digits.str.len_chars().max() + 1) // 2 * 2
    even = digits.str.pad_start(width, "0").str.pad_end(6, "0").str.replace(r"(..)(..)(..)", "$1:$2:$3")
    is_dotted = clock.str.contains(r"^\d\d?\.\d\d(\.\d\d)?$")
    dotted = pl.when(is_dotted).then(clock.str.replace_all(".", ":", literal=True))
    time = pl.coalesce(even, dotted, clock).str.replace(r"^(\d):", "0$1:")
    both = pl.concat_str(date.str.replace(MIDNIGHT, ""), time, separator=" ")
    return rows.with_columns(both.alias(day)).drop(time_of_day)


def _rename(theirs: str, delivered: Iterable[str], columns: Mapping[str, str]) -> list[str]:
    """Return our names of a column; one whose name is needed for another column is set aside."""
    ours = [name for name, source in columns.items() if source == theirs]
    in_the_way = theirs in columns and columns[theirs] in delivered
    return ours or [_name_aside(theirs) if in_the_way else spare_reserved(theirs)]


def spare_reserved(name: str) -> str:
    """Return the name of a delivered column, changed if it is reserved."""
    return _name_aside(name) if is_reserved(name) and name != BROKEN_LINE else name


def _name_aside(name: str) -> str:
    return f"{name.lstrip(RESERVED)} (delivered)"


def _translate_kinds(rows: pl.DataFrame, kinds: Mapping[str, str]) -> pl.DataFrame:
    """Replace delivered kinds of events by ours; where there is no code, the delivered kind becomes it."""
    if "kind" not in rows.columns:
        raise absent("kind", rows.columns, "name it in columns, or give kind: in place of kinds:")
    delivered = cast_column("kind", rows.schema["kind"], "text").value
    known = delivered.replace_strict(kinds, default=None, return_dtype=pl.String)
    code = {} if "code" in rows.columns else {"code": delivered}
    return rows.with_columns(kind=pl.coalesce(known, as_text("kind", rows.schema["kind"])), **code)


def _widen(rows: pl.DataFrame, pivot: Pivot, columns: Mapping[str, str], limits: Limits) -> pl.DataFrame:
    """Turn a row per sensor and instant into a row per instant.

    Where a sensor has several values at one instant, each further one makes a further row. A column that is neither
    part of the instant nor named in `columns` keeps its first value.
    """
    for name in (pivot.name, pivot.value):
        if name not in rows.columns:
            raise absent(name, rows.columns, "correct pivot in params.yaml")
    theirs = [columns.get(name, name) for name in KEYS] + list(columns.values())
    instant = [name for name in rows.columns if name in theirs and name not in (pivot.name, pivot.value)]
    others = [name for name in rows.columns if name not in (*instant, pivot.name, pivot.value)]
    sensor = cast_column(pivot.name, rows.schema[pivot.name], "text").value.fill_null("(no name)")
    sensor = pl.when(sensor.is_in([*instant, *others])).then(sensor + " (sensor)").otherwise(sensor)
    rows = rows.with_columns(sensor.alias("@sensor")).with_row_index("@place")
    broken = pl.lit(False) if BROKEN_LINE not in rows.columns else pl.col(BROKEN_LINE).is_not_null()
    whole = rows.filter(~broken).with_columns(pl.int_range(pl.len()).over([*instant, "@sensor"]).alias("@again"))
    row = [*instant, "@again"]
    bounds.check_shape(whole.select(row).n_unique(), whole["@sensor"].n_unique(), limits)
    wide = whole.pivot(on="@sensor", index=row, values=pivot.value, aggregate_function="first", maintain_order=True)
    first = whole.group_by(row).agg(*(pl.col(name).drop_nulls().first() for name in others), pl.col("@place").first())
    wide = wide.join(first, on=row, nulls_equal=True)
    lines = rows.filter(broken).drop(pivot.name, pivot.value, "@sensor")
    return pl.concat([wide, lines], how="diagonal").sort("@place").drop("@place", "@again")


def stack_rows(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the rows of all parts; columns whose types do not go together are text, which is read like them."""
    types: dict[str, set[pl.DataType]] = {}
    for name, dtype in (column for part in parts for column in part.schema.items() if column[1] != pl.Null):
        types.setdefault(name, set()).add(dtype)
    mixed = {name for name, of in types.items() if len(of) > 1 and not all(dtype.is_numeric() for dtype in of)}
    return pl.concat([_write_as_text(part, mixed) for part in parts], how="diagonal_relaxed")


def _write_as_text(rows: pl.DataFrame, names: Collection[str]) -> pl.DataFrame:
    """Return rows with these columns as text, numbers with the decimal sign by which text is read here."""
    texts = {name: as_text(name, dtype) for name, dtype in rows.schema.items() if name in names}
    for name in texts if DECIMAL in rows.columns else ():
        if rows.schema[name].is_numeric():
            texts[name] = texts[name].str.replace(".", pl.col(DECIMAL), literal=True)
    return rows.with_columns(**texts)


def absent(name: str, columns: Iterable[str], remedy: str, **where: object) -> UpkeepError:
    """Return the error about a missing column, with the closest name that there is."""
    names = list(columns)
    close = next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.5)), None) or nearest_name(name, names)
    return UpkeepError(
        f"there is no column {name!r}{f'; did you mean {close!r}?' if close else ''}",
        expected=f"one of the columns there are: {', '.join(names)}",
        remedy=remedy,
        column=name,
        **where,
    )
