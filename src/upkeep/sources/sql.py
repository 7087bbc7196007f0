"""Queries on any database that SQLAlchemy reaches, one plant and one batch at a time.

A column of a result has the one type that holds all of its values, or else is text.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from typing import Any

import polars as pl
from pydantic import ValidationInfo, field_validator
from sqlalchemy import Connection, CursorResult, Engine, bindparam, create_engine, make_url, text
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError
from sqlalchemy.types import NullType

from upkeep.contract.casting import EARLIEST, LATEST
from upkeep.contract.dictionary import TABLES, Table
from upkeep.contract.findings import Finding, report
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.core.secrets import expand_all, expand_variables, hide_variables, mask_values
from upkeep.core.types import Frozen
from upkeep.sources import Delivery, bounds, read_options
from upkeep.sources.batches import batches_between
from upkeep.sources.columns import spare_reserved

ROWS_AS_OBJECTS = 50_000  # held as Python objects at a time: columns take less memory

FETCHED_ROWS = 100  # asked for at once, few because each of them may be large

BOUND = re.compile(r"(?<![:\w\\]):(\w+)")
COLUMN = r"""(?:[\w.]|"[^"]*"|`[^`]*`|\[[^\]]*\])+(?:::\w+)?"""
WITHIN_BATCH = re.compile(rf"(?i)(\b(?:where|and|or|on)\s+|\()({COLUMN})\s*(?:>=\s*:since|<\s*:until)\b")
"""How a query usually bounds a batch, and by which column."""

UNTIMED_COUNTED = 1000  # rows without a time, beyond which they are not counted

EXACT_DIGITS = 15  # a decimal number with no more digits survives the way through a float

logger = logging.getLogger(__name__)


class SqlOptions(Frozen):
    """``fetch.options`` of the source ``sql``; docs/sources.md explains each option."""

    url: str
    since: date
    plants: list[str | int | float] | str
    telemetry: str | None = None
    events: str | None = None
    machines: str | None = None

    @field_validator(*TABLES)
    @classmethod
    def _uses_its_bounds(cls, query: str | None, info: ValidationInfo) -> str | None:
        needed = {"plant"} if info.field_name == "machines" else {"plant", "since", "until"}
        if query is not None and (missing := needed - _bound(query)):
            raise ValueError(f"the query must use {', '.join(f':{name}' for name in sorted(missing))}")
        return query


