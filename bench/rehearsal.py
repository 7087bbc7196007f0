"""What two simulated years cost under the loop, beside an oracle and beside simpler policies."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from bench.measuring import ROOT, Row
from upkeep.core.params import load_params
from upkeep.rehearsal.rehearse import POLICIES, World
from upkeep.rehearsal.run import run

SIZE = World(plants=2, machines=8, weeks=104, seed=1, change="none")
SEEDS = 10
CHANGES = ["bearings", "sensor"]
SIMPLE = ["never_6", "never_12", "every_batch", "monthly"]


def measure() -> list[Row]:
    """Return the loop's cost and trainings with each change and without, and how long one world takes."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # of the workers, of which each core has one
    params = load_params(ROOT / "params.yaml")
    known = params.validate_.model_copy(update={"dictionary": ROOT / params.validate_.dictionary})
    params = params.model_copy(update={"validate_": known})
    with TemporaryDirectory() as folder, chdir(folder):
        started = time.perf_counter()
        run(params, SIZE, SEEDS, CHANGES, list(POLICIES))
        seconds = (time.perf_counter() - started) / SEEDS / (len(CHANGES) + 1)
        summary = pl.DataFrame(
            json.loads(Path("reports/rehearsal/summary.json").read_text(encoding="utf-8"))["policies"]
        )
    rows = [row for change in summary["change"].unique(maintain_order=True) for row in _compare(summary, change)]
    return [*rows, Row("a rehearsal of six policies, one world", seconds, "s", target="ours <= 300")]


def _compare(summary: pl.DataFrame, change: str) -> Iterator[Row]:
    by_policy: Mapping[str, Mapping[str, float]] = {
        row["policy"]: row for row in summary.filter(change=change).iter_rows(named=True)
    }
    loop, best = by_policy["loop"], min((by_policy[name] for name in SIMPLE), key=lambda row: row["cost"])
    note = f"{SEEDS} seeds, {SIZE.plants} plants of {SIZE.machines} machines, the second of two years"
    unit, limit = "money per 4 weeks", "1.03" if change == "none" else "1.0"
    simple = f"{note}; peer: {best['policy']}, the cheapest simple policy"
    yield Row(f"the loop's cost, {change}", loop["cost"], unit, best["cost"], f"ratio <= {limit}", simple)
    oracle = by_policy["oracle"]["cost"]
    yield Row(f"the loop beside the oracle, {change}", loop["cost"], unit, oracle, "ratio <= 1.1", note)
    each = by_policy["every_batch"]["trainings"]
    yield Row(f"trainings, {change}", loop["trainings"], "a run", each, "ratio <= 0.34", note)
