"""Both sides of a merge request in small: reports as the stages write them, with made predictions behind them."""

import copy
from collections.abc import Mapping
from typing import Any

import polars as pl
from parameters import SHIPPED, changed
from prediction_cases import COSTS, HORIZON, how, machine

from upkeep.core.params import Params
from upkeep.gitlab.gate import Verdict, judge
from upkeep.gitlab.note_text import Review
from upkeep.gitlab.snapshot import Snapshot
from upkeep.judging.acceptance import Check
from upkeep.judging.comparison import Comparison, compare
from upkeep.judging.evaluation import evaluate

PASSED = Check("average_precision", "at least 0.5", "0.71", True)
FAILED = Check("failures_caught", "at least 0.6", "0.4", False)
TIMES = {"train": 16.3, "evaluate": 3.0}

GOOD = {25: 0.9, 26: 0.8}
BLIND: dict[int, float] = {}


def params() -> Params:
    return SHIPPED.model_copy(update={"evaluate": how(), "dataset": changed(SHIPPED.dataset, horizon_hours=HORIZON)})


def plant(name: str, alarms: Mapping[int, float] = GOOD, machines: int = 6) -> pl.DataFrame:
    """A plant of machines of which every other fails; those that stay healthy raise no alarm."""
    rows = [
        machine(f"m{number}", fails_at=30 if number % 2 else None, alarms=alarms if number % 2 else {})
        for number in range(machines)
    ]
    return pl.concat(rows).with_columns(plant=pl.lit(name))


def delivered(plants: list[str], *batches: str) -> dict[str, Any]:
    """The manifest of one telemetry file per plant and batch."""
    files = [
        {"table": "telemetry", "plant": name, "batch": batch, "delivery": 1, "rows": 168, "sha256": f"{name}{batch}"}
        for name in plants
        for batch in batches
    ]
    return {"files": files}


def snapshot(name: str = "this branch", *plants: pl.DataFrame, **changes: object) -> Snapshot:
    """One side; a plant is its predictions."""
    predictions = {rows["plant"][0]: rows for rows in plants or (plant("lyon"), plant("porto"))}
    report = evaluate(predictions, how(), HORIZON, seed=7)
    names = sorted(predictions)
    counts = {"telemetry": {"rows_in": 1000, "clean": 990, "duplicates": {}, "quarantined": {"out of range": 10}}}
    column = {"method": "wasserstein", "score": 0.1, "threshold": 0.2, "drifted": False}
    given: dict[str, Any] = {
        "params": {"fetch": {"source": "files", "options": {"path": "deliveries"}}},
        "metrics": report.headline.model_dump(),
        "evaluation": report,
        "drift": {name: {"drifted": False, "share": 0.0, "columns": {"load_pct": column}} for name in names},
        "quality": {"plants": {name: {"tables": copy.deepcopy(counts), "findings": []} for name in names}},
        "manifest": delivered(names, "2025-01-06"),
        "predictions": predictions,
    }
    return Snapshot(name, **{**given, **changes})


def compared(champion: Snapshot | None, challenger: Snapshot) -> Comparison:
    return compare(champion.predictions if champion else {}, challenger.predictions, how(), HORIZON, seed=7)


def judged(champion: Snapshot | None, challenger: Snapshot, checks=(PASSED,), faults=(), **limits: float) -> Verdict:
    limited = changed(SHIPPED.gate, **limits)
    return judge(champion, challenger, compared(champion, challenger), checks, limited, COSTS.failure, faults)


def review(champion: Snapshot | None, challenger: Snapshot, checks=(PASSED,), times=TIMES) -> Review:
    verdict = judged(champion, challenger, checks)
    return Review(champion, challenger, compared(champion, challenger), verdict, checks, times)
