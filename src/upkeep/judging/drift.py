"""Drift: whether the newest telemetry still looks like what the models were trained on; Evidently's only caller.

Evidently draws the pages. It takes half a second a plant, so the distances that the verdict needs are taken beforehand,
by the function that Evidently itself calls, and only plants in which something drifted get a page.
"""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.stats import wasserstein_distance

from upkeep.core.params import Drift
from upkeep.core.types import Floats
from upkeep.judging.reports import METHOD, ColumnDrift, PlantDrift, WindowReport

SMALLEST_SHIFT = 0.1  # below this a distance is no drift: a tenth of a standard deviation, Evidently's own default
FEWEST_VALUES = 30  # a column with fewer values on either side is not judged

LARGEST_SIMILARITY = 0.99
"""Neighbours more alike than this are taken as this alike, or a column that hardly moves could never drift."""

MOST_DRAWN = 30  # columns on a plant's page, those farthest from their threshold; each takes 90 kB

RANDOM_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|(?<=metric_)[0-9a-f]{32}\b")
"""What Evidently draws anew for each page: an id per widget and one for the page."""

STAND_IN = re.compile(r"\\ue000(\d+)\\ue001")  # a column's number between what no font has, as JSON spells it


class Window(NamedTuple):
    """A stretch of time; its end does not belong to it."""

    start: datetime
    end: datetime


def newest_window(newest: datetime, until: date, batch_days: int, batches: int) -> Window:
    """Return the newest `batches` batches, counted back from the last one that may be used, whose first day is `until`.

    `newest` is the last time in any plant's telemetry; a plant that fell silent before has an empty window.
    """
    step = timedelta(days=batch_days)
    end = datetime.combine(until, time(), UTC) + step
    end -= max(0, math.ceil((end - newest) / step) - 1) * step
    return Window(end - batches * step, end)


