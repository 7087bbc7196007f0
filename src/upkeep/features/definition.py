"""The one definition of a feature, for training, batch scoring and the API alike.

:func:`build_features` gives a row of features per row of telemetry; :func:`newest_features` gives those of each
machine's newest row only, the same bits, for scoring.

A feature at time t uses only rows and events with time <= t, and except for counters such as the age, only those inside
its windows. What is fitted, once, on training rows, is a :class:`~upkeep.features.inputs.Preparation`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.core.names import KEYS, spell_code, spell_sensor
from upkeep.core.params import Aggregate, Dataset
from upkeep.core.types import Floats, Floats32, Ints
from upkeep.features.conditions import fit_conditions
from upkeep.features.inputs import (
    UNKNOWN,
    Baseline,
    Events,
    MachineRecord,
    Preparation,
    Telemetry,
    Vocabulary,
    event_kinds,
    read_matrix,
    read_tables,
    read_telemetry,
)
from upkeep.features.windows import HOUR, roll, roll_newest, to_microseconds


class Feature(NamedTuple):
    """A feature: its name and kind, the column or code that it is made `of`, if any, and its window, or 0."""

    name: str
    kind: str
    of: str = ""
    hours: float = 0


def list_features(vocabulary: Vocabulary, params: Dataset) -> list[Feature]:
    """Return the features in their order; :mod:`upkeep.core.names` makes sure that no two share a name."""
    sensors, windows = [(sensor, spell_sensor(sensor)) for sensor in vocabulary.sensors], params.windows_hours
    features = [Feature(spelt, "newest", sensor) for sensor, spelt in sensors]
    for hours in windows:
        features += [
            Feature(f"{spelt}_{kind}_{hours}h", kind, sensor, hours)
            for kind in (*params.aggregates, "from_baseline")
            for sensor, spelt in sensors
        ]
    features += [Feature(f"setting_{name}", "setting", name) for name in vocabulary.inputs]
    features += [Feature(f"attribute_{name}", "attribute", name) for name in vocabulary.attributes]
    features += [
        Feature(f"errors_{spell_code(code)}_{hours}h", "errors", code, hours)
        for code in vocabulary.error_codes
        for hours in windows
    ]
    features += [
        Feature(f"hours_since_{spell_code(code)}", "since_maintenance", code) for code in vocabulary.maintenance_codes
    ]
    features += [Feature("hours_since_failure", "since_failure"), Feature("age_hours", "age")]
    return [*features, Feature("model_code", "model")]


def feature_names(vocabulary: Vocabulary, params: Dataset) -> list[str]:
    """Return the names of the features in their order."""
    return [feature.name for feature in list_features(vocabulary, params)]


def fit_preparation(
    training: pl.DataFrame, record: pl.DataFrame, vocabulary: Vocabulary, params: Dataset
) -> Preparation:
    """Fit operating conditions on one plant's training rows, and take each machine's baseline from `record`.

    `record` holds each machine's first hours: a baseline is the machine's own past rather than fitted over rows, and a
    feature uses only the part of it that lies before it.
    """
    given, readings = (read_matrix(training, names) for names in (vocabulary.settings, vocabulary.sensors))
    conditions = fit_conditions(given, readings, vocabulary.widths, params.condition_tolerance, params.max_conditions)
    rows = read_telemetry(record.sort("machine", "time"), vocabulary)
    scaled = conditions.scale(rows.settings, rows.readings)
    baselines = {}
    for name, span in rows.by_machine():
        time = rows.time[span]
        settled = _expanding_baseline(time, scaled[span], params.baseline_hours)[-1]
        levels = [None if np.isnan(level) else float(level) for level in settled]
        baselines[name] = Baseline(start=int(time[0]), levels=levels)
    return Preparation(vocabulary=vocabulary, conditions=conditions, baselines=baselines)


def build_features(
    telemetry: pl.DataFrame, events: pl.DataFrame, machines: pl.DataFrame, preparation: Preparation, params: Dataset
) -> pl.DataFrame:
    """Return one row of features per row of a plant's telemetry, which holds no machine twice at one instant.

    Columns are ``plant``, ``machine``, ``time``, then the features as Float32, NaN where one cannot be known; rows are
    sorted by machine and time. Sensor features are in spreads of their operating condition, slopes in spreads an hour,
    ages in hours.
    """
    ordered = telemetry.sort("machine", "time")
    rows, happened, records = read_tables(ordered, events, machines, preparation.vocabulary)
    machine = np.repeat(np.arange(len(rows.machines)), np.diff(rows.starts))
    features = [
        *_sensor_features(rows, preparation, params),
        *_other_features(machine, slice(None), rows, happened, records, preparation.vocabulary, params),
    ]
    names = feature_names(preparation.vocabulary, params)
    return pl.concat([ordered.select(KEYS), pl.DataFrame(dict(zip(names, features, strict=True)))], how="horizontal")


def newest_features(
    rows: Telemetry, events: Events, records: Mapping[str, MachineRecord], preparation: Preparation, params: Dataset
) -> Floats32:
    """Return the features of each machine's newest row, shape (n_machines, n_features), as `build_features` has them.

    A machine that is not in `records` has neither a model nor a date of installation.
    """
    scaled = preparation.conditions.scale(rows.settings, rows.readings)
    ends = rows.starts[1:] - 1
    known = np.ascontiguousarray(scaled.T)
    wanted: list[Aggregate] = [*params.aggregates, "mean"]
    windows = [roll_newest(rows.time, rows.starts, known, hours, wanted) for hours in params.windows_hours]
    baselines = newest_baselines(rows, scaled, preparation, params)
    features = [
        *_sensor_block(known[:, ends], windows, baselines.T, params),
        *_other_features(np.arange(len(ends)), ends, rows, events, records, preparation.vocabulary, params),
    ]
    return np.array(features, dtype=np.float32).T


def newest_baselines(rows: Telemetry, scaled: Floats, preparation: Preparation, params: Dataset) -> Floats:
    """Return each machine's baseline at its newest row, in spreads, shape (n_machines, n_sensors)."""
    hours = params.baseline_hours
    known = (
        _find_baseline(name, rows.time[span], scaled[span], preparation, hours) for name, span in rows.by_machine()
    )
    return np.array([levels[-1] for levels in known])


