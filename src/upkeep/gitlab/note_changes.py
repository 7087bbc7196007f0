"""What changed from one report to the next, for the note on a merge request; a report that is missing is None."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from upkeep.core import paths
from upkeep.gitlab.markdown import name_first
from upkeep.gitlab.snapshot import DeliveredFile, RawData
from upkeep.judging.acceptance import Check
from upkeep.judging.reports import DataQuality, DriftReport, Headline, PlantDrift
from upkeep.reporting.experiments import flatten
from upkeep.reporting.markdown import UNKNOWN, Markdown

DELIVERED = {name: int if name in ("delivery", "rows") else str for name in DeliveredFile.model_fields}

Rows = Sequence[Sequence[object]]

DECIMALS = 5
"""Those that `dvc metrics diff` shows."""


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


def find_added(before: RawData | None, after: RawData | None) -> Added | None:
    """Compare what was delivered; None if it is not known."""
    if after is None or not after.files:
        return None
    old, new = (
        pl.DataFrame([file.model_dump() for file in side.files] if side else [], DELIVERED) for side in (before, after)
    )
    same = ["table", "plant", "batch", "delivery", "sha256"]
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


def compare_quarantine(before: DataQuality | None, after: DataQuality | None) -> Quarantine | None:
    """Compare how many rows were set aside; None if it is not known."""
    if after is None or not after.plants:
        return None
    old, new = _quarantined(before), _quarantined(after)
    rows: Rows = [
        [*place, sum(old[place].values()) if place in old else None, sum(reasons.values()), _list_reasons(reasons)]
        for place, reasons in new.items()
        if reasons or old.get(place)
    ]
    total, earlier = (sum(sum(reasons.values()) for reasons in side.values()) for side in (new, old))
    change = f", {total - earlier:+,}" if total != earlier else ", as before"
    return Quarantine(total, Markdown(change if old else ""), rows)


def _quarantined(quality: DataQuality | None) -> dict[tuple[str, str], dict[str, int]]:
    return {
        (plant, table): {reason: rows for reason, rows in counts.quarantined.items() if rows}
        for plant, found in sorted(quality.plants.items() if quality else ())
        for table, counts in found.tables.items()
    }


def _list_reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {rows:,}" for reason, rows in sorted(reasons.items(), key=lambda item: -item[1]))


def compare_drift(before: DriftReport | None, after: DriftReport | None) -> Rows:
    """Return a row per plant: the share of columns that drifted before and now, and which did."""
    old, new = (report.root if report else {} for report in (before, after))
    return [
        [
            plant,
            _drift_share(old.get(plant)),
            _drift_share(found),
            name_first(name for name, column in found.columns.items() if column.drifted),
        ]
        for plant, found in sorted(new.items())
    ]


def name_drifted(report: DriftReport | None) -> Markdown:
    """Say which plants have drifted."""
    drifted = [plant for plant, found in sorted(report.root.items() if report else ()) if found.drifted]
    return Markdown(f"{name_first(drifted) or 'No plant'} {'have' if len(drifted) > 1 else 'has'} drifted")


def _drift_share(found: PlantDrift | None) -> str:
    if found is None or found.share is None:
        return UNKNOWN
    return Markdown(f"{found.share:.0%} of columns{', **drifted**' if found.drifted else ''}")


def list_checks(checks: Sequence[Check]) -> Rows:
    """Return a row per floor and acceptance case."""
    return [[check.name, check.expected, check.found, check.passed or Markdown("**no**")] for check in checks]


def compare_metrics(before: Headline | None, after: Headline | None) -> Rows:
    """Return the rows that `dvc metrics diff --md` prints: each side on its own test rows, what is equal left out."""
    if before is None or after is None:
        return []
    old, new = (flatten(report.model_dump()) for report in (before, after))
    rows: list[list[object]] = []
    for name in sorted(old.keys() | new):
        earlier, now = old.get(name), new.get(name)
        if earlier != now:
            change = None if earlier is None or now is None else now - earlier
            rows.append([paths.METRICS.as_posix(), name, *map(_short, (earlier, now, change))])
    return rows


def _short(value: float | None) -> str:
    return Markdown("-") if value is None else f"{round(value, DECIMALS):.15g}"
