"""Small reports in the shape that `evaluate` leaves behind."""

from collections.abc import Mapping, Sequence
from typing import Any

from upkeep.judging.reports import Evaluation
from upkeep.judging.sanity import REFERENCES

GROUP: dict[str, Any] = {
    "chosen": "plant",
    "metrics": {
        "rows": 300,
        "machines": 4,
        "positives": 20,
        "average_precision": 0.71,
        "brier": 0.02,
        "log_loss": 0.1,
        "precision": 0.6,
        "recall": 0.5,
        "failures": 10,
        "failures_caught": 0.8,
        "false_alarms_per_machine_month": 0.4,
        "cost_saving": 0.75,
        "median_lead_time_hours": 31.0,
    },
    "intervals": {
        "average_precision": [0.6, 0.8],
        "false_alarms_per_machine_month": [0.1, 0.7],
        "cost_saving": [0.5, 0.9],
    },
    "costs": {"run_to_failure": 200000.0, "fixed_interval": 150000.0, "alarms": 80000.0, "oracle": 40000.0},
    "candidates": {},
    "sanity": {"base_rate": 0.07, "average_precision": {"class_prior": 0.07, "shuffled_labels": 0.1}, "faults": []},
}

UNKNOWN: dict[str, Any] = {
    "chosen": "plant",
    "metrics": {"rows": 0, "machines": 0, "positives": 0, "failures": 0},
    "intervals": dict.fromkeys(GROUP["intervals"]),
    "costs": {"run_to_failure": 0.0, "fixed_interval": None, "alarms": None, "oracle": 0.0},
    "candidates": {},
    "sanity": {"base_rate": None, "average_precision": {}, "faults": ["not known: no test rows"]},
}
"""A plant in which nothing could be judged."""


def with_candidates(group: Mapping[str, Any], **precision: float | None) -> dict[str, Any]:
    """Return a group whose candidates reach these average precisions."""
    candidates = {
        name: {
            "metrics": {**group["metrics"], "average_precision": value},
            "lead": None,
        }
        for name, value in precision.items()
    }
    references = {name: value for name, value in precision.items() if name in REFERENCES}
    return {**group, "candidates": candidates, "sanity": {**group["sanity"], "average_precision": references}}


def evaluation(plants: Mapping[str, Mapping[str, Any]], notes: Sequence[str] = ()) -> Evaluation:
    """Return a report on these plants; all together are as the first."""
    overall = next(iter(plants.values()))
    return Evaluation.model_validate(
        {
            "overall": overall,
            "plants": plants,
            "validation": {"overall": overall["metrics"], "plants": {}},
            "notes": notes,
        }
    )
