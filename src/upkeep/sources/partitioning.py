"""Rows of files partitioned by plant and batch, and put together again as deliveries."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.contract.dictionary import Table
from upkeep.contract.rules import is_name
from upkeep.sources import Key, Reference
from upkeep.sources.columns import absent

UNKNOWN_PLANT = "unknown"  # of rows whose table names no plant in any file

TIME = "@time"
LEAP = timedelta(days=366)


def partition_rows(table: Table, rows: pl.DataFrame, batch: pl.Expr) -> dict[tuple[Any, ...], pl.DataFrame]:
    """Partition one file's rows by plant and batch; a row without them belongs to those of the row before it."""
    if rows.is_empty():
        return {}
    for name in ("plant",) if table == "machines" else ("plant", "time"):
        if name not in rows.columns:
            raise absent(name, rows.columns, _how_to_name(name, rows.columns))
    plant = cast_column("plant", rows.schema["plant"], "text").value
    told = [cast_column(name, rows.schema[name], "text").value for name in ("machine", "time") if name in rows.columns]
    # A line below the rows, such as "5,167 rows exported", names no plant.
    named = is_name(plant) & pl.any_horizontal(pl.lit(not told), *(value.is_not_null() for value in told))
    keys = {"@plant": pl.when(named).then(plant).forward_fill().backward_fill()}
    if table != "machines":
        time = cast_column("time", rows.schema["time"], "time").value
        keys[TIME] = _without_leaps(time) if table == "telemetry" else time
    dealt = rows.with_columns(**keys).with_columns(batch.forward_fill().backward_fill().alias("@batch"))
    return dealt.drop(TIME, strict=False).partition_by("@plant", "@batch", as_dict=True, include_key=False)


def _without_leaps(time: pl.Expr) -> pl.Expr:
    """Drop the time of a reading that is more than :data:`LEAP` ahead of those around it, as by a clock's error."""
    before, after = time.forward_fill().shift(1), time.backward_fill().shift(-1)
    return pl.when((time - pl.max_horizontal(before, after) <= LEAP).fill_null(True)).then(time)


def _how_to_name(name: str, columns: Sequence[str]) -> str:
    for separator in ";\t|,":
        if separator in columns[0]:
            return f"set separator: {json.dumps(separator)}"
    constant = ", or give plant: or {plant} in the path" if name == "plant" else ""
    return f"name it in columns, as {name}: THEIR_NAME{constant}"


def group_parts(table: Table, references: Iterable[Reference]) -> dict[Key, list[Reference]]:
    """Collect parts of a table's files by plant and batch; one without them belongs to those of the part before it."""
    parts = [(part.plant, part.batch, part) for part in references]
    rows = pl.DataFrame(parts, schema={"plant": pl.String, "batch": pl.Date, "part": pl.Object}, orient="row")
    told = pl.col("plant", "batch").forward_fill().backward_fill()
    grouped: dict[Key, list[Reference]] = {}
    for plant, batch, part in rows.with_columns(told).iter_rows():
        grouped.setdefault(Key(table, plant or UNKNOWN_PLANT, batch), []).append(part)
    return grouped


def group_by_types(
    references: Iterable[Reference], schemas: Mapping[Reference, pl.Schema]
) -> list[tuple[Reference, ...]]:
    """Split parts of files into groups whose columns have the same types, each a delivery of its own."""
    groups: list[tuple[dict[str, pl.DataType], list[Reference]]] = []
    for reference in references:
        typed = {name: dtype for name, dtype in schemas[reference].items() if dtype != pl.Null}
        for types, group in groups:
            if all(types.get(name, dtype) == dtype for name, dtype in typed.items()):
                types.update(typed)
                group.append(reference)
                break
        else:
            groups.append((typed, [reference]))
    return [tuple(group) for _, group in groups]
