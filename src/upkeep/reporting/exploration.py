"""What the fleet is, whether its data can be relied on, and what it shows: small tables and their pictures."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import cycle
from typing import Any

import numpy as np
import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.contract.dictionary import Dictionary
from upkeep.core.text import count_things
from upkeep.features.conditions import fit_conditions
from upkeep.features.inputs import read_matrix
from upkeep.judging.reports import DataQuality
from upkeep.reporting import plots
from upkeep.reporting.plots import Picture, Styles

HOURS_PER_YEAR = 8766
"""Of 365.25 days."""

MAX_PANELS = 6
MOST_SHADES = 6
"""Plants whose ranges can lie on one another and still be told apart."""
SHADES = ["#2c3e50", "#54708a", "#86a0b6", "#b4c5d3", "#5c5346", "#8b8071", "#b9b0a2", "#d9d3c8"]
"""For what is not a plant: no plant has these colours."""
EVENTS = {
    "failure": ("failures", plots.ALERT),
    "maintenance": ("maintenance", plots.PALETTE[0]),
    "error": ("errors", plots.PALETTE[1]),
}
"""What each kind is called, and its colour."""


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
        if (counts := found.tables.get("telemetry")) is None:
            continue
        reasons = {"clean": counts.clean, "duplicate": sum(counts.duplicates.values()), **counts.quarantined}
        for reason, rows in reasons.items():
            records.append((plant, reason.replace("_", " "), rows, rows / max(counts.rows_in, 1)))
    schema = {"plant": pl.String, "reason": pl.String, "rows": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(records, schema=schema, orient="row")


def draw_losses(losses: pl.DataFrame) -> Picture:
    """Draw which rows are not used, from :func:`count_losses`."""
    lost, delivered = losses.filter(pl.col("reason") != "clean", pl.col("rows") > 0), int(losses["rows"].sum())
    share = 1 - int(lost["rows"].sum()) / max(delivered, 1)
    reasons = lost.group_by("reason").agg(pl.col("rows").sum())
    names = reasons.sort("rows", "reason", descending=[True, False])["reason"].to_list()
    most = f"; most of the rest: {names[0]}" if names else ""
    wide = losses.with_columns(share=100 * pl.col("share")).pivot("reason", index="plant", values="share")
    ranked = wide.with_columns(sum=pl.sum_horizontal(pl.lit(0), *names)).sort("sum", "plant", descending=[True, False])
    table = plots.sum_up_others(ranked.select("plant", pl.col(names).fill_null(0)))
    picture, (panel,) = plots.draw_rows(f"{share:.1%} of {delivered:,} telemetry rows are usable{most}", table["plant"])
    left = np.zeros(table.height)
    for name, colour in zip(names, cycle(SHADES), strict=False):
        panel.barh(range(table.height), table[name], left=left, color=colour, label=name, height=0.65)
        left = left + table[name].to_numpy()
    panel.set_xlabel("share of the plant's rows that is not used, %")
    return plots.explain_lines(picture)


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


def draw_deliveries(deliveries: pl.DataFrame) -> Picture:
    """Draw when each plant's batches came, from :func:`list_deliveries`."""
    marks: dict[str, dict[str, Any]] = {
        "delivered": {"marker": "s", "color": plots.PALE, "s": 26},
        "delivered again": {"marker": "D", "color": plots.PALETTE[0], "s": 42},
        "late rows": {"marker": "^", "color": plots.PALETTE[1], "s": 52},
        "missing": {"marker": "X", "color": plots.ALERT, "s": 64},
    }
    eventful = deliveries.group_by("plant").agg((pl.col("status") != "delivered").sum())
    ranked = eventful.sort("status", "plant", descending=[True, False])["plant"].to_list()
    plants = sorted(ranked[: plots.MOST_PLANTS])
    counts = {status: deliveries.filter(status=status).height for status in marks}
    picture, (panel,) = plots.draw_rows(
        f"Of {deliveries.height:,} deliveries, {counts['missing']:,} never came, {counts['late rows']:,} brought late "
        f"rows and {counts['delivered again']:,} came twice",
        plants,
    )
    for status, mark in marks.items():
        rows = deliveries.filter(pl.col("plant").is_in(plants), status=status)
        heights = [plants.index(plant) for plant in rows["plant"]]
        panel.scatter(rows["batch"].to_numpy(), heights, label=f"{status} ({counts[status]})", **mark)
    others = f" (the {len(plants)} plants of {len(ranked)} with most of them)" if len(ranked) > len(plants) else ""
    panel.set_xlabel(f"first day of the batch{others}")
    plots.show_dates(panel)
    return plots.explain_lines(picture)


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
        pl.col("batch").str.to_date(),
        *(cast_column(name, pl.String(), "time").value.alias(name) for name in ("from", "to")),
    )


