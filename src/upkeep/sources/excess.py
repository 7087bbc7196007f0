"""Tables of which too large a share cannot be used: found with the worst cause of it, and refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from upkeep.contract.casting import TIME_OF_DAY
from upkeep.contract.dictionary import Table
from upkeep.contract.reconcile import EMPTY_LINE, reconcile
from upkeep.contract.validation import Checked, Crowding
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.core.params import Validate
from upkeep.core.plants import table_file
from upkeep.core.text import MEND
from upkeep.sources.manifest import how_to_read_again

DECIMAL_COMMA = r"^\s*[+-]?[\d. ]*,\d+\s*$"
LONGEST_EXAMPLE = 60  # characters
EPOCH = r"^\d{9,}(\.\d*)?$"  # numbers since 1970


class Excess(NamedTuple):
    """A table of which too large a share is not used, the setting that limits it, and the batch if one alone is bad."""

    share: float
    what: str
    limit: str
    remedy: str
    where: dict[str, str]
    only_batch: str | None = None


def find_excess(plant: str, checked: Mapping[Table, Checked], params: Validate, quarantine: Path) -> list[Excess]:
    """List a plant's tables of which more is not used than ``validate.max_..._share`` allows, not counting empty lines.

    `quarantine` is the folder in which people find the rows.
    """
    found = []
    for table, part in checked.items():
        bad = part.quarantined.filter(pl.col("reason") != EMPTY_LINE)
        if bad.height > params.max_quarantined_share * part.rows_in:
            found.append(_describe_quarantine(plant, table, bad, part.rows_in, table_file(quarantine, plant)))
        if part.crowding:
            share, (seen, remedy) = part.duplicates["near"] / part.rows_in, _explain_crowding(plant, part.crowding)
            what = f"of the rows are left out as near duplicates, although they differ: {seen}"
            remedy += "; or raise that share to use the first reading of each interval"
            found.append(Excess(share, what, "max_near_duplicate_share", remedy, {"plant": plant, "table": table}))
    return found


def _describe_quarantine(plant: str, table: Table, bad: pl.DataFrame, rows_in: int, file: Path) -> Excess:
    causes = bad.group_by("batch", "reason", "column").len()
    worst = causes.sort("len", "batch", "reason", "column", descending=[True, False, False, False])
    batch, reason, column, rows = worst.row(0)
    example = bad.filter(batch=batch, reason=reason, column=column)["value"][0]
    shown = "" if example is None else f", such as {shorten(example, LONGEST_EXAMPLE)!r}"
    remedy = f"look at {file}; {_suggest(table, bad, column, reason, rows_in)}correct the data dictionary or that share"
    return Excess(
        share=bad.height / rows_in,
        what=f"of the rows are in quarantine, most of them, {rows}, as '{reason}'{shown}",
        limit="max_quarantined_share",
        remedy=f"{remedy}, or {MEND}",
        where={"plant": plant, "table": table, "batch": batch, "column": column},
        only_batch=batch if bad["batch"].n_unique() == 1 else None,
    )


def _suggest(table: str, bad: pl.DataFrame, column: str, reason: str, rows_in: int) -> str:
    """Return the option of ``files`` that reads rows of this fault as they are, if one does."""
    values, options = bad.filter(column=column, reason=reason)["value"], f"fetch.options.{table}"
    if reason.startswith("missing column"):
        return f"name what holds {column} in {options}.columns, or in the query; "
    if (column, reason) == ("kind", "unknown value"):
        return f"translate the kinds by {options}.kinds, or in the query; "
    if reason == "not a number" and values.str.contains(DECIMAL_COMMA).all():
        return f'set {options}.decimal: ",", or convert the numbers in the query; '
    if reason == "not a time" and values.str.contains(EPOCH).all():
        return f"set {options}.epoch, or convert the times in the query; "
    if reason == "not a time" and values.len() == rows_in:
        return f"set {options}.time_format, or convert the times in the query; "
    return ""


def _explain_crowding(plant: str, crowding: Crowding) -> tuple[str, str]:
    """Return why many readings are near duplicates, such as a faster rate or several sensors, and the remedy."""
    delivered, columns, near_seconds = crowding.delivery.scan().collect(), crowding.columns, crowding.near_seconds
    rows, _ = reconcile(delivered, columns, plant)
    instants = rows.select("machine", "time").unique().sort("machine", "time")
    steps = instants.select(pl.col("time").diff().over("machine").dt.total_microseconds() / 1e6)
    if steps.filter(pl.col("time") < near_seconds).height > rows.height - instants.height:
        seconds = steps.median().item()
        remedy = f"set validate.near_duplicate_seconds, which is {near_seconds}, to 0 to use them all, or rows_every"
        return f"readings come every {seconds:g} s", f"{remedy} in the data dictionary to reduce them to rows"
    several, options = "a machine has several readings at one instant", "fetch.options.telemetry"
    queried = "named as in the file, or do so in the query"
    repeated = delivered.filter(pl.struct("machine", "time").is_duplicated())
    for name in (name for name in delivered.columns if name not in columns and not name.startswith("@")):
        is_key = repeated.select("machine", "time", name).is_unique().sum() > repeated.height / 2
        if is_key and repeated[name].n_unique() <= repeated.height / 2:
            values = [name for name, column in columns.items() if column.role == "sensor" and name in delivered.columns]
            pivot = f"{{name: {shorten(name)}, value: {values[0] if len(values) == 1 else '...'}}}"
            shown = delivered[name].unique(maintain_order=True).drop_nulls().head(3).cast(pl.String)
            seen = f"{several}, which differ in {shorten(name)} ({', '.join(map(shorten, shown))})"
            if shown.str.contains(TIME_OF_DAY).all():
                return f"{seen}: is that the time of day?", f"set {options}.time_of_day: {shorten(name)}, {queried}"
            seen += ": are they of several sensors, in long format?"
            return seen, f"set {options}.pivot: {pivot}, {queried}"
    sensors = [name for name in delivered.columns if name in columns and columns[name].role in ("sensor", "setting")]
    told = repeated.group_by("machine", "time").agg(pl.col(sensors).count())
    if sensors and told.select(pl.max_horizontal(sensors).max()).item() == 1:
        return (
            f"{several}, each of other sensors",
            f"join them to one row, or deliver a long format and set pivot: {MEND}",
        )
    return several, f"give each reading a time or a machine of its own: {MEND}"


def refuse_excess(found: Sequence[Excess], params: Validate, raw: Path = paths.RAW) -> None:
    """Raise an UpkeepError about the worst of the tables that :func:`find_excess` found, if any; count the others.

    The deliveries are in the folder `raw`.
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
        remedy=worst.remedy.replace(MEND, f"{MEND} and {how_to_read_again(raw, *place)}"),
        **worst.where,
    )
