"""What a delivery must hold, enforced: every row ends as clean, as a duplicate or in quarantine, with its reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from upkeep.contract.dictionary import DELIVERY, Column
from upkeep.contract.duplicates import KIND, KINDS
from upkeep.contract.fast_readings import reduce_deliveries
from upkeep.contract.findings import Finding, sort_findings
from upkeep.contract.reconcile import Delivered
from upkeep.contract.table_check import KEPT_ROWS, ROWS_IN, TableCheck
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Validate
from upkeep.core.pieces import Recall, make_anew


class Crowding(NamedTuple):
    """The delivery with most of a table's near duplicates, by whose columns and interval they are such."""

    delivery: Delivered
    columns: Mapping[str, Column]
    near_seconds: int


@dataclass(frozen=True)
class Checked:
    """The result of checking the `rows_in` rows delivered of one plant's table, of which `kept` are clean.

    ``clean`` has the dictionary's columns in its order and types, sorted by machine (then time, kind, code): the kept
    rows, or those that :func:`~upkeep.contract.reduction.reduce_rows` makes of them. ``quarantined`` has the columns of
    :data:`upkeep.contract.reconcile.QUARANTINE`, in the order of delivery; ``duplicates`` the number of rows left out
    by kind of :data:`upkeep.contract.duplicates.KINDS`; ``crowding`` where too many of them are near duplicates, None
    if they are not. Of the findings only ``unit_converted`` has changed rows.
    """

    rows_in: int
    kept: int
    clean: pl.DataFrame
    quarantined: pl.DataFrame
    duplicates: dict[str, int]
    findings: list[Finding]
    crowding: Crowding | None = None


def check_table(
    table: str,
    plant: str,
    delivered: Iterable[Delivered],
    columns: Mapping[str, Column],
    strictness: Validate,
    batch_days: int,
    every: int = 0,
    recall: Recall = make_anew,
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
    check = TableCheck(table, plant, columns, 0 if every else strictness.near_duplicate_seconds, batch_days)
    if every:
        good = reduce_deliveries(check, deliveries, every, recall)
    else:
        good = pl.concat([check.no_rows, *(check.judge(item, number) for number, item in enumerate(deliveries))])
    check.finish_rows(good, every)
    rows, quarantined = pl.concat(check.frames["rows"]), pl.concat(check.frames["quarantined"])
    rows = rows.sort("machine", "time") if every else rows
    _require_balance(check, quarantined.height)
    rows_in, near = check.counts[ROWS_IN], check.counts["near"]
    is_crowded = table == "telemetry" and near > strictness.max_near_duplicate_share * rows_in
    return Checked(
        rows_in=rows_in,
        kept=check.counts[KEPT_ROWS],
        clean=rows.drop(DELIVERY),
        quarantined=quarantined,
        duplicates={kind: check.counts[kind] for kind in KINDS},
        findings=sort_findings(check.find(rows, [item.batch for item in deliveries], strictness)),
        crowding=_find_crowding(deliveries, check) if is_crowded else None,
    )


def _require_balance(check: TableCheck, quarantined: int) -> None:
    rows_in, kept = check.counts[ROWS_IN], check.counts[KEPT_ROWS]
    left_out = sum(check.counts[kind] for kind in KINDS)
    if kept + left_out + quarantined != rows_in:
        raise UpkeepError(
            f"{rows_in} rows came in, {kept} clean + {left_out} duplicate + {quarantined} quarantined ones came out",
            remedy="this is a bug in upkeep: please report it with the plant's files in data/raw",
            plant=check.plant,
            table=check.table,
        )


def _find_crowding(deliveries: Sequence[Delivered], check: TableCheck) -> Crowding:
    near = pl.concat(check.frames["differing"]).filter(pl.col(KIND) == "near")
    return Crowding(deliveries[near[DELIVERY].mode().sort()[0]], check.columns, check.near_seconds)


def add_missing_machines(machines: pl.DataFrame, telemetry: pl.DataFrame) -> pl.DataFrame:
    """Return the machines table with a row for each machine of `telemetry`; what is not known of it is null."""
    unknown = telemetry.select("plant", "machine").unique().join(machines, on="machine", how="anti")
    return pl.concat([machines, unknown], how="diagonal").sort("machine")
