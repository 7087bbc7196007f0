"""Drift: whether the newest telemetry still looks like what the models were trained on."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, wasserstein_distance

from upkeep.core.params import Drift
from upkeep.core.types import Floats
from upkeep.judging.reports import ColumnDrift, DriftMethod, PlantDrift, WindowReport

SMALLEST_DISTANCE = 0.1  # below this a distance, of either kind, is no drift: Evidently's own default
FEWEST_VALUES = 30  # a column with fewer values on either side is not judged
MOST_COUNTED = 20  # up to so many distinct training values are counted singly instead of in bins, as by Evidently

SIGNIFICANT_DIGITS = 6  # of values; the last bits of a unit's conversion are no drift
LARGEST_VALUE = 1e100  # a larger one counts as infinite: its square would be
LARGEST_SIMILARITY = 0.99  # an autocorrelation is capped here, or a column that hardly moves could never drift


class Window(NamedTuple):
    """A stretch of time; its end does not belong to it."""

    start: datetime
    end: datetime


def newest_window(newest: datetime, until: date, batch_days: int, batches: int) -> Window:
    """Return the window of the newest `batches` batches, of which the last begins on `until` or earlier.

    `newest` is the last time in any plant's telemetry; a plant that fell silent before has an empty window.
    """
    step = timedelta(days=batch_days)
    end = datetime.combine(until, time(), UTC) + step
    end -= max(0, math.ceil((end - newest) / step) - 1) * step
    return Window(end - batches * step, end)


def as_numbers(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Return exactly `columns` as numbers, null where there is none, with a note on what is missing or no number.

    Evidently silently skips a column that one side lacks, and fails at a text in place of a number.
    """
    notes = [f"{name} is missing" for name in columns if name not in rows.columns]
    given = rows.with_columns(pl.lit(None).alias(name) for name in columns if name not in rows.columns)
    numbers = given.select(pl.col(name).cast(pl.Float64, strict=False) for name in columns)
    typed = numbers.select(
        pl.when(pl.col(name).abs() <= LARGEST_VALUE).then(pl.col(name).round_sig_figs(SIGNIFICANT_DIGITS)).alias(name)
        for name in columns
    )
    lost = {name: typed[name].null_count() - given[name].null_count() for name in columns}
    return typed, notes + [f"{name} holds {n} values that are not finite numbers" for name, n in lost.items() if n]


def usual_distance(
    values: Floats, hours: Floats, window_hours: float, measure: Callable[[Floats, Floats], float]
) -> float:
    """Return the largest distance between any window of this length and the rest of the training data.

    Seasons, product mixes and wear also move a sensor within the training data, and what happened there is no drift.
    `values` and `hours` are one column and its times, shape (n,), without gaps; windows overlap by half. `measure`
    takes a window's values and the rest's; 0 if no window leaves enough rest.
    """
    distances = [0.0]
    for start in np.arange(hours.min(), hours.max() - window_hours, window_hours / 2):
        inside = (hours >= start) & (hours < start + window_hours)
        if min(inside.sum(), (~inside).sum()) >= FEWEST_VALUES:
            distances.append(measure(values[inside], values[~inside]))
    return max(distances)


def measure_shift(values: Floats, reference: Floats) -> float:
    """Return the first Wasserstein distance in standard deviations of the reference, as Evidently defines it."""
    return float(wasserstein_distance(reference, values) / max(float(reference.std()), 1e-3))


def measure_divergence(values: Floats, reference: Floats) -> float:
    """Return the Jensen-Shannon distance of two histograms, from 0 to ``sqrt(log(2))``, as Evidently defines it."""
    edges = find_edges(values, reference)
    return float(jensenshannon(*(np.histogram(side, edges)[0] / side.size for side in (reference, values))))


