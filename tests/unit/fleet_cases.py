"""Small hand-made tables in the shape that `validate` leaves behind."""

from datetime import UTC, datetime, timedelta

import polars as pl

from upkeep.core.params import Dataset, Split

START = datetime(2025, 1, 6, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def dataset_params(**changes: object) -> Dataset:
    given = {
        "horizon_hours": 4,
        "windows_hours": [2, 6],
        "aggregates": ["mean", "std", "min", "max", "slope"],
        "baseline_hours": 5,
        "condition_tolerance": 0.05,
        "max_conditions": 6,
        "max_repair_hours": 10,
        "negatives_kept": 0.25,
        "max_single_feature_auc": 0.999,
        "split": {"by": "time", "validation_share": 0.2, "test_share": 0.25, "seed": 7},
    }
    return Dataset.model_validate({**given, **changes})


def split_params(**changes: object) -> Split:
    return Split.model_validate({"by": "time", "validation_share": 0.2, "test_share": 0.25, "seed": 7, **changes})


def telemetry(hours: list[float], machine: str = "m1", **columns: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {"plant": "p", "machine": machine, "time": [at(hour) for hour in hours], **columns},
        schema_overrides={"plant": pl.String, "machine": pl.String, "time": TIME, **dict.fromkeys(columns, pl.Float64)},
    )


def events(*rows: tuple[float, str, str], machine: str = "m1") -> pl.DataFrame:
    return pl.DataFrame(
        [("p", machine, at(hour), kind, code) for hour, kind, code in rows],
        schema={"plant": pl.String, "machine": pl.String, "time": TIME, "kind": pl.String, "code": pl.String},
        orient="row",
    )


def visits(*rows: tuple[float, str | None, float | None], machine: str = "m1") -> pl.DataFrame:
    """Return maintenance with what was found and, in hours, the alarm that it answers."""
    found = events(*((hour, "maintenance", "inspection") for hour, _, _ in rows), machine=machine)
    alarms = [None if alarm is None else at(alarm) for _, _, alarm in rows]
    findings = pl.Series([finding for _, finding, _ in rows], dtype=pl.String)
    return found.with_columns(finding=findings, alarm_at=pl.Series(alarms, dtype=TIME))


def machines(*rows: tuple[str, str | None, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [("p", name, model, None if hour is None else at(hour)) for name, model, hour in rows],
        schema={"plant": pl.String, "machine": pl.String, "model": pl.String, "installed": TIME},
        orient="row",
    )
