"""Estimates and outcomes of each plant's alarms, read from the prediction log and the ledger, as signals."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.core.parallel import map_plants
from upkeep.core.params import Params
from upkeep.core.plants import name_file, table_file
from upkeep.judging.drift import Window
from upkeep.judging.reports import DriftReport
from upkeep.model.scoring import load_scorer
from upkeep.production.estimates import ESTIMATED_FROM, Agreement, compare_with_outcomes, estimate_plant
from upkeep.production.figures import live_figures
from upkeep.production.health import UNKNOWN, Signal
from upkeep.production.ledger import as_known, read_ledger
from upkeep.production.standing import judge_alarms
from upkeep.scoring.prediction_log import SCHEMA, read_parts

WINDOW, MOST_WINDOWS = timedelta(days=28), 13  # what is estimated and then held against outcomes
# Windows are counted from here: were they counted back from today, each day would judge others, one by chance.
FIRST_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
LOGGED = [name for name in SCHEMA if name not in ("features", "readings", "inputs")]


def judge_expectations(plants: Sequence[str], drift: DriftReport, params: Params, as_of: datetime) -> list[Signal]:
    """Return what came of each plant's alarms, and whether that was expected; unknown where it cannot be read."""
    try:
        outcomes = as_known(read_ledger(params.production.ledger), as_of)
        since = (as_of - (MOST_WINDOWS + 1) * WINDOW).date()
        parts = [rows for _, rows in read_parts(params.score.log, since, set(), LOGGED)]
    except UpkeepError as error:
        failed = Signal(measure="outcomes", status=UNKNOWN, words=error.what, remedy=error.remedy)
        return [failed, *(signal for plant in plants for signal in judge_alarms(plant, None, None))]
    logged = pl.concat([SCHEMA.to_frame().select(LOGGED), *parts])
    figures = {row["plant"]: row for row in live_figures(outcomes, params).filter(role="champion").to_dicts()}
    judged = [plant for plant in figures if plant in plants and (paths.MODELS / name_file(plant)).exists()]
    agreements = map_plants(_check_estimates, judged, params.parallel, logged, outcomes, drift, params, as_of)
    return [signal for plant in plants for signal in judge_alarms(plant, figures.get(plant), agreements.get(plant))]


def _check_estimates(
    plant: str, logged: pl.DataFrame, outcomes: pl.DataFrame, drift: DriftReport, params: Params, as_of: datetime
) -> Agreement:
    """Estimate each past window as it would have been estimated then, and compare that with what came true."""
    try:
        version = load_scorer(paths.MODELS / name_file(plant)).version
        trained = pl.read_parquet(table_file(paths.PREDICTIONS, plant), columns=ESTIMATED_FROM)
    except (UpkeepError, OSError, pl.exceptions.PolarsError) as error:
        remedy = "run `dvc checkout`, or after an update `dvc repro`"
        why = f"its model or what that was judged on cannot be read: {shorten(error)}; {remedy}"
        return Agreement("unknown", why, [])
    own, drifted = logged.filter(plant=plant), drift.root.get(plant)
    windows = {}
    for window in list_windows(as_of):
        start, end = (edge.isoformat() for edge in window)  # as text, times in UTC are in their order
        overlaps = drifted and drifted.window.start < end and start < drifted.window.end
        windows[window] = drifted if overlaps else None
    estimates = estimate_plant(own, trained, windows, params, plant=plant, model_version=version)
    found = compare_with_outcomes(estimates, outcomes, as_of, params)
    return found._replace(why=f"{found.why}; {estimates[0]}")


def list_windows(as_of: datetime) -> list[Window]:
    """Return the windows that are complete by now, the newest first; they are the same until another one is."""
    end = as_of - (as_of - FIRST_MONDAY) % WINDOW
    return [Window(end - (back + 1) * WINDOW, end - back * WINDOW) for back in range(MOST_WINDOWS)]