def find_edges(values: Floats, reference: Floats) -> Floats:
    """Return the edges of the bins that :func:`measure_divergence` counts in, one more than bins."""
    both = np.concatenate([reference, values])
    if np.unique(reference).size > MOST_COUNTED:
        return np.histogram_bin_edges(both, bins="sturges")
    return np.append(np.unique(both), np.inf)


def smallest_shift(current: float, reference: float) -> float:
    """Return the shift up to which two samples may come from one distribution, in standard deviations.

    The distance between samples of n and m independent values is in the order of ``sqrt(1/n + 1/m)``, the scale of
    the two-sample empirical process; three times that is about its 99% quantile for uniform, normal and exponential
    values alike (found by simulation; values with heavier tails exceed it more often). Both sides are counted as
    :func:`count_independent` does.
    """
    return max(SMALLEST_DISTANCE, 3 * math.sqrt(1 / current + 1 / reference))


def smallest_divergence(current: float, reference: float, bins: int) -> float:
    """Return the Jensen-Shannon distance up to which two samples may come from one distribution.

    Of k bins, ``8 d^2 / (1/n + 1/m)`` is nearly distributed as chi-squared with k - 1 degrees of freedom (compare
    Grosse et al. 2002, Analysis of symbolic sequences using the Jensen-Shannon divergence). This is its 99% quantile.
    """
    quantile = chi2.ppf(0.99, max(bins - 1, 1))
    return max(SMALLEST_DISTANCE, math.sqrt(quantile / 8 * (1 / current + 1 / reference)))


def count_independent(values: int, sampled: int, similarity: float) -> float:
    """Return the effective size of a sample of an autocorrelated series: as many independent values tell as much.

    Telemetry changes slowly, so an hour tells little that the hour before did not. In a first-order autoregression the
    mean of n values varies as that of ``n (1 - r) / (1 + r)`` independent ones (Zwiers and von Storch 1995, Taking
    serial correlation into account in tests of the mean). What moves more slowly still, such as seasons and wear, is
    left to :func:`usual_distance`.

    Of the series' `values`, `sampled` were drawn at random, which makes them less alike; `similarity` is the lag-one
    autocorrelation r, below 1.
    """
    memory = (1 + similarity) / (1 - similarity)
    return 1 / (1 / sampled + (memory - 1) / values)


def measure_similarity(machine: pl.Series, readings: pl.DataFrame) -> dict[str, float]:
    """Return each column's lag-one autocorrelation within machines, at least 0 and at most `LARGEST_SIMILARITY`.

    Rows are in the order of machine and time. A column that never changes has 0.
    """
    names = readings.columns
    keyed = readings.with_columns(machine=machine)
    deviations = keyed.with_columns(pl.col(names) - pl.col(names).mean().over("machine"))
    pairs = deviations.with_columns(pl.col(names).shift(1).over("machine").name.prefix("@"))
    found = pairs.select(pl.corr(name, f"@{name}").fill_nan(None).fill_null(0.0).alias(name) for name in names)
    return found.select(pl.all().clip(0.0, LARGEST_SIMILARITY)).row(0, named=True)


def compare_windows(
    telemetry: pl.DataFrame, train: pl.DataFrame, columns: Sequence[str], window: Window, how: Drift
) -> PlantDrift:
    """Compare settings and sensors of a plant's newest window with the telemetry that its models were trained on.

    `telemetry` is reconciled; of the `train` rows only machine and time are read. A column that cannot be judged has no
    score, one that lost all its values has drifted; a note says so of either.
    """
    current, reference = read_windows(telemetry, train, columns, window, how)
    found = dict.fromkeys(columns, ColumnDrift())
    notes = [f"training window: {note}" for note in reference.notes]
    notes += [f"newest window: {note}" for note in current.notes]
    if not columns:
        notes.append("the data dictionary names no setting and no sensor")
    elif reference.values.is_empty() or current.values.is_empty():
        notes.append(f"no rows in the {'training' if reference.values.is_empty() else 'newest'} window")
    else:
        # The newest window may be too short to estimate autocorrelation from.
        for name, similarity in measure_similarity(reference.machine, reference.values).items():
            found[name], note = _judge_column(name, current, reference, similarity, window)
            notes += [note] if note else []
    share = sum(column.drifted for column in found.values()) / max(sum(column.judged for column in found.values()), 1)
    return PlantDrift(
        drifted=share > how.max_drifted_share,
        share=share,
        columns=found,
        current_rows=current.values.height,
        reference_rows=reference.values.height,
        window=WindowReport(start=window.start.isoformat(), end=window.end.isoformat()),
        notes=notes,
    )


