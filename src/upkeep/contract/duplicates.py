"""One row of each reading, event or machine is kept; the others are counted, each as the kind of duplicate it is."""

from collections.abc import Iterable, Sequence
from datetime import date

import polars as pl

from upkeep.contract.dictionary import DELIVERY, ROW
from upkeep.contract.reconcile import per_delivery

KINDS = ("exact", "near", "repeated_batch")
"""A copy in every column; another reading within the same interval; a row of a batch that was delivered twice."""


def drop_duplicates(
    table: str, rows: pl.DataFrame, batches: Sequence[date], columns: Iterable[str], near_seconds: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Keep the first delivered of several readings or events, the newest of several rows of a machine.

    `rows` are as :func:`upkeep.contract.reconcile.reconcile` returns them, `batches` holds the batch of each delivery.
    Readings of a machine within the same interval of `near_seconds` are one; 0: those of the same instant only.

    Returns the rows that are kept, and how many are not, per kind of :data:`KINDS`.
    """
    columns = list(columns)
    identity: list[pl.Expr] = [pl.col(name) for name in identifying(columns)]
    if table == "telemetry" and near_seconds:
        identity[1] = pl.col("time").dt.epoch("us") // (near_seconds * 1_000_000)
    ordered = rows.sort(ROW, descending=table == "machines").with_columns(pl.struct(identity).alias("@identity"))
    is_first = pl.col("@identity").is_first_distinct()
    repeated = ordered.filter(pl.col("@identity").is_duplicated()).with_columns(
        per_delivery(batches, pl.Date).alias("@batch"), (~pl.struct(columns).is_first_distinct()).alias("@exact")
    )
    first = pl.col(DELIVERY, "@batch").first().over("@identity").name.suffix(" of the first")
    left_out = repeated.with_columns(first).filter(~is_first)
    again = (pl.col("@batch") == pl.col("@batch of the first")) & (
        pl.col(DELIVERY) != pl.col(f"{DELIVERY} of the first")
    )
    kind = pl.when(again).then(pl.lit("repeated_batch")).when("@exact").then(pl.lit("exact")).otherwise(pl.lit("near"))
    counts = dict(left_out.select(kind.value_counts()).unnest("literal").iter_rows())
    return ordered.filter(is_first), {name: counts.get(name, 0) for name in KINDS}


def identifying(columns: Iterable[str]) -> list[str]:
    """Return the columns that tell one row of a plant's table from another, which also sort it."""
    known = set(columns)
    return [name for name in ("machine", "time", "kind", "code") if name in known]
