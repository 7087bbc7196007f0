"""A simulated plant under a policy: its alarms cause visits, and visits prevent failures.

Plants are drawn alike whatever the policy, so that all policies face the same failures, except those that a visit
prevented.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from upkeep.contract.dictionary import DEFECT, EVENTS, FINDING, NOTHING
from upkeep.core.params import Params
from upkeep.features.definition import build_features
from upkeep.judging.episodes import opens_episode
from upkeep.model.storage import SavedModel, predict
from upkeep.simulator.fleet import Fleet, visit
from upkeep.simulator.readings import list_machines, simulate_events, simulate_telemetry
from upkeep.stages.dataset import Tables

SCORED_EVERY_HOURS = 8
FINDINGS_LATE = timedelta(days=7)  # how long after a visit its finding is known


@dataclass
class LivedPlant:
    """A plant's machines, what their sensors and controllers sent so far, and who visited them.

    `telemetry` and `happened` (failures, errors and maintenance) have a frame per past batch; `visits` are events of
    kind maintenance with their findings. `episodes` holds the start of each machine's latest alarm episode, and the
    time of the repair that ended it, if one did.
    """

    fleet: Fleet
    telemetry: list[pl.DataFrame] = field(default_factory=list)
    happened: list[pl.DataFrame] = field(default_factory=list)
    visits: pl.DataFrame = field(default_factory=EVENTS.to_frame)
    episodes: dict[int, tuple[datetime, datetime | None]] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """The end of the last past batch."""
        return self.at(len(self.telemetry) * self.fleet.hours_per_batch)

    def at(self, hour: int) -> datetime:
        """Return the time of an hour, counted from the start."""
        return datetime.combine(self.fleet.start, datetime.min.time(), UTC) + timedelta(hours=hour)

    def live(self, model: SavedModel | None, params: Params) -> None:
        """Simulate the next batch: score its rows, and visit the machines that the model raises alarms for."""
        if model:
            self._answer_alarms(model, params)
        batch = len(self.telemetry)
        self.telemetry.append(simulate_telemetry(self.fleet, batch))
        self.happened.append(simulate_events(self.fleet, batch))

    def count_by_week(self) -> pl.DataFrame:
        """Return for each ``week``, counted from 1, how many failures, defects found and false alarms it had."""
        failed = pl.concat(self.happened).filter(kind="failure").select("time", kind=pl.lit("failures"))
        names = {DEFECT: "defects_found", NOTHING: "false_alarms"}
        visits = self.visits.filter(pl.col("time") < self.now).select(
            "time", kind=pl.col(FINDING).replace_strict(names)
        )
        week = (pl.col("time") - self.at(0)).dt.total_days() // 7 + 1
        counted = pl.concat([failed, visits]).select("kind", week=week)
        weeks = pl.DataFrame({"week": range(1, len(self.happened) + 1)}, {"week": pl.Int64})
        counts = [counted.filter(kind=kind).group_by("week").len(kind) for kind in ("failures", *names.values())]
        return pl.concat([weeks, *counts], how="align_left").fill_null(0)

    def read_tables(self) -> Tables:
        """Return what is known at the end of the last past batch; a visit's finding is known later than the visit."""
        late = pl.col("time") > self.now - FINDINGS_LATE
        visits = self.visits.filter(pl.col("time") < self.now)
        told = visits.with_columns(pl.when(~late).then(FINDING).alias(FINDING))
        events = pl.concat([*self.happened, told], how="diagonal").sort("machine", "time")
        return Tables(pl.concat(self.telemetry).sort("machine", "time"), events, list_machines(self.fleet))

    def _answer_alarms(self, model: SavedModel, params: Params) -> None:
        """Send somebody for each alarm episode of the next batch; rows after a visit are scored again."""
        names, end = self.fleet.names.to_list(), self.now + timedelta(hours=self.fleet.hours_per_batch)
        scored = self._score(model, names)
        while scored.height:
            alarms = scored.filter(pl.col("probability") >= model.metadata.threshold)
            visits = {
                str(name): visited
                for (name,), rows in alarms.group_by("machine", maintain_order=True)
                if (visited := self._answer_first(names.index(name), rows["time"], params)) and visited < end
            }
            if not visits:
                return
            scored = self._score(model, list(visits))
            scored = scored.filter(pl.col("time") > pl.col("machine").replace_strict(visits))

    def _answer_first(self, machine: int, alarms: Iterable[datetime], params: Params) -> datetime | None:
        """Send somebody for the first alarm that is answered; return when they visit, None if none is answered."""
        response = math.ceil(params.evaluate.lead_time_hours)
        for alarm_at in alarms:
            hour = (alarm_at - self.at(0)) // timedelta(hours=1)
            if self._is_answered(machine, hour, hour + response, params):
                return self._visit(machine, alarm_at, hour + response)
        return None

    def _is_answered(self, machine: int, hour: int, visited: int, params: Params) -> bool:
        """Return whether an alarm opens an episode and its machine still works when somebody comes."""
        own = self.fleet.happenings.filter(pl.col("hour") <= visited, machine=machine)
        failed = max(own.filter(kind="failure")["hour"], default=-1)
        repaired = max(own.filter(pl.col("hour") < hour, code="repair")["hour"], default=-1)
        if repaired < failed or visited >= self.fleet.program.shape[1]:
            return False
        began, renewed = self.episodes.get(machine, (None, None))
        is_over = began is None or began <= self.at(failed) or (renewed and renewed < self.at(hour))
        horizon = timedelta(hours=params.dataset.horizon_hours)
        return opens_episode(None if is_over else began, self.at(hour), horizon)

    def _visit(self, machine: int, alarm_at: datetime, hour: int) -> datetime:
        """Visit a machine within an hour, repair what shows wear, and return when."""
        self.fleet, found = visit(self.fleet, machine, hour)
        time, finding = self.at(hour) + timedelta(minutes=30), DEFECT if found else NOTHING
        row = (self.fleet.plant, self.fleet.names[machine], time, "maintenance", "inspection", finding, alarm_at)
        self.visits.extend(pl.DataFrame([row], EVENTS, orient="row"))
        self.episodes[machine] = alarm_at, time if found else None
        return time

    def _score(self, model: SavedModel, machines: Sequence[str]) -> pl.DataFrame:
        """Return machine, time and probability of these machines' rows of the next batch, every eighth hour."""
        own, batch, dataset = pl.col("machine").is_in(machines), len(self.telemetry), model.metadata.dataset
        back = math.ceil(max(dataset.windows_hours) / self.fleet.hours_per_batch)
        telemetry = pl.concat([*self.telemetry[-back:], simulate_telemetry(self.fleet, batch)]).filter(own)
        happened = pl.concat([*self.happened, simulate_events(self.fleet, batch), self.visits], how="diagonal")
        end = self.at((batch + 1) * self.fleet.hours_per_batch)
        events, records = happened.filter(own, pl.col("time") < end), list_machines(self.fleet).filter(own)
        features = build_features(telemetry, events, records, model.metadata.preparation, dataset)
        scored = features.filter(pl.col("time") >= self.now, pl.col("time").dt.hour() % SCORED_EVERY_HOURS == 0)
        return scored.select("machine", "time", probability=pl.Series(predict(model, scored), dtype=pl.Float64))
