"""The quarantine: rows that break the dictionary, as they were delivered, each with its place and reason."""

import polars as pl

from upkeep.contract.casting import as_text, printable
from upkeep.contract.dictionary import BROKEN_LINE, COLUMN, DECIMAL, REASON, RESERVED, ROW
from upkeep.contract.reconcile import Delivered
from upkeep.core.names import MAX_NAME

QUARANTINE: dict[str, pl.DataType] = {
    "table": pl.String(),
    "batch": pl.String(),
    "delivery": pl.Int64(),
    "machine": pl.String(),
    "time": pl.Datetime("us", "UTC"),
    "reason": pl.String(),
    "column": pl.String(),
    "value": pl.String(),
    "row": pl.String(),
}


def describe_quarantined(table: str, item: Delivered, delivered: pl.DataFrame, bad: pl.DataFrame) -> pl.DataFrame:
    """Return one delivery's reconciled rows that have a reason, with the columns of :data:`QUARANTINE`.

    `delivered` holds all its rows as they came; ``@row`` tells which of them the `bad` ones are.
    """
    schema = delivered.schema
    judged = [*(name for name in bad.columns if not name.startswith(RESERVED)), BROKEN_LINE]
    values = (pl.when(pl.col(COLUMN) == name).then(as_text(name, schema[name])) for name in judged if name in schema)
    whole = pl.struct(printable(name, dtype) for name, dtype in schema.items() if name != DECIMAL)
    as_delivered = (
        delivered[bad[ROW]]
        .with_columns(bad[COLUMN])
        .select(value=pl.coalesce(*values, pl.lit(None, pl.String)), row=whole.struct.json_encode())
    )
    name = pl.col("machine")
    described = bad.select(pl.col("^(machine|time)$"), REASON, COLUMN).with_columns(
        table=pl.lit(table),
        batch=pl.lit(item.batch.isoformat()),
        delivery=pl.lit(item.delivery, pl.Int64),
        reason=REASON,
        column=COLUMN,
        machine=pl.when(name.str.len_chars() > MAX_NAME).then(name.str.head(MAX_NAME - 1) + "…").otherwise(name),
    )
    # Machines have no time, so it stays null.
    return pl.concat([pl.DataFrame(schema=QUARANTINE), described.hstack(as_delivered)], how="diagonal").select(
        *QUARANTINE
    )
