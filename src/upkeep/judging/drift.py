"""Drift: whether the newest telemetry still looks like what the models were trained on; Evidently's only caller."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from upkeep.core.params import Drift

METHOD = "wasserstein"
"""A distance in standard deviations, not a p-value: with enough rows a p-value calls every difference drift."""

SMALLEST_SHIFT = 0.1
"""Below this a distance is no drift: a tenth of a standard deviation, Evidently's own default."""

FEWEST_VALUES = 30
"""A column with fewer values on either side is not judged."""


RANDOM_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|(?<=metric_)[0-9a-f]{32}\b")
"""What Evidently draws anew for each page: an id per widget and one for the page."""


@dataclass(frozen=True)
class Comparison:
    """One plant's newest window against its training window.

    Attributes
    ----------
    finding
        What ``drift.json`` says of the plant.
    detail
        Evidently's page of the columns that could be judged; empty if none could.
    """

    finding: dict[str, Any]
    detail: str


def newest_window(newest: datetime, until: date, batch_days: int, batches: int) -> tuple[datetime, datetime]:
    """Return the start and the (exclusive) end of the newest `batches` batches.

    Parameters
    ----------
    newest
        The last time in any plant's telemetry; a plant that fell silent before has an empty window.
    until
        First day of the last batch that may be used; batches are counted back from it.
    batch_days
        Days in a batch.
    batches
        Batches in the window.
    """
    step = timedelta(days=batch_days)
    end = datetime.combine(until, time(), UTC) + step
    end -= max(0, math.ceil((end - newest) / step) - 1) * step
    return end - batches * step, end


