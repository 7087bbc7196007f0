"""Pictures of the models' quality: the evaluation in, Matplotlib figures out."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from matplotlib.dates import date2num

from upkeep.judging.reports import Alarm, Evaluation, Interval
from upkeep.judging.sanity import explain_unknown
from upkeep.reporting import plots
from upkeep.reporting.markdown import format_names
from upkeep.reporting.plots import Picture, Styles

POLICIES = {
    "run_to_failure": ("run to failure", "#54708a"),
    "fixed_interval": ("fixed interval", "#86a0b6"),
    "alarms": ("follow the alarms", plots.ALERT),
    "oracle": ("perfect foresight", "#b4c5d3"),
}
MAX_FEATURES = 12
MAX_GAP_ROWS = 12  # a longer gap interrupts the line
FAIR = 0.1  # a plant's risks are calibrated well enough if they are off by no more than this on average
LOOKS = (("o", plots.GREY, -0.14), ("o", plots.INK, 0.14), ("|", plots.INK, 0.14))
"""Mark, colour and place in its row of each side of a comparison."""

KnownFigure = tuple[float | None, Interval]  # a figure and its interval, each None if it is not known


def rank_plants(report: Evaluation) -> list[str]:
    """Return plants by how much more their alarms cost than perfect foresight, the worst first; unknown is 0."""
    lost = {plant: (found.costs.alarms or 0) - (found.costs.oracle or 0) for plant, found in report.plants.items()}
    return sorted(report.plants, key=lambda plant: (-lost[plant], plant))


def _tabulate_plants(report: Evaluation) -> pl.DataFrame:
    """Return failures and costs, a row for each of the worst plants, sorted by name."""
    rows = []
    for plant in sorted(rank_plants(report)[: plots.MOST_PLANTS]):
        found = report.plants[plant]
        figures = {
            "failures": found.metrics.failures,
            "caught": round((found.metrics.failures_caught or 0) * found.metrics.failures),
            "false_alarms": found.metrics.false_alarms_per_machine_month,
        }
        rows.append({"plant": plant, **figures, **found.costs.model_dump()})
    policies = dict.fromkeys(POLICIES, pl.Float64)
    return pl.DataFrame(rows, schema_overrides={"false_alarms": pl.Float64, **policies})


def draw_calibration(calibration: pl.DataFrame, styles: Styles) -> Picture:
    """Draw what was predicted against what happened, from ``reports/evaluation/calibration.csv``."""
    picture, (panel,) = plots.draw_panels(_state_calibration(calibration), height=4.2)
    panel.plot([0, 1], [0, 1], color=plots.INK, linestyle="--", linewidth=1.2, label="perfect")
    for style, curve in plots.each_plant(calibration, styles):
        place = curve["predicted"], curve["observed"]
        panel.plot(*place, color=style.color, linestyle=style.linestyle, alpha=0.8)
        sizes = 14 + 2 * np.sqrt(curve["rows"])
        panel.scatter(*place, sizes, color=style.color, marker=style.marker, label=style.label, zorder=3)
    panel.set(
        xlim=(-0.03, 1.05), ylim=(-0.03, 1.05), xlabel="predicted risk", ylabel="share that failed within the horizon"
    )
    panel.set_aspect("equal")
    return plots.explain_lines(picture)


def _state_calibration(calibration: pl.DataFrame) -> str:
    """Say in which plants risks of 10% and more, which planners see, are too high, too low, or a mere constant."""
    seen, tells = pl.col("predicted") >= 0.1, pl.col("predicted").max() - pl.col("predicted").min() > FAIR
    excess = ((pl.col("predicted") - pl.col("observed")) * pl.col("rows")).filter(seen).sum()
    off = pl.when(tells).then(excess / pl.col("rows").filter(seen).sum()).fill_nan(None)
    ranked = calibration.group_by("plant").agg(off=off).sort(pl.col("off").abs(), "plant", descending=[True, False])
    kinds = {
        "too high": pl.col("off") > FAIR,
        "too low": pl.col("off") < -FAIR,
        "not known to mean what they say": pl.col("off").is_null(),
    }
    named = {words: ranked.filter(kind)["plant"].to_list() for words, kind in kinds.items()}
    faults = [f"{words} in {format_names(plants)}" for words, plants in named.items() if plants]
    if calibration.is_empty():
        faults = ["not known to mean what they say in any plant"]
    return (
        f"Risks above 10% are {', and '.join(faults)}" if faults else "A risk can be taken at its word in every plant"
    )


def draw_events(report: Evaluation, styles: Styles) -> Picture:
    """Draw the failures caught and the false alarms of each plant."""
    table = _tabulate_plants(report).select("plant", "failures", "caught", "false_alarms")
    overall = report.overall.metrics
    title, lead = "No failure could have been caught in the test period", overall.median_lead_time_hours
    if overall.failures_caught is not None:
        ahead = f", half of them at least {lead:.0f} h ahead" if lead is not None else ""
        title = f"{overall.failures_caught:.0%} of {overall.failures} failures were caught in time{ahead}"
    picture, (left, right) = plots.draw_rows(title, table["plant"], 2)
    for height, (plant, failures, caught, rate) in enumerate(table.iter_rows()):
        colour = styles[plant].color
        left.barh(height, caught, color=colour, height=0.6)
        left.barh(height, failures - caught, left=caught, color="white", edgecolor=colour, hatch="///", height=0.6)
        left.text(failures, height, f"  {caught} of {failures}", va="center")
        right.barh(height, rate or 0, color=colour, height=0.6)
        right.text(rate or 0, height, f"  {rate:.2g}" if rate is not None else "  not known", va="center")
    left.set(xmargin=0.18, xlabel="failures: caught in time (full) and missed (hatched)")
    right.set(xmargin=0.18, xlabel="false alarms per machine and month")
    right.set_xlim(0, None if table["false_alarms"].sum() else 1)
    return plots.explain_lines(picture)


def draw_costs(report: Evaluation) -> Picture:
    """Draw the costs of following the alarms, running to failure, fixed intervals and perfect foresight."""
    costs, saving = report.overall.costs, report.overall.metrics.cost_saving
    title = f"No saving is known: {explain_unknown(report.overall.metrics, 'cost_saving')}"
    if costs.saved is not None and saving is not None:
        against = f"{costs.saved:,.0f} against running to failure, {saving:.0%} of what perfect foresight would"
        title = f"Following the alarms saves {against}"
        if costs.fixed_interval is not None and costs.fixed_interval <= (costs.alarms or 0):
            title += "; fixed intervals save no less"
    table = _tabulate_plants(report)
    picture, (panel,) = plots.draw_rows(title, table["plant"], height=0.62)
    width = 0.8 / len(POLICIES)
    for index, (policy, (words, colour)) in enumerate(POLICIES.items()):
        places = np.arange(table.height) + (index - 1.5) * width
        bars = panel.barh(places, table[policy] / 1000, width * 0.92, color=colour, label=words)
        panel.bar_label(bars, fmt=" {:,.0f}", fontsize=7, color=plots.INK)
    panel.set(xmargin=0.08, xlabel="cost in the test period, thousands")
    return plots.explain_lines(picture)


def draw_importance(importance: pl.DataFrame, styles: Styles) -> Picture:
    """Draw the features by gain, from ``reports/evaluation/importance.csv``."""
    mean = importance.group_by("feature").agg(pl.first("words"), pl.mean("gain"))
    top = mean.sort("gain", "feature", descending=[True, False]).head(MAX_FEATURES)
    names = top["words"].to_list()
    title = "The models have no features that count"
    if names:
        first, share = names[0], top["gain"].sum()
        title = f"{first[:1].upper()}{first[1:]} counts most; these {len(names)} features carry {share:.0%} of the gain"
    picture, (panel,) = plots.draw_rows(title, names, height=0.34)
    plants = list(plots.each_plant(importance, styles))
    for (style, rows), nudge in zip(plants, np.linspace(-0.2, 0.2, len(plants)), strict=True):
        gains = top.select("feature").join(rows, on="feature", how="left", maintain_order="left")["gain"].fill_null(0)
        places = np.arange(len(names)) + nudge
        panel.scatter(gains * 100, places, 36, color=style.color, marker=style.marker, label=style.label)
    panel.barh(range(len(names)), top["gain"] * 100, color=plots.PALE, height=0.6, zorder=0, label="mean")
    panel.set(xlim=(0, None), xlabel="share of the gain in training, %")
    return plots.explain_lines(picture)


def draw_alarms(
    alarms: Sequence[Alarm], predictions: pl.DataFrame, thresholds: Mapping[str, float], horizon_hours: float
) -> Picture:
    """Draw the risk of machines around their alarms, and the failures within a horizon after these.

    Predictions and thresholds, by plant, are the chosen models'.
    """
    ahead = [math.inf if alarm.hours_to_failure is None else alarm.hours_to_failure for alarm in alarms]
    followed = sum(hours <= horizon_hours for hours in ahead)
    title = "No alarm was raised"
    if alarms:
        title = f"The surest alarm of each plant: {followed} of these {len(alarms)} were followed by a failure"
    picture, panels = plots.draw_panels(title, len(alarms), columns=2, sharey=True)
    for panel, alarm, hours in zip(panels, alarms, ahead, strict=False):
        at = datetime.fromisoformat(alarm.time)
        failed = at + timedelta(hours=hours) if hours <= horizon_hours else None
        near = pl.col("time").is_between(at - timedelta(days=10), (failed or at) + timedelta(days=2))
        rows = predictions.filter(near, plant=alarm.plant, machine=alarm.machine).sort("time")
        step = pl.col("time").diff()
        is_gap = step > step.median() * MAX_GAP_ROWS
        risk = rows.select(pl.when(is_gap).then(None).otherwise("probability")).to_series()
        panel.plot(rows["time"].to_numpy(), risk, color=plots.INK, linewidth=1.5)
        panel.axhline(thresholds[alarm.plant], color=plots.GREY, linestyle="--", linewidth=1.2, label="alarm threshold")
        first = rows.filter("alarm").head(1)
        place = first["time"].to_numpy(), first["probability"]
        panel.plot(*place, "v", color=plots.PALETTE[0], markersize=10, label="first alarm")
        if failed:
            panel.axvline(date2num(failed), color=plots.ALERT, linewidth=2, label="failure")
        panel.set(title=plots.abridge(f"{alarm.plant}, {alarm.machine}"), ylim=(0, 1.08))
        plots.show_dates(panel)
    for panel in panels[::2]:  # the first of each row
        panel.set_ylabel("risk")
    return plots.explain_lines(picture)


def draw_estimates(
    title: str, rows: Sequence[str], found: Mapping[str, Mapping[str, Sequence[KnownFigure]]]
) -> Picture:
    """Draw estimates, given by side and figure, one for each row: a panel for each figure, a mark for each side."""
    figures = list(dict.fromkeys(figure for own in found.values() for figure in own))
    picture, panels = plots.draw_rows(title, rows, len(figures), height=0.55)
    for panel, figure in zip(panels, figures, strict=True):
        for (side, own), (mark, colour, shift) in zip(found.items(), LOOKS, strict=False):
            panel.plot([], [], mark, color=colour, markersize=9, label=side)
            for row, (value, interval) in enumerate(own[figure]):
                if interval:
                    panel.plot(interval, [row + shift] * 2, color=colour, linewidth=4, alpha=0.35)
                if value is not None:
                    panel.plot(value, row + shift, mark, color=colour, markersize=9)
        panel.set_xlabel(figure.replace("_", " "))
    return plots.explain_lines(picture)
