"""What database drivers return, as columns of the one type that holds all their values, or else as text."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
from sqlalchemy import Connection

PLAIN: dict[type, pl.DataType] = {
    bool: pl.Boolean(),
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
    bytes: pl.Binary(),
    date: pl.Date(),
    datetime: pl.Datetime("us"),
}
"""The types that a column may have; every other value becomes one of these first."""

EXACT_INTEGER = 2**53
"""Whole numbers up to here are themselves in a column with fractions."""

EXACT_DIGITS = 15
"""A decimal number with no more digits than these comes back from a float as it was."""


def accept_any_value(connection: Connection) -> None:
    """Have the driver return as text what no Python type holds, such as infinite dates, instead of failing."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver == "pysqlite":
        driver.text_factory = lambda content: content.decode(errors="backslashreplace")
    elif connection.dialect.driver == "psycopg":
        _accept_any_postgresql_value(driver)


def _accept_any_postgresql_value(driver: Any) -> None:
    import psycopg  # only who asks PostgreSQL waits for it
    from psycopg.types.string import TextLoader

    class TimeOrText(psycopg.adapt.Loader):
        def __init__(self, oid: int, context: psycopg.abc.AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            exact = psycopg.adapters.get_loader(oid, psycopg.pq.Format.TEXT) or TextLoader
            self._exact = exact(oid, context)

        def load(self, data: psycopg.abc.Buffer) -> Any:
            try:
                return self._exact.load(data)
            except psycopg.DataError:
                return bytes(data).decode()

    for name in ("date", "timestamp", "timestamptz"):
        driver.adapters.register_loader(name, TimeOrText)
    for name in ("time", "timetz", "interval", "json", "jsonb"):
        driver.adapters.register_loader(name, TextLoader)


def as_frame(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> pl.DataFrame:
    """Return a query's rows, each column of one of the types of :data:`PLAIN`, or null if it holds nothing."""
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return pl.DataFrame([_as_series(name, values) for name, values in columns])


def join_frames(frames: Sequence[pl.DataFrame], names: Sequence[str]) -> pl.DataFrame:
    """Join the parts of one query's answer; a column whose type differs between them is typed anew as a whole."""
    if not frames:
        return pl.DataFrame(schema=list(names))
    columns = []
    for name in names:
        parts = [frame[name] for frame in frames]
        dtypes = {part.dtype for part in parts} - {pl.Null()}
        if len(dtypes) > 1:
            columns.append(_as_series(name, [value for part in parts for value in part]))
        else:
            columns.append(pl.concat([part.cast(*dtypes) if dtypes else part for part in parts]))
    return pl.DataFrame(columns)


def _as_series(name: str, values: Sequence[Any]) -> pl.Series:
    values = [simplify(value) for value in values]
    present = [value for value in values if value is not None]
    dtypes = {_type_of(value) for value in present}
    if dtypes == {pl.Int64(), pl.Float64()} and all(isinstance(value, float) or _is_exact(value) for value in present):
        dtypes = {pl.Float64()}
    if len(dtypes) <= 1:
        return pl.Series(name, values, dtype=next(iter(dtypes), pl.Null()))
    return pl.Series(name, [None if value is None else write_value(value) for value in values], dtype=pl.String())


def _type_of(value: Any) -> pl.DataType:
    return pl.Datetime("us", "UTC") if isinstance(value, datetime) and value.tzinfo else PLAIN[type(value)]


def _is_exact(number: int) -> bool:
    return abs(number) <= EXACT_INTEGER


def simplify(value: Any) -> Any:
    """Return a value as one of the types of :data:`PLAIN`, and as text if none of them holds it."""
    match value:
        case Decimal():
            return _simplify_decimal(value)
        case int() if not -(2**63) <= value < 2**63:
            return str(value)
        case datetime(tzinfo=zone) if zone:
            try:
                return value.astimezone(UTC)
            except OverflowError:
                return value.isoformat()
        case dict() | list() | tuple():
            return json.dumps(value, default=str, ensure_ascii=False)
        case bytearray() | memoryview():
            return bytes(value)
        case None:
            return None
    return value if type(value) in PLAIN else str(value)


def _simplify_decimal(value: Decimal) -> int | float | str:
    """Return a whole number as such, so that machine 7.000 is machine 7, and others as floats if those are exact."""
    if not value.is_finite():
        return float(value) if not value.is_snan() else float("nan")
    if value == value.to_integral_value() and abs(value) < 2**63:
        return int(value)
    return float(value) if len(value.as_tuple().digits) <= EXACT_DIGITS else str(value)


def write_value(value: Any) -> str:
    """Return a value of one of the types of :data:`PLAIN` as text: bytes as PostgreSQL writes them, 7.0 as 7."""
    match value:
        case bool():
            return str(value).lower()
        case bytes():
            return rf"\x{value.hex()}"
        case float() if value.is_integer():
            return str(int(value))
        case date():
            return value.isoformat()
    return str(value)