def _sensor_features(rows: Telemetry, preparation: Preparation, params: Dataset) -> Floats32:
    """Return each sensor's features at every row, shape (n_features, n_rows)."""
    scaled = preparation.conditions.scale(rows.settings, rows.readings)
    blocks = len(params.windows_hours) * (len(params.aggregates) + 1) + 1
    features = np.empty((blocks * scaled.shape[1], len(rows.time)), dtype=np.float32)
    for name, span in rows.by_machine():
        time, own = rows.time[span], scaled[span]
        known = np.ascontiguousarray(own.T)
        windows = [roll(time, known, hours, [*params.aggregates, "mean"]) for hours in params.windows_hours]
        baseline = _find_baseline(name, time, own, preparation, params.baseline_hours)
        features[:, span] = _sensor_block(known, windows, baseline.T, params)
    return features


def _sensor_block(
    scaled: Floats, windows: Iterable[Mapping[Aggregate, Floats]], baseline: Floats, params: Dataset
) -> Floats:
    """Return scaled readings, their rolling statistics and their distances from the baseline, in the features' order.

    `scaled` and `baseline` are of shape (n_sensors, n), and so is each statistic of the windows.
    """
    parts = [scaled]
    for statistics in windows:
        parts += [*(statistics[aggregate] for aggregate in params.aggregates), statistics["mean"] - baseline]
    return np.concatenate(parts)


