"""Settings of ``params.yaml`` that depend on the data, such as batches, horizon and windows."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl

from upkeep.adopt.times import quartiles
from upkeep.core.text import count_things
from upkeep.sources.batches import first_day

HOUR = timedelta(hours=1)
HORIZON_HOURS = 48.0  # if the data allows it
LEAST_HOURS = 0.001  # that a setting may have
ROWS_AHEAD, ROWS_A_WINDOW = 12, 4  # rows within a horizon, and within the shortest window, at least
READINGS_AHEAD = 1_000  # with more readings within a horizon than this, rows are made of them
ROW_HOURS = {"1h": 1.0, "10m": 1 / 6, "1m": 1 / 60}  # the lengths that such rows may have
HORIZONS_OF_HISTORY = 15
"""The history is at least so many horizons long, and the time between a machine's failures at least three."""
SCHEDULED_HOURS = 12
MANY_FAILURES = 60  # with fewer, trees as large as the default ones overfit
SMALL = 50_000  # up to so many rows, all healthy ones are kept for training
NEWEST_WEEKS = {"validation_weeks": 8, "test_weeks": 8, "every_weeks": 4}
"""The windows of a split by the newest weeks, which docs/guide.md advises for a history of more than a year."""
FAILURES_A_WINDOW = 10  # in each of them, at least; it is also what the shipped gate needs for a verdict


class Setting(NamedTuple):
    """A setting's place in ``params.yaml``, such as ``fetch.until``, its value and why."""

    place: str
    value: Any
    reason: str


def suggest_rows(keys: pl.DataFrame, failures: pl.DataFrame) -> tuple[str, str] | None:
    """Return how long the rows should be that fast readings are reduced to, and why; None if each may be a row."""
    keys = keys.drop_nulls("time")
    start, end = _find_span(keys["time"])
    step = _find_step(keys)
    horizon = _find_horizon((end - start) / HOUR, keys, failures, step)
    if horizon / step <= READINGS_AHEAD:
        return None
    length = next((name for name, hours in ROW_HOURS.items() if horizon / hours >= 2 * ROWS_AHEAD), "1m")
    return length, f"a reading every {_spell_step(step)}, and {horizon:g} hours to look ahead"


def _find_step(keys: pl.DataFrame) -> float:
    return (quartiles(keys) or (HOUR,) * 3)[1] / HOUR


def _find_horizon(history: float, keys: pl.DataFrame, failures: pl.DataFrame, step: float) -> float:
    machines = keys.select("plant", "machine").n_unique()
    most = min(history / HORIZONS_OF_HISTORY, history * machines / max(failures.height, 1) / 3)
    return _round(max(min(max(HORIZON_HOURS, ROWS_AHEAD * step), most), 2 * step))


