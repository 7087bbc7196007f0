"""What a delivery must hold, enforced: every row ends as clean, as a duplicate or in quarantine, with its reason."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.contract.dictionary import BATCH, DELIVERY, DTYPES, ROW, Column, Table
from upkeep.contract.duplicates import (
    KIND,
    KINDS,
    OTHERS,
    drop_duplicates,
    explain_crowding,
    find_differing,
    tell_apart,
)
from upkeep.contract.findings import Finding, find_late_rows, find_outages, find_stuck_sensors, sort_findings
from upkeep.contract.reconcile import (
    EMPTY_LINE,
    QUARANTINE,
    Delivered,
    compare_schemas,
    describe_quarantined,
    reconcile,
    set_aside,
)
from upkeep.contract.reduction import end_of_cell, part_complete, reduce_rows
from upkeep.contract.rules import Rule, list_rules
from upkeep.contract.units import Units
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Validate
from upkeep.core.plants import table_file
from upkeep.core.text import MEND, command_to_read_again

if TYPE_CHECKING:  # the service begins without what keeps results
    from upkeep.core.pieces import Frames, Recall

CLOCK_SLACK = timedelta(days=1)
"""How far past the end of its batch a row's time may lie: clocks run ahead, or are set to local time."""

BEGINS = pl.col(BATCH).cast(DTYPES["time"])  # the first instant of each row's batch

ROWS_IN, KEPT_ROWS = "rows in", "kept"  # beside the kinds of duplicates, what is counted

FIRST = {"null key": 0, "name too long": 1, "unprintable name": 1, "other plant": 2}
"""Which reasons a row of several faults is set aside for; of the others it is the first column's."""


@dataclass(frozen=True)
class Checked:
    """What became of the `rows_in` rows delivered of one table of one plant, of which `kept` are clean.

    ``clean`` has the dictionary's columns in its order and types, sorted by machine (then time, kind, code): the kept
    rows, or what :func:`~upkeep.contract.reduction.reduce_rows` makes of them; ``quarantined`` those of
    :data:`upkeep.contract.reconcile.QUARANTINE`, in the order of delivery; ``duplicates`` how many rows were left out,
    per kind of :data:`upkeep.contract.duplicates.KINDS`; ``crowding`` why too many of them are near duplicates, if they
    are, and what to do. The findings changed no row but for ``unit_converted``.
    """

    rows_in: int
    kept: int
    clean: pl.DataFrame
    quarantined: pl.DataFrame
    duplicates: dict[str, int]
    findings: list[Finding]
    crowding: tuple[str, str] | None = None


class Excess(NamedTuple):
    """A table of which too large a share is not used, the setting that limits it, and which batch alone is at fault."""

    share: float
    what: str
    limit: str
    remedy: str
    where: dict[str, str]
    only_batch: str | None = None


