"""Years of continuous training in simulated time: weekly batches, alarms every eight hours, one policy at a time."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Literal, NamedTuple

import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.judging.drift import Window
from upkeep.rehearsal.learning import Candidate, has_drifted, may_follow, train_models
from upkeep.rehearsal.plants import LivedPlant
from upkeep.rehearsal.policies import POLICIES
from upkeep.releases.policies import Evidence, decide
from upkeep.simulator.fleet import Change, simulate_fleet

START = date(2025, 1, 6)
PLANTS = ("gdansk", "hamburg", "lyon", "porto", "turin", "bilbao", "malmo", "brno")
LIGHTER = {"n_estimators": 150, "learning_rate": 0.1}
FEWER_NEGATIVES = 0.05
FEWER_ROUNDS = 15
"""A rehearsal trains hundreds of times, so it does with smaller models and fewer healthy rows than params.yaml asks."""
ENOUGH_BATCHES = 8
"""New data alone is a reason to train once so many batches have come: else evidence would decide nothing."""

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


class World(NamedTuple):
    """How many plants live for how many weeks, how they are drawn, and what changes in the middle, if anything."""

    plants: int
    machines: int
    weeks: int
    seed: int
    change: Change | Literal["none"]


class Rehearsal:
    """One policy's plants, its models, and the plants that it learns from."""

    def __init__(self, world: World, policy: str, params: Params) -> None:
        self.world, self.name, self.policy = world, policy, POLICIES[policy]
        self.params = _lighten(params)
        self.lived = _draw_plants(world)
        self.learnt_from = _draw_plants(world) if self.policy.knows_labels else self.lived
        self.champion: Candidate | None = None
        self.trained_in = 0
        self._drift: dict[tuple[str, int], bool] = {}

    def run(self) -> pl.DataFrame:
        """Let all weeks pass; return them as rows of `WEEKS`."""
        weeks = range(1, self.world.weeks + 1)
        ends = [self._live(week) for week in weeks]
        counts = [plant.count_by_week() for plant in self.lived.values()]
        happened = pl.concat(counts).group_by("week").sum()
        rows = pl.DataFrame(ends, {"week": pl.Int64, "reason": pl.String, "promoted": pl.Boolean}, orient="row")
        costs = self.params.evaluate.costs
        return (
            rows.join(happened, on="week", how="left", maintain_order="left")
            .with_columns(
                pl.lit(self.world.seed).alias("seed"),
                pl.lit(self.world.change).alias("change"),
                pl.lit(self.name).alias("policy"),
                cost=pl.col("failures") * costs.failure
                + pl.col("defects_found") * costs.planned_repair
                + pl.col("false_alarms") * costs.false_alarm,
            )
            .select(WEEKS.names())
            .cast(WEEKS)
        )

    def _live(self, week: int) -> tuple[int, str, bool]:
        for name, plant in self.lived.items():
            plant.live(self.champion.models[name] if self.champion else None, self.params)
        if self.learnt_from is not self.lived:
            for plant in self.learnt_from.values():
                plant.live(None, self.params)
        reason = self._decide(week)
        return week, reason, bool(reason) and self._train(week)

    def _decide(self, week: int) -> str:
        """Return the labels of the reasons to train."""
        if self.champion is None:
            return "first" if week >= self.world.weeks // 4 else ""
        if self.policy.again_at_half and week == self.world.weeks // 2:
            return "new data"
        batches = [START + timedelta(weeks=number) for number in range(self.trained_in, week)]
        evidence = Evidence(batches, 7 * len(batches), lambda: self._look_back(week))
        how = self.params.retrain.model_copy(update={"policy": self.policy.follows})
        return ", ".join(decide(evidence, how))

    def _train(self, week: int) -> bool:
        """Train; tell whether the models ship."""
        known = {name: plant.read_tables() for name, plant in self.learnt_from.items()}
        self.trained_in = week
        try:
            challenger = train_models(known, str(week), self.params)
        except UpkeepError:  # too little is known: what is live stays
            return False
        if self.champion and self.policy.is_gated and not may_follow(challenger, self.champion, known, self.params):
            return False
        self.champion, self._drift = challenger, {}
        return True

    def _look_back(self, week: int) -> Mapping[str, Sequence[bool]]:
        """Return by plant whether it drifted in each of the last windows, as far as the first says that it did."""
        found = {}
        for name in self.learnt_from:
            windows: list[bool] = []
            while len(windows) < min(self.params.retrain.drift_windows, week) and all(windows[:1]):
                windows.append(self._has_drifted(name, week - len(windows)))
            found[name] = windows
        return found

    def _has_drifted(self, name: str, week: int) -> bool:
        if (name, week) not in self._drift and self.champion:
            plant, batches = self.learnt_from[name], self.params.drift.window_batches
            end = plant.at(week * plant.fleet.hours_per_batch)
            window = Window(end - timedelta(weeks=batches), end)
            trained, tables = self.champion.trained[name], plant.read_tables()
            self._drift[name, week] = has_drifted(name, tables, trained, window, self.params)
        return self._drift[name, week]


def rehearse(world: World, policy: str, params: Params) -> pl.DataFrame:
    """Let a policy live through a world; return a row of `WEEKS` for each week."""
    return Rehearsal(world, policy, params).run()


def _draw_plants(world: World) -> dict[str, LivedPlant]:
    changes: dict[Change, int] = {} if world.change == "none" else {world.change: world.weeks // 2}
    return {
        plant: LivedPlant(
            simulate_fleet(
                plant,
                world.machines,
                seed=world.seed,
                start=START,
                batches=world.weeks,
                batch_days=7,
                changes=changes,
            )
        )
        for plant in PLANTS[: world.plants]
    }


def _lighten(params: Params) -> Params:
    """Return the parameters with smaller models, fewer healthy rows, and one core for each rehearsal."""
    model = params.model.model_copy(
        update={
            "compare": [],
            "early_stopping_rounds": FEWER_ROUNDS,
            "lightgbm": {**params.model.lightgbm, **LIGHTER},
        }
    )
    return params.model_copy(
        update={
            "model": model,
            "dataset": params.dataset.model_copy(
                update={"negatives_kept": FEWER_NEGATIVES, "max_single_feature_auc": 1}
            ),
            "retrain": params.retrain.model_copy(update={"new_batches": ENOUGH_BATCHES}),
            "parallel": params.parallel.model_copy(update={"backend": "sequential", "jobs": 1}),
            "pieces": params.pieces.model_copy(update={"folder": None}),
        }
    )
