"""One plant's table, checked delivery by delivery: what is kept, set aside, left out and found."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date

import polars as pl

from upkeep.contract.dictionary import BATCH, DELIVERY, ROW, Column
from upkeep.contract.duplicates import OTHERS, drop_duplicates, find_differing, hash_other_columns
from upkeep.contract.findings import Finding, find_late_rows, find_outages, find_stuck_sensors
from upkeep.contract.reconcile import (
    QUARANTINE,
    Delivered,
    compare_schemas,
    describe_quarantined,
    reconcile,
    set_aside,
)
from upkeep.contract.reduction import reduce_rows
from upkeep.contract.rules import BATCH_BEGINS, list_table_rules
from upkeep.contract.units import Units
from upkeep.core.params import Validate
from upkeep.core.pieces import Frames

ROWS_IN, KEPT_ROWS = "rows in", "kept"  # counted beside the kinds of duplicates


class TableCheck:
    """What the deliveries so far came to; no more than one of them is in memory.

    `counts` has the rows in, those kept, and those left out by kind of duplicate. `frames` has the parts of four
    tables: rows ``quarantined``, clean ``rows``, and those of them that came ``late``, and rows left out as duplicates
    although they are ``differing``.
    """

    def __init__(
        self, table: str, plant: str, columns: Mapping[str, Column], near_seconds: int, batch_days: int
    ) -> None:
        self.made_for = table, plant, columns, near_seconds, batch_days
        self.table, self.plant, self.columns, self.near_seconds, _ = self.made_for
        self._rules = list_table_rules(table, columns, plant, batch_days)
        self.units = Units(columns)
        self.delivered: list[set[str]] = []  # the names of each delivery's columns
        self.counts = Counter[str]()
        self.frames: dict[str, list[pl.DataFrame]] = {"quarantined": [], "rows": [], "late": [], "differing": []}
        self.frames["quarantined"].append(pl.DataFrame(schema=QUARANTINE))
        own = {name: column.dtype for name, column in columns.items()}
        ours = {ROW: pl.Int64, DELIVERY: pl.Int32, BATCH: pl.Date, OTHERS: pl.UInt64}
        self.no_rows = pl.DataFrame(schema={**own, **ours})  # what `judge` returns where it finds no row good

    def judge(self, item: Delivered, number: int) -> pl.DataFrame:
        """Return the good rows of the next delivery, which has this number; the others go to quarantine."""
        delivered = item.scan().collect()
        self.delivered.append(set(delivered.columns))
        self.counts[ROWS_IN] += delivered.height
        rows, unread = reconcile(
            delivered,
            self.columns,
            self.plant,
            pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW),
            pl.lit(number, pl.Int32).alias(DELIVERY),
            pl.lit(item.batch).alias(BATCH),
            pl.lit(None, pl.UInt64).alias(OTHERS),
        )
        rows = self.units.restore(rows, number, item.batch)
        rows, broken = set_aside(rows, self._rules)
        if bad := [*unread, *broken]:
            described = describe_quarantined(self.table, item, delivered, pl.concat(bad).sort(ROW))
            self.frames["quarantined"].append(described)
        return hash_other_columns(self.table, delivered, rows, self.columns, self.near_seconds)

    def finish_rows(self, rows: pl.DataFrame, every: int) -> None:
        """Drop the duplicates among good rows, which are no others' duplicates, and reduce the rest to `every`."""
        kept, left_out, differing = drop_duplicates(self.table, rows, list(self.columns), self.near_seconds)
        self.counts.update({**left_out, KEPT_ROWS: kept.height})
        self.frames["differing"].append(differing)
        if "time" in self.columns:
            late = kept.select("time", begins=BATCH_BEGINS).filter(pl.col("time") < pl.col("begins"))
            self.frames["late"].append(late)
        clean = reduce_rows(kept, self.columns, every) if every else kept.select(*self.columns, DELIVERY)
        self.frames["rows"].append(clean)

    def begin_part(self) -> "TableCheck":
        """Return a check of the next delivery alone, which knows the units of those so far."""
        part = TableCheck(*self.made_for)
        part.units.seen = {name: dict(deliveries) for name, deliveries in self.units.seen.items()}
        return part

    def pack(self, number: int) -> Frames:
        """Return as tables what the one delivery of this part, which has this number, came to."""
        own_units = {name: deliveries[number] for name, deliveries in self.units.seen.items()}
        told = json.dumps([self.counts, sorted(self.delivered[0]), own_units])
        frames = {name: pl.concat(parts) for name, parts in self.frames.items()}
        return {**frames, "told": pl.DataFrame({"json": [told]})}

    def add_part(self, number: int, packed: Frames) -> None:
        """Add what :meth:`pack` returned of the delivery with this number."""
        counts, names, units = json.loads(packed["told"].item())
        self.counts.update(counts)
        self.delivered.append(set(names))
        for name, in_units in units.items():
            self.units.seen[name][number] = in_units
        for name, parts in self.frames.items():
            parts.append(packed[name])

    def find(self, rows: pl.DataFrame, batches: Sequence[date], strictness: Validate) -> list[Finding]:
        """Return what the deliveries, and the clean rows made of them, show; `batches` has each delivery's."""
        table, columns = self.table, self.columns
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
