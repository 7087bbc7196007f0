"""Run all measurements, the named ones or with ``--large`` the large ones, and write them to ``bench/results.json``."""

import importlib
import json
import sys
from typing import Any

from tqdm import tqdm

from bench.measuring import ROOT

MEASUREMENTS = (
    "features",
    "rates",
    "splits",
    "cluster",
    "simulator",
    "memory",
    "chance",
    "estimates",
    "cmapss",
    "pipeline",
    "pieces",
    "fresh",
    "kernels",
    "merge_request",
    "scoring",
    "serving",
    "soak",
    "extremes",
    "lines",
)
LARGE = ("scale", "rehearsal")
"""Those that take hours and tens of gigabytes of disk; they run only if they are asked for."""

RESULTS = ROOT / "bench/results.json"


def main(names: list[str]) -> None:
    """Measure; what is not measured this time stays in the file as it was."""
    known_names = (*MEASUREMENTS, *LARGE)
    chosen = LARGE if names == ["--large"] else names or MEASUREMENTS
    if unknown := sorted(set(chosen) - set(known_names)):
        sys.exit(f"error: no measurement {', '.join(unknown)}; there are {', '.join(known_names)}")
    found: list[dict[str, Any]] = []
    for name in tqdm(chosen, unit="measurement"):
        rows = importlib.import_module(f"bench.{name}").measure()
        found += [{"measurement": name, **row.as_record()} for row in rows]
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    kept = [row for row in known if row["measurement"] not in chosen and row["measurement"] in known_names]
    ordered = sorted([*kept, *found], key=lambda row: known_names.index(row["measurement"]))
    RESULTS.write_text(json.dumps(ordered, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(format_table(found))


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return one line per figure, and its note below."""
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'':{width}} {'ours':>10} {'peer':>10} {'ratio':>8}  {'target':<15} met"]
    for row in rows:
        figures = [_show(row[key], size) for key, size in (("ours", 10), ("peer", 10), ("ratio", 8))]
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        lines.append(f"{row['name']:{width}} {' '.join(figures)}  {row['target'] or '':<15} {met:<3} {row['unit']}")
        if row["note"]:
            lines.append(f"    {row['note']}")
    return "\n".join(lines)


def _show(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.4g'):>{width}}"


if __name__ == "__main__":
    main(sys.argv[1:])
