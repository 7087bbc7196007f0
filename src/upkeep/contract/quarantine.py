"""The quarantine: rows that break the dictionary, as they were delivered, each with its place and reason."""

from collections.abc import Sequence

import polars as pl

from upkeep.contract.casting import as_text, printable
from upkeep.contract.dictionary import BROKEN_LINE, COLUMN, DECIMAL, DELIVERY, REASON, RESERVED, ROW
from upkeep.contract.reconcile import Delivered, per_delivery
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


def describe_quarantined(
    table: str, rows: pl.DataFrame, groups: Sequence[pl.DataFrame], deliveries: Sequence[Delivered]
) -> pl.DataFrame:
    """Return those of the reconciled rows that have a reason, with the columns of :data:`QUARANTINE`.

    `groups` hold all rows as they were delivered, see :func:`upkeep.contract.reconcile.group_by_schema`.
    """
    bad = rows.filter(pl.col(REASON).is_not_null())
    as_delivered = [pl.DataFrame(schema={ROW: pl.Int64, "value": pl.String, "row": pl.String})]
    for group in groups:
        judged = [*(name for name in rows.columns if not name.startswith(RESERVED)), BROKEN_LINE]
        known = [name for name in judged if name in group.columns]
        values = (pl.when(pl.col(COLUMN) == name).then(as_text(name, group.schema[name])) for name in known)
        delivered = {name: dtype for name, dtype in group.schema.items() if name not in (ROW, DELIVERY, DECIMAL)}
        whole = pl.struct(printable(name, dtype) for name, dtype in delivered.items())
        at_fault = group.join(bad.select(ROW, COLUMN), on=ROW)
        value = pl.coalesce(*values, pl.lit(None, pl.String)).alias("value")
        as_delivered.append(at_fault.select(ROW, value, whole.struct.json_encode().alias("row")))
    name = pl.col("machine")
    described = (
        bad.select(name for name in (ROW, DELIVERY, REASON, COLUMN, "machine", "time") if name in bad.columns)
        .join(pl.concat(as_delivered), on=ROW)
        .sort(ROW)
        .with_columns(
            table=pl.lit(table),
            batch=per_delivery([item.batch.isoformat() for item in deliveries], pl.String),
            delivery=per_delivery([item.delivery for item in deliveries], pl.Int64),
            reason=REASON,
            column=COLUMN,
            machine=pl.when(name.str.len_chars() > MAX_NAME).then(name.str.head(MAX_NAME - 1) + "…").otherwise(name),
        )
    )
    # Machines have no time, so it stays null.
    return pl.concat([pl.DataFrame(schema=QUARANTINE), described], how="diagonal").select(*QUARANTINE)
