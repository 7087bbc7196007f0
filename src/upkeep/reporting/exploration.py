"""Tables and pictures of the fleet, of the quality of its data, and of how sensors move before failures.

Telemetry is given as a scan per plant; one plant's, or one column of all, is in memory at a time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from upkeep.contract.dictionary import Column, Dictionary
from upkeep.contract.findings import MAX_FINDINGS
from upkeep.features.conditions import fit_conditions
from upkeep.features.inputs import read_matrix
from upkeep.judging.reports import DataQuality
from upkeep.reporting import plots
from upkeep.reporting.markdown import Markdown, format_table
from upkeep.reporting.plots import Picture, Styles

DAYS_PER_YEAR = 365.25

MAX_PANELS = 6

Scans = Sequence[pl.LazyFrame]


def describe_fleet(telemetry: Scans, events: pl.DataFrame, machines: pl.DataFrame) -> pl.DataFrame:
    """Return per plant: machines, models, rows, first and last (days), failures and failures_per_machine_year."""
    figures = {
        "machines": pl.col("machine").n_unique(),
        "rows": pl.len(),
        "first": pl.col("time").min().dt.date(),
        "last": pl.col("time").max().dt.date(),
    }
    watched = pl.concat(rows.group_by("plant").agg(**figures).collect() for rows in telemetry)
    years = ((pl.col("last") - pl.col("first")).dt.total_days() + 1) / DAYS_PER_YEAR
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
    """Return what became of each plant's telemetry rows: plant, rows_in, clean, duplicate, and a column per reason."""
    rows = [
        {
            "plant": plant,
            "rows_in": counts.rows_in,
            "clean": counts.clean,
            "duplicate": sum(counts.duplicates.values()),
            **counts.quarantined,
        }
        for plant, found in sorted(quality.plants.items())
        if (counts := found.tables.get("telemetry"))
    ]
    return pl.DataFrame(rows, infer_schema_length=None).fill_null(0)


def tabulate_findings(quality: DataQuality) -> Markdown:
    """Return a table of how often ``validate`` reported each kind of finding in each plant's telemetry."""
    counts = {
        plant: Counter(str(finding["kind"]) for finding in found.findings if finding["table"] == "telemetry")
        for plant, found in sorted(quality.plants.items())
    }
    kinds = sorted({kind for own in counts.values() for kind in own})
    most = f"more than {MAX_FINDINGS}"
    rows = [
        [plant, *(own[kind] if own[kind] <= MAX_FINDINGS else most for kind in kinds)] for plant, own in counts.items()
    ]
    return format_table(["plant", *kinds], rows)


def describe_readings(telemetry: Scans, columns: Mapping[str, Column]) -> pl.DataFrame:
    """Return a row per setting and sensor; `columns` are the dictionary's, by name.

    The columns: column, unit, missing_percent, quantiles of 1%, 50% and 99%, and the lowest and the highest median of a
    plant, which lie apart where plants differ, or deliver in another unit.
    """
    numbers = [name for name, of in columns.items() if of.role in ("setting", "sensor") and of.type == "number"]
    own = pl.selectors.by_name(numbers, require_all=False).median()
    medians = pl.concat([scan.select(own).collect() for scan in telemetry], how="diagonal")
    rows = []
    for name in (name for name in numbers if name in medians.columns):
        values = pl.concat(telemetry, how="diagonal").select(name).collect()[name]
        found = {
            "missing_percent": 100 * values.null_count() / max(values.len(), 1),
            **{f"{level:.0%}": values.quantile(level) for level in (0.01, 0.5, 0.99)},
            "lowest_plant": medians[name].min(),
            "highest_plant": medians[name].max(),
        }
        rows.append({"column": name, "unit": columns[name].unit or "", **found})
    return pl.DataFrame(rows, infer_schema_length=None)


def trace_failures(
    telemetry: Scans, events: pl.DataFrame, dictionary: Dictionary, tolerance: float, most: int, hours: float
) -> pl.DataFrame:
    """Return sensors' mean deviation from their usual level in the last `hours` before a failure.

    Values are scaled within their operating condition (`tolerance` and `most` are those of
    :func:`~upkeep.features.conditions.fit_conditions`), so that a change of program does not look like wear, and
    compared with the same machine's at other times. The columns: plant, sensor, hours_to_failure (middle of a bin) and
    deviation (in standard deviations).
    """
    traces = []
    for rows in (own for scan in telemetry if not (own := scan.collect()).is_empty()):
        plant = rows["plant"][0]
        sensors = [name for name in dictionary.names("telemetry", "sensor", plant) if name in rows.columns]
        settings = [name for name in dictionary.names("telemetry", "setting", plant) if name in rows.columns]
        bounds = [dictionary.columns("telemetry", plant)[name].range or [0.0, 1.0] for name in settings]
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
        .agg(pl.col(sensors).mean())
        .unpivot(sensors, index="@hours", variable_name="sensor", value_name="deviation")
        .select("sensor", pl.col("deviation").cast(pl.Float64), hours_to_failure="@hours")
        .sort("sensor", "hours_to_failure")
    )


def draw_traces(traces: pl.DataFrame, names: Mapping[str, str], horizon_hours: float, styles: Styles) -> Picture:
    """Draw how sensors move before failures, from :func:`trace_failures`; the horizon is shaded.

    The sensors that move farthest within the horizon, in any plant, come first; `names` are the sensors' in words.
    """
    close = traces.filter(pl.col("hours_to_failure") <= horizon_hours).group_by("plant", "sensor")
    moved = close.agg(pl.col("deviation").mean()).drop_nulls().select("sensor", "plant", "deviation")
    moved = moved.sort(pl.col("deviation").abs(), "sensor", "plant", descending=[True, False, False])
    sensors = moved["sensor"].unique(maintain_order=True).head(MAX_PANELS).to_list()
    title = "No failure of a machine with sensors is on record, so nothing is known of what precedes one"
    if sensors:
        sensor, plant, deviation = moved.row(0)
        title = (
            f"{names[sensor][:1].upper()}{names[sensor][1:]} gives failures away best: in the last {horizon_hours:g} h "
            f"it averages {abs(deviation):.1f} standard deviations {'above' if deviation > 0 else 'below'} its usual "
            f"level ({plant})"
        )
    picture, panels = plots.draw_panels(title, len(sensors), columns=3, sharey=True)
    for panel, sensor in zip(panels, sensors, strict=False):
        days = traces.filter(sensor=sensor).with_columns(days=pl.col("hours_to_failure") / 24)
        plots.draw_lines(panel, days, styles, "days", "deviation")
        panel.axvspan(0, horizon_hours / 24, color=plots.ALERT, alpha=0.1, linewidth=0)
        panel.axhline(0, color=plots.GREY, linewidth=1)
        panel.invert_xaxis()
        panel.set(title=plots.abridge(names[sensor]), xlabel="days to the failure")
    for panel in panels[::3]:  # the first of each row
        panel.set_ylabel("deviation, std")
    return plots.explain_lines(picture)
