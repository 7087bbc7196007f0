"""Small predictions in the shape that `train` leaves behind: hourly rows, horizon 10 hours, lead time 2 hours."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import polars as pl
from hypothesis import strategies as st

from upkeep.core.params import Costs, Evaluate
from upkeep.judging.evaluation import evaluate, judge_group, read_plant
from upkeep.judging.reports import Evaluation

HORIZON, LEAD = 10, 2
START = datetime(2025, 1, 6, tzinfo=UTC)
COSTS = Costs(failure=100, planned_repair=20, false_alarm=5)


def how(**changes: object) -> Evaluate:
    given = {
        "lead_time_hours": LEAD,
        "recall_at_precision": 0.8,
        "bootstrap": 20,
        "confidence": 0.9,
        "costs": COSTS,
        "golden": None,
        "floors": {},
    }
    return Evaluate.model_validate({**given, **changes})


def machine(
    name: str = "m1",
    hours: Sequence[int] = range(40),
    fails_at: int | None = None,
    alarms: Mapping[int, float] | None = None,
    threshold: float = 0.5,
    **columns: object,
) -> pl.DataFrame:
    """One machine's rows; `alarms` are the hours with another probability than 0.1."""
    left = [None if fails_at is None or hour >= fails_at else float(fails_at - hour) for hour in hours]
    probability = [(alarms or {}).get(hour, 0.1) for hour in hours]
    rows = pl.DataFrame(
        {
            "plant": "lyon",
            "machine": name,
            "time": [START + timedelta(hours=hour) for hour in hours],
            "machine_model": "A",
            "split": "test",
            "candidate": "plant",
            "chosen": True,
            "label": [int(rest is not None and rest <= HORIZON) for rest in left],
            "hours_to_failure": left,
            "prevented": False,
            "probability": probability,
            "alarm": [value >= threshold for value in probability],
        },
        schema_overrides={
            "time": pl.Datetime("us", "UTC"),
            "label": pl.UInt8,
            "hours_to_failure": pl.Float64,
            "probability": pl.Float64,
            "alarm": pl.Boolean,
        },
    )
    return rows.with_columns(**{name: pl.lit(value) for name, value in columns.items()})


def evaluate_rows(
    predictions: Mapping[str, pl.DataFrame], judged: Evaluate, doubts: Mapping[str, str] = MappingProxyType({})
) -> Evaluation:
    """Judge each plant's predictions, and all together."""
    plants = {name: read_plant(rows, judged, HORIZON) for name, rows in predictions.items()}
    own = {name: [doubts[name]] if name in doubts else [] for name in plants}
    reports = {name: judge_group([plant], judged, 7, own[name]) for name, plant in plants.items()}
    return evaluate(plants, reports, judged, 7, doubts)


@st.composite
def fleets(draw: st.DrawFn) -> pl.DataFrame:
    """Up to four machines with any alarms, gaps, ties and failures, prevented or not."""
    machines = []
    for number in range(draw(st.integers(1, 4))):
        hours = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=25)))
        values = draw(
            st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.9, 1.0]), min_size=len(hours), max_size=len(hours))
        )
        fails_at = draw(st.none() | st.integers(1, 80))
        prevented, alarms = draw(st.booleans()), dict(zip(hours, values, strict=True))
        machines.append(machine(f"m{number}", hours, fails_at, alarms, prevented=prevented))
    return pl.concat(machines)