class Sql:
    """Rows of three queries; ``:since`` and ``:until`` bound a batch: ``since <= time < until``, in UTC."""

    limits: Limits

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        self._options = read_options(SqlOptions, options, "sql")
        self._batch_days = batch_days
        self._engine = open_engine(self._options.url, "fetch.options.url")

    def deliveries(self, until: date) -> Iterator[Delivery]:
        """List every batch of every plant from ``since`` on; whether it has rows is known once it is read."""
        batches = batches_between(self._options.since, until, self._batch_days)
        plants, unnamed = self._plants()
        if not plants:
            raise UpkeepError(
                f"fetch.options.plants gives no plant{', only null' * bool(unnamed)}", remedy="correct it"
            )
        for table in TABLES:
            query = getattr(self._options, table)
            untimed = _ask_for_untimed(table, query) if query and table != "machines" else None
            for plant, value in plants if query else ():
                findings = (*unnamed, *(self._find_untimed(table, plant, value, untimed) if untimed else ()))
                # Machines have no time: they are one delivery, in the first batch.
                for batch in batches if table != "machines" else batches[:1]:
                    yield Delivery(table, plant, batch, partial(self._read, query, value, batch), findings)

    def _plants(self) -> tuple[list[tuple[str, Any]], tuple[Finding, ...]]:
        """Return the plants' names, each with the database's own value of it, to which ``:plant`` is bound.

        Several values may have one name, as 7 and '7' do; rows whose plant is null are a finding.
        """
        values = self._options.plants
        if isinstance(values, str):
            with self._execute(values, {}) as result:
                values = list(result.scalars())
        named = {(_write_value(_simplify(value)).strip(), repr(value)): value for value in values if value is not None}
        what = "the query plants gives null: rows without a plant are in no batch; name their plant in the database"
        unnamed = (report("unnamed_rows", "telemetry", what),) if None in values else ()
        return [(name, value) for (name, _), value in sorted(named.items())], unnamed

    def _find_untimed(self, table: Table, plant: str, value: Any, query: str) -> tuple[Finding, ...]:
        """Return a finding about rows in no batch since their time is none, if the query finds any."""
        with self._execute(query, {"plant": value, "since": EARLIEST.date(), "until": LATEST.date()}) as result:
            count = len(result.fetchmany(UNTIMED_COUNTED))
        more = " or more" if count == UNTIMED_COUNTED else ""
        none = f"no time, or none from {EARLIEST.year} to {LATEST.year} as the database compares it"
        what = f"{plant}: {count}{more} rows have {none}, so they are in no batch; give them one in the database"
        return (report("untimed_rows", table, what),) if count else ()

    def _read(self, query: str, plant: Any, batch: date) -> pl.DataFrame:
        """Return a query's rows, sorted, since a database returns them in any order."""
        values = {"plant": plant, "since": batch, "until": batch + timedelta(days=self._batch_days)}
        with self._execute(query, values) as result:
            names = [spare_reserved(name) for name in result.keys()]  # noqa: SIM118  # no dict
            bounds.check_columns(len(names), self.limits)
            rows = as_frame(fetch_rows(result, self.limits), names).sort(names)
            return bounds.bound_values(rows, self.limits)

    @contextmanager
    def _execute(self, query: str, values: Mapping[str, Any]) -> Iterator[CursorResult[Any]]:
        # A time is bound as a date: every database compares that with its times, SQLite with those it keeps as text.
        # Text is bound without its type, which PostgreSQL then finds out: it may be that of a uuid or an enum.
        bound = (
            bindparam(name, values[name], type_=NullType() if isinstance(values[name], str) else None)
            for name in _bound(query) & set(values)
        )
        remedy = "check fetch.options.url in params.yaml, and the password's variable"
        try:
            with self._engine.connect() as connection:
                remedy = "correct the query in fetch.options; its :plant has the type that fetch.options.plants gives"
                accept_any_value(connection)
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SET TIME ZONE 'UTC'"))  # else times without a zone are in the server's
                    connection.execute(text("SET datestyle TO 'ISO'"))
                streamed = connection.execution_options(stream_results=True, max_row_buffer=FETCHED_ROWS)
                yield streamed.execute(text(query).bindparams(*bound))
        except (SQLAlchemyError, pl.exceptions.PolarsError) as error:
            raise unreadable(error, self._options.url, self._engine, remedy) from None


def _ask_for_untimed(table: Table, query: str) -> str | None:
    """Return the query for rows whose time is null or out of all bounds, such as a text or a number in SQLite.

    Returns None if the query's bounds are written in another way.
    """
    if not _bound(WITHIN_BATCH.sub("", query)) & {"since", "until"}:
        return WITHIN_BATCH.sub(r"\1(\2 IS NULL OR \2 < :since OR \2 >= :until)", query)
    known = "write its bounds as `time >= :since AND time < :until` to have them counted"
    logger.warning("%s: rows whose time is null are in no batch of this query; %s", table, known)
    return None


def fetch_rows(result: Iterable[Sequence[Any]], limits: Limits) -> Iterator[list[Any]]:
    """Yield a query's rows, their values simplified; raises UpkeepError once they are too large."""
    size = 0
    for row in result:
        values = [_simplify(value) for value in row]
        size += bounds.VALUE_BYTES * len(values) + sum(len(value) for value in values if isinstance(value, str | bytes))
        bounds.check_size(size, limits)
        yield values


