"""What a delivery must hold, enforced: every row ends as clean, as a duplicate or in quarantine, with its reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from upkeep.contract.casting import as_text, printable
from upkeep.contract.dictionary import Column
from upkeep.contract.findings import Finding, find_late_rows, find_outages, find_stuck_sensors, sort_findings
from upkeep.contract.reconcile import (
    COLUMN,
    DELIVERY,
    REASON,
    ROW,
    Delivered,
    Fault,
    compare_schemas,
    deliveries_without,
    first_fault,
    group_by_schema,
    reconcile,
    restore_units,
)
from upkeep.core.errors import UpkeepError

CLOCK_SLACK = timedelta(days=1)
"""How far past the end of its batch a row's time may lie: clocks run ahead, or are set to local time."""

DUPLICATES = ("exact", "near", "repeated_batch")

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


@dataclass(frozen=True)
class Rules:
    """How strictly the dictionary is enforced; the knobs of the same names in ``params.yaml``."""

    batch_days: int
    near_duplicate_seconds: int
    outage_hours: int
    stuck_hours: int


@dataclass(frozen=True)
class Checked:
    """What became of the rows of one table of one plant.

    Attributes
    ----------
    rows_in
        How many rows were delivered.
    clean
        The dictionary's columns in its order and types, sorted by machine (then time, kind, code).
    quarantined
        Columns as in :data:`QUARANTINE`, in the order of delivery.
    duplicates
        Rows left out, per kind of :data:`DUPLICATES`.
    findings
        What else there is to know; it changed no row but for ``unit_converted``.
    """

    rows_in: int
    clean: pl.DataFrame
    quarantined: pl.DataFrame
    duplicates: dict[str, int]
    findings: list[Finding]


@dataclass(frozen=True)
class Excess:
    """Too large a share of a table in quarantine, and the batch, reason and column that account for most of it."""

    share: float
    batch: str
    reason: str
    column: str
    rows: int


def check_table(
    table: str, plant: str, delivered: Iterable[Delivered], columns: Mapping[str, Column], rules: Rules
) -> Checked:
    """Enforce the dictionary on everything that a plant delivered of one table.

    A row is judged by its own batch and earlier ones, so that later batches never change it. The one exception is the
    machines table: of several rows for a machine the newest is kept, of several readings the first.

    Raises
    ------
    UpkeepError
        If rows in are not clean + duplicates + quarantined, which would be a bug.
    """
    deliveries = sorted(delivered, key=lambda item: (item.batch, item.delivery))
    batches = [item.batch for item in deliveries]
    groups = group_by_schema(deliveries)
    rows, converted = restore_units(table, reconcile(groups, columns, plant), batches, columns)
    rows = _mark_faults(rows, [*_value_faults(columns, plant), *_time_faults(columns, batches, rules.batch_days)])
    good = rows.filter(pl.col(REASON).is_null())
    kept, duplicates = _drop_duplicates(table, good, batches, columns, rules.near_duplicate_seconds)
    kept = kept.sort(_identifying(columns), maintain_order=True)
    findings = [*converted, *compare_schemas(table, deliveries, columns)]
    findings += _look_at_rows(table, kept, deliveries, columns, rules)
    checked = Checked(
        rows_in=sum(item.rows.height for item in deliveries),
        clean=kept.select(*columns),
        quarantined=_describe_quarantined(table, rows, groups, deliveries),
        duplicates=duplicates,
        findings=sort_findings(findings),
    )
    _check_balance(table, plant, checked)
    return checked


def add_missing_machines(machines: pl.DataFrame, telemetry: pl.DataFrame) -> pl.DataFrame:
    """Return the machines table with a row for each machine of `telemetry`; what is not known of it is null."""
    unknown = telemetry.select("plant", "machine").unique().join(machines, on="machine", how="anti")
    return pl.concat([machines, unknown], how="diagonal").sort("machine")


def find_excess(checked: Checked, max_share: float) -> Excess | None:
    """Return what fills the quarantine if it holds more than `max_share` of the rows, else None."""
    rows = checked.quarantined.height
    if not rows or rows <= max_share * checked.rows_in:
        return None
    causes = checked.quarantined.group_by("batch", "reason", "column").len()
    worst = causes.sort("len", "batch", "reason", "column", descending=[True, False, False, False]).row(0, named=True)
    return Excess(rows / checked.rows_in, worst["batch"], worst["reason"], worst["column"], worst["len"])


def _mark_faults(rows: pl.DataFrame, faults: Sequence[Fault]) -> pl.DataFrame:
    first = first_fault(faults)
    return rows.with_columns(
        pl.when(pl.col(REASON).is_null()).then(first[0]).otherwise(REASON).alias(REASON),
        pl.when(pl.col(REASON).is_null()).then(first[1]).otherwise(COLUMN).alias(COLUMN),
    )


def _value_faults(columns: Mapping[str, Column], plant: str) -> list[Fault]:
    faults = [
        Fault("null key", name, pl.col(name).is_null()) for name, column in columns.items() if column.role == "key"
    ]
    faults.append(Fault("other plant", "plant", pl.col("plant") != plant))
    for name, column in columns.items():
        if column.values is not None:
            faults.append(Fault("unknown value", name, ~pl.col(name).is_in(column.values)))
        if column.range is not None:
            low, high = column.range
            faults.append(Fault("out of range", name, ~pl.col(name).is_between(low, high)))
        if column.type == "number":
            faults.append(Fault("not a number", name, pl.col(name).is_infinite()))
    return faults


