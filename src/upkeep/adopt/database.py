"""Look at a database's tables, and write the queries of the source ``sql`` for what was found."""

from collections.abc import Mapping
from typing import Any

import fsspec
import polars as pl
from ruamel.yaml.comments import CommentedMap
from sqlalchemy import Connection, Engine, func, inspect, make_url, quoted_name, select, table, text
from sqlalchemy.exc import SQLAlchemyError

from upkeep.adopt.drafting import annotate
from upkeep.adopt.sniffing import Layout
from upkeep.adopt.tables import Part, Tables
from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import VARIABLE, hide_variables, mask_values
from upkeep.sources.sql import open_engine
from upkeep.sources.sql_values import accept_any_value, as_frame

MOST_ROWS = 200_000
"""Read of one table: half of them its first, half its last in the order that the database gives."""


def is_database(place: str) -> bool:
    """Tell whether an address is SQLAlchemy's rather than fsspec's."""
    return "://" in place and place.split("://")[0].split("+")[0] not in {*fsspec.available_protocols()}


def look_at_database(url: str) -> list[Layout]:
    """Return the tables and views of a database that hold rows.

    Raises UpkeepError if it cannot be reached, holds none, or its address tells the password.
    """
    engine = open_engine(url, "the address")
    if (password := make_url(url).password) and not VARIABLE.fullmatch(password):
        raise UpkeepError(
            "the address holds a password, which would come to stand in params.yaml",
            expected="the name of a variable in its place, such as postgresql+psycopg://user:${PASSWORD}@host/database",
            remedy="export the password as a variable, and put the address in single quotes",
        )
    try:
        known = inspect(engine)
        names = sorted([*known.get_table_names(), *known.get_view_names()])
        with engine.connect() as connection:
            layouts = [Layout([name], _read_table(connection, name)) for name in names]
    except SQLAlchemyError as error:
        message = mask_values(hide_variables(str(getattr(error, "orig", None) or error), url), engine.url.password)
        raise UpkeepError(
            f"the database cannot be read: {message.strip().splitlines()[0]}",
            remedy="check the address, the network, the user's rights and the password's variable",
        ) from None
    if not (held := [layout for layout in layouts if layout.rows.height]):
        raise UpkeepError("the database has no table with rows", remedy="check its name and the user's rights")
    return held


def sql_options(url: str, tables: Tables, names: Mapping[str, str], since: str) -> CommentedMap:
    """Return ``fetch.options`` of the source ``sql`` for the tables found."""
    engine = open_engine(url, "the address")
    telemetry = tables.telemetry[0]
    plant = telemetry.roles.plant
    values: dict[str, Any] = {"url": url, "since": since, "plants": [telemetry.options.get("plant")]}
    if plant:
        values["plants"] = f"SELECT DISTINCT {_quote(engine, plant)} FROM {_quote(engine, telemetry.layout.paths[0])}"  # noqa: S608  # quoted names
    values["telemetry"] = _query(engine, telemetry, names)
    if tables.events:
        values["events"] = " UNION ALL ".join(_query(engine, part, {}) for part in tables.events)
    if tables.machines:
        values["machines"] = _query(engine, tables.machines[0], names)
    found = {
        name: "; ".join(_reasons(part))
        for name in ("telemetry", "events", "machines")
        for part in getattr(tables, name)
    }
    return annotate(values, found)


def _read_table(connection: Connection, name: str) -> pl.DataFrame:
    accept_any_value(connection)
    rows = select(text("*")).select_from(table(name))
    count = connection.execute(select(func.count()).select_from(table(name))).scalar_one()
    half = MOST_ROWS // 2
    parts = [rows] if count <= MOST_ROWS else [rows.limit(half), rows.limit(half).offset(count - half)]
    results = [connection.execute(part) for part in parts]
    names = list(results[0].keys())
    return as_frame([chunk for result in results if (chunk := result.all())], names)


def _query(engine: Engine, part: Part, names: Mapping[str, str]) -> str:
    """Return the query for one plant and batch of a table, or for one plant of a table without times."""
    roles = part.roles
    if {"epoch", "time_format", "pivot"} & set(part.options):
        raise UpkeepError(
            f"the table {part.layout.name} has times as numbers or in a format of its own, or one row per sensor",
            remedy="make a view with a timestamp and a column per sensor, and adopt again",
        )
    given = {ours: _quote(engine, theirs) for ours, theirs in part.columns.items()}
    if "kinds" in part.options:
        cases = " ".join(
            f"WHEN {_literal(value)} THEN {_literal(kind)}" for value, kind in part.options["kinds"].items()
        )
        given["kind"] = f"CASE {given['kind']} {cases} ELSE {given['kind']} END"
    given |= {
        name: _literal(part.options[name]) for name in ("plant", "machine", "kind", "code") if name in part.options
    }
    given |= {names[name]: _quote(engine, name) for name in part.kept if name in names}
    columns = ", ".join(f"{value} AS {_quote(engine, ours)}" for ours, value in given.items())
    where = f"{_quote(engine, roles.plant)} = :plant" if roles.plant else f":plant = {given['plant']}"
    if "time" in given:
        where += f" AND {given['time']} >= :since AND {given['time']} < :until"
    return f"SELECT {columns} FROM {_quote(engine, part.layout.paths[0])} WHERE {where}"  # noqa: S608  # quoted too


def _reasons(part: Part) -> list[str]:
    return [f"{name} {reason}" for name, reason in part.reasons.items()]


def _quote(engine: Engine, name: str) -> str:
    return str(engine.dialect.identifier_preparer.quote(quoted_name(name, quote=None)))


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
