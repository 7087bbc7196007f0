"""The default source: a seeded fleet with the defects of real deliveries."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import polars as pl

from upkeep.contract.dictionary import Table
from upkeep.simulator.plant import Plant, SimulatorOptions
from upkeep.sources import Delivery, read_options
from upkeep.sources.batches import batches_between, first_day


class Simulator:
    """Plants, machines and their weekly deliveries, made up from a seed.

    The rows of a batch depend on the options only, never on how far the history goes on. Of the batch that is under
    way, only what lies before `now` is delivered, by default the clock's time: nothing has measured the rest yet.
    """

    def __init__(self, options: Mapping[str, Any], batch_days: int, now: datetime | None = None) -> None:
        chosen = read_options(SimulatorOptions, options, "simulator")
        self._now = now or datetime.now(UTC)
        self._batch_days = batch_days
        self._start = first_day(chosen.start, batch_days)
        self._plants = [Plant(name, chosen, self._start, batch_days) for name in chosen.plants]

    def deliveries(self, until: date) -> Iterator[Delivery]:
        """List every plant's telemetry and events per batch, and its machines with the first one."""
        days = batches_between(self._start, min(until, self._now.date()), self._batch_days)
        for plant in self._plants:
            plant.batches = max(plant.batches, len(days))
            for number, day in enumerate(days):
                if number == 0:
                    yield Delivery("machines", plant.name, day, plant.list_machines)
                yield Delivery("events", plant.name, day, partial(self._read, plant, "events", number))
                if plant.arrives(number):
                    yield Delivery("telemetry", plant.name, day, partial(self._read, plant, "telemetry", number))

    def _read(self, plant: Plant, table: Table, number: int) -> pl.DataFrame:
        """Leave out what is still to come; rows that lost their time come once their batch is complete."""
        rows = plant.read(table, number)
        is_complete = plant.day(number + 1) <= self._now.date()
        return rows if is_complete else rows.filter(pl.col("time") < self._now)
