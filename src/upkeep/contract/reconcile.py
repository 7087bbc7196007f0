"""Deliveries brought to the dictionary's columns and types; rows that do not fit are set aside, columns reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import nan

import polars as pl

from upkeep.contract.casting import Cast, as_text, cast_column, cast_local, cast_truths, printable
from upkeep.contract.dictionary import (
    BATCH,
    BROKEN_LINE,
    COLUMN,
    DECIMAL,
    DTYPES,
    OPTIONAL,
    REASON,
    RESERVED,
    ROW,
    Column,
)
from upkeep.contract.findings import Finding, add_suggestion, report_runs
from upkeep.contract.rules import Rule
from upkeep.core.names import MAX_NAME, shorten
from upkeep.core.text import nearest_name

MANY = 10_000
"""From this many rows on, a column is judged by few of its values before all are: see :func:`_holds_for_none`."""

EMPTY_LINE = "empty line"  # the reason of lines without any value, which many files end with

ARTICLES = {"number": "a number", "time": "a time", "text": "text"}

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
"""Columns of the rows that break the dictionary: each row as it was delivered, with its place and reason."""


@dataclass(frozen=True)
class Delivered:
    """One delivery of a batch, which is named by its first day; `delivery` counts from 1.

    `scan` reads its rows anew each time, so that no more than one delivery need be in memory. `origin` identifies their
    content without reading them; it is needed only where results are kept.
    """

    batch: date
    delivery: int
    scan: Callable[[], pl.LazyFrame]
    origin: object = None


def reconcile(
    rows: pl.DataFrame, columns: Mapping[str, Column], plant: str, *further: pl.Expr
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Bring one delivery's rows to the dictionary's columns and types, and add `further` columns.

    Returns the rows without a fault, and those set aside: a value cannot be cast, a required column is missing, or a
    line does not hold a row.
    """
    missing = [name for name in columns if name not in rows.columns]
    # The delivery is filed under its plant; a column that only repeats it is not worth losing the batch for.
    if missing:
        rows = rows.with_columns(pl.lit(plant if name == "plant" else None).alias(name) for name in missing)
    casts = {name: cast_column(name, rows.schema[name], column.type) for name, column in columns.items()}
    for name, column in columns.items():
        is_typed = rows.schema[name] == column.dtype
        if is_typed and _holds_for_none(rows, name, casts[name].value.ne_missing(pl.col(name))):
            casts[name] = Cast(pl.col(name))  # nothing to trim, no NaN, no garbage: the values need not be copied
        if column.type == "number" and rows.schema[name] == pl.String:
            if DECIMAL in rows.columns:
                casts[name] = cast_local(name, casts[name])
            if (rows[name].str.strip_chars().max() or "") >= "F":  # type: ignore[operator]  # digits precede letters
                casts[name] = cast_truths(name, casts[name])
    rules = []
    if BROKEN_LINE in rows.columns:
        line = pl.col(BROKEN_LINE)
        rules = [
            Rule(EMPTY_LINE, BROKEN_LINE, line.str.contains(r"^[\s,;|]*$")),
            Rule("broken line", BROKEN_LINE, line.is_not_null()),
        ]
    lacking = [name for name in missing if columns[name].required and name != "plant"]
    rules += [Rule(f"missing column {name}", name, pl.lit(True)) for name in lacking]
    rules += [Rule(f"not {ARTICLES[columns[name].type]}", name, cast.failed) for name, cast in casts.items()]
    values = (cast.value.alias(name) for name, cast in casts.items())
    return _set_aside(rows.select(*values, *further, _breaks_any(rules)), rows, rules)


