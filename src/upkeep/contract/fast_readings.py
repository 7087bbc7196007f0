"""Deliveries of readings that come faster than rows, reduced one by one; what one came to is kept for the next run."""

from collections.abc import Sequence
from functools import partial

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.contract.reconcile import Delivered
from upkeep.contract.reduction import end_of_cell
from upkeep.contract.table_check import TableCheck
from upkeep.core.pieces import Frames, Recall


def reduce_deliveries(check: TableCheck, deliveries: Sequence[Delivered], every: int, recall: Recall) -> pl.DataFrame:
    """Judge deliveries and reduce those of their rows whose cell of `every` microseconds is complete.

    Rows of a cell that goes on in a later delivery wait for it. Returns those that wait in the end.
    """
    waiting = check.no_rows
    cells = _find_open_cells(deliveries, every, recall)
    for number, (item, open_cells) in enumerate(zip(deliveries, cells, strict=True)):
        made_from = [item.origin, number, check.made_for, every, check.units.seen, open_cells.to_frame(), waiting]
        found = recall(made_from, partial(_reduce_delivery, check, item, number, waiting, open_cells, every))
        check.add_part(number, found)
        waiting = found["waiting"]
    return waiting


def _reduce_delivery(
    check: TableCheck, item: Delivered, number: int, waiting: pl.DataFrame, open_cells: pl.Series, every: int
) -> Frames:
    part = check.begin_part()
    rows = pl.concat([waiting, part.judge(item, number)])
    waits = rows.select(waits=end_of_cell(pl.col("time"), every).is_in(open_cells.implode()))["waits"]
    waiting, rows = rows.filter(waits), rows.filter(~waits)  # of most rows there need not be two copies
    part.finish_rows(rows, every)
    return {**part.pack(number), "waiting": waiting}


def _find_open_cells(deliveries: Sequence[Delivered], every: int, recall: Recall) -> list[pl.Series]:
    """Return for each delivery the ends of the cells that have readings in it or an earlier one, and in a later one.

    The newest cell of each counts as one, whether or not a later delivery has come yet: so what a delivery comes to
    stays what it is when the next one completes the hour between them.
    """
    touched = [pl.DataFrame(schema={"end": pl.Int64, "number": pl.Int32})]
    for number, item in enumerate(deliveries):
        ends = recall(["cells", item.origin, every], partial(_list_cells, item, every))["ends"]
        touched.append(ends.with_columns(number=pl.lit(number, pl.Int32)))
        touched.append(ends.max().drop_nulls().with_columns(number=pl.lit(number + 1, pl.Int32)))
    cells = pl.concat(touched).group_by("end").agg(first=pl.col("number").min(), last=pl.col("number").max())
    return [
        cells.filter(pl.col("first") <= number, pl.col("last") > number)["end"].sort()
        for number in range(len(deliveries))
    ]


def _list_cells(item: Delivered, every: int) -> Frames:
    rows = item.scan()
    if "time" not in (schema := rows.collect_schema()):
        return {"ends": pl.DataFrame(schema={"end": pl.Int64})}
    end = end_of_cell(cast_column("time", schema["time"], "time").value, every)
    return {"ends": rows.select(end=end.unique()).collect()}