def draw_gaps(gaps: pl.DataFrame) -> Picture:
    """Draw outages and stuck sensors over time, from :func:`list_findings`."""
    more = "More than " if gaps["from"].null_count() else ""  # `validate` lists the first hundred of a kind
    gaps = gaps.drop_nulls(["from", "to"]).with_columns(
        hours=(pl.col("to") - pl.col("from")).dt.total_hours(),
        name=pl.col("plant") + " " + pl.col("machine").fill_null(""),
    )
    worst = gaps.group_by("name").agg(pl.col("hours").sum()).sort("hours", "name", descending=[True, False])
    names = worst["name"].head(plots.MOST_PLANTS).to_list()
    picture, (panel,) = plots.draw_rows(more + _state_gaps(gaps), names, height=0.25)
    for kind, colour in {"outage": plots.ALERT, "stuck_sensor": plots.PALETTE[0]}.items():
        rows = gaps.filter(pl.col("name").is_in(names), kind=kind)
        since, until = (rows[column].to_numpy() for column in ("from", "to"))
        heights = [names.index(name) for name in rows["name"]]
        lasted = np.maximum(until - since, np.timedelta64(1, "D"))  # a shorter bar would not be seen
        panel.barh(heights, lasted, left=since, height=0.7, color=colour, label=kind.replace("_", " "))
    plots.show_dates(panel)
    others = f"; the {len(names)} machines of {worst.height} with the longest gaps" if worst.height > len(names) else ""
    panel.set_xlabel(f"time (bars are at least a day wide{others})")
    return plots.explain_lines(picture)


def _state_gaps(gaps: pl.DataFrame) -> str:
    if gaps.is_empty():
        return "No outage and no stuck sensor was found"
    longest = gaps.sort("hours", "plant", "machine", "from", descending=[True, False, False, False]).row(0, named=True)
    outages, stuck = (gaps.filter(kind=kind).height for kind in ("outage", "stuck_sensor"))
    where = f"{longest['plant']}, {longest['machine']}"
    return f"{outages} outages and {stuck} stuck sensors; the longest lasted {longest['hours'] / 24:.1f} days ({where})"


def pick_setting(telemetry: pl.DataFrame, settings: Sequence[str], sensors: Sequence[str]) -> str | None:
    """Return the setting that the sensors follow most, by mean absolute correlation; None if there is no setting."""
    follow = telemetry.select(
        pl.mean_horizontal(pl.corr(setting, sensor).abs().fill_nan(0) for sensor in sensors).alias(setting)
        for setting in settings
    )
    return max(settings, key=lambda setting: follow[setting][0] or 0.0, default=None)


def summarise_sensors(telemetry: pl.DataFrame, setting: str, sensors: Sequence[str]) -> pl.DataFrame:
    """Say what each plant's sensors show at each tenth of a setting's range.

    The columns: plant, sensor (in the order of `sensors`), level (mean setting of the tenth in all plants), low (10%),
    middle (median) and high (90%); tenths with fewer than 1% of the plant's rows are left out.
    """
    low, high = pl.col(setting).min(), pl.col(setting).max()
    tenth = ((pl.col(setting) - low) / ((high - low) / 10)).fill_nan(0).floor().clip(0, 9)
    levelled = telemetry.drop_nulls(setting).with_columns(pl.col(setting).mean().over(tenth).alias("@level"))
    grouped = levelled.group_by("plant", level="@level")
    wide = [
        grouped.agg(
            sensor=pl.lit(sensor),
            rows=pl.len(),
            low=pl.col(sensor).quantile(0.1),
            middle=pl.col(sensor).median(),
            high=pl.col(sensor).quantile(0.9),
        )
        for sensor in sensors
    ]
    enough = pl.col("rows") >= 0.01 * pl.col("rows").sum().over("plant", "sensor")
    columns = ["plant", "sensor", "level", "low", "middle", "high"]
    return pl.concat(frame.sort("plant", "level") for frame in wide).filter(enough).select(columns)


