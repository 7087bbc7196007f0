"""Explanations: features by gain, and single alarms by LightGBM's own SHAP contributions.

A reason is a sentence that the planner can check at the machine: readings in their own unit, counts, days. Its odds are
beside it, for programs.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
from typing_extensions import TypedDict  # pydantic, which describes these to the service's clients, asks for it

from upkeep.core.params import Dataset
from upkeep.core.types import Floats, Floats32
from upkeep.features.definition import Feature, list_features, newest_baselines
from upkeep.features.inputs import Preparation, Quantity, Telemetry
from upkeep.features.windows import to_microseconds

MAX_REASONS = 3
DAY, YEAR = 24, 365.25 * 24

NAMES = {
    "newest": "newest {of}",
    "mean": "mean of {of} over {span}",
    "std": "variation of {of} over {span}",
    "min": "lowest {of} in {span}",
    "max": "highest {of} in {span}",
    "slope": "trend of {of} over {span}",
    "from_baseline": "{of} over {span} against its healthy level",
    "errors": "errors ({of}) in {span}",
    "since_maintenance": "time since maintenance ({of})",
    "since_failure": "time since the last failure",
    "age": "age",
    "model": "machine model",
}
"""What each kind of feature is called; other kinds are called by the column that they are made of."""

READINGS = ("newest", "mean", "std", "min", "max", "slope", "from_baseline")
"""The kinds that are made of one sensor's readings."""

UNKNOWN = {
    "since_maintenance": "no maintenance ({of}) on record",
    "since_failure": "no failure on record",
    "age": "age not known",
    "model": "unknown machine model",
}
"""What is said of a feature whose value is unknown."""


class Reason(TypedDict):
    """What a feature adds to the score, in log-odds and as a factor of the odds of a failure, and a sentence on it.

    `value` is as the model takes it; None if it is unknown.
    """

    feature: str
    value: float | None
    contribution: float
    odds: float
    words: str


class MeanReading(NamedTuple):
    """A sensor's mean reading over some hours, and what is usual at the settings of these hours, in its unit.

    `level` and `spread` are the plant's, `healthy` is the level of the machine itself.
    """

    reading: float
    level: float
    healthy: float
    spread: float


def summarise_readings(rows: Telemetry, preparation: Preparation, params: Dataset) -> Floats32:
    """Return a :class:`MeanReading` of each machine's newest row, then of each window that ends with it, per sensor.

    The shape is (n_machines, 1 + n_windows, 4, n_sensors); NaN where there was no reading. Scaled features cannot be
    turned back into units without it, since a window's rows may be of several operating conditions.
    """
    level, spread = preparation.conditions.usual(rows.settings)
    baselines = newest_baselines(rows, (rows.readings - level) / spread, preparation, params)
    own = np.repeat(np.nan_to_num(baselines), np.diff(rows.starts), axis=0)
    values = np.stack([rows.readings, level, level + own * spread, spread], axis=1)
    known, starts, ends = ~np.isnan(rows.readings)[:, None], rows.starts[:-1], rows.starts[1:] - 1
    age = np.repeat(rows.time[ends], np.diff(rows.starts)) - rows.time
    means = [np.where(known, values, np.nan)[ends]]
    for hours in params.windows_hours:
        inside = known & (age < to_microseconds(hours))[:, None, None]
        counts = np.add.reduceat(inside.astype(np.float64), starts)
        sums = np.add.reduceat(np.where(inside, values, 0.0), starts)
        means.append(sums / np.where(counts > 0, counts, np.nan))
    return np.stack(means, axis=1).astype(np.float32)


