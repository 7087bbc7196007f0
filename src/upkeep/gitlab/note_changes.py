"""What changed from one report to the next, for the note on a merge request; a missing report is an empty one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from upkeep.core import paths
from upkeep.judging.acceptance import Check
from upkeep.reporting.experiments import flatten
from upkeep.reporting.markdown import UNKNOWN, Markdown

Report = Mapping[str, Any]
Rows = Sequence[Sequence[object]]

DECIMALS = 5
"""Those that `dvc metrics diff` shows."""

DELIVERED = {
    **dict.fromkeys(("table", "plant", "batch", "sha256"), pl.String),
    **dict.fromkeys(("delivery", "rows"), pl.Int64),
}
"""What is read of a manifest's files."""


class Added(NamedTuple):
    """New batches in words and by plant, and how many files were there before and are no more."""

    words: str
    rows: Rows
    removed: int


class Quarantine(NamedTuple):
    """How many rows are set aside, how many more than before in words, and why, by plant and table."""

    total: int
    change: str
    rows: Rows


def find_added(before: Report, after: Report) -> Added | None:
    """Compare two of ``data/raw/manifest.json``; None if it is not known what was delivered."""
    old, new = (pl.DataFrame(manifest.get("files", []), schema=DELIVERED) for manifest in (before, after))
    if new.is_empty():
        return None
    same = [name for name in DELIVERED if name != "rows"]
    added = new.join(old, on=same, how="anti")
    is_new = ~pl.col("batch").is_in(old["batch"].implode())
    rows = added.group_by("plant").agg(
        pl.col("batch").filter(is_new).n_unique(),
        *(pl.col("rows").filter(table=table).sum().alias(table) for table in ("telemetry", "events", "machines")),
        late=(~is_new | (pl.col("delivery") > 1)).sum(),
    )
    batches = added.filter(is_new)["batch"].unique().sort().to_list()
    words = f"The batch of {batches[0]} was added" if batches else "No batch was added"
    if len(batches) > 1:
        words = f"{len(batches):,} batches were added, {batches[0]} to {batches[-1]}"
    return Added(words, rows.sort("plant").rows(), old.join(new, on=same, how="anti").height)


def compare_quarantine(before: Report, after: Report) -> Quarantine | None:
    """Compare two of ``reports/data_quality.json``; None if it is not known how many rows were set aside."""
    old, new = dict(_quarantined(before)), dict(_quarantined(after))
    if not new:
        return None
    rows: Rows = [
        [*place, sum(old[place].values()) if place in old else None, sum(reasons.values()), _list_reasons(reasons)]
        for place, reasons in new.items()
        if reasons or old.get(place)
    ]
    total, earlier = (sum(sum(reasons.values()) for reasons in side.values()) for side in (new, old))
    change = f", {total - earlier:+,}" if total != earlier else ", as before"
    return Quarantine(total, change if old else "", rows)


def _quarantined(quality: Report) -> Iterator[tuple[tuple[str, str], dict[str, int]]]:
    for plant, found in sorted(quality.get("plants", {}).items()):
        for table, counts in found["tables"].items():
            yield (plant, table), {reason: rows for reason, rows in counts["quarantined"].items() if rows}


def _list_reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {rows:,}" for reason, rows in sorted(reasons.items(), key=lambda item: -item[1]))


def compare_drift(before: Report, after: Report) -> Rows:
    """Return a row per plant from two of ``drift.json``: the share of columns before and now, and which drifted."""
    return [
        [
            plant,
            _drift_share(before.get(plant)),
            _drift_share(found),
            ", ".join(name for name, column in found["columns"].items() if column["drifted"]),
        ]
        for plant, found in sorted(after.items())
    ]


def _drift_share(found: Report | None) -> str:
    if found is None:
        return UNKNOWN
    return Markdown(f"{found['share']:.0%} of columns{', **drifted**' if found['drifted'] else ''}")


def list_checks(checks: Sequence[Check]) -> Rows:
    """Return a row per floor and acceptance case."""
    return [[check.name, check.expected, check.found, check.passed or Markdown("**no**")] for check in checks]


def compare_metrics(before: Report, after: Report) -> Rows:
    """Return the rows that `dvc metrics diff --md` prints: each side on its own test rows, what is equal left out."""
    old, new = flatten(before), flatten(after)
    rows: list[list[object]] = []
    for name in sorted(old.keys() | new):
        earlier, now = old.get(name), new.get(name)
        if earlier != now:
            change = None if earlier is None or now is None else now - earlier
            rows.append([paths.METRICS.as_posix(), name, *map(_short, (earlier, now, change))])
    return rows


def _short(value: float | None) -> str:
    return "-" if value is None else f"{round(value, DECIMALS):.15g}"