def _find_baseline(name: str, time: Ints, scaled: Floats, preparation: Preparation, hours: float) -> Floats:
    """Return a machine's baseline as it is known at each of its rows, shape (n_rows, n_sensors)."""
    known = preparation.baselines.get(name)
    if known is None:
        return _expanding_baseline(time, scaled, hours)
    settled = np.broadcast_to(np.array(known.levels, dtype=np.float64), scaled.shape)  # None becomes NaN
    early = time < known.start + to_microseconds(hours)
    return np.where(early[:, None], _expanding_baseline(time, scaled, hours), settled) if early.any() else settled


def _expanding_baseline(time: Ints, scaled: Floats, hours: float) -> Floats:
    """Return the mean of the machine's first hours up to each row, which stays the same after those hours."""
    opening = scaled[time < time[0] + to_microseconds(hours)]
    count = np.cumsum(~np.isnan(opening), axis=0)
    with np.errstate(invalid="ignore"):
        mean = np.cumsum(np.nan_to_num(opening), axis=0) / np.where(count > 0, count, np.nan)
    return np.vstack([mean, np.tile(mean[-1], (len(time) - len(mean), 1))])


def _other_features(
    machine: Ints,
    chosen: Ints | slice,
    rows: Telemetry,
    events: Events,
    records: Mapping[str, MachineRecord],
    vocabulary: Vocabulary,
    params: Dataset,
) -> list[Floats32]:
    """Return the features not made of sensors at the chosen rows; `machine` is the position of each row's machine."""
    time = rows.time[chosen]
    known = [records.get(name, UNKNOWN) for name in rows.machines]
    inputs = [vocabulary.settings.index(name) for name in vocabulary.inputs]
    # The age of a machine without a date of installation is unknown: its first row does not tell it.
    installed = np.array([record.installed for record in known], dtype=np.float64)
    models = _encode([record.model for record in known], vocabulary.machine_models)
    attributes = (
        _encode([record.attributes.get(name) for record in known], texts)
        for name, texts in vocabulary.attributes.items()
    )
    return [
        *rows.settings[chosen][:, inputs].T.astype(np.float32),
        *(values[machine] for values in attributes),
        *_event_features(machine, time, events, vocabulary, params),
        ((time - installed[machine]) / HOUR).astype(np.float32),
        models[machine],
    ]


def _encode(values: Sequence[float | str | None], texts: Sequence[str] | None) -> Floats32:
    """Return numbers as they are, and texts as positions in `texts`; NaN where a value is not known."""
    if texts is None:
        return np.array(values, dtype=np.float32)
    positions = {text: position for position, text in enumerate(texts)}
    return np.array([None if value is None else positions.get(str(value)) for value in values], dtype=np.float32)


def _event_features(
    machine: Ints, time: Ints, events: Events, vocabulary: Vocabulary, params: Dataset
) -> list[Floats32]:
    """Return error counts per code and window, then hours since each kind of maintenance and the last failure.

    Each event is encoded as one number, ordered by kind, machine and time; bisection then counts the events up to each
    row for all rows and kinds at once.
    """
    instants = np.unique(events.time)
    n_errors = len(vocabulary.error_codes)
    kinds = np.arange(len(event_kinds(vocabulary)))[:, None]
    n_machines = int(max(machine.max(initial=-1), events.machine.max(initial=-1))) + 1

    def number(kind: Ints, of: Ints, at: Ints | None) -> Ints:
        rank = 0 if at is None else np.searchsorted(instants, at, side="right")
        return (kind * n_machines + of) * (len(instants) + 1) + rank

    numbers = number(events.kind, events.machine, events.time)
    order = np.argsort(numbers)

    def count_until(kind: Ints, at: Ints | None) -> Ints:
        return np.searchsorted(numbers, number(kind, machine, at), side="right", sorter=order)

    until = count_until(kinds, time)
    before = [count_until(kinds[:n_errors], time - to_microseconds(hours)) for hours in params.windows_hours]
    counts = [(until[code] - old[code]).astype(np.float32) for code in range(n_errors) for old in before]
    last = np.append(events.time[order], 0)[until - 1]
    since = np.where(until > count_until(kinds, None), (time - last) / HOUR, np.nan)
    return [*counts, *since[n_errors:].astype(np.float32)]
