"""The tables behind the pictures of the fleet and its data. Pure: tables and findings in, small tables out."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from upkeep.contract.dictionary import Dictionary
from upkeep.features.conditions import fit_conditions
from upkeep.features.inputs import read_matrix
from upkeep.judging.reports import DataQuality, TableQuality

HOURS_PER_YEAR = 8766
"""Of 365.25 days."""


def describe_fleet(telemetry: pl.DataFrame, events: pl.DataFrame, machines: pl.DataFrame) -> pl.DataFrame:
    """Say per plant how many machines of how many models were watched for how long, and how often they failed.

    The columns: plant, machines, models, rows, first and last (days), failures, failures_per_machine_year.
    """
    watched = telemetry.group_by("plant").agg(
        machines=pl.col("machine").n_unique(),
        rows=pl.len(),
        first=pl.col("time").min().dt.date(),
        last=pl.col("time").max().dt.date(),
    )
    years = (pl.col("last") - pl.col("first")).dt.total_hours() / HOURS_PER_YEAR
    models = machines.group_by("plant").agg(models=pl.col("model").drop_nulls().n_unique())
    failures = events.filter(kind="failure").group_by("plant").agg(failures=pl.len())
    return (
        watched.join(models, on="plant", how="left")
        .join(failures, on="plant", how="left")
        .with_columns(pl.col("models", "failures").fill_null(0))
        .with_columns(failures_per_machine_year=(pl.col("failures") / pl.col("machines") / years).round(1))
        .select("plant", "machines", "models", "rows", "first", "last", "failures", "failures_per_machine_year")
        .sort("plant")
    )


def count_losses(quality: DataQuality) -> pl.DataFrame:
    """Say which delivered telemetry rows are not used, and why, from ``reports/data_quality.json``.

    The columns: plant, reason (``clean``, ``duplicate`` or one for quarantine), rows, share (of the plant's rows in).
    """
    records = []
    for plant, found in sorted(quality.plants.items()):
        counts = found.tables.get("telemetry", TableQuality(rows_in=0, clean=0, duplicates={}, quarantined={}))
        reasons = {"clean": counts.clean, "duplicate": sum(counts.duplicates.values()), **counts.quarantined}
        for reason, rows in reasons.items():
            records.append((plant, reason.replace("_", " "), rows, rows / max(counts.rows_in, 1)))
    schema = {"plant": pl.String, "reason": pl.String, "rows": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(records, schema=schema, orient="row")


def list_deliveries(manifest: Mapping[str, Any], quality: DataQuality, batch_days: int) -> pl.DataFrame:
    """Say of each plant and batch of telemetry how it came, from ``data/raw/manifest.json`` and the quality report.

    The columns: plant, batch (day), status (``delivered``, ``delivered again``, ``late rows`` or ``missing``).
    """
    status: dict[tuple[str, date], str] = {}
    for file in manifest["files"]:
        if file["table"] == "telemetry":
            key = file["plant"], date.fromisoformat(file["batch"])
            status[key] = "delivered again" if file["delivery"] > 1 else status.get(key, "delivered")
    for finding in list_findings(quality, ["late_rows", "missing_batch"]).iter_rows(named=True):
        if finding["table"] != "telemetry":
            continue
        late = finding["kind"] == "late_rows"
        first, last = (finding["batch"],) * 2 if late else (finding["from"].date(), finding["to"].date())
        for step in range(0, (last - first).days + 1, batch_days):
            status[finding["plant"], first + timedelta(days=step)] = "late rows" if late else "missing"
    rows = [(plant, batch, what) for (plant, batch), what in sorted(status.items())]
    return pl.DataFrame(rows, schema={"plant": pl.String, "batch": pl.Date, "status": pl.String}, orient="row")


def list_findings(quality: DataQuality, kinds: Sequence[str]) -> pl.DataFrame:
    """List what ``validate`` found of some kinds: plant, kind, table, machine, column, batch (day), from, to (UTC)."""
    schema = dict.fromkeys(("plant", "kind", "table", "machine", "column", "batch", "from", "to"), pl.String)
    findings = [
        {"plant": plant, **finding}
        for plant, found in sorted(quality.plants.items())
        for finding in found.findings
        if finding["kind"] in kinds
    ]
    return pl.DataFrame(findings, schema=schema).with_columns(
        pl.col("batch").str.to_date(), *(_to_time(name) for name in ("from", "to"))
    )


def _to_time(name: str) -> pl.Expr:
    """Read a day, or an instant with or without its offset, as UTC."""
    text = pl.col(name).str.replace(r"(Z|\+00:00)$", "").str.pad_end(11, "T").str.replace(r"T$", "T00:00:00")
    return text.str.to_datetime(time_unit="us", time_zone="UTC").alias(name)


def pick_setting(telemetry: pl.DataFrame, settings: Sequence[str], sensors: Sequence[str]) -> str | None:
    """Return the setting that the sensors follow most, by mean absolute correlation; None if there is no setting."""
    follow = telemetry.select(
        pl.mean_horizontal(pl.corr(setting, sensor).abs().fill_nan(0) for sensor in sensors).alias(setting)
        for setting in settings
    )
    return max(settings, key=lambda setting: follow[setting][0] or 0.0, default=None)


def summarise_sensors(telemetry: pl.DataFrame, setting: str, sensors: Sequence[str]) -> pl.DataFrame:
    """Say what each plant's sensors show at each tenth of a setting's range.

    The columns: plant, sensor (in the order of `sensors`), level (mean setting of the tenth), low (10%), middle
    (median) and high (90%); tenths with fewer than 1% of the plant's rows are left out.
    """
    low, high = pl.col(setting).min(), pl.col(setting).max()
    tenth = ((pl.col(setting) - low) / ((high - low) / 10)).fill_nan(0).floor().clip(0, 9).alias("@tenth")
    grouped = telemetry.drop_nulls(setting).group_by("plant", tenth)
    wide = [
        grouped.agg(
            sensor=pl.lit(sensor),
            rows=pl.len(),
            level=pl.col(setting).mean(),
            low=pl.col(sensor).quantile(0.1),
            middle=pl.col(sensor).median(),
            high=pl.col(sensor).quantile(0.9),
        )
        for sensor in sensors
    ]
    enough = pl.col("rows") >= 0.01 * pl.col("rows").sum().over("plant", "sensor")
    columns = ["plant", "sensor", "level", "low", "middle", "high"]
    return pl.concat(frame.sort("plant", "level") for frame in wide).filter(enough).select(columns)


def trace_failures(
    telemetry: pl.DataFrame, events: pl.DataFrame, dictionary: Dictionary, tolerance: float, most: int, hours: float
) -> pl.DataFrame:
    """Average how sensors leave their usual level in the last `hours` before a failure.

    Values are scaled within their operating condition (`tolerance` and `most` are those of
    :func:`~upkeep.features.conditions.fit_conditions`), so that a change of program does not look like wear, and
    compared with what the same machine shows at other times.

    The columns: plant, sensor, hours_to_failure (middle of a bin), deviation (mean, in standard deviations), failures.
    """
    traces = []
    for (plant,), rows in telemetry.group_by("plant", maintain_order=True):
        sensors = [name for name in dictionary.names("telemetry", "sensor", str(plant)) if name in rows.columns]
        settings = [name for name in dictionary.names("telemetry", "setting", str(plant)) if name in rows.columns]
        bounds = [dictionary.columns("telemetry", str(plant))[name].range or [0.0, 1.0] for name in settings]
        given, readings = read_matrix(rows, settings), read_matrix(rows, sensors)
        conditions = fit_conditions(given, readings, [high - low for low, high in bounds], tolerance, most)
        scaled = pl.DataFrame(conditions.scale(given, readings), schema=sensors).fill_nan(None)
        scaled = rows.select("machine", "time").hstack(scaled)
        failures = events.filter(plant=plant, kind="failure").select("machine", "time", pl.col("time").alias("@failed"))
        traces.append(_trace_plant(scaled, failures, sensors, hours).select(pl.lit(plant).alias("plant"), pl.all()))
    return pl.concat(traces)


def _trace_plant(scaled: pl.DataFrame, failures: pl.DataFrame, sensors: Sequence[str], hours: float) -> pl.DataFrame:
    nearing = scaled.sort("machine", "time").join_asof(
        failures.sort("machine", "time"), on="time", by="machine", strategy="forward", check_sortedness=False
    )
    ahead = (pl.col("@failed") - pl.col("time")).dt.total_seconds() / 3600
    is_far = pl.col("@ahead").is_null() | (pl.col("@ahead") >= hours)
    width = hours // 40 or hours / 40
    return (
        nearing.with_columns(ahead.alias("@ahead"))
        .with_columns(pl.col(sensors) - pl.col(sensors).filter(is_far).mean().over("machine"))
        .filter(pl.col("@ahead") < hours)
        .group_by(((pl.col("@ahead") / width).floor() * width + width / 2).alias("@hours"))
        .agg(pl.col(sensors).mean(), pl.struct("machine", "@failed").n_unique().alias("@failures"))
        .unpivot(sensors, index=["@hours", "@failures"], variable_name="sensor", value_name="deviation")
        .select("sensor", pl.col("deviation").cast(pl.Float64), hours_to_failure="@hours", failures="@failures")
        .sort("sensor", "hours_to_failure")
    )


def rank_sensors(traces: pl.DataFrame, horizon_hours: float, otherwise: Sequence[str] = ()) -> list[str]:
    """Order sensors by how far they move within the horizon before a failure, in any plant, farthest first.

    Without any failure they come in the order `otherwise`.
    """
    close = traces.filter(pl.col("hours_to_failure") <= horizon_hours).drop_nulls("deviation")
    moved = close.group_by("plant", "sensor").agg(pl.col("deviation").mean().abs()).group_by("sensor")
    order = moved.agg(pl.col("deviation").max()).sort("deviation", "sensor", descending=[True, False])
    return order["sensor"].to_list() or traces["sensor"].unique(maintain_order=True).to_list() or list(otherwise)


def count_events(events: pl.DataFrame) -> pl.DataFrame:
    """Count events per month: plant, kind, month (its first day), events; months without any are there with 0."""
    counted = events.group_by("plant", "kind", month=pl.col("time").dt.truncate("1mo").dt.date()).agg(events=pl.len())
    if counted.is_empty():
        return counted
    every = pl.date_range(pl.col("month").min(), pl.col("month").max(), "1mo").alias("month")
    grid = events.select("plant", "kind").unique().join(counted.select(every), how="cross")
    return (
        grid.join(counted, on=["plant", "kind", "month"], how="left")
        .with_columns(pl.col("events").fill_null(0))
        .sort("plant", "kind", "month")
    )
