"""Writes the newest predictions to a table of any SQLAlchemy database, for the planner's own reports."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from upkeep.core.names import KEYS
from upkeep.core.params import PredictionTable
from upkeep.core.threads import call_within
from upkeep.scoring.prediction_log import STANDS
from upkeep.sources.sql import unreadable

NAME_LENGTH = 255  # some databases need a length for text in a key

REMEDY = "check score.table in params.yaml, the password's variable and that the user may make and change tables"

SECONDS = 120.0
"""For all rows, since another client may lock the table for ever."""


def write_predictions(engine: sa.Engine, settings: PredictionTable, predictions: pl.DataFrame) -> None:
    """Write predictions in one transaction, each in place of the row of its machine and time.

    They have the columns of the prediction log, and ``reasons`` in words; the table's ``alarm`` tells which alarms
    stand. An UpkeepError without credentials is raised if the database cannot be reached or refuses them.
    """
    table = _table(settings.name)
    rows = [_as_row(prediction, table) for prediction in predictions.with_columns(alarm=STANDS).iter_rows(named=True)]
    same = sa.delete(table).where(*(table.c[name] == sa.bindparam(f"same_{name}") for name in KEYS))

    def write() -> None:
        with engine.begin() as connection:
            table.create(connection, checkfirst=True)
            connection.execute(same, [{f"same_{name}": row[name] for name in KEYS} for row in rows])
            connection.execute(sa.insert(table), rows)

    try:
        call_within(SECONDS, write)
    except (SQLAlchemyError, TimeoutError) as error:
        what = f"predictions cannot be written to the table {settings.name}"
        raise unreadable(error, settings.url, engine, REMEDY, what) from None


def _table(full_name: str) -> sa.Table:
    schema, _, name = full_name.rpartition(".")
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("plant", sa.String(NAME_LENGTH), primary_key=True),
        sa.Column("machine", sa.String(NAME_LENGTH), primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("probability", sa.Float(53), nullable=False),
        sa.Column("threshold", sa.Float(53), nullable=False),
        sa.Column("alarm", sa.Boolean, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("warnings", sa.Text, nullable=False),
        sa.Column("maintained_at", sa.DateTime(timezone=True)),
        sa.Column("maintenance_code", sa.String(NAME_LENGTH)),
        sa.Column("model_version", sa.String(NAME_LENGTH), nullable=False),
        schema=schema or None,
    )


def _as_row(prediction: Mapping[str, Any], table: sa.Table) -> dict[str, Any]:
    return {
        **{name: prediction[name] for name in table.columns.keys()},  # noqa: SIM118  # iterating gives the columns
        "reasons": "; ".join(prediction["reasons"]),
        "warnings": "; ".join(warning["message"] for warning in prediction["warnings"]),
    }
