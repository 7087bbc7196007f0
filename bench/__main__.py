"""Run all measurements, the named ones or with ``--large`` the large ones, and write them to ``bench/results.json``."""

import importlib
import json
import sys
from typing import Any

from tqdm import tqdm

from bench.measuring import ROOT
from upkeep.core.text import align_columns

MEASUREMENTS = (
    "features",
    "rates",
    "simulator",
    "memory",
    "logged_drift",
    "cmapss",
    "pipeline",
    "pieces",
    "fresh",
    "scoring",
    "serving",
    "readings",
    "extremes",
    "lines",
)
"""Those that take a quarter of an hour together."""
LARGE = (
    "kernels",
    "cluster",
    "chance",
    "drift",
    "estimates",
    "splits",
    "fleet_rows",
    "soak",
    "plant",
    "scale",
    "scale_large",
    "rehearsal",
    "releases",
)
"""Those that take minutes to hours each, tens of gigabytes of disk, or root; they run only if they are asked for."""

RESULTS = ROOT / "bench/results.json"


def main(names: list[str]) -> None:
    """Measure; what is not measured this time stays in the file as it was."""
    known_names = (*MEASUREMENTS, *LARGE)
    chosen = LARGE if names == ["--large"] else names or MEASUREMENTS
    if unknown := sorted(set(chosen) - set(known_names)):
        sys.exit(f"error: no measurement {', '.join(unknown)}; there are {', '.join(known_names)}")
    for name in tqdm(chosen, unit="measurement"):
        rows = importlib.import_module(f"bench.{name}").measure()
        found = [{"measurement": name, **row.as_record()} for row in rows]
        tqdm.write(format_table(found))
        # At once: what fails later costs nothing that was measured.
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
        kept = [row for row in known if row["measurement"] != name and row["measurement"] in known_names]
        ordered = sorted([*kept, *found], key=lambda row: known_names.index(row["measurement"]))
        RESULTS.write_text(json.dumps(ordered, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return one line per figure, and their notes below."""
    met = {True: "yes", False: "NO", None: ""}
    lines = [
        (
            row["name"],
            *("" if row[key] is None else f"{row[key]:.4g}" for key in ("ours", "peer", "ratio")),
            row["target"] or "",
            met[row["met"]],
            row["unit"],
        )
        for row in rows
    ]
    notes = [f"{row['name']}: {row['note']}" for row in rows if row["note"]]
    return "\n".join([align_columns(("", "ours", "peer", "ratio", "target", "met", "unit"), lines), *notes])


if __name__ == "__main__":
    main(sys.argv[1:])