class _Fold:
    """What became of a plant's deliveries of one table so far, of which no more than one is in memory.

    `counts` has the rows in, those kept and those left out by kind; `frames` the parts of four tables.
    """

    def __init__(
        self, table: str, plant: str, columns: Mapping[str, Column], near_seconds: int, batch_days: int
    ) -> None:
        self._made_for = table, plant, columns, near_seconds, batch_days
        self._table, self.plant, self._columns, self.near_seconds, _ = self._made_for
        self._rules = _order_rules(columns, plant, batch_days)
        self.units = Units(columns)
        self.delivered: list[set[str]] = []
        self.counts = Counter[str]()
        self.frames = {"quarantined": [pl.DataFrame(schema=QUARANTINE)], "rows": [], "late": [], "differing": []}
        own = {name: column.dtype for name, column in columns.items()}
        ours = {ROW: pl.Int64, DELIVERY: pl.Int32, BATCH: pl.Date, OTHERS: pl.UInt64}
        self.nothing = pl.DataFrame(schema={**own, **ours})  # what `judge` returns, without rows

    def judge(self, item: Delivered, number: int) -> pl.DataFrame:
        """Return the good rows of the next delivery, which has this number; the others go to quarantine."""
        delivered = item.scan().collect()
        self.delivered.append(set(delivered.columns))
        self.counts[ROWS_IN] += delivered.height
        rows, unread = reconcile(
            delivered,
            self._columns,
            self.plant,
            pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW),
            pl.lit(number, pl.Int32).alias(DELIVERY),
            pl.lit(item.batch).alias(BATCH),
            pl.lit(None, pl.UInt64).alias(OTHERS),
        )
        rows = self.units.restore(rows, number, item.batch)
        rows, broken = set_aside(rows, self._rules)
        if bad := [*unread, *broken]:
            described = describe_quarantined(self._table, item, delivered, pl.concat(bad).sort(ROW))
            self.frames["quarantined"].append(described)
        return tell_apart(self._table, delivered, rows, self._columns, self.near_seconds)

    def settle(self, rows: pl.DataFrame, every: int) -> None:
        """Drop duplicates among good rows that no other ones can be duplicates of, and reduce them."""
        kept, left_out, differing = drop_duplicates(self._table, rows, list(self._columns), self.near_seconds)
        self.counts.update({**left_out, KEPT_ROWS: kept.height})
        self.frames["differing"].append(differing)
        if "time" in self._columns:
            self.frames["late"].append(kept.select("time", begins=BEGINS).filter(pl.col("time") < pl.col("begins")))
        self.frames["rows"].append(
            reduce_rows(kept, self._columns, every) if every else kept.select(*self._columns, DELIVERY)
        )

    def reduce(
        self, item: Delivered, waiting: pl.DataFrame, goes_on: pl.Series, every: int, recall: "Recall"
    ) -> pl.DataFrame:
        """Judge and reduce the next delivery, unless that is kept; return those rows whose cell `goes_on`."""
        number, seen = len(self.delivered), self.units.seen

        def make() -> "Frames":
            part = _Fold(*self._made_for)
            part.units.seen = {name: dict(deliveries) for name, deliveries in seen.items()}
            complete, waits = part_complete(pl.concat([waiting, part.judge(item, number)]), goes_on, every)
            part.settle(complete, every)
            own = {name: deliveries[number] for name, deliveries in part.units.seen.items()}
            told = json.dumps([part.counts, sorted(part.delivered[0]), own])
            frames = {name: pl.concat(parts) for name, parts in part.frames.items()}
            return {**frames, "waiting": waits, "told": pl.DataFrame({"json": [told]})}

        found = recall([item.origin, number, self._made_for, every, seen, goes_on.to_frame(), waiting], make)
        counts, names, units = json.loads(found["told"].item())
        self.counts.update(counts)
        self.delivered.append(set(names))
        for name, in_units in units.items():
            seen[name][number] = in_units
        for name, parts in self.frames.items():
            parts.append(found[name])
        return found["waiting"]

    def find(self, rows: pl.DataFrame, batches: Sequence[date], strictness: Validate) -> list[Finding]:
        """Return what the deliveries, and the clean rows made of them, show; `batches` has each delivery's."""
        table, columns = self._table, self._columns
        findings = [*self.units.report(table, batches), *compare_schemas(table, batches, self.delivered, columns)]
        findings += find_differing(table, self.plant, pl.concat(self.frames["differing"]), columns)
        findings += find_late_rows(table, pl.concat(late)) if (late := self.frames["late"]) else []
        if table == "telemetry":
            sensors = [name for name, column in columns.items() if column.role == "sensor"]
            having = {name: [n for n, names in enumerate(self.delivered) if name in names] for name in sensors}
            could_hold = {name: pl.col(DELIVERY).is_in(numbers) for name, numbers in having.items()}
            findings += find_outages(rows, could_hold, strictness.outage_hours)
            findings += find_stuck_sensors(rows, sensors, strictness.stuck_hours)
        return findings


def check_table(
    table: str,
    plant: str,
    delivered: Iterable[Delivered],
    columns: Mapping[str, Column],
    strictness: Validate,
    batch_days: int,
    every: int = 0,
    recall: "Recall" = lambda _, make: make(),
) -> Checked:
    """Enforce the dictionary on everything that a plant delivered of one table, a delivery at a time.

    A row is judged by its own batch and earlier ones, so that later batches never change it. The exceptions are the
    machines table, of which the newest row for a machine is kept, and what a visit found, of which the newest word
    holds; of several readings the first is kept. Readings are reduced to rows of `every` microseconds, if that is
    given, which later batches may complete; then those of the same instant only are one, and what a delivery came to
    may be kept by `recall`.

    Raises UpkeepError if rows in are not clean + duplicates + quarantined, which would be a bug.
    """
    deliveries = sorted(delivered, key=lambda item: (item.batch, item.delivery))
    fold = _Fold(table, plant, columns, 0 if every else strictness.near_duplicate_seconds, batch_days)
    waiting = fold.nothing
    if every:
        for item, goes_on in zip(deliveries, _find_open_cells(deliveries, every, recall), strict=True):
            waiting = fold.reduce(item, waiting, goes_on, every, recall)
    else:
        waiting = pl.concat([waiting, *(fold.judge(item, number) for number, item in enumerate(deliveries))])
    fold.settle(waiting, every)
    rows, quarantined = pl.concat(fold.frames["rows"]), pl.concat(fold.frames["quarantined"])
    rows = rows.sort("machine", "time") if every else rows
    rows_in, kept, *left_out = (fold.counts[counted] for counted in (ROWS_IN, KEPT_ROWS, *KINDS))
    duplicates = dict(zip(KINDS, left_out, strict=True))
    is_crowded = table == "telemetry" and duplicates["near"] > strictness.max_near_duplicate_share * rows_in
    if kept + sum(left_out) + quarantined.height != rows_in:
        raise UpkeepError(
            f"{rows_in} rows came in, {kept} clean + {sum(left_out)} duplicate + {quarantined.height} quarantined ones "
            "came out",
            remedy="this is a bug in upkeep: please report it with the plant's files in data/raw",
            plant=plant,
            table=table,
        )
    return Checked(
        rows_in=rows_in,
        kept=kept,
        clean=rows.drop(DELIVERY),
        quarantined=quarantined,
        duplicates=duplicates,
        findings=sort_findings(fold.find(rows, [item.batch for item in deliveries], strictness)),
        crowding=_explain_crowding(deliveries, fold, columns) if is_crowded else None,
    )


