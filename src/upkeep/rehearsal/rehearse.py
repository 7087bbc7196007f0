"""Years of continuous training in simulated time: weekly batches, alarms every eight hours, one policy at a time."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from typing import Any, Literal, NamedTuple

import polars as pl

from upkeep.contract.dictionary import load_dictionary
from upkeep.core.errors import TooLittleDataError
from upkeep.core.params import Params, SplitWindow
from upkeep.judging.drift import Window, compare_windows
from upkeep.judging.economics import policy_cost
from upkeep.rehearsal.learning import TrainedFleet, may_follow, train_models
from upkeep.rehearsal.plants import LivedPlant
from upkeep.releases.policies import Evidence, decide
from upkeep.simulator.fleet import PlantChange, simulate_fleet
from upkeep.stages.drift import look_back

START = date(2025, 1, 6)
NEWEST_WEEKS = SplitWindow(validation_weeks=8, test_weeks=8, every_weeks=4)
LEAST_HISTORY_WEEKS = 26  # with less, these windows leave too little to train on
PLANTS = ("gdansk", "hamburg", "lyon", "porto", "turin", "bilbao", "malmo", "brno")

WEEKS = pl.Schema(
    {
        "seed": pl.Int64,
        "change": pl.String,
        "policy": pl.String,
        "week": pl.Int64,
        **dict.fromkeys(("failures", "defects_found", "false_alarms"), pl.Int64),
        "cost": pl.Float64,
        "reason": pl.String,
        "promoted": pl.Boolean,
    }
)
"""A row per week: what happened in it, what it cost, why something was trained at its end, and whether that shipped."""


class Policy(NamedTuple):
    """When models are trained and from what, and whether they ship at once.

    `follows` names one of :data:`upkeep.releases.policies.POLICIES`. With `again_at_half` models are also trained half
    way through the weeks, with `is_gated` they ship only if the gate agrees. With `knows_labels` training, drift and
    gate see copies of the plants in which nobody answers alarms, so that no failure is prevented.
    """

    follows: str
    again_at_half: bool = False
    is_gated: bool = False
    knows_labels: bool = False


POLICIES = {
    "never_6": Policy("never"),
    "never_12": Policy("never", again_at_half=True),
    "every_batch": Policy("every_batch"),
    "monthly": Policy("monthly"),
    "loop": Policy("evidence", is_gated=True),
    "oracle": Policy("evidence", is_gated=True, knows_labels=True),
}
"""All train for the first time after a quarter of the weeks. Of 24 months that leaves ``never_6`` with a model of the
first six months, and ``never_12`` with one of the first twelve."""


class World(NamedTuple):
    """The size of a simulated fleet, the seed that it is drawn by, and what changes half way through its weeks."""

    plants: int
    machines: int
    weeks: int
    seed: int
    change: PlantChange | Literal["none"]


class Rehearsal:
    """One policy in one world: its plants, its live models, and the plants that it learns from."""

    def __init__(self, world: World, policy: str, params: Params) -> None:
        self.world, self.name, self.policy = world, policy, POLICIES[policy]
        self.params, self.dictionary = _lighten(params, world.weeks), load_dictionary(params.validate_.dictionary)
        self.lived = _draw_plants(world)
        self.learnt_from = _draw_plants(world) if self.policy.knows_labels else self.lived
        self.champion: TrainedFleet | None = None
        self.trained_in, self.offered_in = 0, 0  # weeks of the champion's training, and of the newest one

    def run(self) -> pl.DataFrame:
        """Simulate all weeks; return a row of `WEEKS` for each."""
        ends = [(week, *self._live(week)) for week in range(1, self.world.weeks + 1)]
        rows = pl.DataFrame(ends, {name: WEEKS[name] for name in ("week", "reason", "promoted")}, orient="row")
        happened = pl.concat(plant.count_by_week() for plant in self.lived.values()).group_by("week").sum()
        failed, found, false = pl.col("failures"), pl.col("defects_found"), pl.col("false_alarms")
        whole = rows.join(happened, on="week", how="left", maintain_order="left").with_columns(
            seed=pl.lit(self.world.seed),
            change=pl.lit(self.world.change),
            policy=pl.lit(self.name),
            cost=policy_cost(failed + found, found, false, self.params.evaluate.costs),
        )
        return whole.select(WEEKS.names()).cast(WEEKS)

    def _live(self, week: int) -> tuple[str, bool]:
        """Simulate a week; return why models were trained at its end, if they were, and whether they shipped."""
        for name, plant in self.lived.items():
            plant.live(self.champion.models[name] if self.champion else None, self.params)
        if self.policy.knows_labels:
            for plant in self.learnt_from.values():
                plant.live(None, self.params)
        reason = self._decide(week)
        return reason, bool(reason) and self._train(week)

    def _decide(self, week: int) -> str:
        """Return the reasons to train at the end of a week, an empty text if there is none."""
        if self.champion is None:
            return "first" if week >= self.world.weeks // 4 else ""
        if self.policy.again_at_half and week == self.world.weeks // 2:
            return "new data"
        batches = [START + timedelta(weeks=number) for number in range(self.trained_in, week)]
        offered = START + timedelta(weeks=self.offered_in - 1)
        drifted = partial(self._look_back, week, self.champion)
        how = self.params.retrain.model_copy(update={"policy": self.policy.follows})
        return ", ".join(decide(Evidence(batches, 7 * len(batches), drifted, offered=offered), how))

    def _train(self, week: int) -> bool:
        known = {name: plant.read_tables() for name, plant in self.learnt_from.items()}
        self.offered_in = week
        try:
            challenger = train_models(known, str(week), self.dictionary, self.params)
        except TooLittleDataError:
            return False
        if self.champion and self.policy.is_gated and not may_follow(challenger, self.champion, known, self.params):
            return False
        self.champion, self.trained_in = challenger, week
        return True

    def _look_back(self, week: int, champion: TrainedFleet) -> Mapping[str, Sequence[bool]]:
        """Return by plant whether it drifted in each of the last windows, as `upkeep retrain` looks back."""
        windows = min(self.params.retrain.drift_windows, week)
        return {name: look_back(windows, partial(self._has_drifted, name, champion, week)) for name in self.learnt_from}

    def _has_drifted(self, name: str, champion: TrainedFleet, now: int, weeks_ago: int) -> bool:
        plant, columns = self.learnt_from[name], self.dictionary.readings(name)
        end = plant.at((now - weeks_ago) * plant.fleet.hours_per_batch)
        window = Window(end - timedelta(weeks=self.params.drift.window_batches), end)
        telemetry = plant.read_tables().telemetry
        return compare_windows(telemetry, champion.trained[name], columns, window, self.params.drift).drifted


def _draw_plants(world: World) -> dict[str, LivedPlant]:
    changes: dict[PlantChange, int] = {} if world.change == "none" else {world.change: world.weeks // 2}
    plants = {}
    for plant in PLANTS[: world.plants]:
        fleet = simulate_fleet(
            plant, world.machines, seed=world.seed, start=START, batches=world.weeks, batch_days=7, changes=changes
        )
        plants[plant] = LivedPlant(fleet)
    return plants


def _lighten(params: Params, weeks: int) -> Params:
    """Return parameters with smaller models, fewer healthy rows and one core: a rehearsal trains hundreds of times.

    Splits are by the newest weeks if a quarter of all, which the first model has, leaves enough to train on. Models are
    LightGBM's, as no other kind is saved, and live ones are.
    """
    by = {"by": "window", "window": NEWEST_WEEKS} if weeks // 4 >= LEAST_HISTORY_WEEKS else {"by": "time"}
    split = params.dataset.split.model_copy(update=by)
    trees = {**params.model.lightgbm, "n_estimators": 150, "learning_rate": 0.1}
    lighter: dict[str, dict[str, Any]] = {
        "model": {"kind": "lightgbm", "compare": [], "early_stopping_rounds": 15, "lightgbm": trees},
        "dataset": {"negatives_kept": 0.05, "max_single_feature_auc": 1, "split": split},
        # With fewer, new data alone would be a reason so often that no other evidence counted; and a split that moves
        # on every four weeks trains on nothing new before.
        "retrain": {"new_batches": 8, "batches_between": NEWEST_WEEKS.every_weeks},
        "parallel": {"backend": "sequential", "jobs": 1},
        "pieces": {"folder": None},
    }
    sections = {name: getattr(params, name).model_copy(update=changes) for name, changes in lighter.items()}
    return params.model_copy(update=sections)
