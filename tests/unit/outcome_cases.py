"""Predictions and events of machines, by the hour, and what comes of them."""

from datetime import timedelta
from pathlib import Path

import polars as pl
from fleet_cases import at

from upkeep.contract.dictionary import DTYPES
from upkeep.core.params import Params, load_params
from upkeep.production.outcomes import judge_outcomes

HORIZON, LEAD, SILENT = 10, 2, 20

TIME = DTYPES["time"]
EVENTS = {"plant": pl.String, "machine": pl.String, "time": TIME, "kind": pl.String}
EVENTS |= {"code": pl.String, "finding": pl.String, "alarm_at": TIME}


def outcome_params() -> Params:
    """Return parameters with small horizons."""
    params = load_params(Path("params.yaml"))
    dataset = params.dataset.model_copy(update={"horizon_hours": HORIZON, "max_repair_hours": 5})
    judged = params.evaluate.model_copy(update={"lead_time_hours": LEAD})
    score = params.score.model_copy(update={"silent_hours": SILENT})
    return params.model_copy(update={"dataset": dataset, "evaluate": judged, "score": score})


PARAMS = outcome_params()


def said(hour: float, probability: float = 0.9, machine: str = "m1", **changes: object) -> dict[str, object]:
    """Return a prediction, by default an alarm."""
    row = {"plant": "lyon", "machine": machine, "time": at(hour), "scored_at": at(hour), "source": "batch"}
    row |= {"serviced_at": None, "probability": probability, "threshold": 0.5, "alarm": probability >= 0.5}
    return row | {"model_version": "v1", "role": "champion"} | changes


def predictions(*rows: dict[str, object]) -> pl.DataFrame:
    times = dict.fromkeys(("time", "scored_at", "serviced_at"), TIME)
    return pl.DataFrame(rows or [said(0)], schema_overrides=times | {"role": pl.String}).head(len(rows))


def event(hour: float, kind: str, machine: str = "m1", **changes: object) -> dict[str, object]:
    row = {"plant": "lyon", "machine": machine, "time": at(hour), "kind": kind, "code": "x"}
    return row | {"finding": None, "alarm_at": None} | changes


def events(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=EVENTS)


def ends(hour: float, **others: float) -> pl.DataFrame:
    """Return when readings of m1, and of other machines, end."""
    known = {"m1": hour, **others}
    rows = {
        "plant": ["lyon"] * len(known),
        "machine": list(known),
        "known_until": [at(hour) for hour in known.values()],
    }
    return pl.DataFrame(rows, schema_overrides={"known_until": TIME})


def judge(rows: list[dict], happened: list[dict], until: pl.DataFrame | float, known: float = 1000) -> pl.DataFrame:
    until = until if isinstance(until, pl.DataFrame) else ends(until)
    return judge_outcomes(predictions(*rows), events(*happened), until, PARAMS, at(known))


def outcomes(rows: list[dict], happened: list[dict], until: pl.DataFrame | float) -> list[tuple[float, str]]:
    """Return the hour and the outcome of each alarm episode and each failure, of all roles."""
    judged = judge(rows, happened, until)
    return [
        ((time - at(0)) / timedelta(hours=1), outcome) for time, outcome in judged.select("at", "outcome").iter_rows()
    ]