def training_rows(telemetry: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """Return the telemetry of the machines and the time range trained on, whichever way the split was made."""
    return telemetry.filter(
        pl.col("machine").is_in(train["machine"].unique().implode()),
        pl.col("time").is_between(train["time"].min(), train["time"].max()),
    )


def as_numbers(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Return exactly `columns` as numbers, null where there is none, with a note on whatever did not fit.

    Evidently skips a column that one side lacks without a word, and stops at a text where a number was.
    """
    notes = [f"{name} is missing" for name in columns if name not in rows.columns]
    given = rows.with_columns(pl.lit(None).alias(name) for name in columns if name not in rows.columns)
    numbers = given.select(pl.col(name).cast(pl.Float64, strict=False) for name in columns)
    typed = numbers.select(pl.when(pl.col(name).is_finite()).then(name).alias(name) for name in columns)
    lost = {name: typed[name].null_count() - given[name].null_count() for name in columns}
    return typed, notes + [f"{name} holds {n} values that are not finite numbers" for name, n in lost.items() if n]


def usual_distance(values: Floats, hours: Floats, window_hours: float) -> float:
    """Return how far a window of this length got from the rest of the training data at most.

    Seasons, product mixes and wear move a sensor within the training window as well. What the training data has
    seen happen is no drift. `values` and `hours` are one column and its times, shape (n,), without gaps; windows
    overlap by half. The distance is that of :func:`measure_distance`; 0 if no window leaves enough rest.
    """
    distances = [0.0]
    for start in np.arange(hours.min(), hours.max() - window_hours, window_hours / 2):
        inside = (hours >= start) & (hours < start + window_hours)
        if min(inside.sum(), (~inside).sum()) >= FEWEST_VALUES:
            distances.append(measure_distance(values[inside], values[~inside]))
    return max(distances)


def measure_distance(values: Floats, reference: Floats) -> float:
    """Return the first Wasserstein distance in standard deviations of the reference, as Evidently defines it."""
    return float(wasserstein_distance(reference, values) / max(float(reference.std()), 1e-3))


def smallest_drift(current: float, reference: float) -> float:
    """Return the distance up to which two samples may come from one distribution, in standard deviations.

    The distance between samples of n and m independent values is in the order of ``sqrt(1/n + 1/m)``, the scale of
    the two-sample empirical process; three times that is about its 99% quantile for uniform, normal and exponential
    values alike (found by simulation; values with heavier tails exceed it more often). Both sides are counted as
    :func:`count_independent` does.
    """
    return max(SMALLEST_SHIFT, 3 * math.sqrt(1 / current + 1 / reference))


def count_independent(values: int, sampled: int, similarity: float) -> float:
    """Return how many independent values tell as much as a sample of a series whose neighbours resemble each other.

    Telemetry changes slowly, so an hour tells little that the hour before did not. In a first-order autoregression the
    mean of n values varies as that of ``n (1 - r) / (1 + r)`` independent ones (Zwiers and von Storch 1995, Taking
    serial correlation into account in tests of the mean). What moves more slowly still, such as seasons and wear, is
    :func:`usual_distance`'s to allow for.

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
) -> tuple[PlantDrift, Callable[[], str]]:
    """Compare settings and sensors of a plant's newest window with what its models were trained on.

    `telemetry` is reconciled; of the `train` rows machine and time are read. Returns what ``drift.json`` says of the
    plant: a column that cannot be judged has no score, one that lost all its values has drifted, and notes say both.
    Then what draws Evidently's page of the columns that could be judged.
    """
    trained = training_rows(telemetry, train).sort("machine", "time")
    newest = telemetry.filter(pl.col("time") >= window.start, pl.col("time") < window.end)
    newest = newest.join(trained, on=["machine", "time"], how="anti")
    reference, current = (_read_side(rows, columns, how) for rows in (trained, newest))
    found = dict.fromkeys(columns, ColumnDrift())
    notes = [f"training window: {note}" for note in reference.notes]
    notes += [f"newest window: {note}" for note in current.notes]
    if not columns:
        notes.append("the data dictionary names no setting and no sensor")
    elif trained.is_empty() or newest.is_empty():
        notes.append(f"no rows in the {'training' if trained.is_empty() else 'newest'} window")
    else:
        # The newest window may be too short to tell how much its rows resemble each other.
        for name, similarity in measure_similarity(trained["machine"], reference.values).items():
            found[name], note = _judge_column(name, current, reference, similarity, window)
            notes += [note] if note else []
    thresholds = {name: column.threshold for name, column in found.items() if column.threshold is not None}
    n_drifted = sum(column.drifted for column in found.values())
    share = n_drifted / max(sum(column.drifted or name in thresholds for name, column in found.items()), 1)
    finding = PlantDrift(
        drifted=share > how.max_drifted_share,
        share=share,
        columns=found,
        current_rows=newest.height,
        reference_rows=trained.height,
        window=WindowReport(start=window.start.isoformat(), end=window.end.isoformat()),
        notes=notes,
    )
    farthest = sorted(thresholds, key=lambda name: -(found[name].score or 0.0) / thresholds[name])[:MOST_DRAWN]
    drawn = {name: threshold for name, threshold in thresholds.items() if name in farthest}
    # Evidently's page judges the columns drawn, from a share on; ours may be another verdict, of all of them.
    limit = how.max_drifted_share + 1e-4
    if (sum(found[name].drifted for name in drawn) >= limit * max(len(drawn), 1)) != finding.drifted:
        limit = 1e-4 if finding.drifted else 1.01
    return finding, partial(_draw_page, current.sample, reference.sample, drawn, limit)


class _Side(NamedTuple):
    """The values of the training window, or of the newest, and a sample of them with its hours."""

    values: pl.DataFrame
    sample: pl.DataFrame
    hours: Floats
    notes: list[str]


def _read_side(rows: pl.DataFrame, columns: Sequence[str], how: Drift) -> _Side:
    values, notes = as_numbers(rows, columns)
    drawn = np.arange(values.height)
    if values.height > how.sample_rows:
        drawn = np.sort(np.random.default_rng(how.seed).choice(values.height, how.sample_rows, replace=False))
    return _Side(values, values[drawn], rows["time"][drawn].dt.epoch("s").to_numpy() / 3600, notes)


def _judge_column(
    name: str, current: _Side, reference: _Side, similarity: float, window: Window
) -> tuple[ColumnDrift, str | None]:
    """Return what was found of a column, and why it could not be judged, or has no values, if so."""
    newest, usual = (side.sample[name].drop_nulls().to_numpy() for side in (current, reference))
    if newest.size == 0 and usual.size >= FEWEST_VALUES:
        return ColumnDrift(drifted=True), f"{name} had values in the training window and has none in the newest"
    if min(newest.size, usual.size) < FEWEST_VALUES:
        sizes = f"{newest.size} newest and {usual.size} training values"
        return ColumnDrift(), f"{name} is not judged: {sizes}, {FEWEST_VALUES} needed"
    smallest = smallest_drift(
        count_independent(current.values[name].count(), newest.size, similarity),
        count_independent(reference.values[name].count(), usual.size, similarity),
    )
    hours = reference.hours[reference.sample[name].is_not_null().to_numpy()]
    threshold = max(smallest, usual_distance(usual, hours, (window.end - window.start) / timedelta(hours=1)))
    score = measure_distance(newest, usual)
    return ColumnDrift(score=score, threshold=threshold, drifted=score >= threshold), None


def _draw_page(
    current: pl.DataFrame, reference: pl.DataFrame, thresholds: Mapping[str, float], drift_share: float
) -> str:
    """Return Evidently's page about the columns in `thresholds`, the same bytes on every run."""
    os.environ["DO_NOT_TRACK"] = "1"
    # Importing Evidently takes four seconds; nothing else in this module should have to wait for it.
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    # Evidently puts names into a script as they are, where `</script>` would end it; a name may look like an id, too.
    stand_ins = {name: f"\ue000{number}\ue001" for number, name in enumerate(thresholds)}
    columns = list(stand_ins.values())
    limits = dict(zip(columns, thresholds.values(), strict=True))
    preset = DataDriftPreset(columns=columns, num_method=METHOD, per_column_threshold=limits, drift_share=drift_share)
    definition = DataDefinition(numerical_columns=columns)
    sides = [
        Dataset.from_pandas(rows.select(list(stand_ins)).rename(stand_ins).to_pandas(), definition)
        for rows in (current, reference)
    ]
    page = steady(Report([preset]).run(*sides).get_html_str(as_iframe=False))
    names = [json.dumps(name)[1:-1].replace("<", r"\u003c") for name in thresholds]
    return STAND_IN.sub(lambda found: names[int(found[1])], page)


def steady(page: str) -> str:
    """Return Evidently's page with its random ids numbered in order of appearance, the same on every run."""
    start = page.index("var metric_")
    numbers: dict[str, int] = defaultdict(count().__next__)
    return page[:start] + RANDOM_ID.sub(lambda found: f"{numbers[found[0]]:0{len(found[0])}d}", page[start:])
