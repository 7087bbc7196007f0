"""The default source: simulated plants whose deliveries have defects as real ones do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from upkeep.contract.dictionary import Table
from upkeep.core.types import Frozen
from upkeep.simulator.defects import AT_THE_SENSOR, IN_THE_FILE, Defect, choose_stretch, double_rows
from upkeep.simulator.fleet import Fleet, PlantChange, draw, simulate_fleet
from upkeep.simulator.readings import list_machines, simulate_events, simulate_telemetry
from upkeep.sources import Delivery, read_options
from upkeep.sources.batches import batches_between, first_day

SMALL = (*AT_THE_SENSOR, *IN_THE_FILE, "late_rows")
"""Every batch but the first has one of these, a different one in each plant."""

CYCLE = 17
LARGE = {"repeated_batch": 5, "late_batch": 9, "missing_batch": 13}
"""Batch of each cycle in which one plant sends a batch again with the next, only with the next, or never; the plants
take turns. They are more than :data:`LONGEST_DELAY` batches apart, so that late rows find a batch to arrive in."""
UNIT_CHANGE = (10, 11, 12)  # batches of each cycle in which the second plant's temperatures are in °F
LONGEST_DELAY = 3

NEW_COLUMN, VANISHED_COLUMN, REGIME_DRIFT = 20, 24, 43
"""First batch in which the first plant also counts oil particles, the third lacks humidity, the last changes regime."""


class SimulatorOptions(Frozen):
    """``fetch.options`` of the source ``simulator``, explained in ``params.yaml``."""

    seed: int = Field(default=7, ge=0)
    start: date
    plants: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], Annotated[int, Field(gt=0)]] = Field(min_length=1)
    defects: bool = True
    changes: dict[PlantChange, date] = Field(default={})


@dataclass
class Plant:
    """A plant and its deliveries, in batches numbered from 0, which begins on `start`.

    Its place among the plants of the options decides its defects.
    """

    name: str
    options: SimulatorOptions
    start: date
    batch_days: int
    batches: int

    @cached_property
    def fleet(self) -> Fleet:
        """The plant's machines and their history, simulated when rows are first needed."""
        drift: dict[PlantChange, int] = {"regime": REGIME_DRIFT} if self._is_at(-1) else {}
        # A change takes effect with the first batch that begins on its day or later.
        days = {change: (day - self.start).days for change, day in self.options.changes.items()}
        numbers = {change: max(0, -(-passed // self.batch_days)) for change, passed in days.items()}
        return simulate_fleet(
            self.name,
            self.options.plants[self.name],
            seed=self.options.seed,
            start=self.start,
            batches=self.batches,
            batch_days=self.batch_days,
            changes=drift | numbers,
        )

    def arrives(self, number: int) -> bool:
        """Return whether a file of telemetry comes with the batch of this number."""
        return not (self._happens("late_batch", number) or self._happens("missing_batch", number))

    def read(self, table: Table, number: int) -> pl.DataFrame:
        """Return the rows of a table that come with a batch; machines come once."""
        if table == "machines":
            return list_machines(self.fleet)
        if table == "telemetry":
            return self._spoil(IN_THE_FILE, number, self._collect(number))
        events = simulate_events(self.fleet, number)
        is_doubled = self._small(number) == "exact_duplicate" and not events.is_empty()
        return double_rows(events, self._draw(number, "events")) if is_doubled else events

    def _collect(self, number: int) -> pl.DataFrame:
        """Return the telemetry that the gateway sends with a batch, without the defects of the file."""
        parts = [self._send(number), *self._arrive_late(number)]
        if self._happens("repeated_batch", number - 1) or self._happens("late_batch", number - 1):
            parts.append(self._send(number - 1))
        rows = pl.concat(parts, how="diagonal")
        if number >= VANISHED_COLUMN and self._is_at(2):
            rows = rows.drop("humidity_pct")
        if number % CYCLE in UNIT_CHANGE and self._is_at(1):
            rows = rows.with_columns((pl.col("temperature_c") * 1.8 + 32).round(2))
        return rows

    def _send(self, number: int) -> pl.DataFrame:
        """Return the rows of a batch that came in time, with the defects of sensors."""
        rows, _, _ = self._hold_back(number)
        if number >= NEW_COLUMN and self._is_at(0):
            rows = rows.with_columns(oil_particles_ppm=self._draw(number, "oil").integers(50, 900, rows.height) / 10)
        return self._spoil(AT_THE_SENSOR, number, rows)

    def _spoil(self, defects: Mapping[str, Defect], number: int, rows: pl.DataFrame) -> pl.DataFrame:
        kind = self._small(number)
        return defects[kind](rows, self._draw(number, kind)) if kind in defects and rows.height else rows

    def _hold_back(self, number: int) -> tuple[pl.DataFrame, pl.DataFrame, int]:
        """Split a batch's rows into those in time and those late, and return the batch that the latter come with."""
        rows = simulate_telemetry(self.fleet, number)
        if self._small(number) != "late_rows" or not self.arrives(number) or rows.is_empty():
            return rows, rows.clear(), number
        rng = self._draw(number, "late_rows")
        delays = [delay for delay in range(1, LONGEST_DELAY + 1) if self.arrives(number + delay)]
        due = number + int(rng.choice(delays))
        late = choose_stretch(rows, rng, 12, 48)
        return rows.filter(~late), rows.filter(late), due

    def _arrive_late(self, number: int) -> Iterator[pl.DataFrame]:
        for earlier in range(max(0, number - LONGEST_DELAY), number):
            if self._small(earlier) == "late_rows":
                _, late, due = self._hold_back(earlier)
                if due == number:
                    yield late

    def _happens(self, large: str, number: int) -> bool:
        turn, batch = divmod(number, CYCLE)
        return batch == LARGE[large] and self._is_at(turn + list(LARGE).index(large))

    def _small(self, number: int) -> str:
        """Return the small defect of a batch, empty for the first one, in which baselines begin."""
        if not self.options.defects or number == 0:
            return ""
        return SMALL[(number - 1 + list(self.options.plants).index(self.name)) % len(SMALL)]

    def _is_at(self, place: int) -> bool:
        """Return whether this is the plant at that place, modulo their number, and defects are wanted."""
        plants = list(self.options.plants)
        return self.options.defects and plants[place % len(plants)] == self.name

    def day(self, number: int) -> date:
        """Return the first day of a batch."""
        return self.start + timedelta(days=number * self.batch_days)

    def _draw(self, number: int, what: str) -> np.random.Generator:
        return draw(self.options.seed, self.name, what, number)


class Simulator:
    """Simulated plants, machines and their deliveries.

    The rows of a batch depend on the options only, not on how long the history is. Of the current batch only what lies
    before `now`, by default the clock's time, is delivered: the rest has not been measured yet.
    """

    def __init__(self, options: Mapping[str, Any], batch_days: int, now: datetime | None = None) -> None:
        self._options = read_options(SimulatorOptions, options, "simulator")
        self._now = now or datetime.now(UTC)
        self._batch_days = batch_days

    def deliveries(self, until: date) -> Iterator[Delivery]:
        """List every plant's telemetry and events per batch, and its machines with the first one."""
        start = first_day(self._options.start, self._batch_days)
        days = batches_between(start, min(until, self._now.date()), self._batch_days)
        for name in self._options.plants:
            plant = Plant(name, self._options, start, self._batch_days, len(days))
            for number, day in enumerate(days):
                if number == 0:
                    yield Delivery("machines", name, day, partial(plant.read, "machines", 0))
                yield Delivery("events", name, day, partial(self._read, plant, "events", number))
                if plant.arrives(number):
                    yield Delivery("telemetry", name, day, partial(self._read, plant, "telemetry", number))

    def _read(self, plant: Plant, table: Table, number: int) -> pl.DataFrame:
        """Return the rows up to now; rows that lost their time come once their batch is complete."""
        rows = plant.read(table, number)
        is_complete = plant.day(number + 1) <= self._now.date()
        return rows if is_complete else rows.filter(pl.col("time") < self._now)
