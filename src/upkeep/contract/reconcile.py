"""Deliveries of whatever columns and types brought to the dictionary's, with what did not fit marked or reported."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import polars as pl

from upkeep.contract.casting import cast_column, cast_local
from upkeep.contract.dictionary import BROKEN_LINE, COLUMN, DECIMAL, DELIVERY, REASON, RESERVED, ROW, Column
from upkeep.contract.findings import Finding, report_runs
from upkeep.contract.units import convert_column, find_units
from upkeep.core.names import shorten

EMPTY_LINE = "empty line"
"""The reason of lines without any value, which many files end with."""


@dataclass(frozen=True)
class Delivered:
    """Rows as a source delivered them: of which batch (its first day), and which delivery of it (1, 2, ...)."""

    batch: date
    delivery: int
    rows: pl.DataFrame


class Fault(NamedTuple):
    """Where a column's values break the dictionary."""

    reason: str
    column: str
    holds: pl.Expr


def group_by_schema(deliveries: Sequence[Delivered]) -> list[pl.DataFrame]:
    """Concatenate deliveries with the same columns and types, their rows numbered through all deliveries."""
    groups: dict[tuple[tuple[str, pl.DataType], ...], list[pl.DataFrame]] = {}
    first = 0
    for number, item in enumerate(deliveries):
        beyond = first + item.rows.height
        numbered = item.rows.with_columns(
            pl.int_range(first, beyond, dtype=pl.Int64, eager=True).alias(ROW), pl.lit(number, pl.Int32).alias(DELIVERY)
        )
        groups.setdefault(tuple(item.rows.schema.items()), []).append(numbered)
        first = beyond
    return [pl.concat(frames) for frames in groups.values()]


def reconcile(groups: Iterable[pl.DataFrame], columns: Mapping[str, Column], plant: str) -> pl.DataFrame:
    """Bring the groups' rows to the dictionary's columns and types, in the order of delivery.

    A value that cannot be cast, and a required column that is missing, put a reason in ``@reason``.
    """
    own = {name: column.dtype for name, column in columns.items()}
    empty = pl.DataFrame(schema={**own, ROW: pl.Int64, DELIVERY: pl.Int32, REASON: pl.String, COLUMN: pl.String})
    return pl.concat([empty, *(_reconcile_group(group, columns, plant) for group in groups)]).sort(ROW)


def _reconcile_group(group: pl.DataFrame, columns: Mapping[str, Column], plant: str) -> pl.DataFrame:
    missing = [name for name in columns if name not in group.columns]
    # The delivery is filed under its plant; a column that only repeats it is not worth losing the batch for.
    group = group.with_columns(pl.lit(plant if name == "plant" else None).alias(name) for name in missing)
    casts = {name: cast_column(name, group.schema[name], column.type) for name, column in columns.items()}
    if DECIMAL in group.columns:
        texts = [name for name in columns if columns[name].type == "number" and group.schema[name] == pl.String]
        casts |= {name: cast_local(name, casts[name]) for name in texts}
    faults = []
    if BROKEN_LINE in group.columns:
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
    return group.select(*(cast.value.alias(name) for name, cast in casts.items()), ROW, DELIVERY, *first_fault(faults))


def first_fault(faults: Sequence[Fault]) -> list[pl.Expr]:
    """Return each row's first fault as ``@reason`` and ``@column``, null where there is none."""
    nothing = pl.lit(None, pl.String)
    reasons = (pl.when(fault.holds).then(pl.lit(fault.reason)) for fault in faults)
    names = (pl.when(fault.holds).then(pl.lit(fault.column)) for fault in faults)
    return [pl.coalesce(*reasons, nothing).alias(REASON), pl.coalesce(*names, nothing).alias(COLUMN)]


def restore_units(
    table: str, rows: pl.DataFrame, batches: Sequence[date], columns: Mapping[str, Column]
) -> tuple[pl.DataFrame, list[Finding]]:
    """Convert what was delivered in another unit that the dictionary knows, and report it.

    `rows` are as :func:`reconcile` returns them, `batches` holds the batch of each delivery.
    """
    findings: list[Finding] = []
    usable = rows.filter(pl.col(REASON).is_null())
    for name, column in columns.items():
        found = find_units(usable, batches, name, column) if column.also else {}
        if found:
            rows = rows.with_columns(convert_column(name, found, column))
        for unit in sorted(set(found.values())):
            numbers = [number for number, its_unit in found.items() if its_unit == unit]
            detail = f"{unit} instead of {column.unit or 'its own unit'}"
            findings += report_runs("unit_converted", table, name, numbers, batches, detail)
    return rows, findings


def compare_schemas(table: str, deliveries: Sequence[Delivered], columns: Mapping[str, Column]) -> list[Finding]:
    """Report columns that the dictionary does not know, and columns of the dictionary that were not delivered."""
    batches = [item.batch for item in deliveries]
    delivered = [set(item.rows.columns) for item in deliveries]
    findings: list[Finding] = []
    for name in sorted(name for name in set().union(*delivered) - set(columns) if not name.startswith(RESERVED)):
        having = [number for number, names in enumerate(delivered) if name in names]
        detail = "not in the dictionary, left out;"
        findings += report_runs("extra_column", table, shorten(name), having, batches, detail)
    for name in columns:
        lacking = [number for number, names in enumerate(delivered) if name not in names]
        findings += report_runs("missing_column", table, name, lacking, batches, "not delivered")
    return findings


def per_delivery(values: Sequence[object], dtype: type[pl.DataType] | pl.DataType) -> pl.Expr:
    """Return what is known per delivery, for each row."""
    return pl.lit(pl.Series(values, dtype=dtype)).gather(pl.col(DELIVERY))
