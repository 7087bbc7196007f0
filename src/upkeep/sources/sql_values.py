"""What database drivers return, as columns of the one type that holds all their values, or else of text."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain
from typing import Any

import polars as pl
from sqlalchemy import Connection

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
        def load(self, data: psycopg.abc.Buffer) -> Any:
            exact = psycopg.adapters.get_loader(self.oid, psycopg.pq.Format.TEXT) or TextLoader
            try:
                return exact(self.oid, self.connection).load(data)
            except psycopg.DataError:
                return bytes(data).decode()

    for name in ("date", "timestamp", "timestamptz"):
        driver.adapters.register_loader(name, TimeOrText)
    for name in ("time", "timetz", "interval", "json", "jsonb"):
        driver.adapters.register_loader(name, TextLoader)


def as_frame(chunks: Iterable[Sequence[Sequence[Any]]], names: Sequence[str]) -> pl.DataFrame:
    """Return a query's rows, simplified, which come in chunks: few of them are Python objects at a time."""
    frames = [
        pl.DataFrame([_as_series(name, values) for name, values in zip(names, zip(*rows, strict=True), strict=True)])
        for rows in chunks
    ]
    if not frames:
        return pl.DataFrame(schema=list(names))
    return pl.DataFrame([_join([frame[name] for frame in frames]) for name in names])


def _join(parts: Sequence[pl.Series]) -> pl.Series:
    is_typed_alike = len({part.dtype for part in parts}) == 1
    return pl.concat(parts) if is_typed_alike else _as_series(parts[0].name, chain(*parts))


def _as_series(name: str, values: Iterable[Any]) -> pl.Series:
    values = list(values)
    types = {type(value) for value in values if value is not None}
    if types == {int, float} and all(abs(value) <= 2**53 for value in values if isinstance(value, int)):
        types = {float}
    if len(types) > 1:
        values = [None if value is None else write_value(value) for value in values]
    return pl.Series(name, values, dtype=pl.Float64() if types == {float} else None)


def simplify(value: Any) -> Any:
    """Return a value as one of the types that a column may have, and as text if none of them holds it."""
    match value:
        case Decimal():
            return _simplify_decimal(value)
        case int() if abs(value) >= 2**63:
            return str(value)
        case datetime() if value.tzinfo:
            return value.astimezone(UTC)
        case dict() | list() | tuple():
            return json.dumps(value, default=str, ensure_ascii=False)
        case bytearray() | memoryview():
            return bytes(value)
        case None | bool() | int() | float() | str() | bytes() | date():
            return value
    return str(value)


def _simplify_decimal(value: Decimal) -> int | float | str:
    """Return a whole number as such, so that machine 7.000 is machine 7, and others as floats if those are exact."""
    if value.is_finite() and value == value.to_integral_value() and abs(value) < 2**63:
        return int(value)
    return float(value) if len(value.as_tuple().digits) <= EXACT_DIGITS else str(value)


def write_value(value: Any) -> str:
    """Return a value that :func:`simplify` returned as text: bytes as PostgreSQL writes them, 7.0 as 7."""
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
