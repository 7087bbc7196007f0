"""Look at a database's tables, and write the queries of the source ``sql`` for what was found."""

from collections.abc import Mapping
from typing import Any

import fsspec
import polars as pl
from ruamel.yaml.comments import CommentedMap
from sqlalchemy import (
    Connection,
    Dialect,
    case,
    column,
    func,
    inspect,
    literal,
    literal_column,
    make_url,
    select,
    table,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import ColumnElement, Select

from upkeep.adopt.columns import Part
from upkeep.adopt.drafting import annotate
from upkeep.adopt.sniffing import Layout
from upkeep.adopt.tables import Tables
from upkeep.contract.dictionary import TABLES
from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import VARIABLE
from upkeep.sources.sql import open_engine, unreadable
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
        remedy = "check the address, the network, the user's rights and the password's variable"
        raise unreadable(error, url, engine, remedy) from None
    if not (held := [layout for layout in layouts if layout.rows.height]):
        raise UpkeepError("the database has no table with rows", remedy="check its name and the user's rights")
    return held


def sql_options(url: str, tables: Tables, names: Mapping[str, str], since: str) -> CommentedMap:
    """Return ``fetch.options`` of the source ``sql`` for the tables found."""
    dialect: Any = type(open_engine(url, "the address").dialect)
    dialect = dialect(paramstyle="named")  # any other would double each %
    telemetry = tables.telemetry[0]
    values: dict[str, Any] = {"url": url, "since": since, "plants": [telemetry.options.get("plant")]}
    if telemetry.plant:
        plants: Select[Any] = select(column(telemetry.plant)).distinct().select_from(table(telemetry.layout.paths[0]))
        values["plants"] = _write(plants, dialect)
    reasons = dict[str, str]()
    for name in TABLES:
        parts: list[Part] = getattr(tables, name)
        if parts:
            known = {} if name == "events" else names
            values[name] = " UNION ALL ".join(_write(_query(part, known), dialect) for part in parts)
            reasons[name] = "; ".join(f"{ours} {why}" for part in parts for ours, why in part.reasons.items())
    return annotate(values, reasons)


def _read_table(connection: Connection, name: str) -> pl.DataFrame:
    accept_any_value(connection)
    rows = select(text("*")).select_from(table(name))
    count = connection.execute(select(func.count()).select_from(table(name))).scalar_one()
    half = MOST_ROWS // 2
    parts = [rows] if count <= MOST_ROWS else [rows.limit(half), rows.limit(half).offset(count - half)]
    results = [connection.execute(part) for part in parts]
    names = list(results[0].keys())
    return as_frame([chunk for result in results if (chunk := result.all())], names)


def _query(part: Part, names: Mapping[str, str]) -> Select[Any]:
    """Return the query for one plant and batch of a table, or for one plant of a table without times."""
    if {"epoch", "time_format", "pivot"} & set(part.options):
        raise UpkeepError(
            f"the table {part.layout.name} has times as numbers or in a format of its own, or one row per sensor",
            remedy="make a view with a timestamp and a column per sensor, and adopt again",
        )
    constants = {name: part.options[name] for name in ("plant", "machine", "kind", "code") if name in part.options}
    given: dict[str, ColumnElement[Any]] = {ours: column(theirs) for ours, theirs in part.columns.items()}
    if "kinds" in part.options:
        given["kind"] = case(part.options["kinds"], value=given["kind"], else_=given["kind"])
    given |= {name: literal(value) for name, value in constants.items()}
    given |= {names[name]: column(name) for name in part.kept if name in names}
    bounds = [given["plant"] == literal_column(":plant")]
    if "time" in given:
        bounds += [given["time"] >= literal_column(":since"), given["time"] < literal_column(":until")]
    selected = select(*(value.label(ours) for ours, value in given.items()))
    return selected.select_from(table(part.layout.paths[0])).where(*bounds)


def _write(query: Select[Any], dialect: Dialect) -> str:
    return str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).replace(" \n", " ")
