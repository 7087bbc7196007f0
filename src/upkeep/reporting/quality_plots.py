"""Pictures of how good the models are: the evaluation in, Matplotlib figures out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from upkeep.reporting.plots import (
    ALERT,
    GREY,
    INK,
    PALE,
    Picture,
    colour_plants,
    draw_panels,
    finish_grid,
    grid,
    legend_right,
    name_rows,
    show_dates,
)

Report = Mapping[str, Any]

BASELINES = {"class_prior": "o", "fixed_interval": "s", "error_count": "^"}
MAX_FEATURES = 12
MAX_GAP_HOURS = 12
FAIR = 0.1
"""A plant's risks are fair if they are off by no more than this on average."""


def draw_average_precision(report: Report) -> Picture:
    """Draw each plant's average precision with its interval beside every other candidate's.

    Parameters
    ----------
    report
        ``reports/evaluation/evaluation.json``, as in every picture here that takes a `report`.
    """
    plants = {plant: found for plant, found in report["plants"].items() if _metric(found) is not None}
    better = sum(_metric(found) > _best_baseline(found) for found in plants.values())
    picture, axes = draw_panels(
        f"The models beat every simple rule in {better} of {len(plants)} plants"
        if plants
        else "No failure lies ahead of any test row, so how well machines are ranked is not known",
        height=1.2 + 0.45 * len(plants),
    )
    panel, colours = axes[0, 0], colour_plants(report["plants"])
    for height, (plant, found) in enumerate(plants.items()):
        low, high = found["intervals"]["average_precision"] or (_metric(found),) * 2
        panel.plot([low, high], [height, height], color=colours[plant], linewidth=5, alpha=0.35, solid_capstyle="round")
        panel.plot(_metric(found), height, "o", color=colours[plant], markersize=11)
    for name, marker in BASELINES.items():
        values = [
            found["candidates"].get(name, {}).get("metrics", {}).get("average_precision") for found in plants.values()
        ]
        panel.plot(
            _plottable(values), range(len(plants)), marker, color=GREY, label=name.replace("_", " "), linestyle=""
        )
    panel.plot([], [], "o", color=INK, markersize=11, label="the plant's model, with interval")
    name_rows(panel, plants)
    panel.set_xlim(0, 1)
    panel.set_xlabel("average precision on test rows (1 is perfect)")
    legend_right(panel)
    return picture


def draw_calibration(calibration: pl.DataFrame) -> Picture:
    """Draw what was predicted against what happened, from ``reports/evaluation/calibration.csv``."""
    picture, axes = draw_panels(_judge_calibration(calibration), height=4.2)
    panel = axes[0, 0]
    panel.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect")
    for plant, colour in colour_plants(calibration["plant"]).items():
        curve = calibration.filter(plant=plant)
        panel.plot(curve["predicted"], curve["observed"], color=colour, alpha=0.8)
        panel.scatter(
            curve["predicted"], curve["observed"], color=colour, s=14 + 2 * np.sqrt(curve["rows"]), label=plant
        )
    panel.set(
        xlim=(-0.03, 1.05), ylim=(-0.03, 1.05), xlabel="predicted risk", ylabel="share that failed within the horizon"
    )
    panel.set_aspect("equal")
    legend_right(panel)
    return picture


def _judge_calibration(calibration: pl.DataFrame) -> str:
    """Say where risks of 10% and more, those that planners see, are too high or too low."""
    weighted = (pl.col("predicted") - pl.col("observed")) * pl.col("rows")
    off = calibration.filter(pl.col("predicted") >= 0.1).group_by("plant").agg(weighted.sum() / pl.col("rows").sum())
    too_high = off.filter(pl.col("predicted") > FAIR)["plant"].sort().to_list()
    too_low = off.filter(pl.col("predicted") < -FAIR)["plant"].sort().to_list()
    faults = [f"too {way} in {', '.join(plants)}" for way, plants in (("high", too_high), ("low", too_low)) if plants]
    return f"Risks above 10% are {' and '.join(faults)}" if faults else "A risk can be taken at its word in every plant"


