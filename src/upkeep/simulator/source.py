"""A seeded fleet with the defects of real deliveries, and a list of where they are."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from upkeep.contract.dictionary import Table
from upkeep.core.types import Frozen
from upkeep.simulator import defects as spoil
from upkeep.simulator.fleet import MODELS, Fleet, draw, simulate_fleet
from upkeep.simulator.readings import read_events, read_telemetry
from upkeep.sources import Delivery
from upkeep.sources.batches import batches_between, first_day
from upkeep.sources.options import read_options

AT_THE_SENSOR: dict[str, spoil.Defect] = {
    "outage": spoil.lose_rows,
    "null_sensor": spoil.lose_sensor,
    "stuck_sensor": spoil.stick_sensor,
    "spike": spoil.add_spikes,
}
IN_THE_FILE: dict[str, spoil.Defect] = {
    "exact_duplicate": spoil.double_rows,
    "near_duplicate": spoil.double_nearly,
    "unparsable": spoil.garble_numbers,
    "null_key": spoil.lose_keys,
}
SMALL = (*AT_THE_SENSOR, *IN_THE_FILE, "late_rows")
"""Every batch but the first has one of these, each plant another one."""

CYCLE = 17
LARGE = {"repeated_batch": 5, "late_batch": 9, "missing_batch": 13}
"""Batch of each cycle in which one plant sends a batch again with the next, only with the next, or never; the plants
take turns. They are more than :data:`LONGEST_DELAY` batches apart, so that late rows find a batch to arrive in."""
UNIT_CHANGE = (10, 11, 12)
"""Batches of each cycle in which the second plant's temperatures are in °F."""
LONGEST_DELAY = 3

NEW_COLUMN, VANISHED_COLUMN, REGIME_DRIFT = 20, 24, 43
"""First batch in which the first plant also counts oil particles, the third lacks humidity, the last runs otherwise."""


class SimulatorOptions(Frozen):
    """``fetch.options`` of the source ``simulator``, explained in ``params.yaml``."""

    seed: int = Field(default=7, ge=0)
    start: date
    plants: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], Annotated[int, Field(gt=0)]] = Field(min_length=1)
    defects: bool = True


class Defect(NamedTuple):
    """Where the simulator spoilt a delivery.

    Attributes
    ----------
    kind
        One of :data:`SMALL` or :data:`LARGE`, ``unit_change``, ``new_column``, ``vanished_column`` or ``regime_drift``.
    batch, delivered
        First day of the batch whose rows it concerns, and of that which it shows in (None: they never arrive).
    machine, column
        None where it concerns several machines, or whole rows.
    rows
        How many rows were lost, changed, added or moved. A batch that is sent twice repeats its defects uncounted.
    """

    kind: str
    table: Table
    plant: str
    batch: date
    delivered: date | None
    machine: str | None
    column: str | None
    rows: int


DEFECTS = {
    **dict.fromkeys(("kind", "table", "plant"), pl.String),
    **dict.fromkeys(("batch", "delivered"), pl.Date),
    **dict.fromkeys(("machine", "column"), pl.String),
    "rows": pl.Int64,
}


