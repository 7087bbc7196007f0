"""The one definition of a feature: training, batch scoring and the API all call :func:`build_features`.

A feature at time t uses rows and events with time <= t only, and apart from counters such as the age, which come with
the machine's record, only those inside its windows. What is learnt from data, once, on training rows, is a
:class:`Preparation`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from upkeep.fleet.conditions import Conditions, fit_conditions
from upkeep.fleet.windows import HOUR, Floats, roll
from upkeep.params import Dataset

KEYS = ("plant", "machine", "time")


class Vocabulary(BaseModel):
    """Names that every plant's features share, so that one fleet-wide model can read them all.

    Attributes
    ----------
    settings, sensors
        Telemetry columns, over all plants; a plant without one has nulls there.
    widths
        Range of each setting.
    error_codes, maintenance_codes, machine_models
        Seen in training rows; the position of a machine model is its ``model_code``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: list[str]
    widths: list[float]
    sensors: list[str]
    error_codes: list[str]
    maintenance_codes: list[str]
    machine_models: list[str]


class Baseline(BaseModel):
    """What a machine's sensors read in its first, healthy hours on record.

    Attributes
    ----------
    start
        Its first instant on record, in microseconds since 1970.
    levels
        Mean scaled reading per sensor, None where there was none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int
    levels: list[float | None]


class Preparation(BaseModel):
    """All that features need besides the rows; saved with the model.

    Attributes
    ----------
    baselines
        Per machine; one that is not in here gets its own from the rows at hand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: Vocabulary
    conditions: Conditions
    baselines: dict[str, Baseline]


def fit_preparation(
    training: pl.DataFrame, record: pl.DataFrame, vocabulary: Vocabulary, params: Dataset
) -> Preparation:
    """Fit operating conditions and scales on one plant's training rows and note each machine's baseline.

    Parameters
    ----------
    training
        Telemetry of training rows.
    record
        All telemetry. A baseline is a machine's own past, not something fitted over rows: each feature uses of it only
        what lies before it.
    """
    conditions = fit_conditions(
        _matrix(training, vocabulary.settings),
        _matrix(training, vocabulary.sensors),
        vocabulary.widths,
        params.condition_tolerance,
        params.max_conditions,
    )
    draft = Preparation(vocabulary=vocabulary, conditions=conditions, baselines={})
    baselines = {}
    for machine in _machines(_in_order(record), draft):
        settled = _expanding_baseline(machine, params.baseline_hours)[-1] if len(machine.time) else []
        levels = [None if np.isnan(level) else float(level) for level in settled]
        baselines[machine.name] = Baseline(start=int(machine.time[0]), levels=levels)
    return draft.model_copy(update={"baselines": baselines})


def build_features(
    telemetry: pl.DataFrame, events: pl.DataFrame, machines: pl.DataFrame, preparation: Preparation, params: Dataset
) -> pl.DataFrame:
    """Return one row of features per telemetry row.

    Parameters
    ----------
    telemetry, events, machines
        One plant's validated tables; rows in any order, no machine twice at one instant.

    Returns
    -------
    DataFrame
        ``plant``, ``machine``, ``time``, then the features as Float32, NaN where one cannot be known; sorted by machine
        and time. Sensor features are in spreads of their operating condition, slopes in spreads an hour, ages in hours.
    """
    rows = _in_order(telemetry)
    sensors = _sensor_features(rows, preparation, params)
    counters = _event_features(rows, events, preparation.vocabulary, params)
    return pl.concat(
        [rows.select(KEYS), sensors, counters, _machine_features(rows, machines, preparation)], how="horizontal"
    )


class _Machine(NamedTuple):
    name: str
    time: NDArray[np.int64]
    scaled: Floats


def _in_order(telemetry: pl.DataFrame) -> pl.DataFrame:
    return telemetry.sort("machine", "time")


def _matrix(frame: pl.DataFrame, columns: Sequence[str]) -> Floats:
    """Return columns as float64, shape (n_rows, n_columns), NaN for nulls and for columns that are not there."""
    matrix = np.full((frame.height, len(columns)), np.nan)
    for index, name in enumerate(columns):
        if name in frame.columns:
            matrix[:, index] = frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return matrix


def _machines(rows: pl.DataFrame, preparation: Preparation) -> Iterator[_Machine]:
    """Yield each machine's scaled readings, in the order of the rows."""
    vocabulary = preparation.vocabulary
    scaled = preparation.conditions.scale(_matrix(rows, vocabulary.settings), _matrix(rows, vocabulary.sensors))
    time = rows["time"].dt.timestamp("us").to_numpy()
    lengths = rows["machine"].rle().struct.unnest()
    start = 0
    for length, name in lengths.iter_rows():
        yield _Machine(name, time[start : start + length], scaled[start : start + length])
        start += length