def draw_precision_recall(curves: pl.DataFrame, report: Report) -> Picture:
    """Draw the choice that each threshold is, from ``reports/evaluation/precision_recall.csv``."""
    overall = report["overall"]["metrics"]
    title = "No row before a failure was judged, so precision and recall are not known"
    if overall["precision"] is not None and overall["recall"] is not None:
        title = (
            f"At the thresholds chosen, {overall['precision']:.0%} of the hours with an alarm precede a failure, and "
            f"{overall['recall']:.0%} of the hours before failures raise one"
        )
    picture, axes = draw_panels(title, height=4.0)
    panel = axes[0, 0]
    for plant, colour in colour_plants(report["plants"]).items():
        curve, metrics = curves.filter(plant=plant), report["plants"][plant]["metrics"]
        panel.plot(curve["recall"], curve["precision"], color=colour, label=plant)
        panel.plot(
            *_plottable([metrics["recall"], metrics["precision"]]), "o", color=colour, markersize=10, mec="white"
        )
    panel.plot([], [], "o", color=INK, markersize=10, label="threshold chosen")
    panel.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall: share of hours before failures that raise an alarm")
    panel.set_ylabel("precision: share of alarms that are right")
    legend_right(panel)
    return picture


def draw_events(report: Report) -> Picture:
    """Draw the failures caught and the false alarms of each plant."""
    plants, overall = report["plants"], report["overall"]["metrics"]
    caught, lead = overall["failures_caught"], overall["median_lead_time_hours"]
    title = "No failure could have been caught in the test period"
    if caught is not None:
        title = f"{caught:.0%} of {overall['failures']} failures were caught in time" + (
            f", half of them at least {lead:.0f} h ahead" if lead is not None else ""
        )
    picture, axes = draw_panels(title, 1, 2, height=1.2 + 0.42 * len(plants))
    left, right = axes[0]
    for height, (plant, colour) in enumerate(colour_plants(plants).items()):
        metrics = plants[plant]["metrics"]
        hits = round((metrics["failures_caught"] or 0) * metrics["failures"])
        left.barh(height, hits, color=colour, height=0.6)
        left.barh(
            height, metrics["failures"] - hits, left=hits, color="white", edgecolor=colour, hatch="///", height=0.6
        )
        left.text(metrics["failures"], height, f"  {hits} of {metrics['failures']}", va="center")
        rate = metrics["false_alarms_per_machine_month"]
        right.barh(height, rate or 0, color=colour, height=0.6)
        right.text(rate or 0, height, f"  {rate:.1f}" if rate is not None else "  not known", va="center")
    for panel in (left, right):
        name_rows(panel, plants)
        panel.margins(x=0.18)
    left.set_xlabel("failures: caught in time (full) and missed (hatched)")
    right.set_xlabel("false alarms per machine and month")
    return picture


def draw_costs(report: Report) -> Picture:
    """Draw what following the alarms costs beside doing nothing, fixed intervals and perfect foresight."""
    policies = {
        "run_to_failure": ("run to failure", "#54708a"),
        "fixed_interval": ("fixed interval", "#86a0b6"),
        "alarms": ("follow the alarms", ALERT),
        "oracle": ("perfect foresight", "#b4c5d3"),
    }
    costs, saving = report["overall"]["costs"], report["overall"]["metrics"]["cost_saving"]
    title = "No failure could have been caught in the test period, so no saving is known"
    if saving is not None:
        title = (
            f"Following the alarms saves {costs['run_to_failure'] - costs['alarms']:,.0f} against running to failure, "
            f"{saving:.0%} of what perfect foresight would"
        )
    plants = list(report["plants"])
    picture, axes = draw_panels(title, height=3.6)
    panel, width = axes[0, 0], 0.8 / len(policies)
    for index, (policy, (words, colour)) in enumerate(policies.items()):
        values = _plottable([report["plants"][plant]["costs"][policy] for plant in plants]) / 1000
        bars = panel.bar(
            np.arange(len(plants)) + (index - 1.5) * width, values, width * 0.92, color=colour, label=words
        )
        panel.bar_label(bars, fmt="{:,.0f}", fontsize=8, color=INK)
    panel.set_xticks(range(len(plants)), plants)
    panel.grid(visible=False, axis="x")
    panel.set_ylabel("cost in the test period, thousands")
    legend_right(panel)
    return picture