def set_aside(rows: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Return the rows that break no rule, and those that do, if any, with ``@reason`` and ``@column``."""
    for name in {rule.column for rule in rules}:
        if _holds_for_none(rows, name, _breaks_any([rule for rule in rules if rule.column == name])):
            rules = [rule for rule in rules if rule.column != name]
    if not rules:
        return rows, []
    return _set_aside(rows.with_columns(_breaks_any(rules)), rows, rules)


def _holds_for_none(rows: pl.DataFrame, column: str, holds: pl.Expr) -> bool:
    """Tell whether a condition holds for no row of a large delivery, by few values; False where it is not large.

    A text is one of the distinct ones, which a large delivery repeats very often. A number or time lies between the
    least and the greatest, and conditions on them hold outside of an interval, for NaN or where it is null.
    """
    dtype, value = rows.schema[column], pl.col(column)
    if rows.height < MANY or dtype not in DTYPES.values():
        return False
    if dtype == DTYPES["text"]:
        few = value.unique()
    else:
        few = value.min().append(value.max())
        odd = [None] * rows[column].has_nulls() + [nan] * (dtype.is_float() and rows[column].is_nan().any())
        few = few.append(pl.lit(pl.Series(odd, dtype=dtype)))
    found = rows.select(few)
    if BATCH in rows.columns:
        found = found.with_columns(pl.lit(rows[BATCH].first(), pl.Date).alias(BATCH))  # a delivery is of one batch
    return not found.select(holds.any()).item()


def _breaks_any(rules: Sequence[Rule]) -> pl.Expr:
    return pl.any_horizontal(pl.lit(False), *(rule.broken for rule in rules)).fill_null(False).alias(REASON)


def _set_aside(
    rows: pl.DataFrame, judged: pl.DataFrame, rules: Sequence[Rule]
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Set rows aside for the first rule that they break; `judged` are the same rows with the columns of the rules."""
    broken = rows.drop_in_place(REASON)
    if not broken.any():
        return rows, []
    nothing = pl.lit(None, pl.String)
    reasons = (pl.when(rule.broken).then(pl.lit(rule.reason)) for rule in rules)
    names = (pl.when(rule.broken).then(pl.lit(rule.column)) for rule in rules)
    first = [pl.coalesce(*reasons, nothing).alias(REASON), pl.coalesce(*names, nothing).alias(COLUMN)]
    found = judged.filter(broken).with_columns(first).select(REASON, COLUMN)
    return rows.filter(~broken), [rows.filter(broken).hstack(found)]


def describe_quarantined(table: str, item: Delivered, delivered: pl.DataFrame, bad: pl.DataFrame) -> pl.DataFrame:
    """Return one delivery's bad rows with the columns of :data:`QUARANTINE`.

    `delivered` holds all its rows as they came, to which the ``@row`` of the `bad` ones is the index.
    """
    schema, name = delivered.schema, pl.col("machine")
    judged = [*(name for name in bad.columns if not name.startswith(RESERVED)), BROKEN_LINE]
    values = (pl.when(pl.col(COLUMN) == name).then(as_text(name, schema[name])) for name in judged if name in schema)
    whole = pl.struct(printable(name, dtype) for name, dtype in schema.items() if name != DECIMAL)
    as_delivered = delivered[bad[ROW]].with_columns(bad[COLUMN])
    return bad.select(
        table=pl.lit(table),
        batch=pl.lit(item.batch.isoformat()),
        delivery=pl.lit(item.delivery, pl.Int64),
        machine=pl.when(name.str.len_chars() > MAX_NAME).then(name.str.head(MAX_NAME - 1) + "…").otherwise(name),
        time=pl.col("time") if "time" in bad.columns else pl.lit(None, QUARANTINE["time"]),  # machines have none
        reason=REASON,
        column=COLUMN,
    ).hstack(as_delivered.select(value=pl.coalesce(*values, pl.lit(None, pl.String)), row=whole.struct.json_encode()))


def compare_schemas(
    table: str, batches: Sequence[date], delivered: Sequence[set[str]], columns: Mapping[str, Column]
) -> list[Finding]:
    """Report columns that the dictionary does not know, and columns of the dictionary that were not delivered.

    `batches` and `delivered` hold each delivery's batch and the names of its columns.
    """
    findings: list[Finding] = []
    extra = sorted(name for name in set().union(*delivered) - set(columns) if not name.startswith(RESERVED))
    for name in extra:
        having = [number for number, names in enumerate(delivered) if name in names]
        detail = "not in the dictionary, left out;"
        findings += report_runs("extra_column", table, shorten(name), having, batches, detail)
    for name in columns:
        lacking = [number for number, names in enumerate(delivered) if name not in names]
        if len(lacking) == len(delivered) and name in OPTIONAL.get(table, {}):
            continue  # nobody says what visits found
        detail = add_suggestion("not delivered", nearest_name(name, extra) if lacking else None)
        findings += report_runs("missing_column", table, name, lacking, batches, detail)
    return findings
