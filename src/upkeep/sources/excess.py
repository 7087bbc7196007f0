"""Tables of which too large a share cannot be used: found with the worst cause of it, and refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from upkeep.contract.dictionary import Table
from upkeep.contract.reconcile import EMPTY_LINE
from upkeep.contract.validation import Checked
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
            share, (seen, remedy) = part.duplicates["near"] / part.rows_in, part.crowding
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