def draw_thresholds(curves: pl.DataFrame, thresholds: Mapping[str, float]) -> Picture:
    """Draw how much the cost depends on the threshold, from ``reports/evaluation/cost_by_threshold.csv``.

    Parameters
    ----------
    thresholds
        Those of the chosen models, by plant.
    """
    chosen, best = 0.0, 0.0
    for plant, threshold in thresholds.items():
        curve = curves.filter(plant=plant).sort("threshold")
        if curve.height:
            chosen += float(np.interp(threshold, curve["threshold"], curve["cost"]))
            best += float(curve["cost"].to_numpy().min())
    more = f"{chosen / best - 1:.0%} more than the best in hindsight" if best else "nothing"
    picture, axes = draw_panels(f"The thresholds chosen beforehand (dots) cost {more}", height=3.4)
    panel = axes[0, 0]
    for plant, colour in colour_plants(thresholds).items():
        curve = curves.filter(plant=plant).sort("threshold")
        if curve.is_empty():
            continue
        panel.plot(curve["threshold"], curve["cost"] / 1000, color=colour, label=plant)
        cost = np.interp(thresholds[plant], curve["threshold"], curve["cost"] / 1000)
        panel.plot(min(thresholds[plant], 1.0), cost, "o", color=colour, markersize=10, mec="white")
    panel.set(xlim=(0, 1.02), xlabel="threshold on the risk", ylabel="cost in the test period, thousands")
    panel.set_ylim(bottom=0)
    legend_right(panel)
    return picture


def draw_candidates(report: Report) -> Picture:
    """Draw what every candidate would have saved in each plant; the one that was chosen is filled."""
    plants = report["plants"]
    names = sorted({name for found in plants.values() for name in found["candidates"]})
    by_fleet = sum(found["chosen"] == "fleet" for found in plants.values())
    picture, axes = draw_panels(
        f"The fleet's model was chosen in {by_fleet} of {len(plants)} plants (filled), the plant's own in the others"
        if by_fleet < len(plants)
        else "In every plant the fleet's model was chosen (filled)",
        height=1.2 + 0.42 * len(names),
    )
    panel = axes[0, 0]
    for plant, colour in colour_plants(plants).items():
        found = plants[plant]
        values = [found["candidates"].get(name, {}).get("metrics", {}).get("average_precision") for name in names]
        face = [colour if name == found["chosen"] else "white" for name in names]
        panel.scatter(_plottable(values), range(len(names)), c=face, edgecolors=colour, s=90, linewidths=1.8)
        panel.scatter([], [], color=colour, s=90, label=plant)
    name_rows(panel, [name.replace("_", " ") for name in names])
    panel.set_xlim(-0.02, 1)
    panel.set_xlabel("average precision on test rows (1 is perfect)")
    legend_right(panel)
    return picture


