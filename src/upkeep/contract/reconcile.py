"""Deliveries of whatever columns and types brought to the dictionary's, with what did not fit marked or reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import polars as pl

from upkeep.contract.casting import Cast, cast_column, cast_local
from upkeep.contract.dictionary import BROKEN_LINE, COLUMN, DECIMAL, OPTIONAL, REASON, RESERVED, Column
from upkeep.contract.findings import Finding, report_runs
from upkeep.core.names import shorten

MANY = 10_000
"""Rows from which on each name is judged once before all rows are: a large delivery repeats few of them very often."""

EMPTY_LINE = "empty line"
"""The reason of lines without any value, which many files end with."""


@dataclass(frozen=True)
class Delivered:
    """Rows as a source delivered them: of which batch (its first day), and which delivery of it (1, 2, ...).

    `scan` reads them, when they are wanted and as often, so that no more than one delivery need be in memory.
    """

    batch: date
    delivery: int
    scan: Callable[[], pl.LazyFrame]


class Fault(NamedTuple):
    """Where a column's values break the dictionary."""

    reason: str
    column: str
    holds: pl.Expr


def reconcile(
    rows: pl.DataFrame, columns: Mapping[str, Column], plant: str, *further: pl.Expr
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Bring one delivery's rows to the dictionary's columns and types, and add `further` columns.

    Returns those without a fault, and those set aside: where a value cannot be cast, a required column is missing, or a
    line is no row.
    """
    missing = [name for name in columns if name not in rows.columns]
    # The delivery is filed under its plant; a column that only repeats it is not worth losing the batch for.
    if missing:
        rows = rows.with_columns(pl.lit(plant if name == "plant" else None).alias(name) for name in missing)
    casts = {name: cast_column(name, rows.schema[name], column.type) for name, column in columns.items()}
    for name in (name for name, column in columns.items() if column.type == "text"):
        if _holds_for_no_name(rows, name, casts[name].value.ne_missing(pl.col(name))):
            casts[name] = Cast(pl.col(name))  # there is nothing to trim
    if DECIMAL in rows.columns:
        texts = [name for name in columns if columns[name].type == "number" and rows.schema[name] == pl.String]
        casts |= {name: cast_local(name, casts[name]) for name in texts}
    faults = []
    if BROKEN_LINE in rows.columns:
        line = pl.col(BROKEN_LINE)
        faults.append(Fault(EMPTY_LINE, BROKEN_LINE, line.str.contains(r"^[\s,;|]*$")))
        faults.append(Fault("broken line", BROKEN_LINE, line.is_not_null()))
    faults += [
        Fault(f"missing column {name}", name, pl.lit(True))
        for name in missing
        if columns[name].required and name != "plant"
    ]
    article = {"number": "a number", "time": "a time", "text": "text"}
    faults += [Fault(f"not {article[columns[name].type]}", name, cast.failed) for name, cast in casts.items()]
    values = (cast.value.alias(name) for name, cast in casts.items())
    cast_rows = rows.select(*values, *further, _is_faulty(faults))
    return _set_aside(cast_rows, rows, faults)


def _holds_for_no_name(rows: pl.DataFrame, column: str, holds: pl.Expr) -> bool:
    """Tell that something holds for none of a column's names, if these are known to be few beside the rows."""
    if rows.height < MANY or rows.schema[column] != pl.String:
        return False
    return not rows.select(pl.col(column).unique()).select(holds.any()).item()


def set_aside(rows: pl.DataFrame, faults: Sequence[Fault]) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Return the rows without a fault, and those set aside, if any, with ``@reason`` and ``@column``."""
    for name in {fault.column for fault in faults}:
        if _holds_for_no_name(rows, name, _is_faulty([fault for fault in faults if fault.column == name])):
            faults = [fault for fault in faults if fault.column != name]
    return _set_aside(rows.with_columns(_is_faulty(faults)), rows, faults)


def _is_faulty(faults: Sequence[Fault]) -> pl.Expr:
    return pl.any_horizontal(pl.lit(False), *(fault.holds for fault in faults)).fill_null(False).alias(REASON)


def _set_aside(
    rows: pl.DataFrame, judged: pl.DataFrame, faults: Sequence[Fault]
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Set rows aside for their first fault; `judged` are the same ones with what the faults are told by."""
    faulty = rows.drop_in_place(REASON)
    if not faulty.any():
        return rows, []
    nothing = pl.lit(None, pl.String)
    reasons = (pl.when(fault.holds).then(pl.lit(fault.reason)) for fault in faults)
    names = (pl.when(fault.holds).then(pl.lit(fault.column)) for fault in faults)
    first = [pl.coalesce(*reasons, nothing).alias(REASON), pl.coalesce(*names, nothing).alias(COLUMN)]
    found = judged.filter(faulty).with_columns(first).select(REASON, COLUMN)
    return rows.filter(~faulty), [rows.filter(faulty).hstack(found)]


def compare_schemas(
    table: str, batches: Sequence[date], delivered: Sequence[set[str]], columns: Mapping[str, Column]
) -> list[Finding]:
    """Report columns that the dictionary does not know, and columns of the dictionary that were not delivered.

    `batches` and `delivered` hold the batch of each delivery and the names of its columns.
    """
    findings: list[Finding] = []
    for name in sorted(name for name in set().union(*delivered) - set(columns) if not name.startswith(RESERVED)):
        having = [number for number, names in enumerate(delivered) if name in names]
        detail = "not in the dictionary, left out;"
        findings += report_runs("extra_column", table, shorten(name), having, batches, detail)
    for name in columns:
        lacking = [number for number, names in enumerate(delivered) if name not in names]
        if len(lacking) == len(delivered) and name in OPTIONAL.get(table, {}):
            continue  # nobody says what visits found
        findings += report_runs("missing_column", table, name, lacking, batches, "not delivered")
    return findings
