"""Duplicates: of each reading, event or machine one row is kept, and the others are counted by kind."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.contract.casting import as_text
from upkeep.contract.dictionary import BATCH, DELIVERY, OPTIONAL, RESERVED, ROW, Column
from upkeep.contract.findings import Finding, report
from upkeep.core.names import shorten
from upkeep.core.text import command_to_read_again

KINDS = ("exact", "near", "repeated_batch")
"""A copy in every column; another reading within the same interval; a row of a batch that was delivered again."""

IDENTIFYING: tuple[str, ...] = ("machine", "time", "kind", "code")
"""Columns that identify a row of a plant's table, and sort it."""

KIND, OTHERS, KEPT = "@kind", "@others", " of the kept"


class Deduplicated(NamedTuple):
    """Rows without duplicates, sorted by their identity, and how many of each kind were left out.

    `differing` are the rows left out that are not copies, with their kind and with the columns of the row kept in their
    place, whose names end in :data:`KEPT`.
    """

    kept: pl.DataFrame
    left_out: dict[str, int]
    differing: pl.DataFrame


def drop_duplicates(table: str, rows: pl.DataFrame, columns: Sequence[str], near_seconds: int) -> Deduplicated:
    """Keep the first delivered of several readings or events, the newest of several rows of a machine.

    A visit's finding is often reported after the visit was delivered, so each of its rows takes the newest finding.
    `rows` have the dictionary's columns, then ``@row``, ``@delivery``, ``@batch`` and ``@others``. Readings of a
    machine within the same interval of `near_seconds` are one; 0: those of the same instant only. Rows of one delivery
    that differ in a column unknown to the dictionary are not copies: they may be of several sensors, in long format.
    """
    identity = _identity(table, columns, near_seconds)
    rows, is_first = _sort(table, rows, identity)
    if updated := [name for name in OPTIONAL.get(table, {}) if name in columns]:
        rows = rows.with_columns(pl.col(updated).drop_nulls().last().over(list(identity)))
    left_out = _list_left_out(rows, is_first, columns, identity)
    counts = {kind: left_out.filter(pl.col(KIND) == kind).height for kind in KINDS}
    has_time, values = "time" in columns, [name for name in columns if name not in identity]
    differs = pl.any_horizontal(pl.lit(False), *(pl.col(name).ne_missing(pl.col(name + KEPT)) for name in values))
    # Two readings in one interval are two even if they are alike, as those of two sensors in long format may be.
    is_near = (pl.col(KIND) == "near") & (differs | has_time)
    is_changed = (pl.col(KIND) == "repeated_batch") & differs & has_time
    return Deduplicated(rows.filter(is_first), counts, left_out.filter(is_near | is_changed))


def _list_left_out(
    rows: pl.DataFrame, is_first: pl.Series, columns: Sequence[str], identity: Mapping[str, pl.Expr]
) -> pl.DataFrame:
    """Return the duplicates with their kind, and with the columns of the row that is kept in their place."""
    repeated = _repeated(rows, is_first).with_columns(pl.struct(identity.values()).alias("@identity"))
    from_another = pl.col(DELIVERY) != pl.col(DELIVERY).first().over(columns)
    exact = from_another | ~pl.struct(*columns, OTHERS).is_first_distinct()
    kept = pl.col(*columns, DELIVERY, BATCH).first().over("@identity").name.suffix(KEPT)
    again = (pl.col(BATCH) == pl.col(BATCH + KEPT)) & (pl.col(DELIVERY) != pl.col(DELIVERY + KEPT))
    kind = pl.when(again).then(pl.lit("repeated_batch")).when("@exact").then(pl.lit("exact")).otherwise(pl.lit("near"))
    return (
        repeated.with_columns(kept, exact.alias("@exact"))
        .filter(~pl.col("@identity").is_first_distinct())
        .with_columns(kind.alias(KIND))
    )


def _identity(table: str, columns: Collection[str], near_seconds: int) -> dict[str, pl.Expr]:
    """Return the expressions whose values identify a row."""
    identity = {name: pl.col(name) for name in IDENTIFYING if name in columns}
    if table == "telemetry" and near_seconds:
        identity["time"] = pl.col("time").dt.epoch("us") // (near_seconds * 1_000_000)
    return identity


