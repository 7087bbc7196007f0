"""Queries on any database that SQLAlchemy reaches, one plant and one batch at a time."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from itertools import product
from typing import Any

import polars as pl
from pydantic import ValidationInfo, field_validator
from sqlalchemy import URL, CursorResult, Engine, bindparam, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import NullType

from upkeep.contract.dictionary import TABLES
from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import expand_all, expand_variables, hide_variables, mask_values
from upkeep.core.types import Frozen
from upkeep.sources import Delivery, read_options
from upkeep.sources.batches import batches_between
from upkeep.sources.sql_values import accept_any_value, as_frame, simplify, write_value

CHUNK_ROWS = 50_000
"""Rows held as Python objects at a time."""

BOUND = re.compile(r"(?<![:\w\\]):(\w+)")


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
    """Rows of three queries; ``:since`` and ``:until`` bound a batch, ``since <= time < until`` in UTC."""

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        self._options = read_options(SqlOptions, options, "sql")
        self._batch_days = batch_days
        self._engine = open_engine(self._options.url, "fetch.options.url")

    def deliveries(self, until: date) -> Iterator[Delivery]:
        """List every batch of every plant from ``since`` on; whether it has rows shows when it is read."""
        batches = batches_between(self._options.since, until, self._batch_days)
        for (plant, value), table in product(self._plants().items(), TABLES):
            if query := getattr(self._options, table):
                # Machines have no time: they are one delivery, in the first batch.
                for batch in batches if table != "machines" else batches[:1]:
                    yield Delivery(table, plant, batch, partial(self._read, query, value, batch))

    def _plants(self) -> dict[str, Any]:
        """Return each plant's name and the value that ``:plant`` is bound to: as the database has it, 7 or a UUID."""
        values = self._options.plants
        if isinstance(values, str):
            with self._execute(values, {}) as result:
                values = [value for value in result.scalars() if value is not None]
        names = {write_value(simplify(value)).strip(): value for value in values}
        return dict(sorted(names.items()))

    def _read(self, query: str, plant: Any, batch: date) -> pl.DataFrame:
        """Return a query's rows, sorted, since those of a database come in no order that lasts."""
        values = {"plant": plant, "since": batch, "until": batch + timedelta(days=self._batch_days)}
        with self._execute(query, values) as result:
            names = list(result.keys())
            return as_frame(result.partitions(CHUNK_ROWS), names).sort(names)

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
                streamed = connection.execution_options(stream_results=True)
                yield streamed.execute(text(query).bindparams(*bound))
        except (SQLAlchemyError, pl.exceptions.PolarsError) as error:
            raise unreadable(error, self._options.url, self._engine, remedy) from None


def unreadable(error: Exception, template: str, engine: Engine, remedy: str) -> UpkeepError:
    """Return what a database's driver raised as our error, without the secrets of its address `template`."""
    message = hide_variables(str(getattr(error, "orig", None) or error), template)
    message = mask_values(message, engine.url.password).strip()
    return UpkeepError(f"the database cannot be read: {message}", remedy=remedy)


def open_engine(template: str, setting: str) -> Engine:
    """Return the database that a setting of ``params.yaml`` names; it is not reached yet.

    Raises UpkeepError if `template` is no URL, mentions a variable that is not set, or no driver is installed for it.
    """
    url = _address(template, setting)
    try:
        return create_engine(url)
    except (SQLAlchemyError, ImportError) as error:
        raise UpkeepError(
            f"there is no driver for {url.drivername} databases: {error}",
            expected="a dialect and driver that are installed, such as postgresql+psycopg or sqlite",
            remedy=f"correct {setting}, or add the driver to pyproject.toml",
        ) from error


def _address(template: str, setting: str) -> URL:
    """Return the database's URL; variables are filled in part by part, so that a password may hold any character."""
    try:
        url = make_url(template if "://" in template else expand_variables(template))
        if "://" not in template:
            return url
        parts = {name: getattr(url, name) for name in ("username", "password", "host", "database", "query")}
        return url.set(**expand_all({name: value for name, value in parts.items() if value is not None}))
    except (SQLAlchemyError, ValueError):
        raise UpkeepError(
            f"{setting} is not a database URL",
            expected="dialect+driver://user:${PASSWORD_VARIABLE}@host:port/database",
            remedy=f"correct {setting} in params.yaml",
        ) from None


def _bound(query: str) -> set[str]:
    return set(BOUND.findall(query))
