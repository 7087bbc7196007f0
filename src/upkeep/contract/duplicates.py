"""One row of each reading, event or machine is kept; the others are counted, each as the kind of duplicate it is."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import polars as pl

from upkeep.contract.casting import as_text
from upkeep.contract.dictionary import DELIVERY, RESERVED, ROW, Column
from upkeep.contract.findings import Finding, report
from upkeep.contract.reconcile import per_delivery
from upkeep.core.names import shorten
from upkeep.core.text import MEND, command_to_read_again

KINDS = ("exact", "near", "repeated_batch")
"""A copy in every column; another reading within the same interval; a row of a batch that was delivered twice."""

KIND, BATCH, OTHERS, KEPT = "@kind", "@batch", "@others", " of the kept"


def drop_duplicates(
    table: str,
    rows: pl.DataFrame,
    groups: Sequence[pl.DataFrame],
    batches: Sequence[date],
    columns: Iterable[str],
    near_seconds: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Keep the first delivered of several readings or events, the newest of several rows of a machine.

    `rows` are what :func:`upkeep.contract.reconcile.reconcile` makes of `groups`, `batches` holds the batch of each
    delivery. Readings of a machine within the same interval of `near_seconds` are one; 0: those of the same instant
    only. What one delivery tells apart by a column that the dictionary does not have is no copy, such as a row of
    another sensor in long format.

    Returns the rows that are kept, and those that are not: with their kind, one of :data:`KINDS`, their batch, and the
    columns of the row that is kept in their place, whose names end in :data:`KEPT`.
    """
    columns = list(columns)
    identity: list[pl.Expr] = [pl.col(name) for name in identifying(columns)]
    if table == "telemetry" and near_seconds:
        identity[1] = pl.col("time").dt.epoch("us") // (near_seconds * 1_000_000)
    ordered = rows.sort(ROW, descending=table == "machines").with_columns(pl.struct(identity).alias("@identity"))
    is_first = pl.col("@identity").is_first_distinct()
    repeated = ordered.filter(pl.col("@identity").is_duplicated())
    others = _hash_others(groups if "time" in columns else [], repeated, columns)
    repeated = repeated.join(others, on=ROW, how="left", maintain_order="left")
    from_another = pl.col(DELIVERY) != pl.col(DELIVERY).first().over(columns)
    repeated = repeated.with_columns(
        per_delivery(batches, pl.Date).alias(BATCH),
        (from_another | ~pl.struct(*columns, OTHERS).is_first_distinct()).alias("@exact"),
    )
    kept = pl.col(*columns, DELIVERY, BATCH).first().over("@identity").name.suffix(KEPT)
    left_out = repeated.with_columns(kept).filter(~is_first)
    again = (pl.col(BATCH) == pl.col(BATCH + KEPT)) & (pl.col(DELIVERY) != pl.col(DELIVERY + KEPT))
    kind = pl.when(again).then(pl.lit("repeated_batch")).when("@exact").then(pl.lit("exact")).otherwise(pl.lit("near"))
    return ordered.filter(is_first), left_out.with_columns(kind.alias(KIND))


def _hash_others(groups: Iterable[pl.DataFrame], rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return what the rows hold in delivered columns that the dictionary does not have, as a number for each row."""
    hashed = [pl.DataFrame(schema={ROW: pl.Int64, OTHERS: pl.UInt64})]
    for group in groups:
        others = [name for name in group.columns if name not in columns and not name.startswith(RESERVED)]
        if others:
            own = group.join(rows.select(ROW), on=ROW, how="semi")
            values = own.select(as_text(name, group.schema[name]) for name in others)
            hashed.append(own.select(ROW, values.hash_rows().alias(OTHERS)))
    return pl.concat(hashed)


def find_differing(table: str, plant: str, left_out: pl.DataFrame, columns: Mapping[str, Column]) -> list[Finding]:
    """Report those of the rows left out that are no copies: what they said is not used.

    ``near_duplicate``: another reading within the same interval, an older row of a machine. ``changed_row``: a row of a
    batch that came again with other values.
    """
    has_time = "time" in columns
    said = [name for name in columns if name not in identifying(columns)]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name + KEPT)) for name in said)
    near = left_out.filter(pl.col(KIND) == "near" if has_time else differs)
    findings = []
    if near.height:
        first = "the first of each interval counts" if has_time else "the newest row of each counts"
        detail = (
            f"{near.height} rows left out that are no copies, such as that of {_show_first(near, columns)}; {first}"
        )
        since, until = near["time"].sort()[[0, -1]] if has_time else (None, None)
        findings.append(report("near_duplicate", table, detail, since=since, until=until))
    for rows in left_out.filter(differs, pl.col(KIND) == "repeated_batch", has_time).partition_by(BATCH):
        batch = rows[BATCH][0]
        newest = f"to use the newest type {command_to_read_again(plant, batch)}"
        detail = (
            f"{rows.height} rows came again with other values, such as that of {_show_first(rows, columns)}; {newest}"
        )
        findings.append(report("changed_row", table, detail, batch=batch))
    return findings


def _show_first(rows: pl.DataFrame, columns: Iterable[str]) -> str:
    """Show the first row beside the one that is kept in its place, by the columns in which they differ."""
    row = rows.row(0, named=True)
    differing = (name for name in columns if row[name] != row[name + KEPT])
    pairs = ", ".join(f"{name} {shorten(row[name])} beside {shorten(row[name + KEPT])}" for name in differing)
    when = f" at {row['time']:%Y-%m-%d %H:%M:%S}" if "time" in row else ""
    return f"{row['machine']}{when}: {pairs or 'alike but for columns that the dictionary does not have'}"


def explain_crowding(
    rows: pl.DataFrame, groups: Sequence[pl.DataFrame], columns: Mapping[str, Column], near_seconds: int
) -> tuple[str, str]:
    """Say why many of these good readings are near duplicates, a faster rate or several sensors, and the remedy.

    `groups` hold all rows as they were delivered, see :func:`upkeep.contract.reconcile.group_by_schema`.
    """
    instants = rows.select("machine", "time").unique().sort("machine", "time")
    if instants.height > rows.height / 2:
        seconds = instants.select(pl.col("time").diff().over("machine").dt.total_microseconds().median()).item() / 1e6
        all_kept = f"set validate.near_duplicate_seconds, which is {near_seconds}, to 0 to use them all"
        return f"readings come every {seconds:g} s", all_kept
    several = "a machine has several readings at one instant"
    largest = max(groups, key=lambda group: group.height)
    for name in (name for name in largest.columns if name not in columns and not name.startswith("@")):
        is_key = largest.select("machine", "time", name).is_unique().sum() > largest.height / 2
        if is_key and largest[name].n_unique() <= largest.height / 2:
            values = [name for name, column in columns.items() if column.role == "sensor" and name in largest.columns]
            pivot = f"{{name: {shorten(name)}, value: {values[0] if len(values) == 1 else '...'}}}"
            names = ", ".join(map(shorten, largest[name].unique(maintain_order=True).head(3)))
            seen = f"{several}, which differ in {shorten(name)} ({names}): are they of several sensors, in long format?"
            return (
                seen,
                f"set fetch.options.telemetry.pivot: {pivot}, named as in the file, or pivot in the query",
            )
    return several, f"give each reading a time or a machine of its own: {MEND}"


def identifying(columns: Iterable[str]) -> list[str]:
    """Return the columns that tell one row of a plant's table from another, which also sort it."""
    known = set(columns)
    return [name for name in ("machine", "time", "kind", "code") if name in known]
