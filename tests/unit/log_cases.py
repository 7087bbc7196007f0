"""Predictions as the service hands them to the prediction log."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl

from upkeep.scoring.prediction_log import read_parts

DAY = date(2025, 3, 31)
NOON = int(datetime(2025, 3, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000


def prediction(number: int, **changes: Any) -> dict[str, Any]:
    """Return one that differs from all others, as does its size: its features cannot be compressed."""
    features = np.random.default_rng(number).normal(size=80).astype(np.float32)
    columns = {
        "id": f"request-{number}/0",
        "source": "api",
        "role": "champion",
        "scored_at": NOON + number,
        "plant": "lyon",
        "machine": f"press-{number % 10}",
        "time": NOON,
        "probability": 1 / (number + 3),
        "threshold": 0.3,
        "alarm": False,
        "model_version": "3f2a",
        "warnings": [],
        "serviced_at": None,
        "maintained_at": None,
        "maintenance_code": None,
        "features": features,
        "readings": features[:2],
        "inputs": '{"telemetry":[]}',
    }
    return columns | changes


def read_log(url: object) -> pl.DataFrame:
    """Return all that the log holds."""
    return pl.concat([rows for _, rows in read_parts(str(url), DAY, set())])


def logged_numbers(url: object) -> list[int]:
    """Return the numbers of the predictions in the log, each as often as it is there."""
    return sorted(int(name.removeprefix("request-").removesuffix("/0")) for name in read_log(url)["id"])
