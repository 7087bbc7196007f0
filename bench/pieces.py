"""The next week added to a fleet: all stages that compute, with the pieces of the weeks before, against all weeks cold.

Seconds are those within the stages: DVC and the interpreter's start cost the same whatever there is to do.
"""

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from bench.checkout import call
from bench.measuring import ROOT, Row
from upkeep.core.paths import LOCAL

PLANTS, MACHINES = 8, 20
LAST, NEXT = "2025-06-30", "2025-07-07"
STAGES = ("fetch", "validate", "dataset", "train", "golden", "evaluate", "drift", "card")
WINDOW = {"validation_weeks": 4, "test_weeks": 4, "every_weeks": 4}


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


def _run(folder: Path, until: str) -> dict[str, float]:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    plants = {f"plant{number}": MACHINES for number in range(PLANTS)}
    params["fetch"] |= {"until": until, "options": params["fetch"]["options"] | {"plants": plants}}
    params["validate"]["dictionary"] = str(ROOT / params["validate"]["dictionary"])
    params["dataset"]["split"] |= {"by": "window", "window": WINDOW}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for stage in STAGES:
        call([sys.executable, "-m", "upkeep", stage], folder, {**os.environ, "TQDM_DISABLE": "1"})
    times: dict[str, float] = json.loads((folder / LOCAL / "stage_times.json").read_text(encoding="utf-8"))
    return times