def suggest(
    keys: pl.DataFrame, failures: pl.DataFrame, *, readings: bool = True, rows_every: str | None = None
) -> list[Setting]:
    """Return the settings for telemetry at these ``plant``, ``machine`` and ``time``, with failures at those.

    Without `readings` the keys are those of events, and rows are scheduled; with `rows_every` they are reduced.
    """
    keys = keys.drop_nulls("time")
    start, end = _find_span(keys["time"])
    step = ROW_HOURS[rows_every] if rows_every else _find_step(keys) if readings else SCHEDULED_HOURS
    history, machines = (end - start) / HOUR, keys.select("plant", "machine").n_unique()
    days = 1 if history < 24 * 28 else 7 if history < 24 * 365 * 6 else 28
    batches = max(1, math.ceil(history / 24 / days))
    horizon = _find_horizon(history, keys, failures, step)
    short = _round(max(horizon / 6, ROWS_A_WINDOW * step))
    every, long = f"a row every {_spell_step(step)}", f"{history / 24:.1f} days of history"
    counts = f"{long}, {count_things(failures.height, 'failure')} of {count_things(machines, 'machine')}, {every}"
    rows = round(machines * history / step)
    scheduled = (None, "telemetry has times of its own") if readings else (SCHEDULED_HOURS, "there are events only")
    few = 0 < failures.height < MANY_FAILURES
    until, told = _find_until(end, failures, horizon)
    near = min(60, int(step * 3600 // 2))
    return [
        Setting("fetch.until", first_day(until.date(), days).isoformat(), told),
        Setting("fetch.batch_days", days, f"{long}, {every} in the median"),
        Setting("fetch.rows_every_hours", *scheduled),
        Setting("validate.near_duplicate_seconds", near, f"well below the {_spell_step(step)} from row to row"),
        *([Setting("validate.outage_hours", math.ceil(6 * step), every)] if step > 1 else []),
        *([Setting("validate.stuck_hours", math.ceil(24 * step), every)] if step > 1 else []),
        Setting("dataset.horizon_hours", horizon, counts),
        Setting("dataset.windows_hours", sorted({short, max(horizon, _round(2 * short))}), "rows enough in each"),
        Setting("dataset.baseline_hours", _round(horizon * 1.5), "longer than the horizon"),
        Setting("dataset.max_repair_hours", _round(horizon * 1.5), "likewise, as long as nobody closes a repair"),
        *([Setting("dataset.negatives_kept", 1.0, f"all of only {rows} rows or so")] if rows < SMALL else []),
        *_suggest_split(start, end, failures, horizon),
        *([Setting("model.lightgbm.num_leaves", 4, f"small trees for few failures: {failures.height}")] if few else []),
        Setting("evaluate.lead_time_hours", _round(horizon / 6), "a sixth of the horizon"),
        Setting("evaluate.golden", None, "the shipped cases are about the simulated fleet"),
        *([Setting("drift.window_batches", max(1, batches // 4), f"of {batches} batches")] if batches < 32 else []),
    ]


def _find_until(end: datetime, failures: pl.DataFrame, horizon: float) -> tuple[datetime, str]:
    """Return the newest time to use: that of the newest row, or of a failure soon after it, which the row foretells."""
    ahead = failures.filter(pl.col("time").is_between(end, end + horizon * HOUR, closed="right"))["time"].max()
    if isinstance(ahead, datetime):
        return ahead, f"the newest row is of {end:%F %R} UTC, and a failure after it of {ahead:%F %R} UTC"
    return end, f"the newest row is of {end:%F %R} UTC"


def _find_span(times: pl.Series) -> tuple[datetime, datetime]:
    """Return the first and last time, without those of clocks that are far off."""
    micros = times.dt.epoch("us").sort()
    low, high = (int(micros[round(share * (micros.len() - 1))]) for share in (0.001, 0.999))
    slack = (high - low) // 2 + 86_400_000_000
    near = micros.filter(micros.is_between(low - slack, high + slack))
    return datetime.fromtimestamp(near[0] / 1e6, UTC), datetime.fromtimestamp(near[-1] / 1e6, UTC)


def _suggest_split(start: datetime, end: datetime, failures: pl.DataFrame, horizon: float) -> list[Setting]:
    weeks = [timedelta(weeks=NEWEST_WEEKS[name]) for name in ("validation_weeks", "test_weeks")]
    recent = _count_between(failures, [end - sum(weeks, timedelta()), end - weeks[1], end])
    if end - start > timedelta(days=365) and min(recent) >= FAILURES_A_WINDOW and horizon <= 7 * 24:
        reason = f"more than a year of history, {recent[0]} and {recent[1]} failures in the newest weeks"
        return [Setting("dataset.split.by", "window", reason), Setting("dataset.split.window", NEWEST_WEEKS, reason)]
    held = _count_between(failures, [start, start + 0.55 * (end - start), start + 0.75 * (end - start), end])
    failed = failures.select("plant", "machine").n_unique()
    counts = f"{held[0]}, {held[1]} and {held[2]} failures in the times of training, validation and test"
    if min(held) == 0 and failed >= 8:
        return [Setting("dataset.split.by", "machine", f"by time there are {counts}; {failed} machines failed")]
    return [Setting("dataset.split.by", "time", counts)]


def _count_between(failures: pl.DataFrame, bounds: Sequence[datetime]) -> list[int]:
    """Return how many failures lie in each part between bounds; those of a day after the last one count, too."""
    last = bounds[-1] + timedelta(days=1)
    parts = pairwise([*bounds[:-1], last])
    return [failures.filter(pl.col("time").is_between(*ends, closed="left")).height for ends in parts]


def _round(hours: float) -> float:
    """Return whole hours, or below 10 hours a number with one significant digit, and no less than a setting may be."""
    hours = max(hours, LEAST_HOURS)
    if hours >= 10:
        return int(hours)
    digit = 10.0 ** math.floor(math.log10(hours))
    rounded = float(f"{math.floor(hours / digit + 0.5) * digit:.6g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _spell_step(hours: float) -> str:
    if (seconds := hours * 3600) < 7200:
        return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
    return f"{hours:.3g} h" if hours < 1000 else f"{hours / 24:.0f} days"
