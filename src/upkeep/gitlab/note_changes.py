"""What changed from one report to the next, each as a part of the merge request's note."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from upkeep.core import paths
from upkeep.judging.acceptance import Check
from upkeep.reporting.markdown import UNKNOWN, Markdown, format_table

Report = Mapping[str, Any]

DECIMALS = 5
"""Those that `dvc metrics diff` shows."""

DELIVERED = {
    **dict.fromkeys(("table", "plant", "batch", "sha256"), pl.String),
    **dict.fromkeys(("delivery", "rows"), pl.Int64),
}
"""What is read of a manifest's files."""


def fold(summary: str, text: str) -> str:
    """Return text that shows only its summary until a reader opens it."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n</details>\n"


def describe_batches(before: Report, after: Report) -> str:
    """Tell which batches were added, from two of ``data/raw/manifest.json``; both may be empty."""
    old, new = (pl.DataFrame(manifest.get("files", []), schema=DELIVERED) for manifest in (before, after))
    same = [name for name in DELIVERED if name != "rows"]
    added, gone = new.join(old, on=same, how="anti"), old.join(new, on=same, how="anti").height
    if new.is_empty():
        return f"**Data.** What was delivered is {UNKNOWN}.\n"
    if added.is_empty() and not gone:
        return "**Data.** The same batches as before.\n"
    is_new = ~pl.col("batch").is_in(old["batch"].implode())
    header = ["plant", "batches", "telemetry rows", "events", "machines", "files delivered late or anew"]
    rows = added.group_by("plant").agg(
        pl.col("batch").filter(is_new).n_unique(),
        *(pl.col("rows").filter(table=table).sum().alias(table) for table in ("telemetry", "events", "machines")),
        late=(~is_new | (pl.col("delivery") > 1)).sum(),
    )
    batches = added.filter(is_new)["batch"].unique().sort().to_list()
    removed = f" {gone:,} files of before are gone." if gone else ""
    table = format_table(header, rows.sort("plant").rows())
    return f"**Data.** {_count_batches(batches)}.{removed}\n\n" + fold("What was added", table)


def _count_batches(batches: Sequence[str]) -> str:
    if len(batches) < 2:
        return f"The batch of {batches[0]} was added" if batches else "No batch was added"
    return f"{len(batches):,} batches were added, {batches[0]} to {batches[-1]}"


def describe_quarantine(before: Report, after: Report) -> str:
    """Tell how many rows were set aside and why, from two of ``reports/data_quality.json``; both may be empty."""
    old, new = dict(_quarantined(before)), dict(_quarantined(after))
    if not new:
        return f"**Quarantine.** How many rows were set aside is {UNKNOWN}.\n"
    rows = [
        [*place, sum(old[place].values()) if place in old else None, sum(reasons.values()), _list_reasons(reasons)]
        for place, reasons in new.items()
        if reasons or old.get(place)
    ]
    total, earlier = (sum(sum(reasons.values()) for reasons in side.values()) for side in (new, old))
    change = (f", {total - earlier:+,}" if total != earlier else ", as before") if old else ""
    table = fold("By plant and table", format_table(["plant", "table", "before", "now", "why"], rows)) if rows else ""
    return f"**Quarantine.** {total:,} rows are set aside{change}.\n\n{table}"


def _quarantined(quality: Report) -> Iterator[tuple[tuple[str, str], dict[str, int]]]:
    for plant, found in sorted(quality.get("plants", {}).items()):
        for table, counts in found["tables"].items():
            yield (plant, table), {reason: rows for reason, rows in counts["quarantined"].items() if rows}


def _list_reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {rows:,}" for reason, rows in sorted(reasons.items(), key=lambda item: -item[1]))


def describe_drift(before: Report, after: Report) -> str:
    """Tell which plants no longer look like their training data, from two of ``drift.json``; both may be empty."""
    if not after:
        return f"**Drift.** Whether the newest data has drifted is {UNKNOWN}.\n"
    rows = []
    for plant, found in sorted(after.items()):
        columns = [name for name, column in found["columns"].items() if column["drifted"]]
        rows.append([plant, _drift_share(before.get(plant)), _drift_share(found), ", ".join(columns)])
    drifted = [plant for plant, found in sorted(after.items()) if found["drifted"]]
    table = format_table(["plant", "before", "now", "columns that drifted"], rows)
    return f"**Drift.** {', '.join(drifted) or 'No plant'} has drifted.\n\n" + fold("By plant", table)


def _drift_share(found: Report | None) -> str:
    if found is None:
        return UNKNOWN
    return Markdown(f"{found['share']:.0%} of columns{', **drifted**' if found['drifted'] else ''}")


def describe_checks(checks: Sequence[Check]) -> str:
    """Tell which floors and acceptance cases hold."""
    if not checks:
        return ""
    rows = [
        [check.name, check.expected, check.found, "yes" if check.passed else Markdown("**no**")] for check in checks
    ]
    passed = sum(check.passed for check in checks)
    table = format_table(["check", "expected", "found", "holds"], rows)
    return fold(f"Checks: {passed} of {len(checks)} floors and acceptance cases hold", table)


def describe_times(times: Mapping[str, float]) -> str:
    """Tell how long each stage took that ran."""
    if not times:
        return "No stage had to run: all results were there already.\n"
    table = format_table(["stage", "seconds"], times.items())
    return fold(f"Stage times: {sum(times.values()):,.0f} s; stages that ran: {len(times)}", table)


def describe_metrics(target: str, before: Report, after: Report) -> str:
    """Return the table that `dvc metrics diff --md` prints: each side on its own test rows, what is equal left out."""
    old, new = dict(_flatten(before)), dict(_flatten(after))
    rows = [
        [paths.METRICS.as_posix(), name, *(_short(side.get(name)) for side in (old, new)), _difference(old, new, name)]
        for name in sorted(old.keys() | new)
        if old.get(name) != new.get(name)
    ]
    if not rows:
        return ""
    table = format_table(["Path", "Metric", target, "workspace", "Change"], rows)
    return fold("All metrics that changed, as dvc metrics diff shows them", table)


def _flatten(metrics: Report, prefix: str = "") -> Iterator[tuple[str, float | None]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _short(value: float | None) -> str:
    return "-" if value is None else f"{round(value, DECIMALS):.15g}"


def _difference(old: Mapping[str, float | None], new: Mapping[str, float | None], name: str) -> str:
    before, after = old.get(name), new.get(name)
    return "-" if before is None or after is None else _short(after - before)