class Explainer:
    """One model's features in the planner's words."""

    def __init__(self, preparation: Preparation, params: Dataset) -> None:
        self.features = list_features(preparation.vocabulary, params)
        self._vocabulary, self._quantities = preparation.vocabulary, preparation.quantities
        self._windows = [0, *params.windows_hours]

    def name(self, feature: Feature) -> str:
        """Return what a feature is called."""
        of = self.quantity(feature).name
        return NAMES.get(feature.kind, "{of}").format(of=of, span=_spell_hours(feature.hours))

    def quantity(self, feature: Feature) -> Quantity:
        """Return the name in words and the unit of a feature's column; a code, which is no column, is its own name."""
        table = {"errors": "", "since_maintenance": "", "attribute": "machines"}.get(feature.kind, "telemetry")
        return self._quantities.get(table, {}).get(feature.of, Quantity(name=feature.of or feature.name))

    def find_reasons(self, values: Floats32, contributions: Floats, readings: Floats32) -> list[Reason]:
        """Return what raises one machine's probability most, the strongest reason first: at most three.

        `values` have shape (n_features,), NaN where one is unknown; `contributions` are SHAP values in log-odds from
        :func:`upkeep.model.storage.contributions`, of the same shape or with the expected value last. `readings` are
        the machine's part of :func:`summarise_readings`, in any shape, empty in what an earlier version logged.
        """
        seen = self._arrange(readings)
        reasons: dict[str, Reason] = {}
        for index in np.argsort(-contributions[: len(self.features)], kind="stable").tolist():
            contribution, value, feature = float(contributions[index]), float(values[index]), self.features[index]
            if contribution <= 0 or len(reasons) == MAX_REASONS:
                break
            if feature.kind == "age" and math.isnan(value):  # nothing that a planner could look into
                continue
            words = self.describe(feature, value, seen.get((feature.of, feature.hours)))
            reason: Reason = {
                "feature": feature.name,
                "value": None if math.isnan(value) else value,
                "contribution": contribution,
                "odds": math.exp(contribution),
                "words": words,
            }
            reasons.setdefault(words, reason)
        return list(reasons.values())

    def _arrange(self, readings: Floats32) -> dict[tuple[str, float], MeanReading]:
        sensors = self._vocabulary.sensors
        shape = len(self._windows), len(MeanReading._fields), len(sensors)
        if readings.size != math.prod(shape):
            return {}
        return {
            (sensor, hours): MeanReading(*values)
            for hours, of_window in zip(self._windows, readings.reshape(shape), strict=True)
            for sensor, values in zip(sensors, of_window.T.tolist(), strict=True)
        }

    def describe(self, feature: Feature, value: float, seen: MeanReading | None = None) -> str:
        """Return a sentence on a feature's `value`, which is as the model takes it, NaN if it is unknown."""
        of = self.quantity(feature)
        if feature.kind in READINGS:
            when = f"over the last {_spell_hours(feature.hours)}" if feature.hours else "at the newest reading"
            if math.isnan(value) or (seen and math.isnan(seen.reading)):
                return f"{of.name}: no reading {when}"
            return _describe_readings(feature.kind, of, value, seen, when) if seen else f"{of.name} unusual {when}"
        if math.isnan(value):
            return UNKNOWN.get(feature.kind, "{of}: not known").format(of=of.name)
        match feature.kind:
            case "errors":
                times = {0: "no error", 1: "1 error"}.get(round(value), f"{value:.0f} errors")
                return f"{times} ({of.name}) in the last {_spell_hours(feature.hours)}"
            case "since_maintenance":
                return f"last maintenance ({of.name}) {_spell_hours(value)} ago"
            case "since_failure":
                return f"last failure {_spell_hours(value)} ago"
            case "age":
                return f"the machine is {_spell_hours(value)} old"
            case "model":
                return f"machine model {self._vocabulary.machine_models[round(value)]}"
            case "attribute" if texts := self._vocabulary.attributes.get(feature.of):
                return f"{of.name}: {texts[round(value)]}"
        return f"{of.name}: {_amount(value, of.unit, abs(value) / 100)}"


def _describe_readings(kind: str, of: Quantity, value: float, seen: MeanReading, when: str) -> str:
    amount = partial(_amount, unit=of.unit)
    match kind:
        case "std":
            varied, usual = (amount(times * seen.spread, precision=seen.spread / 10) for times in (value, 1))
            return f"{of.name} varied by {varied} {when}" + (f", usual is {usual}" if usual != varied else "")
        case "slope" if value == 0:
            return f"{of.name} steady {when}"
        case "slope":
            an_hour = abs(value) * seen.spread
            way = "rising" if value > 0 else "falling"
            return f"{of.name} {way} by {amount(an_hour, precision=an_hour / 10)} an hour {when}"
        case "min" | "max":
            beyond = seen.level + value * seen.spread - seen.healthy
            # The highest reading below the healthy level says that none reached it.
            bound = "up to" if (beyond > 0) == (kind == "max") else "never less than"
            side = "above" if beyond > 0 else "below"
            return f"{of.name} {bound} {amount(abs(beyond), precision=seen.spread)} {side} its healthy level {when}"
    reading, healthy = (amount(level, precision=seen.spread) for level in (seen.reading, seen.healthy))
    return f"{of.name} {reading} {when}, its healthy level is {healthy}"


def _amount(value: float, unit: str, precision: float) -> str:
    decimals = 0 if precision >= 1 or precision <= 0 else math.ceil(-math.log10(precision))
    return f"{value + 0.0:,.{decimals}f} {unit}".rstrip()


def _spell_hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.3g} min"
    if hours <= 2 * DAY:
        return f"{hours:.3g} h"
    return f"{hours / DAY:.0f} days" if hours < 2 * YEAR else f"{hours / YEAR:.1f} years"


def rank_features(plant: str, names: Sequence[str], words: Sequence[str], gains: Sequence[Floats]) -> pl.DataFrame:
    """Return each feature's share of the gain in training, the highest first: plant, feature, words, gain.

    `gains` are those of the boosters of the plant's model, each of shape (n_features,); all shares are 0 if none ever
    split.
    """
    total = np.sum([np.zeros(len(names)), *gains], axis=0)
    share = (total / max(float(total.sum()), np.finfo(np.float64).tiny)).round(6)
    schema = {"feature": pl.String, "words": pl.String, "gain": pl.Float64}
    ranked = pl.DataFrame([names, words, share], schema).sort("gain", "feature", descending=[True, False])
    return ranked.select(pl.lit(plant).alias("plant"), *schema)
