"""Pictures of the fleet and its data: small tables in, Matplotlib figures out."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import polars as pl

from upkeep.reporting.plots import (
    ALERT,
    GREY,
    MOST_PLANTS,
    PALE,
    PALETTE,
    Picture,
    Styles,
    draw_panels,
    draw_rows,
    each_plant,
    explain_lines,
    shorten,
    show_dates,
)

MAX_PANELS = 6
MOST_SHADES = 6
"""Plants whose ranges can lie on one another and still be told apart."""
SHADES = ["#2c3e50", "#54708a", "#86a0b6", "#b4c5d3", "#5c5346", "#8b8071", "#b9b0a2", "#d9d3c8"]
"""For what is not a plant: no plant has these colours."""


def draw_losses(losses: pl.DataFrame) -> Picture:
    """Draw which rows are not used, from :func:`~upkeep.reporting.exploration.count_losses`."""
    lost = losses.filter(pl.col("reason") != "clean")
    share = 1 - float(lost["rows"].sum()) / max(float(losses["rows"].sum()), 1.0)
    reasons = lost.group_by("reason").agg(pl.col("rows").sum()).filter(pl.col("rows") > 0)
    names = reasons.sort("rows", "reason", descending=[True, False])["reason"].to_list()
    most = f"; most of the rest: {names[0]}" if names else ""
    wide = losses.with_columns(share=100 * pl.col("share")).pivot("reason", index="plant", values="share")
    ranked = wide.with_columns(sum=pl.sum_horizontal(pl.lit(0), *names)).sort("sum", "plant", descending=[True, False])
    table = shorten(ranked.select("plant", pl.col(names).fill_null(0)))
    picture, (panel,) = draw_rows(
        f"{share:.1%} of {losses['rows'].sum():,} telemetry rows are usable{most}", table["plant"]
    )
    left = np.zeros(table.height)
    for name, colour in zip(names, cycle(SHADES), strict=False):
        panel.barh(range(table.height), table[name], left=left, color=colour, label=name, height=0.65)
        left = left + table[name].to_numpy()
    panel.set_xlabel("share of the plant's rows that is not used, %")
    return explain_lines(picture)


def draw_deliveries(deliveries: pl.DataFrame) -> Picture:
    """Draw when each plant's batches came, from :func:`~upkeep.reporting.exploration.list_deliveries`."""
    marks: dict[str, dict[str, Any]] = {
        "delivered": {"marker": "s", "color": PALE, "s": 26},
        "delivered again": {"marker": "D", "color": PALETTE[0], "s": 42},
        "late rows": {"marker": "^", "color": PALETTE[1], "s": 52},
        "missing": {"marker": "X", "color": ALERT, "s": 64},
    }
    eventful = deliveries.group_by("plant").agg((pl.col("status") != "delivered").sum())
    ranked = eventful.sort("status", "plant", descending=[True, False])["plant"].to_list()
    plants = sorted(ranked[:MOST_PLANTS])
    counts = {status: deliveries.filter(status=status).height for status in marks}
    picture, (panel,) = draw_rows(
        f"Of {deliveries.height} deliveries, {counts['missing']} never came, {counts['late rows']} brought late rows "
        f"and {counts['delivered again']} came twice",
        plants,
    )
    for status, mark in marks.items():
        rows = deliveries.filter(pl.col("plant").is_in(plants), status=status)
        heights = [plants.index(plant) for plant in rows["plant"]]
        panel.scatter(rows["batch"].to_numpy(), heights, label=f"{status} ({counts[status]})", **mark)
    others = f" (the {len(plants)} plants of {len(ranked)} with most of them)" if len(ranked) > len(plants) else ""
    panel.set_xlabel(f"first day of the batch{others}")
    show_dates(panel)
    return explain_lines(picture)


def draw_gaps(gaps: pl.DataFrame) -> Picture:
    """Draw outages and stuck sensors over time, from :func:`~upkeep.reporting.exploration.list_findings`."""
    more = "More than " if gaps["from"].null_count() else ""  # `validate` lists the first hundred of a kind
    gaps = gaps.drop_nulls(["from", "to"]).with_columns(hours=(pl.col("to") - pl.col("from")).dt.total_hours())
    kinds = {"outage": ALERT, "stuck_sensor": PALETTE[0]}
    named = (pl.col("plant") + " " + pl.col("machine").fill_null("")).alias("name")
    worst = gaps.group_by(named).agg(pl.col("hours").sum()).sort("hours", "name", descending=[True, False]).head(15)
    names = worst["name"].to_list()
    picture, (panel,) = draw_rows(more + _state_gaps(gaps), names, height=0.25)
    for kind, colour in kinds.items():
        rows = gaps.with_columns(named).filter(pl.col("kind") == kind, pl.col("name").is_in(names))
        since, until = (rows[column].to_numpy() for column in ("from", "to"))
        heights = [names.index(name) for name in rows["name"]]
        lasted = np.maximum(until - since, np.timedelta64(1, "D"))  # a shorter bar would not be seen
        panel.barh(heights, lasted, left=since, height=0.7, color=colour, label=kind.replace("_", " "))
    show_dates(panel)
    panel.set_xlabel("time (bars are at least a day wide; the 15 machines with the longest gaps)")
    return explain_lines(picture)