def _time_faults(columns: Mapping[str, Column], batches: Sequence[date], batch_days: int) -> list[Fault]:
    # A clock that is years ahead would stretch the record, and with it the split by time, over years without data.
    latest = _begins(batches) + timedelta(days=batch_days) + CLOCK_SLACK
    return [Fault("after its batch", "time", pl.col("time") > latest)] if "time" in columns else []


def _begins(batches: Sequence[date]) -> pl.Expr:
    """Return the first instant of each row's batch."""
    return _per_delivery([datetime.combine(batch, time(), UTC) for batch in batches], pl.Datetime("us", "UTC"))


def _drop_duplicates(
    table: str, rows: pl.DataFrame, batches: Sequence[date], columns: Mapping[str, Column], near_seconds: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Keep one row of each reading, event or machine, and count the others by kind."""
    identity: list[pl.Expr] = [pl.col(name) for name in _identifying(columns)]
    if table == "telemetry" and near_seconds:
        identity[1] = pl.col("time").dt.epoch("us") // (near_seconds * 1_000_000)
    ordered = rows.sort(ROW, descending=table == "machines").with_columns(pl.struct(identity).alias("@identity"))
    is_first = pl.col("@identity").is_first_distinct()
    repeated = ordered.filter(pl.col("@identity").is_duplicated()).with_columns(
        _per_delivery(batches, pl.Date).alias("@batch"), (~pl.struct(*columns).is_first_distinct()).alias("@exact")
    )
    first = pl.col(DELIVERY, "@batch").first().over("@identity").name.suffix(" of the first")
    left_out = repeated.with_columns(first).filter(~is_first)
    kind = (
        pl.when(
            pl.col("@batch") == pl.col("@batch of the first"), pl.col(DELIVERY) != pl.col(f"{DELIVERY} of the first")
        )
        .then(pl.lit("repeated_batch"))
        .when("@exact")
        .then(pl.lit("exact"))
        .otherwise(pl.lit("near"))
    )
    counts = dict(left_out.select(kind.value_counts()).unnest("literal").iter_rows())
    return ordered.filter(is_first), {name: counts.get(name, 0) for name in DUPLICATES}


def _identifying(columns: Mapping[str, Column]) -> list[str]:
    """Return the columns that tell one row of a plant's table from another, which also sort it."""
    return [name for name in ("machine", "time", "kind", "code") if name in columns]


def _per_delivery(values: Sequence[object], dtype: type[pl.DataType] | pl.DataType) -> pl.Expr:
    """Return what is known per delivery, for each row."""
    return pl.lit(pl.Series(values, dtype=dtype)).gather(pl.col(DELIVERY))


def _look_at_rows(
    table: str, rows: pl.DataFrame, deliveries: Sequence[Delivered], columns: Mapping[str, Column], rules: Rules
) -> list[Finding]:
    findings: list[Finding] = []
    if "time" in columns:
        findings += find_late_rows(table, rows.with_columns(begins=_begins([item.batch for item in deliveries])))
    if table == "telemetry":
        sensors = [name for name, column in columns.items() if column.role == "sensor"]
        delivered = {name: ~pl.col(DELIVERY).is_in(deliveries_without(name, deliveries)) for name in sensors}
        findings += find_outages(rows, delivered, rules.outage_hours)
        findings += find_stuck_sensors(rows, sensors, rules.stuck_hours)
    return findings


def _describe_quarantined(
    table: str, rows: pl.DataFrame, groups: Sequence[pl.DataFrame], deliveries: Sequence[Delivered]
) -> pl.DataFrame:
    """Return the rows at fault as they were delivered, each with its place and reason."""
    bad = rows.filter(pl.col(REASON).is_not_null())
    as_delivered = [pl.DataFrame(schema={ROW: pl.Int64, "value": pl.String, "row": pl.String})]
    for group in groups:
        known = [name for name in rows.columns if name in group.columns and not name.startswith("@")]
        values = (pl.when(pl.col(COLUMN) == name).then(as_text(name, group.schema[name])) for name in known)
        whole = pl.struct(printable(name, dtype) for name, dtype in group.schema.items() if name not in (ROW, DELIVERY))
        at_fault = group.join(bad.select(ROW, COLUMN), on=ROW)
        value = pl.coalesce(*values, pl.lit(None, pl.String)).alias("value")
        as_delivered.append(at_fault.select(ROW, value, whole.struct.json_encode().alias("row")))
    missing = {
        name: pl.lit(None, QUARANTINE[name]).alias(name) for name in ("machine", "time") if name not in rows.columns
    }
    return (
        bad.join(pl.concat(as_delivered), on=ROW)
        .sort(ROW)
        .with_columns(
            *missing.values(),
            table=pl.lit(table),
            batch=_per_delivery([item.batch.isoformat() for item in deliveries], pl.String),
            delivery=_per_delivery([item.delivery for item in deliveries], pl.Int64),
            reason=REASON,
            column=COLUMN,
        )
        .select(*QUARANTINE)
    )


def _check_balance(table: str, plant: str, checked: Checked) -> None:
    duplicates = sum(checked.duplicates.values())
    found = checked.clean.height + duplicates + checked.quarantined.height
    if found != checked.rows_in:
        raise UpkeepError(
            f"{checked.rows_in} rows came in, {checked.clean.height} clean + {duplicates} duplicate + "
            f"{checked.quarantined.height} quarantined ones came out",
            expected="as many rows out as in",
            remedy="this is a bug in upkeep: please report it with the plant's files in data/raw",
            stage="validate",
            plant=plant,
            table=table,
        )