class Simulator:
    """Plants, machines and their weekly deliveries, made up from a seed.

    The rows of a batch depend on the options only, never on how far the history goes on. Of the batch that is under
    way, only what lies before `now` is delivered, by default the clock's time: nothing has measured the rest yet.
    """

    def __init__(self, options: Mapping[str, Any], batch_days: int, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._options = read_options(SimulatorOptions, options, "simulator")
        self._batch_days = batch_days
        self._start = first_day(self._options.start, batch_days)
        self._plants = list(self._options.plants)
        self._fleets: dict[str, Fleet] = {}
        self._batches = 1

    def deliveries(self, until: date) -> Iterator[Delivery]:
        """List every plant's telemetry and events per batch, and its machines with the first one."""
        days = batches_between(self._start, min(until, self._now.date()), self._batch_days)
        self._batches = max(self._batches, len(days))
        for plant in self._plants:
            for number, day in enumerate(days):
                if number == 0:
                    yield Delivery("machines", plant, day, partial(self._read_machines, plant))
                yield Delivery("events", plant, day, partial(self._read_events, plant, number))
                if self._arrives(plant, number):
                    yield Delivery("telemetry", plant, day, partial(self._read_telemetry, plant, number))

    def defects(self, until: date) -> pl.DataFrame:
        """List where batches up to the one that starts on ``until`` are spoilt: a row per :class:`Defect`."""
        numbers = range(len(batches_between(self._start, until, self._batch_days)))
        self._batches = max(self._batches, len(numbers))
        found = [defect for plant in self._plants for number in numbers for defect in self._find(plant, number)]
        return pl.DataFrame(found, schema=DEFECTS, orient="row")

    def _find(self, plant: str, number: int) -> list[Defect]:
        if not self._options.defects:
            return []
        sent, found = self._send(plant, number)
        whole = self._defect("", plant, number, sent.height)
        if self._happens("missing_batch", plant, number):
            return [whole._replace(kind="missing_batch", delivered=None)]
        if self._happens("late_batch", plant, number):
            found.append(whole._replace(kind="late_batch", delivered=self._day(number + 1)))
        else:
            found += self._write(plant, number)[1]
        if self._happens("repeated_batch", plant, number):
            found.append(whole._replace(kind="repeated_batch", delivered=self._day(number + 1)))
        if number == REGIME_DRIFT and plant == self._plant(-1):
            found.append(whole._replace(kind="regime_drift"))
        _, late, due = self._hold_back(plant, number)
        if late.height:
            moved = self._defect("late_rows", plant, number, late.height, machine=late["machine"][0])
            found.append(moved._replace(delivered=self._day(due)))
        doubled = self._write_events(plant, number).touched
        if doubled:
            found.append(self._defect("exact_duplicate", plant, number, doubled)._replace(table="events"))
        return found

    def _defect(
        self, kind: str, plant: str, number: int, rows: int, machine: str | None = None, column: str | None = None
    ) -> Defect:
        """Return a defect of telemetry that shows in its own batch."""
        day = self._day(number)
        return Defect(kind, "telemetry", plant, day, day, machine, column, rows)

    def _read_machines(self, plant: str) -> pl.DataFrame:
        fleet = self._fleet(plant, 0)
        models = [MODELS[model].name for model in fleet.models]
        installed = pl.Series(fleet.installed, dtype=pl.Datetime("us", "UTC"))
        return pl.DataFrame({"machine": fleet.names, "model": models, "installed": installed}).select(
            pl.lit(plant).alias("plant"), pl.all()
        )

    def _read_events(self, plant: str, number: int) -> pl.DataFrame:
        return self._until_now(self._write_events(plant, number).rows, number)

    def _read_telemetry(self, plant: str, number: int) -> pl.DataFrame:
        return self._until_now(self._write(plant, number)[0], number)

    def _until_now(self, rows: pl.DataFrame, number: int) -> pl.DataFrame:
        """Leave out what is still to come; rows that lost their time come once their batch is complete."""
        is_complete = self._day(number + 1) <= self._now.date()
        return rows if is_complete else rows.filter(pl.col("time") < self._now)

    def _write_events(self, plant: str, number: int) -> spoil.Spoilt:
        events = read_events(self._fleet(plant, number), number)
        if self._small(plant, number) != "exact_duplicate" or events.is_empty():
            return spoil.Spoilt(events, 0)
        return spoil.double_rows(events, self._draw(plant, number, "events"))

    def _write(self, plant: str, number: int) -> tuple[pl.DataFrame, list[Defect]]:
        """Return the telemetry file of a batch, and what the gateway did to it."""
        rows, _ = self._send(plant, number)
        if not self._options.defects:
            return rows, []
        parts = [rows, *self._arrive_late(plant, number)]
        if any(self._happens(kind, plant, number - 1) for kind in ("repeated_batch", "late_batch")):
            parts.append(self._send(plant, number - 1)[0])
        rows = pl.concat(parts, how="diagonal")
        found: list[Defect] = []
        if number >= VANISHED_COLUMN and plant == self._plant(2):
            rows = rows.drop("humidity_pct")
            found.append(self._defect("vanished_column", plant, number, rows.height, column="humidity_pct"))
        if number % CYCLE in UNIT_CHANGE and plant == self._plant(1):
            rows = rows.with_columns((pl.col("temperature_c") * 1.8 + 32).round(2))
            found.append(self._defect("unit_change", plant, number, rows.height, column="temperature_c"))
        return self._spoil(IN_THE_FILE, plant, number, rows, found)

    def _send(self, plant: str, number: int) -> tuple[pl.DataFrame, list[Defect]]:
        """Return the rows of a batch that its machines sent in time, and what their sensors did to them."""
        rows, _, _ = self._hold_back(plant, number)
        found: list[Defect] = []
        if not self._options.defects:
            return rows, found
        if number >= NEW_COLUMN and plant == self._plant(0):
            particles = self._draw(plant, number, "oil").integers(50, 900, rows.height) / 10
            rows = rows.with_columns(oil_particles_ppm=particles)
            found.append(self._defect("new_column", plant, number, rows.height, column="oil_particles_ppm"))
        return self._spoil(AT_THE_SENSOR, plant, number, rows, found)

    def _spoil(
        self, defects: Mapping[str, spoil.Defect], plant: str, number: int, rows: pl.DataFrame, found: list[Defect]
    ) -> tuple[pl.DataFrame, list[Defect]]:
        kind = self._small(plant, number)
        if kind is None or kind not in defects or rows.is_empty():
            return rows, found
        rows, touched, machine, column = defects[kind](rows, self._draw(plant, number, kind))
        return rows, [*found, self._defect(kind, plant, number, touched, machine=machine, column=column)]

    def _hold_back(self, plant: str, number: int) -> tuple[pl.DataFrame, pl.DataFrame, int]:
        """Split what a batch's machines measured into rows in time and late rows, and tell when the latter arrive."""
        rows = read_telemetry(self._fleet(plant, number), number)
        if self._small(plant, number) != "late_rows" or not self._arrives(plant, number) or rows.is_empty():
            return rows, rows.clear(), number
        rng = self._draw(plant, number, "late_rows")
        delays = [delay for delay in range(1, LONGEST_DELAY + 1) if self._arrives(plant, number + delay)]
        due = number + int(rng.choice(delays))
        _, late = spoil.choose_stretch(rows, rng, 12, 48)
        return rows.filter(~late), rows.filter(late), due

    def _arrive_late(self, plant: str, number: int) -> Iterator[pl.DataFrame]:
        """Yield the rows of earlier batches that arrive in this one."""
        for earlier in range(max(0, number - LONGEST_DELAY), number):
            if self._small(plant, earlier) == "late_rows":
                _, late, due = self._hold_back(plant, earlier)
                if due == number:
                    yield late

    def _arrives(self, plant: str, number: int) -> bool:
        return not any(self._happens(kind, plant, number) for kind in ("late_batch", "missing_batch"))

    def _happens(self, large: str, plant: str, number: int) -> bool:
        turn, batch = divmod(number, CYCLE)
        order = list(LARGE).index(large)
        return self._options.defects and batch == LARGE[large] and plant == self._plant(turn + order)

    def _small(self, plant: str, number: int) -> str | None:
        """Return which of the small defects a batch has; the first one, in which baselines begin, has none."""
        if not self._options.defects or number == 0:
            return None
        return SMALL[(number - 1 + self._plants.index(plant)) % len(SMALL)]

    def _plant(self, index: int) -> str:
        """Return a plant by its place in the options, counted round."""
        return self._plants[index % len(self._plants)]

    def _day(self, number: int) -> date:
        return self._start + timedelta(days=number * self._batch_days)

    def _draw(self, plant: str, number: int, what: str) -> np.random.Generator:
        return draw(self._options.seed, plant, what, number)

    def _fleet(self, plant: str, number: int) -> Fleet:
        """Return a plant's fleet, simulated once as far as deliveries were asked for."""
        known = self._fleets.get(plant)
        if known is None or known.batches <= number:
            drifts = self._options.defects and plant == self._plant(-1)
            known = self._fleets[plant] = simulate_fleet(
                plant,
                self._options.plants[plant],
                seed=self._options.seed,
                start=self._start,
                batches=max(self._batches, number + 1),
                batch_days=self._batch_days,
                drift=REGIME_DRIFT if drifts else None,
            )
        return known
