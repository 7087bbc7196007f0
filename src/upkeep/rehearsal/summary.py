"""The costs of each policy in a rehearsal, as a table and as a picture."""

import math

import polars as pl
from scipy.stats import t

from upkeep.core.text import align_rows
from upkeep.rehearsal.rehearse import POLICIES
from upkeep.reporting.plots import INK, Picture, draw_lines, draw_panels, explain_lines, style_plants

BEST, MONTH_WEEKS = "oracle", 4
RUN = ["change", "policy", "seed"]
COUNTED = ("cost", "failures", "defects_found", "false_alarms")
SHOWN = (*COUNTED[1:], "trainings", "promotions", "detected_after", "followed_after", "false_drifts")


def summarise(weeks: pl.DataFrame, confidence: float) -> pl.DataFrame:
    """Return a row per change and policy: means over seeds.

    ``cost``, ``regret`` (the cost above the oracle's in the same world, null without one), ``failures``,
    ``defects_found`` and ``false_alarms`` are per four weeks of the second half. ``cost_margin`` and ``regret_margin``
    are half the width of their intervals by Student's t, null of a single seed. ``trainings`` and ``promotions`` count
    all weeks after the first model. ``detected_after`` and ``followed_after`` are the weeks from the change until drift
    was a reason to train, and until models trained since then shipped, null if that never happened. ``false_drifts``
    counts the weeks in which drift was a reason although nothing had changed.
    """
    middle = weeks.select(pl.col("week").max() // 2).item()
    second_half, drifted = pl.col("week") > middle, pl.col("reason").str.contains("drift")
    changed, trained = second_half & (pl.col("change") != "none"), ~pl.col("reason").is_in(["", "first"])
    months = pl.col("week").filter(second_half).n_unique() / MONTH_WEEKS
    ordered = weeks.sort(*RUN, "week")  # so that sums are the same bits in whatever order rehearsals ended
    runs = ordered.group_by(RUN, maintain_order=True).agg(
        *(pl.col(name).filter(second_half).sum() / months for name in COUNTED),
        trainings=trained.sum(),
        promotions=(trained & pl.col("promoted")).sum(),
        followed_after=pl.col("week").filter(trained & pl.col("promoted") & changed).min() - middle,
        detected_after=pl.col("week").filter(drifted & changed).min() - middle,
        false_drifts=(drifted & ~changed).sum(),
    )
    best = runs.filter(policy=BEST).select("change", "seed", best="cost")
    runs = runs.join(best, on=["change", "seed"], how="left").with_columns(regret=pl.col("cost") - pl.col("best"))
    figures = [
        {"change": change, "policy": policy, "seeds": own.height}
        | {name: own[name].mean() for name in own.columns if name not in (*RUN, "best")}
        | {f"{name}_margin": _find_margin(own[name].drop_nulls(), confidence) for name in ("cost", "regret")}
        for change in weeks["change"].unique().sort()
        for policy in POLICIES
        if (own := runs.filter(change=change, policy=policy)).height
    ]
    return pl.DataFrame(figures, infer_schema_length=None)


def _find_margin(values: pl.Series, confidence: float) -> float | None:
    if len(values) < 2:
        return None
    return float(t.ppf((1 + confidence) / 2, len(values) - 1) * values.std() / math.sqrt(len(values)))


def tabulate_policies(summary: pl.DataFrame) -> str:
    """Return the summary for a terminal; money is in thousands per four weeks, and detection in weeks."""
    rows = []
    for row in summary.rows(named=True):
        named = {name: row[name] for name in ("change", "policy")}
        money = {name: _show_money(row[name], row[f"{name}_margin"]) for name in ("cost", "regret")}
        counts = {name: "-" if row[name] is None else f"{row[name]:.1f}" for name in SHOWN}
        rows.append(named | money | counts)
    return align_rows(rows)


def _show_money(amount: float | None, margin: float | None) -> str:
    if amount is None:
        return "-"
    return f"{amount / 1000:.1f}" + ("" if margin is None else f" ± {margin / 1000:.1f}")


def draw_policy_costs(weeks: pl.DataFrame, summary: pl.DataFrame) -> Picture:
    """Draw each policy's cost over the weeks, a panel for each change."""
    cheapest = summary.group_by("policy").agg(pl.col("cost").mean()).sort("cost", "policy").row(0, named=True)
    title = f"Least is paid by {cheapest['policy']}: {cheapest['cost'] / 1000:.0f} thousand in four weeks"
    changes = summary["change"].unique(maintain_order=True).to_list()
    picture, panels = draw_panels(title, len(changes), columns=2, height=3.2, sharey=True)
    styles = style_plants(summary["policy"].unique(maintain_order=True).to_list())
    course = weeks.sort(*RUN, "week").group_by("change", "policy", "week", maintain_order=True).agg(pl.mean("cost"))
    smooth = pl.col("cost").rolling_sum(2 * MONTH_WEEKS).over("change", "policy") / 2000
    course = course.with_columns(cost=smooth).rename({"policy": "plant"})
    for panel, change in zip(panels, changes, strict=False):
        draw_lines(panel, course.filter(change=change), styles, "week", "cost")
        panel.axvline(weeks.select(pl.col("week").max()).item() // 2, color=INK, linewidth=0.8)
        panel.set(title=f"change: {change}", xlabel="week", ylabel="thousand per four weeks")
    return explain_lines(picture)
