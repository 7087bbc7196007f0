"""The next week added to a fleet: all stages that compute, with the pieces of the weeks before, against all weeks cold.

Seconds are those within the stages: DVC and the interpreter's start cost the same whatever there is to do.
"""

import json
import os
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.checkout import BY_WINDOW, call, set_fleet
from bench.measuring import Row
from upkeep.core.paths import LOCAL

PLANTS, MACHINES = 8, 20
LAST, NEXT = date(2025, 6, 30), date(2025, 7, 7)
STAGES = ("fetch", "validate", "dataset", "train", "golden", "evaluate", "drift", "card")


def measure() -> list[Row]:
    """Return the seconds of a week, and of the whole record without pieces."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        cold, week = (_run(folder, until) for until in (LAST, NEXT))
    stages = ", ".join(f"{stage} {cold[stage]:g} and {week[stage]:g}" for stage in STAGES)
    fleet = f"{PLANTS} plants of {MACHINES} machines, 26 weeks by the hour, split by window"
    total = sum(week.values()), sum(cold.values())
    return [
        Row("the next week against a cold run", total[0], "s", total[1], "ratio <= 0.125", f"{fleet}; {stages}"),
        *(
            Row(f"the next week in {stage} against a cold run", week[stage], "s", cold[stage])
            for stage in ("dataset", "train")
        ),
    ]


def _run(folder: Path, until: date) -> dict[str, float]:
    set_fleet(folder, {f"plant{number}": MACHINES for number in range(PLANTS)}, until, dataset=BY_WINDOW)
    for stage in STAGES:
        call([sys.executable, "-m", "upkeep", stage], folder, {**os.environ, "TQDM_DISABLE": "1"})
    times: dict[str, float] = json.loads((folder / LOCAL / "stage_times.json").read_text(encoding="utf-8"))
    return times