def training_rows(telemetry: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """Return the telemetry of the machines and the time range trained on, whichever way the split was made."""
    return telemetry.filter(
        pl.col("machine").is_in(train["machine"].unique().implode()),
        pl.col("time").is_between(train["time"].min(), train["time"].max()),
    )


def reconcile(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Return exactly `columns`, typed, with a note on whatever did not fit.

    Evidently skips a column that one side lacks without a word, and stops at a text where a number was.

    Parameters
    ----------
    rows
        Telemetry, with whatever columns it has.
    columns
        Names of settings and sensors, which are all numbers.
    """
    notes = [f"{name} is missing" for name in columns if name not in rows.columns]
    given = rows.with_columns(pl.lit(None).alias(name) for name in columns if name not in rows.columns)
    typed = given.select(_finite(name) for name in columns)
    lost = {name: typed[name].null_count() - given[name].null_count() for name in columns}
    return typed, notes + [f"{name} holds {n} values that are not finite numbers" for name, n in lost.items() if n]


def usual_distance(values: NDArray[np.float64], hours: NDArray[np.float64], window_hours: float) -> float:
    """Return how far a window of this length got from the rest of the training data at most.

    Seasons, product mixes and wear move a sensor within the training window as well. What the training data has
    seen happen is no drift.

    Parameters
    ----------
    values, hours
        One column of the training window and its times, shape (n,), no gaps.
    window_hours
        Length of the newest window, which these windows have too; they overlap by half.

    Returns
    -------
    float
        Largest first Wasserstein distance, in standard deviations of the rest; 0 if no window leaves enough rest.
    """
    distances = [0.0]
    for start in np.arange(hours.min(), hours.max() - window_hours, window_hours / 2):
        inside = (hours >= start) & (hours < start + window_hours)
        if min(inside.sum(), (~inside).sum()) >= FEWEST_VALUES:
            rest = values[~inside]
            distances.append(wasserstein_distance(values[inside], rest) / max(float(rest.std()), 1e-3))
    return float(max(distances))


def smallest_drift(n_current: int, n_reference: int) -> float:
    """Return the distance below which two samples of this size may come from the same distribution.

    The distance shrinks as 1/sqrt(n) between samples of one distribution; 3/sqrt(n) is about the 99% quantile for
    normal and for exponential values.
    """
    return max(SMALLEST_SHIFT, 3 / math.sqrt(min(n_current, n_reference)))


def compare(
    telemetry: pl.DataFrame,
    train: pl.DataFrame,
    columns: Sequence[str],
    window: tuple[datetime, datetime],
    how: Drift,
) -> Comparison:
    """Compare a plant's newest window with what its models were trained on.

    Parameters
    ----------
    telemetry
        The plant's reconciled telemetry: machine, time, settings and sensors.
    train
        The plant's training rows; only machine and time are read.
    columns
        Names of the settings and sensors to compare.
    window
        Start and exclusive end of the newest window.
    how
        Sample size, seed and the share of columns above which the plant counts as drifted.

    Returns
    -------
    Comparison
        A column that cannot be judged has no score; one that lost all its values has drifted. Notes say both.
    """
    trained = training_rows(telemetry, train)
    newest = telemetry.filter(pl.col("time") >= window[0], pl.col("time") < window[1])
    newest = newest.join(trained, on=["machine", "time"], how="anti")
    sampled = _sample(trained, how)
    reference, notes_before = reconcile(sampled, columns)
    current, notes_after = reconcile(_sample(newest, how), columns)
    thresholds, vanished, notes = _judgeable(current, reference, columns, _hours(sampled), _hours_between(*window))
    n_judged = len(thresholds) + len(vanished)

    # Evidently's page says "detected" from a share on, we above it, and it knows nothing of columns without values.
    limit = (how.max_drifted_share * n_judged - len(vanished)) / max(len(thresholds), 1) + 1e-4
    scores, detail = _evidently(current, reference, thresholds, round(limit, 4)) if thresholds else ({}, "")
    drifted = {name for name, score in scores.items() if score >= thresholds[name]} | vanished
    share = len(drifted) / max(n_judged, 1)
    finding = {
        "drifted": share > how.max_drifted_share,
        "share": round(share, 6),
        "columns": _verdicts(columns, scores, thresholds, drifted),
        "current_rows": newest.height,
        "reference_rows": trained.height,
        "window": {"from": window[0].isoformat(), "to": window[1].isoformat()},
        "notes": [f"training window: {note}" for note in notes_before]
        + [f"newest window: {note}" for note in notes_after]
        + notes,
    }
    return Comparison(finding, detail)


def _verdicts(
    columns: Sequence[str], scores: Mapping[str, float], thresholds: Mapping[str, float], drifted: set[str]
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "method": METHOD,
            "score": _rounded(scores.get(name)),
            "threshold": _rounded(thresholds.get(name)),
            "drifted": name in drifted,
        }
        for name in columns
    }


def _finite(name: str) -> pl.Expr:
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number).alias(name)


def _sample(rows: pl.DataFrame, how: Drift) -> pl.DataFrame:
    if rows.height <= how.sample_rows:
        return rows
    return rows[np.sort(np.random.default_rng(how.seed).choice(rows.height, how.sample_rows, replace=False))]


def _hours(rows: pl.DataFrame) -> NDArray[np.float64]:
    return rows["time"].dt.epoch("s").to_numpy() / 3600


def _hours_between(start: datetime, end: datetime) -> float:
    return (end - start) / timedelta(hours=1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _judgeable(
    current: pl.DataFrame,
    reference: pl.DataFrame,
    columns: Sequence[str],
    hours: NDArray[np.float64],
    window_hours: float,
) -> tuple[dict[str, float], set[str], list[str]]:
    """Return the threshold of each column that can be judged, the columns that lost all values, and why."""
    thresholds: dict[str, float] = {}
    vanished: set[str] = set()
    if current.is_empty() or reference.is_empty():
        return thresholds, vanished, [f"no rows in the {'training' if reference.is_empty() else 'newest'} window"]
    notes = []
    for name in columns:
        n_current, n_reference = current[name].count(), reference[name].count()
        if n_current == 0 and n_reference >= FEWEST_VALUES:
            vanished.add(name)
            notes.append(f"{name} had values in the training window and has none in the newest")
        elif min(n_current, n_reference) < FEWEST_VALUES:
            found = f"{n_current} newest and {n_reference} training values"
            notes.append(f"{name} is not judged: {found}, {FEWEST_VALUES} needed")
        else:
            known = reference[name].is_not_null().to_numpy()
            values = reference[name].to_numpy()[known]
            usual = usual_distance(values, hours[known], window_hours)
            thresholds[name] = max(smallest_drift(n_current, n_reference), usual)
    return thresholds, vanished, notes


def _evidently(
    current: pl.DataFrame,
    reference: pl.DataFrame,
    thresholds: Mapping[str, float],
    drift_share: float,
) -> tuple[dict[str, float], str]:
    """Return the distance of each column in `thresholds`, and Evidently's page about them."""
    os.environ["DO_NOT_TRACK"] = "1"
    # Importing Evidently takes four seconds; nothing else in this module should have to wait for it.
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = list(thresholds)
    definition = DataDefinition(numerical_columns=names)
    preset = DataDriftPreset(
        columns=names, num_method=METHOD, per_column_threshold=dict(thresholds), drift_share=drift_share
    )
    sides = [Dataset.from_pandas(rows.select(names).to_pandas(), definition) for rows in (current, reference)]
    snapshot = Report([preset]).run(*sides)
    values = [metric for metric in snapshot.dict()["metrics"] if "column" in metric["config"]]
    scores = {metric["config"]["column"]: float(metric["value"]) for metric in values}
    return scores, steady(snapshot.get_html_str(as_iframe=False))


def steady(page: str) -> str:
    """Return Evidently's page with its random ids numbered in order of appearance, the same on every run."""
    start = page.index("var metric_")
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], f"{len(numbers):0{len(match[0])}d}"[: len(match[0])])

    return page[:start] + RANDOM_ID.sub(number, page[start:])
