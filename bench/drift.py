"""Drift of telemetry: how soon a change is found, and how often one is where nothing changed, beside Evidently."""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from statistics import mean
from typing import Literal, NamedTuple, get_args

import polars as pl
from joblib import Parallel, delayed, parallel_config

from bench.measuring import ROOT, Row
from upkeep.contract.dictionary import load_dictionary
from upkeep.core.params import Params, load_params
from upkeep.features.split import time_boundaries
from upkeep.judging.drift import Window, WindowRows, compare_windows, read_windows
from upkeep.rehearsal.rehearse import PLANTS, START
from upkeep.simulator.fleet import PlantChange, simulate_fleet
from upkeep.simulator.readings import simulate_telemetry

Change = Literal["sensor", "regime", "firmware"]

SEEDS, PLANTS_EACH, MACHINES, HALF = 5, 2, 8, 52
WATCHED = 12  # weeks in which a change may be found
RETRAINED_EVERY = 8  # weeks, where nothing changes; after a change the models stay as they are
LATE = 2  # batches after which a change should be found


class Drifted(NamedTuple):
    """The weeks after the middle, counted from 1, in which a plant had drifted, by upkeep and by Evidently."""

    ours: list[int]
    evidently: list[int]


def measure() -> list[Row]:
    """Return how soon changes are found, and how many false drifts there are a year."""
    os.environ["POLARS_MAX_THREADS"], os.environ["DO_NOT_TRACK"] = "1", "1"
    params = load_params(ROOT / "params.yaml")
    fleets = [(plant, seed) for plant in PLANTS[:PLANTS_EACH] for seed in range(1, SEEDS + 1)]
    with parallel_config("loky", n_jobs=params.parallel.jobs, inner_max_num_threads=1):
        quiet = Parallel()(delayed(_watch)(*fleet, params, None, HALF, RETRAINED_EVERY) for fleet in fleets)
        twins = Parallel()(delayed(_watch)(*fleet, params) for fleet in fleets)
        changed = {
            change: Parallel()(delayed(_watch)(*fleet, params, change) for fleet in fleets)
            for change in get_args(Change)
        }
    rows = [row for change, found in changed.items() for row in _tell_change(change, found, twins)]
    ours, evidently = (mean(map(_count_onsets, sides)) for sides in zip(*quiet, strict=True))
    note = (
        f"{len(fleets)} plant-years, models trained every {RETRAINED_EVERY} weeks; weeks of drift in a row count once"
    )
    return [*rows, Row("false drifts of telemetry a plant-year", ours, "", evidently, "ours <= 1", note)]


def _tell_change(change: Change, found: Sequence[Drifted], twins: Sequence[Drifted]) -> Iterator[Row]:
    """Yield the share of plants in which a change was found in time; what the unchanged twin shows too is not it."""
    ours, evidently = (
        [min(set(side) - set(same), default=None) for side, same in zip(sides, twin_sides, strict=True)]
        for sides, twin_sides in zip(zip(*found, strict=True), zip(*twins, strict=True), strict=True)
    )
    shares = [mean(week is not None and week <= LATE for week in first) for first in (ours, evidently)]
    weeks = ", ".join("-" if week is None else str(week) for week in ours)
    note = f"{len(found)} plants of {MACHINES} machines; batches until found, of {WATCHED}: {weeks}"
    target = None if change == "firmware" else "ours >= 1"  # coarser steps hardly move a distribution
    yield Row(f"changes found within {LATE} batches, {change}", shares[0], "share", shares[1], target, note)


def _count_onsets(weeks: Sequence[int]) -> int:
    return sum(week - 1 not in weeks for week in weeks)


def _watch(
    plant: str,
    seed: int,
    params: Params,
    change: PlantChange | None = None,
    weeks: int = WATCHED,
    retrained_every: int = WATCHED,
) -> Drifted:
    """Return in which weeks after the middle a plant drifts that changes then, or never."""
    changes: Mapping[PlantChange, int] = {change: HALF} if change else {}
    until = HALF + weeks
    fleet = simulate_fleet(plant, MACHINES, seed=seed, start=START, batches=until, batch_days=7, changes=changes)
    telemetry = pl.concat(simulate_telemetry(fleet, batch) for batch in range(until))
    columns = load_dictionary(ROOT / params.validate_.dictionary).readings(plant)
    start, found = telemetry["time"].min(), Drifted([], [])
    for week in range(1, weeks + 1):
        trained_in = HALF + (week - 1) // retrained_every * retrained_every
        train_end, _ = time_boundaries(start, start + timedelta(weeks=trained_in), params.dataset.split)
        end = start + timedelta(weeks=HALF + week)
        known = telemetry.filter(pl.col("time") < end)
        compared = known, known.filter(pl.col("time") <= train_end).select("machine", "time"), columns
        window = Window(end - timedelta(weeks=params.drift.window_batches), end)
        if compare_windows(*compared, window, params.drift).drifted:
            found.ours.append(week)
        if _has_drifted_by_evidently(*read_windows(*compared, window, params.drift)):
            found.evidently.append(week)
    return found


def _has_drifted_by_evidently(current: WindowRows, reference: WindowRows) -> bool:
    """Return Evidently's verdict on the same rows with its defaults: its choice of tests, and half of the columns."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    known = DataDefinition(numerical_columns=current.sample.columns)
    sides = [Dataset.from_pandas(rows.sample.to_pandas(), known) for rows in (current, reference)]
    metrics = Report([DataDriftPreset()]).run(*sides).dict()["metrics"]
    return any(metric["value"]["share"] >= 0.5 for metric in metrics if isinstance(metric["value"], dict))