def _sort(table: str, rows: pl.DataFrame, identity: Mapping[str, pl.Expr]) -> tuple[pl.DataFrame, pl.Series]:
    """Return rows sorted by identity, the one to keep of each first, and which of them are these."""
    if table == "telemetry":
        # Numbers sort ten times as fast as the machines' names, and nearly all files are in order already.
        names = pl.Enum(rows["machine"].unique().drop_nulls().sort())
        order = rows.select(pl.col("machine").cast(names).to_physical(), identity["time"].to_physical())
        machine, time = (values.to_numpy() for values in order.fill_null(0).get_columns())
        if not ((machine[1:] > machine[:-1]) | ((machine[1:] == machine[:-1]) & (time[1:] >= time[:-1]))).all():
            rows = rows[np.lexsort((time, machine))]
    else:
        rows = (rows.reverse() if table == "machines" else rows).sort(identity.values(), maintain_order=True)
    is_first = pl.any_horizontal(value.ne_missing(value.shift()) for value in identity.values())
    return rows, rows.select(is_first.alias("first"))["first"]


def _repeated(rows: pl.DataFrame, is_first: pl.Series) -> pl.DataFrame:
    return rows.filter(~is_first | ~is_first.shift(-1, fill_value=True))


def hash_other_columns(
    table: str, delivered: pl.DataFrame, rows: pl.DataFrame, columns: Collection[str], near_seconds: int
) -> pl.DataFrame:
    """Set ``@others`` of repeated rows to a hash of their values in columns that the dictionary does not have.

    `rows` are the good rows of `delivered`, to which ``@row`` is the index.
    """
    others = [name for name in delivered.columns if name not in columns and not name.startswith(RESERVED)]
    if not others or "time" not in columns:
        return rows
    repeated = _repeated(*_sort(table, rows, _identity(table, columns, near_seconds)))[ROW]
    values = delivered[repeated].select(as_text(name, delivered.schema[name]) for name in others)
    return rows.update(pl.DataFrame({ROW: repeated, OTHERS: values.hash_rows()}), on=ROW)


def find_differing(table: str, plant: str, differing: pl.DataFrame, columns: Mapping[str, Column]) -> list[Finding]:
    """Report the rows left out that are not copies, so that their values are not used.

    ``near_duplicate``: another reading within the same interval, or an older row of a machine. ``changed_row``: a row
    of a batch that came again with other values.
    """
    has_time = "time" in columns
    differing = differing.sort(DELIVERY, ROW, descending=not has_time)
    near = differing.filter(pl.col(KIND) == "near")
    findings = []
    if near.height:
        first = "the first of each interval counts" if has_time else "the newest row of each counts"
        shown = f"that are no copies, such as that of {_show_first(near, columns)}"
        since, until = near["time"].sort()[[0, -1]] if has_time else (None, None)
        detail = f"{near.height} rows left out {shown}; {first}"
        findings.append(report("near_duplicate", table, detail, since=since, until=until))
    for rows in differing.filter(pl.col(KIND) == "repeated_batch").partition_by(BATCH):
        batch = rows[BATCH][0]
        shown = f"with other values, such as that of {_show_first(rows, columns)}"
        newest = f"to use the newest type {command_to_read_again(plant, batch)}"
        findings.append(report("changed_row", table, f"{rows.height} rows came again {shown}; {newest}", batch=batch))
    return findings


def _show_first(rows: pl.DataFrame, columns: Iterable[str]) -> str:
    row = rows.row(0, named=True)
    differing = (name for name in columns if row[name] != row[name + KEPT])
    pairs = ", ".join(f"{name} {shorten(row[name])} beside {shorten(row[name + KEPT])}" for name in differing)
    when = f" at {row['time']:%Y-%m-%d %H:%M:%S}" if "time" in row else ""
    return f"{row['machine']}{when}: {pairs or 'alike but for columns that the dictionary does not have'}"
