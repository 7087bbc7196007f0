"""Logged predictions as small as a test needs them."""

import time
from typing import Any

import numpy as np

HOUR = 3_600_000_000
NOW = time.time_ns() // 1000 // HOUR * HOUR


def prediction(
    machine: str = "press", probability: float = 0.1, *, hours_ago: float = 0, **others: Any
) -> dict[str, Any]:
    """Return a prediction of a reading `hours_ago`, with an alarm from 50% on."""
    return {
        "id": "request/0",
        "source": "api",
        "role": "champion",
        "scored_at": NOW - int(hours_ago * HOUR),
        "plant": "lyon",
        "machine": machine,
        "time": NOW - int(hours_ago * HOUR),
        "probability": probability,
        "threshold": 0.5,
        "alarm": probability >= 0.5,
        "model_version": "3f9ac1d2",
        "warnings": [],
        "serviced_at": None,
        "maintained_at": None,
        "maintenance_code": None,
        "features": np.array([1.5, np.nan], dtype=np.float32),
        "readings": np.array([41.0, 29.0], dtype=np.float32),
        "inputs": "{}",
    } | others
