"""What a simulated fleet's sensors show and its controllers report, batch by batch."""

from datetime import UTC, datetime

import numpy as np
import polars as pl

from upkeep.core.types import Floats, Floats32
from upkeep.simulator.fleet import COMPONENTS, EVENTS, IDLE, MODELS, Fleet, draw

ERRORS = ("E1", "E2", "E3", "E4", "E5")
FALSE_ERRORS_PER_HOUR = 0.0004
WEAR_ERRORS_PER_HOUR = 0.08
"""Rates per error code: of a healthy machine, and added by a component at the end of its life."""
COARSE_STEPS = {"vibration_mm_s": 0.25, "temperature_c": 2.0, "pressure_bar": 0.5, "current_a": 2.0}
"""What the changed firmware sends multiples of."""


def list_machines(fleet: Fleet) -> pl.DataFrame:
    """Return the machines table."""
    rows = pl.DataFrame({"machine": fleet.names, "model": [MODELS[model].name for model in fleet.models]})
    installed = pl.Series(fleet.installed, dtype=pl.Datetime("us", "UTC"))
    return rows.select(pl.lit(fleet.plant).alias("plant"), pl.all(), installed=installed)


def simulate_telemetry(fleet: Fleet, batch: int) -> pl.DataFrame:
    """Return what the sensors showed in a batch, one row per machine and hour, sorted by both.

    Hours in which a machine was off the network have no row.
    """
    machines, hours = len(fleet.names), fleet.hours_per_batch
    present = ~fleet.absent[:, fleet.hours(batch)].ravel()
    start = np.datetime64(fleet.start, "us") + np.timedelta64(batch * hours, "h")
    times = start + np.arange(hours) * np.timedelta64(1, "h")
    frame = pl.DataFrame(
        {
            "plant": pl.repeat(fleet.plant, machines * hours, dtype=pl.String, eager=True),
            "machine": fleet.names.gather(np.repeat(np.arange(machines), hours)),
            "time": pl.Series(np.tile(times, machines)).dt.replace_time_zone("UTC"),
            **{name: values.ravel() for name, values in _measure_sensors(fleet, batch).items()},
        }
    )
    return frame if present.all() else frame.filter(present)


def _measure_sensors(fleet: Fleet, batch: int) -> dict[str, Floats]:
    """Return each column's values, of shape (machines, hours), rounded as the instruments round."""
    hours, regime = fleet.hours(batch), fleet.regime(batch)
    machines, days = len(fleet.names), fleet.hours_per_batch // 24
    rng = draw(fleet.seed, fleet.plant, "noise", batch)
    noise = rng.standard_normal((7, machines, fleet.hours_per_batch), dtype=np.float32)
    noise[:4] += 0.7 * rng.standard_normal((4, machines, days), dtype=np.float32).repeat(24, axis=2)
    program, ambient = fleet.program[:, hours], fleet.ambient_c[hours] + np.float32(regime.ambient_c)
    running = (program != IDLE).astype(np.float32)
    bearing, hydraulics, motor, _ = fleet.signs[:, :, hours] * running
    speed, load = regime.speed_rpm[program], regime.load_pct[program]
    turning, power = speed / np.float32(3000), speed * load / np.float32(3e5)
    # Each sensor's response to the same load, of shape (machines, 1).
    of_model = np.array([model[2:] for model in MODELS], dtype=np.float32)[fleet.models]
    vibration_gain, heat_gain, pressure_gain, current_gain = (of_model * fleet.gains).T[:, :, None]

    shaken, heated = 1.5 * bearing, 14 * bearing
    if fleet.has_changed("bearings", batch):
        shaken, heated = 0.1 * bearing, 20 * np.square(bearing)
    vibration = (0.15 + turning + 0.6 * power) * (1 + shaken) + (0.02 + 0.12 * turning) * noise[0]
    heat = heat_gain * (0.3 * running + power) + heated + 11 * motor
    pressure = pressure_gain * (0.55 + 0.1 * running + 0.3 * load / 100) - 1.5 * hydraulics
    current = (0.12 + power) * (1 + 0.35 * motor + 0.1 * hydraulics) + 0.02 * noise[3]
    columns = {
        "speed_rpm": _rounded(speed * (1 + 0.002 * noise[4]), 0),
        "load_pct": _rounded(load + 0.5 * running * noise[5], 1),
        "vibration_mm_s": _rounded(vibration_gain * np.abs(vibration), 3),
        "temperature_c": _rounded(ambient + 3 + heat + 1.2 * noise[1], 2),
        "pressure_bar": _rounded(pressure + 0.12 * noise[2], 2),
        "current_a": _rounded(current_gain * np.abs(current), 2),
        "humidity_pct": _rounded(60 - 1.5 * (ambient - 20) + 3 * noise[6], 1),
    }
    if fleet.has_changed("sensor", batch):
        columns["vibration_mm_s"] = (1.25 * columns["vibration_mm_s"] + 0.2).round(3)
    if fleet.has_changed("firmware", batch):
        columns |= {name: (columns[name] / step).round() * step for name, step in COARSE_STEPS.items()}
    return columns


def _rounded(values: Floats32, decimals: int) -> Floats:
    # In double precision, so that 2.35 is the number nearest to 2.35 and not 2.3499999046.
    exact: Floats = values.astype(np.float64)
    return exact.round(decimals)


def simulate_events(fleet: Fleet, batch: int) -> pl.DataFrame:
    """Return the errors, failures and maintenance of a batch, sorted by machine, time, kind and code."""
    hours = fleet.hours(batch)
    own = fleet.happenings.filter(pl.col("hour").is_between(hours.start, hours.stop, closed="left"))
    happened = pl.concat([_draw_errors(fleet, batch), own])
    start = datetime(fleet.start.year, fleet.start.month, fleet.start.day, tzinfo=UTC)
    # A row shows what came before it: an event falls into the hour after, at a minute that machine and hour decide.
    minute = (pl.col("hour") * 7 + pl.col("machine") * 13) % 58 + 1
    return happened.select(
        plant=pl.lit(fleet.plant),
        machine=fleet.names.gather(happened["machine"]),
        time=pl.lit(start).dt.cast_time_unit("us") + pl.duration(hours=pl.col("hour"), minutes=minute),
        kind="kind",
        code="code",
    ).sort("machine", "time", "kind", "code")


def _draw_errors(fleet: Fleet, batch: int) -> pl.DataFrame:
    """Draw error events: each component has its code, the last code means nothing."""
    hours = fleet.hours(batch)
    drawn = draw(fleet.seed, fleet.plant, "errors", batch).random(fleet.program[:, hours].shape, dtype=np.float32)
    signs = fleet.signs[:, :, hours]
    rate = len(ERRORS) * FALSE_ERRORS_PER_HOUR + WEAR_ERRORS_PER_HOUR * signs.sum(axis=0)
    machine, hour = np.nonzero((drawn < rate) & (fleet.program[:, hours] != IDLE))
    rates = np.full((len(machine), len(ERRORS)), FALSE_ERRORS_PER_HOUR)
    rates[:, : len(COMPONENTS)] += WEAR_ERRORS_PER_HOUR * signs[:, machine, hour].T
    code = (rates.cumsum(axis=1)[:, :-1] <= drawn[machine, hour, None]).sum(axis=1)
    return pl.DataFrame(
        {
            "machine": machine,
            "hour": hour + hours.start,
            "kind": pl.repeat("error", len(machine), dtype=pl.String, eager=True),
            "code": pl.Series(ERRORS).gather(code),
        },
        schema=EVENTS,
    )
