"""What two simulated years cost under the loop, beside an oracle, simpler policies and what the loop was before.

Before labels knew of visits they were naive: a prevented failure left healthy rows. The former gate held the champion's
stored predictions beside the challenger's, on the test rows that both had.

What has been rehearsed stays in the checkout's pieces, so a measurement that was interrupted goes on from there.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import polars as pl
from joblib import Parallel, delayed, parallel_config

from bench.measuring import ROOT, Row
from upkeep.contract.dictionary import ALARM_AT, EVENTS, FINDING
from upkeep.core.params import Params, load_params
from upkeep.rehearsal import rehearse
from upkeep.rehearsal.learning import Known, TrainedFleet
from upkeep.rehearsal.plants import LivedPlant
from upkeep.rehearsal.rehearse import POLICIES, World
from upkeep.rehearsal.run import rehearse_once, run
from upkeep.rehearsal.summary import summarise
from upkeep.releases.succession import judge_succession
from upkeep.stages.dataset import Tables

Patch = dict[str, Any]
"""What is put in place of what, as :func:`unittest.mock.patch.object` takes it."""

SIZE = World(plants=2, machines=8, weeks=104, seed=1, change="none")
SEEDS = 10
CHANGES = ["bearings", "sensor"]
UNIT = "money per 4 weeks"
THIS = Path(__file__)
SIMPLE = ["never_6", "never_12", "every_batch", "monthly"]


def learn_naively(plant: LivedPlant) -> Tables:
    """Return what is known, but not what visits found, nor which alarms they answered."""
    tables = READ_TABLES(plant)
    forgotten = [pl.lit(None, EVENTS[name]).alias(name) for name in (FINDING, ALARM_AT)]
    return tables._replace(events=tables.events.with_columns(forgotten))


def judge_common_rows(challenger: TrainedFleet, champion: TrainedFleet, _: Known, params: Params) -> bool:
    """Judge by the test rows that both sides' own runs have, as the gate did before it asked champions again."""
    return judge_succession(champion.predictions, challenger.predictions, params).decision == "promote"


READ_TABLES = LivedPlant.read_tables
NAIVE_LABELS: Patch = {"target": LivedPlant, "attribute": "read_tables", "new": learn_naively}
FORMER_GATE: Patch = {"target": rehearse, "attribute": "may_follow", "new": judge_common_rows}


def measure() -> list[Row]:
    """Return the loop's cost and trainings with each change and without, and how long one world takes."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # of the workers, of which each core has one
    params = load_params(ROOT / "params.yaml")
    validate = params.validate_.model_copy(update={"dictionary": ROOT / params.validate_.dictionary})
    pieces = params.pieces.model_copy(update={"folder": ROOT / ".upkeep/pieces"})
    params = params.model_copy(update={"validate_": validate, "pieces": pieces})
    with TemporaryDirectory() as folder, chdir(folder):
        seconds = _time_one_world(params)
        run(params, SIZE, SEEDS, CHANGES, list(POLICIES))
        summary = pl.DataFrame(
            json.loads(Path("reports/rehearsal/summary.json").read_text(encoding="utf-8"))["policies"]
        )
        naive = _live(NAIVE_LABELS, "none", params)
        former = {change: _live(FORMER_GATE, change, params) for change in CHANGES}
    rows = [row for change in summary["change"].unique(maintain_order=True) for row in _compare(summary, change)]
    loop = {row["change"]: row for row in summary.filter(policy="loop").iter_rows(named=True)}
    oracle = summary.filter(policy="oracle", change="none")["cost"].item()
    note = "repairs prevent failures; peer: the loop where each failure happens and labels are known"
    rows += [
        Row("cost with repairs", loop["none"]["cost"], UNIT, oracle, "ratio <= 1.05", note),
        Row("cost with repairs, naive labels", naive["cost"], UNIT, oracle, note=note),
    ]
    rows += [
        _tell_earlier(change, loop[change]["followed_after"], former[change]["followed_after"]) for change in CHANGES
    ]
    return [*rows, Row("a rehearsal of six policies, one world", seconds, "s", target="ours <= 300")]


def _time_one_world(params: Params) -> float:
    anew = params.model_copy(update={"pieces": params.pieces.model_copy(update={"folder": None})})
    started = time.perf_counter()
    run(anew, SIZE, 1, [], list(POLICIES))
    return time.perf_counter() - started


def _live(replaced: Patch, change: str, params: Params) -> Mapping[str, float]:
    """Return the summary of the loop's weeks with something in it replaced."""
    worlds = [SIZE._replace(seed=SIZE.seed + number, change=change) for number in range(SEEDS)]
    with parallel_config("loky", n_jobs=params.parallel.jobs, inner_max_num_threads=1):
        weeks = Parallel()(delayed(_rehearse)(replaced, world, params) for world in worlds)
    return summarise(pl.concat(weeks), params.evaluate.confidence).row(0, named=True)


def _rehearse(replaced: Patch, world: World, params: Params) -> pl.DataFrame:
    with patch.object(**replaced):
        return rehearse_once(world, "loop", params, replaced["attribute"], THIS.read_bytes())


def _tell_earlier(change: str, ours: float | None, former: float | None) -> Row:
    """Return how many weeks earlier models trained after a change ship than by the former gate, which may ship none."""
    half = SIZE.weeks // 2
    earlier = (half if former is None else former) - (half if ours is None else ours)
    ours_after, former_after = ("never" if weeks is None else f"after {weeks} weeks" for weeks in (ours, former))
    note = f"means over seeds in which it did: {ours_after}, by the former gate {former_after}"
    return Row(f"first promotion after a change, {change}", earlier, "weeks earlier", target="ours >= 8", note=note)


def _compare(summary: pl.DataFrame, change: str) -> Iterator[Row]:
    by_policy: Mapping[str, Mapping[str, float]] = {
        row["policy"]: row for row in summary.filter(change=change).iter_rows(named=True)
    }
    loop, best = by_policy["loop"], min((by_policy[name] for name in SIMPLE), key=lambda row: row["cost"])
    note = f"{SEEDS} seeds, {SIZE.plants} plants of {SIZE.machines} machines, the second of two years"
    limit = "1.03" if change == "none" else "1.0"
    simple = f"{note}; peer: {best['policy']}, the cheapest simple policy"
    yield Row(f"the loop's cost, {change}", loop["cost"], UNIT, best["cost"], f"ratio <= {limit}", simple)
    oracle = by_policy["oracle"]["cost"]
    yield Row(f"the loop beside the oracle, {change}", loop["cost"], UNIT, oracle, "ratio <= 1.1", note)
    each = by_policy["every_batch"]["trainings"]
    yield Row(f"trainings, {change}", loop["trainings"], "a run", each, "ratio <= 0.34", note)
