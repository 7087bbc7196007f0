"""What splits by shares and by recent windows cost in the weeks after a training, when machines have changed."""

from contextlib import chdir
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import yaml

from bench.checkout import clone
from bench.measuring import Row
from upkeep.core import paths
from upkeep.core.params import Params, Split
from upkeep.features.split import time_boundaries
from upkeep.judging.economics import tally_metrics
from upkeep.judging.episodes import tally_machines
from upkeep.stages import dataset, fetch, train, validate

PLANTS = {"gdansk": 10, "hamburg": 10, "porto": 10}
START = datetime(2023, 1, 2, tzinfo=UTC)
CHANGE, AFTER, JUDGED = 52, (8, 16), 4
"""The week from which on machines or sensors are otherwise; how many later one trains, and how many are judged then."""
SEEDS = (7, 8)
CHANGES = ("no change", "bearings", "sensor", "regime")
WAYS: dict[str, dict[str, Any]] = {
    "shares": {"by": "time"},
    "windows": {"by": "window", "window": {"validation_weeks": 8, "test_weeks": 8, "every_weeks": 1}},
}


def measure() -> list[Row]:
    """Return what following the alarms costs if the newest 8 + 8 weeks validate and test, beside shares."""
    with TemporaryDirectory() as name:
        checkout = Path(name) / "checkout"
        clone(checkout)
        with chdir(checkout):
            return [_compare(change) for change in CHANGES]


def _compare(change: str) -> Row:
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in SEEDS:
        simulated = _params(change, seed)
        fetch.run(simulated)
        validate.run(simulated)
        for week in AFTER:
            for way, found in costs.items():
                found.append(_train_and_judge(simulated, way, START + timedelta(weeks=CHANGE + week)))
    pairs = [f"{ours:.0f}/{peer:.0f}" for ours, peer in zip(costs["windows"], costs["shares"], strict=True)]
    note = f"windows/shares, trained {', '.join(map(str, AFTER))} weeks after, two seeds: {', '.join(pairs)}"
    windows, shares = (float(np.mean(costs[way])) for way in ("windows", "shares"))
    return Row(f"recent windows, {change}", windows, f"thousand per {JUDGED} weeks", peer=shares, note=note)


def _params(change: str, seed: int) -> Params:
    """Return the shipped parameters, but for what is simulated and for models that only reports show."""
    content = yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8"))
    days = {} if change == "no change" else {change: str((START + timedelta(weeks=CHANGE)).date())}
    simulated = {"seed": seed, "start": str(START.date()), "plants": PLANTS, "defects": False, "changes": days}
    until = START + timedelta(weeks=CHANGE + max(AFTER) + JUDGED)
    content["fetch"] |= {"until": until.date(), "options": simulated}
    content["model"]["compare"] = []
    return Params.model_validate(content)


def _train_and_judge(params: Params, way: str, now: datetime) -> float:
    """Train as if `now` were the end of all data; return what alarms cost in the weeks after, in thousands."""
    split = Split.model_validate(params.dataset.split.model_dump() | WAYS[way])
    validation_from, test_from = (_round_to_day(end) for end in time_boundaries(START, now, split))
    dates = {"by": "date", "validation_from": validation_from, "test_from": test_from}
    cut = params.dataset.model_copy(update={"split": split.model_copy(update=dates)})
    params = params.model_copy(update={"dataset": cut})
    dataset.run(params)
    train.run(params)
    after = pl.col("time").is_between(now, now + timedelta(weeks=JUDGED), closed="left")
    rows = pl.read_parquet(paths.PREDICTIONS / "*.parquet").filter("chosen", after, split="test")
    how = params.evaluate
    tally = tally_machines(rows.sort("plant", "machine", "time"), how.lead_time_hours, params.dataset.horizon_hours)
    return float(tally_metrics(tally, np.ones((tally.height, 1)), how.costs)["cost"].item()) / 1000


def _round_to_day(instant: datetime) -> date:
    return (instant + timedelta(hours=12)).date()