def draw_importance(importance: pl.DataFrame, words: Mapping[str, str]) -> Picture:
    """Draw what the models look at, from ``reports/evaluation/importance.csv``.

    Parameters
    ----------
    words
        Features in words, by name.
    """
    mean = importance.group_by("feature").agg(pl.col("gain").mean()).sort("gain", "feature", descending=[True, False])
    top = mean.head(MAX_FEATURES)["feature"].to_list()
    share = mean.head(MAX_FEATURES)["gain"].sum()
    title = "The models have no features that count"
    if top:
        first = words[top[0]]
        title = f"{first[:1].upper()}{first[1:]} counts most; these {len(top)} features carry {share:.0%} of the gain"
    picture, axes = draw_panels(title, height=1.0 + 0.34 * len(top))
    panel = axes[0, 0]
    colours = colour_plants(importance["plant"])
    for (plant, colour), nudge in zip(colours.items(), np.linspace(-0.2, 0.2, len(colours)), strict=True):
        gains = dict(importance.filter(plant=plant).select("feature", "gain").iter_rows())
        panel.scatter(
            [gains.get(name, 0) * 100 for name in top], np.arange(len(top)) + nudge, color=colour, s=36, label=plant
        )
    panel.barh(range(len(top)), mean.head(MAX_FEATURES)["gain"] * 100, color=PALE, height=0.6, zorder=0, label="mean")
    name_rows(panel, [words[name] for name in top])
    panel.set_xlabel("share of the gain in training, %")
    panel.set_xlim(left=0)
    legend_right(panel)
    return picture


def draw_alarms(
    alarms: Sequence[Report], predictions: pl.DataFrame, thresholds: Mapping[str, float], horizon_hours: int
) -> Picture:
    """Draw the risk of some machines around their alarm.

    Parameters
    ----------
    alarms
        Plant, machine, time and hours_to_failure, from ``evaluation.json``.
    predictions
        The chosen models' rows.
    thresholds
        Those of the chosen models, by plant.
    horizon_hours
        A failure later than this after an alarm has nothing to do with it.
    """
    ahead = [math.inf if alarm["hours_to_failure"] is None else alarm["hours_to_failure"] for alarm in alarms]
    followed = sum(hours <= horizon_hours for hours in ahead)
    picture, axes = draw_panels(
        f"The surest alarm of each plant: {followed} of these {len(alarms)} were followed by a failure"
        if alarms
        else "No alarm was raised",
        *grid(len(alarms), columns=2),
        height=2.3,
        sharey=True,
    )
    colours = colour_plants(thresholds)
    for panel, alarm, hours in zip(axes.flat, alarms, ahead, strict=False):
        at = datetime.fromisoformat(alarm["time"])
        failed = at + timedelta(hours=hours) if hours <= horizon_hours else None
        near = pl.col("time").is_between(at - timedelta(days=10), (failed or at) + timedelta(days=2))
        rows = predictions.filter(near, plant=alarm["plant"], machine=alarm["machine"]).sort("time")
        gap = pl.col("time").diff() > pl.duration(hours=MAX_GAP_HOURS)
        risk = rows.select(pl.when(gap).then(None).otherwise("probability")).to_series()
        panel.plot(rows["time"].to_numpy(), risk, color=colours[alarm["plant"]], linewidth=1.5)
        panel.axhline(thresholds[alarm["plant"]], color=GREY, linestyle="--", linewidth=1.2, label="alarm threshold")
        first = rows.filter("alarm").head(1)
        panel.plot(first["time"].to_numpy(), first["probability"], "v", color=INK, markersize=9, label="first alarm")
        if failed:
            panel.axvline(failed, color=ALERT, linewidth=2, label="failure")
        panel.set(title=f"{alarm['plant']}, {alarm['machine']}", ylim=(0, 1.08))
        show_dates(panel)
    for row in axes:
        row[0].set_ylabel("risk")
    finish_grid(picture, axes, len(alarms))
    return picture


def _metric(found: Report, name: str = "average_precision") -> Any:
    return found["metrics"][name]


def _best_baseline(found: Report) -> float:
    values = (found["candidates"].get(name, {}).get("metrics", {}).get("average_precision") for name in BASELINES)
    return max((value for value in values if value is not None), default=0.0)


def _plottable(values: Iterable[float | None]) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