class WindowRows(NamedTuple):
    """The rows of one window: the machine and the values of each, and a sample of the values with its hours."""

    machine: pl.Series
    values: pl.DataFrame
    sample: pl.DataFrame
    hours: Floats
    notes: list[str]


def read_windows(
    telemetry: pl.DataFrame, train: pl.DataFrame, columns: Sequence[str], window: Window, how: Drift
) -> tuple[WindowRows, WindowRows]:
    """Return the rows of the newest window, without those trained on, and of the training window.

    The latter is the time range of the training rows `train`, and their machines.
    """
    is_trained = pl.col("machine").is_in(train["machine"].unique().implode())
    within = pl.col("time").is_between(train["time"].min(), train["time"].max())
    trained = telemetry.filter(is_trained, within).sort("machine", "time")
    newest = telemetry.filter(pl.col("time").is_between(*window, closed="left"))
    newest = newest.join(trained, on=["machine", "time"], how="anti")
    return _read_window(newest, columns, how), _read_window(trained, columns, how)


def _read_window(rows: pl.DataFrame, columns: Sequence[str], how: Drift) -> WindowRows:
    values, notes = as_numbers(rows, columns)
    drawn = np.arange(values.height)
    if values.height > how.sample_rows:
        drawn = np.sort(np.random.default_rng(how.seed).choice(values.height, how.sample_rows, replace=False))
    hours = rows["time"][drawn].dt.epoch("s").to_numpy() / 3600
    return WindowRows(rows["machine"], values, values[drawn], hours, notes)


def _judge_column(
    name: str, current: WindowRows, reference: WindowRows, similarity: float, window: Window
) -> tuple[ColumnDrift, str | None]:
    """Return what was found of a column, and a note if it could not be judged or lost all its values.

    A change of regime may hardly shift a column's values that are quite different ones, and a small shift changes
    few bins. So a column is judged by both distances, and reported with that which is larger beside its threshold.
    """
    newest, usual = (rows.sample[name].drop_nulls().to_numpy() for rows in (current, reference))
    if newest.size == 0 and usual.size >= FEWEST_VALUES:
        return ColumnDrift(drifted=True), f"{name} had values in the training window and has none in the newest"
    if min(newest.size, usual.size) < FEWEST_VALUES:
        both = f"{newest.size} newest and {usual.size} training values"
        return ColumnDrift(), f"{name} is not judged: {both}, {FEWEST_VALUES} needed"
    sizes = (
        count_independent(current.values[name].count(), newest.size, similarity),
        count_independent(reference.values[name].count(), usual.size, similarity),
    )
    hours = reference.hours[reference.sample[name].is_not_null().to_numpy()]
    window_hours = (window.end - window.start) / timedelta(hours=1)
    bins = find_edges(newest, usual).size - 1
    measures: dict[DriftMethod, tuple[Callable[[Floats, Floats], float], float]] = {
        "wasserstein": (measure_shift, smallest_shift(*sizes)),
        "jensenshannon": (measure_divergence, smallest_divergence(*sizes, bins)),
    }
    judged = []
    for method, (measure, smallest) in measures.items():
        threshold = max(smallest, usual_distance(usual, hours, window_hours, measure))
        score = measure(newest, usual)
        judged.append(ColumnDrift(method=method, score=score, threshold=threshold, drifted=score >= threshold))
    return max(judged, key=lambda column: column.excess), None
