"""What a delivery must hold, enforced: every row ends as clean, as a duplicate or in quarantine, with its reason."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from upkeep.contract.dictionary import COLUMN, DTYPES, REASON, Column, Table
from upkeep.contract.duplicates import (
    KIND,
    KINDS,
    drop_duplicates,
    explain_crowding,
    find_differing,
    identifying,
)
from upkeep.contract.findings import Finding, find_late_rows, find_outages, find_stuck_sensors, sort_findings
from upkeep.contract.quarantine import describe_quarantined
from upkeep.contract.reconcile import (
    EMPTY_LINE,
    Delivered,
    Fault,
    compare_schemas,
    first_fault,
    group_by_schema,
    per_delivery,
    reconcile,
    restore_units,
)
from upkeep.contract.rules import list_rules
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Validate
from upkeep.core.plants import table_file
from upkeep.core.text import MEND, command_to_read_again

CLOCK_SLACK = timedelta(days=1)
"""How far past the end of its batch a row's time may lie: clocks run ahead, or are set to local time."""

FIRST = {"null key": 0, "name too long": 1, "unprintable name": 1, "other plant": 2}
"""Which reasons a row of several faults is set aside for; of the others it is the first column's."""


@dataclass(frozen=True)
class Checked:
    """What became of the `rows_in` rows delivered of one table of one plant.

    ``clean`` has the dictionary's columns in its order and types, sorted by machine (then time, kind, code);
    ``quarantined`` those of :data:`upkeep.contract.quarantine.QUARANTINE`, in the order of delivery; ``duplicates`` how
    many rows were left out, per kind of :data:`upkeep.contract.duplicates.KINDS`; ``crowding`` why too many of them are
    near duplicates, if they are, and what to do. The findings changed no row but for ``unit_converted``.
    """

    rows_in: int
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


def check_table(
    table: str,
    plant: str,
    delivered: Iterable[Delivered],
    columns: Mapping[str, Column],
    strictness: Validate,
    batch_days: int,
) -> Checked:
    """Enforce the dictionary on everything that a plant delivered of one table.

    A row is judged by its own batch and earlier ones, so that later batches never change it. The one exception is the
    machines table: of several rows for a machine the newest is kept, of several readings the first.

    Raises UpkeepError if rows in are not clean + duplicates + quarantined, which would be a bug.
    """
    deliveries = sorted(delivered, key=lambda item: (item.batch, item.delivery))
    batches = [item.batch for item in deliveries]
    groups = group_by_schema(deliveries)
    rows, converted = restore_units(table, reconcile(groups, columns, plant), batches, columns)
    rows = _mark_faults(rows, _list_faults(columns, plant, batches, batch_days))
    good = rows.filter(pl.col(REASON).is_null())
    kept, left_out = drop_duplicates(table, good, groups, batches, columns, strictness.near_duplicate_seconds)
    kept = kept.sort(identifying(columns), maintain_order=True)
    duplicates = {kind: left_out.filter(pl.col(KIND) == kind).height for kind in KINDS}
    rows_in = sum(item.rows.height for item in deliveries)
    is_crowded = table == "telemetry" and duplicates["near"] > strictness.max_near_duplicate_share * rows_in
    findings = [*converted, *compare_schemas(table, deliveries, columns)]
    findings += find_differing(table, plant, left_out, columns)
    findings += _look_at_rows(table, kept, deliveries, columns, strictness)
    checked = Checked(
        rows_in=rows_in,
        clean=kept.select(*columns),
        quarantined=describe_quarantined(table, rows, groups, deliveries),
        duplicates=duplicates,
        findings=sort_findings(findings),
        crowding=explain_crowding(good, groups, columns, strictness.near_duplicate_seconds) if is_crowded else None,
    )
    _check_balance(table, plant, checked)
    return checked


def _mark_faults(rows: pl.DataFrame, faults: Sequence[Fault]) -> pl.DataFrame:
    reason, column = first_fault(faults)
    return rows.with_columns(pl.coalesce(REASON, reason).alias(REASON), pl.coalesce(COLUMN, column).alias(COLUMN))


def _list_faults(columns: Mapping[str, Column], plant: str, batches: Sequence[date], batch_days: int) -> list[Fault]:
    rules = [(name, rule) for name, column in columns.items() for rule in list_rules(name, column)]
    faults = [Fault(rule.reason, name, rule.broken) for name, rule in rules]
    faults.append(Fault("other plant", "plant", pl.col("plant") != plant))
    faults.sort(key=lambda fault: FIRST.get(fault.reason, len(FIRST)))
    if "time" in columns:
        # A clock that is years ahead would stretch the record, and with it the split by time, over years without data.
        latest = _start_of_batch(batches) + timedelta(days=batch_days) + CLOCK_SLACK
        faults.append(Fault("after its batch", "time", pl.col("time") > latest))
    return faults


def _start_of_batch(batches: Sequence[date]) -> pl.Expr:
    """Return the first instant of each row's batch."""
    return per_delivery(batches, pl.Date).cast(DTYPES["time"])


def _look_at_rows(
    table: str, rows: pl.DataFrame, deliveries: Sequence[Delivered], columns: Mapping[str, Column], strictness: Validate
) -> list[Finding]:
    findings: list[Finding] = []
    if "time" in columns:
        findings += find_late_rows(
            table, rows.with_columns(begins=_start_of_batch([item.batch for item in deliveries]))
        )
    if table == "telemetry":
        sensors = [name for name, column in columns.items() if column.role == "sensor"]
        delivered = {
            name: per_delivery([name in item.rows.columns for item in deliveries], pl.Boolean) for name in sensors
        }
        findings += find_outages(rows, delivered, strictness.outage_hours)
        findings += find_stuck_sensors(rows, sensors, strictness.stuck_hours)
    return findings


def _check_balance(table: str, plant: str, checked: Checked) -> None:
    duplicates = sum(checked.duplicates.values())
    found = checked.clean.height + duplicates + checked.quarantined.height
    if found != checked.rows_in:
        raise UpkeepError(
            f"{checked.rows_in} rows came in, {checked.clean.height} clean + {duplicates} duplicate + "
            f"{checked.quarantined.height} quarantined ones came out",
            remedy="this is a bug in upkeep: please report it with the plant's files in data/raw",
            plant=plant,
            table=table,
        )


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