def _find_open_cells(deliveries: Sequence[Delivered], every: int, recall: "Recall") -> list[pl.Series]:
    """Return by delivery the ends of the cells that it or an earlier one has readings of, and a later one, too.

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


def _list_cells(item: Delivered, every: int) -> "Frames":
    rows = item.scan()
    if "time" not in (schema := rows.collect_schema()):
        return {"ends": pl.DataFrame(schema={"end": pl.Int64})}
    end = end_of_cell(cast_column("time", schema["time"], "time").value, every)
    return {"ends": rows.select(end=end.unique()).collect()}


def _order_rules(columns: Mapping[str, Column], plant: str, batch_days: int) -> list[Rule]:
    rules = [rule for name, column in columns.items() for rule in list_rules(name, column)]
    rules.append(Rule("other plant", "plant", pl.col("plant") != plant))
    rules.sort(key=lambda rule: FIRST.get(rule.reason, len(FIRST)))
    if "time" in columns:
        # A clock that is years ahead would stretch the record, and with it the split by time, over years without data.
        latest = BEGINS + timedelta(days=batch_days) + CLOCK_SLACK
        rules.append(Rule("after its batch", "time", pl.col("time") > latest))
    return rules


def _explain_crowding(deliveries: Sequence[Delivered], fold: _Fold, columns: Mapping[str, Column]) -> tuple[str, str]:
    """Say why so many readings are near duplicates, as the delivery that holds most of them shows it."""
    near = pl.concat(fold.frames["differing"]).filter(pl.col(KIND) == "near")
    delivered = deliveries[near[DELIVERY].mode().sort()[0]].scan().collect()
    rows, _ = reconcile(delivered, columns, fold.plant)
    return explain_crowding(rows, delivered, columns, fold.near_seconds)


def add_missing_machines(machines: pl.DataFrame, telemetry: pl.DataFrame) -> pl.DataFrame:
    """Return the machines table with a row for each machine of `telemetry`; what is not known of it is null."""
    unknown = telemetry.select("plant", "machine").unique().join(machines, on="machine", how="anti")
    return pl.concat([machines, unknown], how="diagonal").sort("machine")


def find_excess(plant: str, checked: Mapping[Table, Checked], params: Validate, quarantine: Path) -> list[Excess]:
    """List a plant's tables of which more is not used than ``validate.max_..._share`` allows, not counting empty lines.

    `quarantine` is the folder in which people find the rows.
    """
    found = []
    for table, part in checked.items():
        bad = part.quarantined.filter(pl.col("reason") != EMPTY_LINE)
        if bad.height > params.max_quarantined_share * part.rows_in:
            causes = bad.group_by("batch", "reason", "column").len()
            worst = causes.sort("len", "batch", "reason", "column", descending=[True, False, False, False])
            batch, reason, column, rows = worst.row(0)
            what = f"of the rows are in quarantine, most of them, {rows}, as '{reason}'"
            where = {"plant": plant, "table": table, "batch": batch, "column": column}
            remedy = f"look at {table_file(quarantine, plant)}; correct the data dictionary or that share, or {MEND}"
            only_batch = batch if bad["batch"].n_unique() == 1 else None
            found.append(Excess(bad.height / part.rows_in, what, "max_quarantined_share", remedy, where, only_batch))
        if part.crowding:
            share, (seen, remedy) = part.duplicates["near"] / part.rows_in, part.crowding
            what = f"of the rows are left out as near duplicates, although they differ: {seen}"
            remedy += "; or raise that share to use the first reading of each interval"
            found.append(Excess(share, what, "max_near_duplicate_share", remedy, {"plant": plant, "table": table}))
    return found


def refuse_excess(
    found: Sequence[Excess], params: Validate, read_again: Callable[..., str] = command_to_read_again
) -> None:
    """Raise an UpkeepError about the worst of the tables that :func:`find_excess` found, if any; count the others.

    `read_again` tells, of a plant and a batch or of all of them, what to type once the source was mended.
    """
    if not found:
        return
    worst = max(found, key=lambda excess: excess.share)
    others = f"; {len(found) - 1} more of the plants' tables hold too much" if len(found) > 1 else ""
    plants = {excess.where["plant"] for excess in found}
    place = (*plants, worst.only_batch if len(found) == 1 else None) if len(plants) == 1 else ()
    raise UpkeepError(
        f"{worst.share:.1%} {worst.what}{others}",
        expected=f"at most {getattr(params, worst.limit):.1%}, validate.{worst.limit} in params.yaml",
        remedy=worst.remedy.replace(MEND, f"{MEND} and type {read_again(*place)}"),
        **worst.where,
    )