def unreadable(
    error: Exception, template: str, engine: Engine, remedy: str, what: str = "the database cannot be read"
) -> UpkeepError:
    """Return a database driver's error as an UpkeepError, without the secrets of its address `template`."""
    message = hide_variables(str(getattr(error, "orig", None) or error), template)
    message = mask_values(message, engine.url.password).strip()
    return UpkeepError(f"{what}: {message}", remedy=remedy)


def open_engine(template: str, setting: str) -> Engine:
    """Return the engine of the database that a setting of ``params.yaml`` names, not connected yet.

    Raises UpkeepError if `template` is no URL, mentions a variable that is not set, or no driver is installed for it.
    """
    try:
        url = make_url(template if "://" in template else expand_variables(template))
        if "@" in (url.host or ""):  # the end of a password, which the driver's errors would show
            raise ValueError(url.host)
        if "://" in template:  # variables are filled in part by part, so that a password may hold any character
            parts = {name: getattr(url, name) for name in ("username", "password", "host", "database", "query")}
            url = url.set(**expand_all({name: value for name, value in parts.items() if value is not None}))
        return create_engine(url)
    except (NoSuchModuleError, ImportError) as error:
        raise UpkeepError(
            f"there is no driver for {url.drivername} databases: {error}",
            expected="a dialect and driver that are installed, such as postgresql+psycopg or sqlite",
            remedy=f"correct {setting}, or add the driver to pyproject.toml",
        ) from error
    except (SQLAlchemyError, ValueError):
        raise UpkeepError(
            f"{setting} is not a database URL",
            expected="dialect+driver://user:${PASSWORD_VARIABLE}@host:port/database",
            remedy=f"correct {setting} in params.yaml; an @ in a password is %40",
        ) from None


def _bound(query: str) -> set[str]:
    return set(BOUND.findall(query))


def accept_any_value(connection: Connection) -> None:
    """Make the driver return values that no Python type holds, such as infinite dates, as text."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver == "pysqlite":
        driver.text_factory = lambda content: content.decode(errors="backslashreplace")
    elif connection.dialect.driver == "psycopg":
        _accept_any_postgresql_value(driver)


def _accept_any_postgresql_value(driver: Any) -> None:
    import psycopg  # imported for PostgreSQL only
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


def as_frame(rows: Iterator[Sequence[Any]], names: Sequence[str]) -> pl.DataFrame:
    """Return the simplified rows of a query as a frame."""
    chunks = iter(lambda: list(islice(rows, ROWS_AS_OBJECTS)), [])
    parts = [[_as_series(*column) for column in zip(names, zip(*chunk, strict=True), strict=True)] for chunk in chunks]
    columns = [_join_parts(column) for column in zip(*parts, strict=True)]
    return pl.DataFrame(columns) if columns else pl.DataFrame(schema=list(names))


def _join_parts(parts: Sequence[pl.Series]) -> pl.Series:
    is_typed_alike = len({part.dtype for part in parts}) == 1
    return pl.concat(parts) if is_typed_alike else _as_series(parts[0].name, chain(*parts))


def _as_series(name: str, values: Iterable[Any]) -> pl.Series:
    values = list(values)
    types = {type(value) for value in values if value is not None}
    if types == {int, float} and all(abs(value) <= 2**53 for value in values if isinstance(value, int)):
        types = {float}
    if len(types) > 1:
        values = [None if value is None else _write_value(value) for value in values]
    return pl.Series(name, values, dtype=pl.Float64() if types == {float} else None)


def _simplify(value: Any) -> Any:
    """Return a value as one of the types that columns may have, or as text if none of them holds it."""
    match value:
        case Decimal() if value.is_finite() and value == value.to_integral_value() and abs(value) < 2**63:
            return int(value)  # so that machine 7.000 is machine 7
        case Decimal():
            return float(value) if len(value.as_tuple().digits) <= EXACT_DIGITS else str(value)
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


def _write_value(value: Any) -> str:
    """Return a simplified value as text: bytes as PostgreSQL writes them, 7.0 as 7."""
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