def _sensor_features(rows: pl.DataFrame, preparation: Preparation, params: Dataset) -> pl.DataFrame:
    """Return the scaled readings, their rolling statistics and their distance from the machine's baseline."""
    sensors = preparation.vocabulary.sensors
    names = list(sensors)
    for hours in params.windows_hours:
        names += [f"{sensor}_{aggregate}_{hours}h" for aggregate in params.aggregates for sensor in sensors]
        names += [f"{sensor}_from_baseline_{hours}h" for sensor in sensors]
    features = np.empty((len(names), rows.height), dtype=np.float32)
    start = 0
    for machine in _machines(rows, preparation):
        end = start + len(machine.time)
        baseline = _baseline(machine, preparation, params.baseline_hours)
        scaled = np.ascontiguousarray(machine.scaled.T)
        columns = [scaled]
        for hours in params.windows_hours:
            rolled = roll(machine.time, scaled, hours, [*params.aggregates, "mean"])
            columns += [rolled[aggregate] for aggregate in params.aggregates]
            columns.append(rolled["mean"] - baseline.T)
        for index, column in enumerate(columns):
            features[index * len(sensors) : (index + 1) * len(sensors), start:end] = column
        start = end
    return pl.DataFrame(dict(zip(names, features, strict=True)))


def _baseline(machine: _Machine, preparation: Preparation, hours: int) -> Floats:
    """Return the healthy level known at each row, shape (n_rows, n_sensors)."""
    known = preparation.baselines.get(machine.name)
    if known is None:
        return _expanding_baseline(machine, hours)
    settled = np.array([np.nan if level is None else level for level in known.levels])
    baseline = np.tile(settled, (len(machine.time), 1))
    early = machine.time < known.start + hours * HOUR
    if early.any():
        baseline[early] = _expanding_baseline(machine, hours)[early]
    return baseline


def _expanding_baseline(machine: _Machine, hours: int) -> Floats:
    """Return the mean of the machine's first hours as far as they are known at each row: it settles, then stays."""
    first = machine.time < machine.time[0] + hours * HOUR
    opening = machine.scaled[first]
    count = np.cumsum(~np.isnan(opening), axis=0)
    with np.errstate(invalid="ignore"):
        mean = np.cumsum(np.nan_to_num(opening), axis=0) / np.where(count > 0, count, np.nan)
    return np.vstack([mean, np.tile(mean[-1], (len(machine.time) - len(mean), 1))])


def _event_features(rows: pl.DataFrame, events: pl.DataFrame, vocabulary: Vocabulary, params: Dataset) -> pl.DataFrame:
    """Return error counts per code and window, and hours since each kind of maintenance and the last failure."""
    keys = rows.select("machine", "time")
    features: dict[str, pl.Series] = {}
    for code in vocabulary.error_codes:
        errors = events.filter(kind="error", code=code)
        now = _count_until(keys, errors)
        for hours in params.windows_hours:
            before = _count_until(keys.with_columns(pl.col("time") - pl.duration(hours=hours)), errors)
            features[f"errors_{code}_{hours}h"] = (now - before).cast(pl.Float32)
    for code in vocabulary.maintenance_codes:
        features[f"hours_since_{code}"] = _hours_since(keys, events.filter(kind="maintenance", code=code))
    features["hours_since_failure"] = _hours_since(keys, events.filter(kind="failure"))
    return pl.DataFrame(features)


def _count_until(keys: pl.DataFrame, events: pl.DataFrame) -> pl.Series:
    counted = (
        events.select("machine", "time")
        .sort("machine", "time")
        .with_columns(count=pl.int_range(1, pl.len() + 1).over("machine"))
    )
    return _last_before(keys, counted)["count"].fill_null(0)


def _hours_since(keys: pl.DataFrame, events: pl.DataFrame) -> pl.Series:
    happened = events.select("machine", "time", happened="time").sort("machine", "time")
    since = (pl.col("time") - pl.col("happened")).dt.total_microseconds() / HOUR
    return _last_before(keys, happened).select(since.cast(pl.Float32).fill_null(np.nan)).to_series()


def _last_before(keys: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Join the machine's last event with time <= t to each row."""
    return keys.join_asof(events, on="time", by="machine", strategy="backward", check_sortedness=False)


def _machine_features(rows: pl.DataFrame, machines: pl.DataFrame, preparation: Preparation) -> pl.DataFrame:
    """Return age and model; without a date of installation a machine is as old as its record."""
    models = preparation.vocabulary.machine_models
    starts = {name: baseline.start for name, baseline in preparation.baselines.items()}
    own_start = pl.col("time").min().over("machine")
    recorded = pl.col("machine").replace_strict(starts, default=None, return_dtype=pl.Int64).cast(rows.schema["time"])
    return (
        rows.select("machine", "time")
        .with_columns(start=pl.coalesce(recorded, own_start))
        .join(machines.select("machine", "model", "installed"), on="machine", how="left", maintain_order="left")
        .select(
            age_hours=((pl.col("time") - pl.coalesce("installed", "start")).dt.total_microseconds() / HOUR).cast(
                pl.Float32
            ),
            model_code=pl.col("model")
            .replace_strict(models, range(len(models)), default=None, return_dtype=pl.Float32)
            .fill_null(np.nan),
        )
    )