def _state_gaps(gaps: pl.DataFrame) -> str:
    if gaps.is_empty():
        return "No outage and no stuck sensor was found"
    ranked = gaps.sort("hours", "plant", "machine", "from", descending=[True, False, False, False])
    longest = ranked.row(0, named=True)
    outages, stuck = (gaps.filter(kind=kind).height for kind in ("outage", "stuck_sensor"))
    return (
        f"{outages} outages and {stuck} stuck sensors; the longest lasted {longest['hours'] / 24:.1f} days "
        f"({longest['plant']}, {longest['machine']})"
    )


def draw_sensors(
    levels: pl.DataFrame, setting: str, names: Mapping[str, str], units: Mapping[str, str], styles: Styles
) -> Picture:
    """Draw each plant's sensors against a setting, from :func:`~upkeep.reporting.exploration.summarise_sensors`.

    `names` and `units` are those of settings and sensors, in words, by column.
    """
    sensors = levels["sensor"].unique(maintain_order=True).to_list()[:MAX_PANELS]
    middle = pl.col("middle")
    swings = levels.group_by("sensor").agg((middle.max() - middle.min()) / middle.abs().mean())
    most = swings.filter(pl.col("sensor").is_in(sensors)).sort("middle", "sensor", nulls_last=False)["sensor"][-1]
    picture, panels = draw_panels(
        f"What a sensor shows depends on {names[setting]}, {names[most]} most: only compare readings at equal "
        f"{names[setting]}",
        len(sensors),
    )
    for panel, sensor in zip(panels, sensors, strict=False):
        for _, style, all_rows in each_plant(levels, styles):
            rows = all_rows.filter(sensor=sensor).drop_nulls("middle")
            if len(styles) <= MOST_SHADES:
                panel.fill_between(rows["level"], rows["low"], rows["high"], color=style.color, alpha=0.13, linewidth=0)
            panel.plot(rows["level"], rows["middle"], **style.line)
        panel.set(title=names[sensor], xlabel=f"{names[setting]}, {units[setting]}", ylabel=units.get(sensor, ""))
    return explain_lines(picture)


def draw_traces(
    traces: pl.DataFrame, sensors: Sequence[str], names: Mapping[str, str], horizon_hours: float, styles: Styles
) -> Picture:
    """Draw how sensors move before failures, from :func:`~upkeep.reporting.exploration.trace_failures`.

    `sensors` are in the order of :func:`~upkeep.reporting.exploration.rank_sensors`, `names` theirs in words; the
    horizon is the stretch before a failure that the model is to recognise, and is shaded.
    """
    shown = list(sensors)[:MAX_PANELS]
    title = _state_traces(traces, shown, names, horizon_hours)
    picture, panels = draw_panels(title, len(shown), columns=3, sharey=True)
    for panel, sensor in zip(panels, shown, strict=False):
        for _, style, all_rows in each_plant(traces, styles):
            rows = all_rows.filter(sensor=sensor).drop_nulls("deviation")
            panel.plot(rows["hours_to_failure"] / 24, rows["deviation"], **style.line)
        panel.axvspan(0, horizon_hours / 24, color=ALERT, alpha=0.1, linewidth=0)
        panel.axhline(0, color=GREY, linewidth=1)
        panel.invert_xaxis()
        panel.set(title=names[sensor], xlabel="days to the failure")
    for panel in panels[::3]:  # the first of each row
        panel.set_ylabel("deviation, std")
    return explain_lines(picture)


def _state_traces(traces: pl.DataFrame, sensors: Sequence[str], names: Mapping[str, str], horizon_hours: float) -> str:
    if not sensors:
        return "No sensor is on record, only events"
    close = traces.filter(pl.col("hours_to_failure") <= horizon_hours, pl.col("sensor").is_in(sensors[:1]))
    moved = close.group_by("plant").agg(pl.col("deviation").mean()).drop_nulls()
    if moved.is_empty():
        return "No failure is on record, so nothing is known of what precedes one"
    plant, deviation = moved.sort(pl.col("deviation").abs(), "plant").row(-1)
    return (
        f"{names[sensors[0]].capitalize()} gives failures away best: in the last {horizon_hours:g} h it is up to "
        f"{abs(deviation):.1f} standard deviations {'above' if deviation > 0 else 'below'} its usual level ({plant})"
    )


def draw_events(events: pl.DataFrame, styles: Styles) -> Picture:
    """Draw failures, maintenance and errors per month, from :func:`~upkeep.reporting.exploration.count_events`."""
    words = {"failure": "failures", "maintenance": "maintenance", "error": "errors"}
    kinds = [kind for kind in words if kind in events["kind"]] or ["failure"]
    failures = events.filter(kind="failure").group_by("plant").agg(pl.col("events").sum()).sort("events", "plant")
    title = "No failure is on record"
    if failures.height:
        worst = failures.row(-1, named=True)
        title = f"{failures['events'].sum()} failures in all; {worst['plant']} has the most, {worst['events']}"
    picture, panels = draw_panels(title, len(kinds), height=2.6)
    for panel, kind in zip(panels, kinds, strict=True):
        for _, style, all_rows in each_plant(events, styles):
            rows = all_rows.filter(kind=kind)
            panel.plot(rows["month"].to_numpy(), rows["events"], **style.line)
        panel.set(title=words[kind], ylabel="events per month", ylim=(0, None))
        show_dates(panel)
    return explain_lines(picture)
