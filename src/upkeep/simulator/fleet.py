"""A simulated fleet: programs load machines, load wears them, wear shows in sensors and ends in failures.

What happens in a batch depends only on the batches before it, so that a longer history starts with the same bytes.
Random numbers are therefore drawn per batch, and per machine in the order of its life.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from upkeep.core.types import Booleans, Floats, Floats32, Ints

COMPONENTS = ("bearing", "hydraulics", "motor", "controller")
EVENTS = {"machine": pl.Int64, "hour": pl.Int64, "kind": pl.String, "code": pl.String}
SHIFT_HOURS = 8
IDLE = 0  # program of a machine that stands still; a plant's own programs are numbered from 1

LIFE_SHAPE = 3.0
LIFE_HOURS = np.array([3700.0, 4200.0, 4200.0, 30000.0])
"""Weibull shape and scale of each component's life, in hours at the plant's mean load."""
MAINTENANCE_RESTORES = np.array([0.35, 0.35, 0.35, 0.0])
"""Share of the wear so far that scheduled maintenance removes; controllers are not serviced."""
WEAR_PER_YEAR_OF_AGE = 0.03
SILENT_SHARE = 0.05  # share of failures that hardly show in any sensor


PlantChange = Literal["bearings", "sensor", "firmware", "regime", "overhauls", "maintenance"]
"""What may change in a plant: bearings of another supplier, whose wear shows late, and in heat instead of vibration;
vibration sensors of another make; firmware that sends coarser steps; another order book in a hotter hall. The last two
are nothing that a model has to learn: overhauls that leave machines nearly new, and maintenance twice as often."""
OVERHAUL_RESTORES = 0.9  # share of the wear so far that an overhaul removes
FOUND_AT = 0.05  # how strongly wear must show for a visit to find it


class MachineModel(NamedTuple):
    """How fast a model of machine wears, and how strongly its sensors respond to load."""

    name: str
    wear: float
    vibration_mm_s: float
    heat_c: float
    pressure_bar: float
    current_a: float


MODELS = (
    MachineModel("VM-20", 0.9, 1.3, 24.0, 6.6, 36.0),
    MachineModel("VM-35", 1.0, 1.5, 27.0, 7.0, 41.0),
    MachineModel("HX-5", 1.15, 1.2, 30.0, 7.4, 44.0),
    MachineModel("HX-8", 1.3, 1.6, 26.0, 7.2, 39.0),
)


@dataclass(frozen=True)
class Regime:
    """How a plant runs its machines.

    Speed, load and wear per hour (in hours at the plant's mean load) have an entry per program, the idle one first;
    `share` is how often a working shift runs each of the others. `shifts` are per day, `days` per week, `ambient_c` is
    the mean air temperature, and `model_share` how common each of :data:`MODELS` is.
    """

    speed_rpm: Floats32
    load_pct: Floats32
    share: Floats
    wear: Floats
    shifts: int
    days: int
    ambient_c: float
    model_share: Floats


@dataclass(frozen=True)
class Fleet:
    """A plant's machines and their history.

    Per machine: ``names``, ``models`` (indices into :data:`MODELS`), ``installed``, and each sensor's response in
    ``gains``; per machine and hour: the ``program`` that it ran, and whether it was off the network (``absent``).
    ``changes`` are the first batches of changes, ``regimes`` the plant's before and after a change of regime. ``signs``
    is how strongly wear shows, 0 (healthy) to 1.3, per component, machine and hour; ``ambient_c`` how much warmer than
    the regime's mean the air is in each hour. ``happenings`` are failures and maintenance.
    """

    plant: str
    seed: int
    start: date
    hours_per_batch: int
    names: pl.Series
    models: Ints
    installed: list[datetime]
    gains: Floats32
    regimes: tuple[Regime, Regime]
    changes: Mapping[PlantChange, int]
    program: NDArray[np.int8]
    absent: Booleans
    signs: Floats32
    ambient_c: Floats32
    happenings: pl.DataFrame

    @property
    def batches(self) -> int:
        """The number of simulated batches."""
        return len(self.ambient_c) // self.hours_per_batch

    def regime(self, batch: int) -> Regime:
        """Return how the plant ran in a batch."""
        return self.regimes[self.has_changed("regime", batch)]

    def has_changed(self, change: PlantChange, batch: int) -> bool:
        """Return whether a change is in effect in a batch."""
        return batch >= self.changes.get(change, self.batches)

    def hours(self, batch: int) -> slice:
        """Return the hours of a batch, counted from the start."""
        return slice(batch * self.hours_per_batch, (batch + 1) * self.hours_per_batch)


def simulate_fleet(
    plant: str,
    machines: int,
    *,
    seed: int,
    start: date,
    batches: int,
    batch_days: int,
    changes: Mapping[PlantChange, int],
) -> Fleet:
    """Simulate how a plant's machines run, wear, fail and are repaired from `start`, the first batch's first day.

    The plant's name decides its regime, whatever the seed; `changes` are the first batches of changes.
    """
    regime = draw_regime(plant)
    generators = [draw(seed, plant, "machine", machine) for machine in range(machines)]
    models = np.array([rng.choice(len(MODELS), p=regime.model_share) for rng in generators])
    age_days = np.array([int(rng.integers(180, 3000)) for rng in generators])
    shape = machines, batches * batch_days * 24
    fleet = Fleet(
        plant=plant,
        seed=seed,
        start=start,
        hours_per_batch=24 * batch_days,
        names=pl.Series([f"M{machine + 1:03d}" for machine in range(machines)]),
        models=models,
        installed=[datetime(start.year, start.month, start.day, tzinfo=UTC) - timedelta(int(age)) for age in age_days],
        gains=np.array([1 + 0.03 * rng.standard_normal(4) for rng in generators], dtype=np.float32),
        regimes=(regime, _change_regime(regime)),
        changes=changes,
        program=np.empty(shape, dtype=np.int8),
        absent=np.zeros(shape, dtype=np.bool_),
        signs=np.empty((len(COMPONENTS), *shape), dtype=np.float32),
        ambient_c=_draw_ambient(seed, plant, start, batches * batch_days),
        happenings=pl.DataFrame(schema=EVENTS),
    )
    wear = np.empty(shape)
    for batch in range(batches):
        hours = fleet.hours(batch)
        fleet.program[:, hours] = _draw_programs(fleet, batch)
        wear[:, hours] = fleet.regime(batch).wear[fleet.program[:, hours]]
    pace = np.array([model.wear for model in MODELS])[models] * (1 + WEAR_PER_YEAR_OF_AGE * age_days / 365)
    happenings = [
        (machine, *happening)
        for machine, rng in enumerate(generators)
        for happening in _live_machine(fleet, machine, np.cumsum(wear[machine] * pace[machine]), rng)
    ]
    return replace(fleet, happenings=pl.DataFrame(happenings, schema=EVENTS, orient="row"))


def visit(fleet: Fleet, machine: int, hour: int) -> tuple[Fleet, list[str]]:
    """Inspect a machine late in an hour and renew the components whose wear shows; return these as well.

    A failure that such wear would lead to does not happen, nor its repair. All else stays as drawn, so that fleets with
    different visits share their other failures: a component goes on as it would have after that repair.
    """
    signs, end = fleet.signs.copy(), fleet.signs.shape[-1]
    found = np.flatnonzero(signs[:, machine, hour] >= FOUND_AT)
    spared = fleet
    for component in found:
        # Wear shows until it ends in a failure, or until maintenance takes it away.
        healthy = np.flatnonzero(signs[component, machine, hour + 1 :] == 0)
        last = hour + int(healthy[0]) if healthy.size else end - 1
        signs[component, machine, hour + 1 : last + 1] = 0
        spared = _spare_failure(spared, machine, last, COMPONENTS[component])
    return replace(spared, signs=signs), [COMPONENTS[component] for component in found]


def _spare_failure(fleet: Fleet, machine: int, hour: int, component: str) -> Fleet:
    """Let a machine run on if its component would have failed in this hour and been repaired."""
    own = fleet.happenings.filter(machine=machine)
    if own.filter(hour=hour, kind="failure", code=component).is_empty():
        return fleet
    repaired = min(own.filter(pl.col("hour") > hour, code="repair")["hour"], default=fleet.program.shape[1] - 1)
    program, absent = fleet.program.copy(), fleet.absent.copy()
    first, last = hour // fleet.hours_per_batch, repaired // fleet.hours_per_batch
    drawn = np.hstack([_draw_programs(fleet, batch)[machine] for batch in range(first, last + 1)])
    stop, begin = slice(hour + 1, repaired + 1), fleet.hours(first).start
    program[machine, stop] = drawn[stop.start - begin : stop.stop - begin]
    absent[machine, stop] = False
    at_hand = pl.col("hour").is_in([hour, repaired]) & pl.col("code").is_in([component, "repair"])
    gone = (pl.col("machine") == machine) & at_hand
    return replace(fleet, program=program, absent=absent, happenings=fleet.happenings.filter(~gone))


def draw(seed: int, plant: str, what: str, *index: int) -> np.random.Generator:
    """Return the random generator of one thing in one plant, the same whatever else is drawn."""
    return np.random.default_rng([seed, crc32(plant.encode()), crc32(what.encode()), *index])


def draw_regime(plant: str) -> Regime:
    """Return a plant's operating regime, which depends on its name only."""
    rng = draw(0, plant, "regime")
    programs = int(rng.integers(2, 5))
    speed = np.append(0, rng.choice(np.arange(800, 3300, 800), programs, replace=False))
    load = np.append(0, rng.choice(np.arange(30, 91, 20), programs, replace=False))
    share = rng.uniform(1, 4, programs).round(2)
    shifts, days = ((3, 7), (3, 6), (2, 6), (3, 5))[rng.integers(4)]
    torque = 0.3 + speed * load / 1e5
    torque[IDLE] = 0.05
    mean_torque = np.average(torque[1:], weights=share) * shifts * days / 21
    return Regime(
        speed_rpm=speed.astype(np.float32),
        load_pct=load.astype(np.float32),
        share=share / share.sum(),
        wear=torque / mean_torque * rng.uniform(0.9, 1.15),
        shifts=shifts,
        days=days,
        ambient_c=round(float(rng.uniform(16, 25)), 1),
        model_share=rng.dirichlet(np.full(len(MODELS), 3.0)),
    )


def _change_regime(regime: Regime) -> Regime:
    """Return the regime after a new order book and a hotter hall: other programs, at more load."""
    running = np.arange(len(regime.load_pct)) != IDLE
    return replace(
        regime,
        load_pct=regime.load_pct + np.float32(7) * running,
        share=regime.share[::-1],
        wear=regime.wear * 1.1,
        ambient_c=regime.ambient_c + 5,
    )


def _draw_programs(fleet: Fleet, batch: int) -> Ints:
    """Return the program of each machine and hour of a batch; it changes with the shift."""
    regime, days = fleet.regime(batch), fleet.hours_per_batch // 24
    drawn = draw(fleet.seed, fleet.plant, "programs", batch).random((len(fleet.names), days, 24 // SHIFT_HOURS))
    program = 1 + np.searchsorted(np.cumsum(regime.share)[:-1], drawn)
    weekday = (fleet.start.weekday() + batch * days + np.arange(days)) % 7
    program[:, weekday >= regime.days] = IDLE
    program[:, :, regime.shifts :] = IDLE
    return program.reshape(len(fleet.names), -1).repeat(SHIFT_HOURS, axis=1)


def _draw_ambient(seed: int, plant: str, start: date, days: int) -> Floats32:
    """Return how much warmer than usual the hall is in each hour: season, time of day and weather."""
    rng = draw(seed, plant, "weather")
    weather, today = [], 0.0
    for _ in range(days):
        today = 0.8 * today + rng.standard_normal()
        weather.append(today)
    hour = np.arange(days * 24)
    day_of_year = start.timetuple().tm_yday + hour / 24
    season = -2.5 * np.cos(2 * np.pi * (day_of_year - 20) / 365.25) - 1.5 * np.cos(2 * np.pi * (hour - 3) / 24)
    warmer: Floats = np.round(season + np.repeat(weather, 24), 3)
    return warmer.astype(np.float32)


def _mark_repair(fleet: Fleet, machine: int, failed: int, hours: slice, *, absent: bool) -> None:
    """Mark that a machine stands still in these hours, without signs of the failed component, on or off the network."""
    fleet.program[machine, hours] = IDLE
    fleet.signs[:, machine, hours] = fleet.signs[:, machine, hours.start - 1, None]
    fleet.signs[failed, machine, hours] = 0
    fleet.absent[machine, hours] = absent


def _live_machine(fleet: Fleet, machine: int, worn: Floats, rng: np.random.Generator) -> Iterator[tuple[int, str, str]]:
    """Yield hour, kind and code of a machine's failures, repairs and scheduled maintenance, in order.

    Signs of wear and stops are marked in the fleet. `worn`, of shape (hours,), is the wear up to and including each
    hour, had the machine never stopped.
    """
    end = len(worn)
    # Hours from which maintenance is an overhaul, and comes twice as often.
    overhauled, hurried = (
        fleet.changes.get(change, fleet.batches) * fleet.hours_per_batch for change in ("overhauls", "maintenance")
    )
    life, left, lead, strength = np.empty((4, len(COMPONENTS)))  # lead: how long before its end wear shows

    def renew(component: int) -> None:
        left[component] = life[component] = 200 + LIFE_HOURS[component] * rng.weibull(LIFE_SHAPE)
        lead[component] = rng.uniform(100, 180)
        strength[component] = rng.uniform(0.8, 1.3) if rng.random() > SILENT_SHARE else 0.1

    def until_service(hour: int) -> int:
        return interval // 2 if hour >= hurried else interval

    for component in range(len(COMPONENTS)):
        renew(component)
    left *= rng.uniform(0.2, 1.0, len(COMPONENTS))
    interval = int(rng.integers(60, 91)) * 24
    now, service = 0, int(rng.integers(7 * 24, interval))
    while now < end:
        used = worn[now - 1] if now else 0.0
        ends = np.searchsorted(worn, used + left)
        failing = int(np.argmin(ends))
        stop = int(min(ends[failing], service, end - 1))
        near = 1 - (left[:, None] - (worn[now : stop + 1] - used)) / lead[:, None]
        fleet.signs[:, machine, now : stop + 1] = strength[:, None] * np.square(np.maximum(near, 0))
        left -= worn[stop] - used
        if stop == ends[failing]:
            yield stop, "failure", COMPONENTS[failing]
            now = stop + 1 + int(rng.integers(12, 49))
            _mark_repair(fleet, machine, failing, slice(stop + 1, now), absent=rng.random() < 0.5)
            if now <= end:
                yield now - 1, "maintenance", "repair"
            renew(failing)
            service = service if service >= now else now + until_service(now)
        elif stop == service:
            yield stop, "maintenance", "scheduled"
            restored = OVERHAUL_RESTORES if stop >= overhauled else MAINTENANCE_RESTORES
            left += restored * (life - left)
            now, service = stop + 1, stop + until_service(stop)
        else:
            return