def draw_sensors(
    levels: pl.DataFrame, setting: str, names: Mapping[str, str], units: Mapping[str, str], styles: Styles
) -> Picture:
    """Draw each plant's sensors against a setting, from :func:`summarise_sensors`.

    `names` and `units` are those of settings and sensors, in words, by column.
    """
    sensors = levels["sensor"].unique(maintain_order=True).to_list()
    middle = pl.col("middle")
    swings = levels.group_by("sensor").agg((middle.max() - middle.min()) / middle.abs().mean())
    most = swings.sort("middle", "sensor", nulls_last=False)["sensor"][-1]
    picture, panels = plots.draw_panels(
        f"What a sensor shows depends on {names[setting]}, {names[most]} most: only compare readings at equal "
        f"{names[setting]}",
        len(sensors),
    )
    for panel, sensor in zip(panels, sensors, strict=False):
        shown = levels.filter(sensor=sensor)
        if len(styles) <= MOST_SHADES:
            for _, style, rows in plots.each_plant(shown.drop_nulls("middle"), styles):
                panel.fill_between(rows["level"], rows["low"], rows["high"], color=style.color, alpha=0.13, linewidth=0)
        plots.draw_lines(panel, shown, styles, "level", "middle")
        panel.set(
            title=plots.abridge(names[sensor]),
            xlabel=f"{names[setting]}, {units[setting]}",
            ylabel=units.get(sensor, ""),
        )
    return plots.explain_lines(picture)


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


def draw_traces(
    traces: pl.DataFrame, sensors: Sequence[str], names: Mapping[str, str], horizon_hours: float, styles: Styles
) -> Picture:
    """Draw how sensors move before failures, from :func:`trace_failures`.

    `sensors` are in the order of :func:`rank_sensors`, `names` theirs in words; the horizon is shaded.
    """
    shown = list(sensors)[:MAX_PANELS]
    title = _state_traces(traces, shown, names, horizon_hours)
    picture, panels = plots.draw_panels(title, len(shown), columns=3, sharey=True)
    for panel, sensor in zip(panels, shown, strict=False):
        days = traces.filter(sensor=sensor).with_columns(days=pl.col("hours_to_failure") / 24)
        plots.draw_lines(panel, days, styles, "days", "deviation")
        panel.axvspan(0, horizon_hours / 24, color=plots.ALERT, alpha=0.1, linewidth=0)
        panel.axhline(0, color=plots.GREY, linewidth=1)
        panel.invert_xaxis()
        panel.set(title=plots.abridge(names[sensor]), xlabel="days to the failure")
    for panel in panels[::3]:  # the first of each row
        panel.set_ylabel("deviation, std")
    return plots.explain_lines(picture)


def _state_traces(traces: pl.DataFrame, sensors: Sequence[str], names: Mapping[str, str], horizon_hours: float) -> str:
    if not sensors:
        return "No sensor is on record, only events"
    close = traces.filter(pl.col("hours_to_failure") <= horizon_hours, pl.col("sensor").is_in(sensors[:1]))
    moved = close.group_by("plant").agg(pl.col("deviation").mean()).drop_nulls()
    if moved.is_empty():
        return "No failure is on record, so nothing is known of what precedes one"
    first, (plant, deviation) = names[sensors[0]], moved.sort(pl.col("deviation").abs(), "plant").row(-1)
    return (
        f"{first[:1].upper()}{first[1:]} gives failures away best: in the last {horizon_hours:g} h it is up to "
        f"{abs(deviation):.1f} standard deviations {'above' if deviation > 0 else 'below'} its usual level ({plant})"
    )


def draw_events(events: pl.DataFrame) -> Picture:
    """Draw how many failures, maintenances and errors there were in each month, in all plants together."""
    kinds = [kind for kind in EVENTS if kind in events["kind"]] or ["failure"]
    failures = events.filter(kind="failure")["plant"].value_counts().sort("count", "plant")
    title = "No failure is on record"
    if failures.height:
        plant, most = failures.row(-1)
        others = f"; {plant} has the most, {most}" if failures.height > 1 else ""
        title = f"{count_things(int(failures['count'].sum()), 'failure')} in all{others}"
    picture, panels = plots.draw_panels(title, len(kinds), height=2.6)
    monthly = events.group_by("kind", month=pl.col("time").dt.truncate("1mo").dt.date()).len().sort("month")
    for panel, kind in zip(panels, kinds, strict=True):
        words, colour = EVENTS[kind]
        counted = monthly.filter(kind=kind)
        panel.bar(
            counted["month"].to_numpy(), counted["len"], width=np.timedelta64(25, "D"), align="edge", color=colour
        )
        panel.set(title=words, ylabel="per month")
        plots.show_dates(panel)
    return plots.explain_lines(picture)
