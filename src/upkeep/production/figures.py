"""Live figures: precision, recall and cost of alarms in production, from the ledger of outcomes.

docs/outcomes.md defines them. They count episodes and failures, not rows, so they do not depend on how often machines
are scored. What is void, censored or pending is left out, and so are failures before any model was in force.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from upkeep.core.params import Costs, Params
from upkeep.core.text import align_rows, count_things
from upkeep.core.types import Floats
from upkeep.judging.economics import divide_defined, policy_cost
from upkeep.judging.episodes import MACHINE
from upkeep.judging.resampling import draw_machines, interval
from upkeep.production.outcomes import OF_ALARMS, OF_FAILURES

GROUPS = {"plant": pl.String(), "role": pl.String(), "model_version": pl.String(), "week": pl.Date()}
OUTCOMES = [*OF_ALARMS, *OF_FAILURES]
SHOWN = {
    "precision": ("{:.0%}", ["precision"]),
    "coded": ("{:.0%}", ["coded"]),
    "recall": ("{:.0%}", ["recall_from", "recall_to"]),
    "cost": ("{:,.0f}", ["cost_from", "cost_to"]),
}
"""The format of each column that people are shown, and the figures in it: one, or the ends of a range."""

FIGURES = [name for _, names in SHOWN.values() for name in names]
INTERVALS = {f"{name}_interval": (ends[0], ends[-1]) for name, (_, ends) in SHOWN.items() if name != "coded"}
"""Each is from the low end of its first figure's interval to the high end of its second's."""


def live_figures(outcomes: pl.DataFrame, params: Params, by: Sequence[str] = ("plant",)) -> pl.DataFrame:
    """Return the figures of each group of `outcomes`, the ledger's rows as known at one instant.

    Roles are always groups of their own; `by` adds any of plant, model_version and week, the Monday (UTC) of episode or
    failure. Columns are the groups', a count per outcome, `FIGURES`, null where they are not defined, and `INTERVALS`,
    each [low, high] from resampled machines, null where they cannot be told.
    """
    rows = outcomes.drop_nulls("model_version").with_columns(week=pl.col("at").dt.truncate("1w").dt.date())
    names = [name for name in GROUPS if name in ("role", *by)]
    found = []
    for key, own in rows.sort(names).partition_by(names, as_dict=True, maintain_order=True).items():
        group = dict(zip(names, key, strict=True))
        # A plant's machines without outcomes in this week, or of this model, are resampled, too.
        fleet = {name: group[name] for name in ("role", "plant") if name in group}
        machines = rows.filter(**fleet).select(MACHINE).unique().sort(MACHINE)
        found.append(group | _measure_group(own, machines, params))
    schema = {name: GROUPS[name] for name in names} | dict.fromkeys(OUTCOMES, pl.Int64())
    schema |= dict.fromkeys(FIGURES, pl.Float64()) | dict.fromkeys(INTERVALS, pl.List(pl.Float64()))
    return pl.DataFrame(found, schema=schema).with_columns(pl.col(FIGURES).fill_nan(None))


def _measure_group(rows: pl.DataFrame, machines: pl.DataFrame, params: Params) -> dict[str, object]:
    """Return counts, figures and intervals of one group; `machines` are all of its role and plant."""
    counts = rows.group_by(MACHINE).agg((pl.col("outcome") == name).sum().alias(name) for name in OUTCOMES)
    tally = machines.join(counts, on=MACHINE, how="left", maintain_order="left").select(pl.col(OUTCOMES).fill_null(0))
    draws = draw_machines(machines.height, params.evaluate.bootstrap, params.model.seed)
    totals = tally.to_numpy().astype(np.float64).T @ np.hstack([np.ones((machines.height, 1)), draws])
    count = dict(zip(OUTCOMES, totals, strict=True))
    figures = _measure_outcomes(count, params.evaluate.costs)
    found: dict[str, object] = {name: int(values[0]) for name, values in count.items()}
    found |= {name: float(values[0]) for name, values in figures.items()}
    ends = {name: interval(values[1:], params.evaluate.confidence) for name, values in figures.items()}
    for name, (first, second) in INTERVALS.items():
        low, high = ends[first], ends[second]
        found[name] = [low[0], high[1]] if low and high else None
    return found


def _measure_outcomes(counts: Mapping[str, Floats], costs: Costs) -> dict[str, Floats]:
    """Return `FIGURES` given the count of each outcome, arrays of one shape; NaN where they are not defined.

    A repair in time prevents a failure, so a defect found counts as a failure caught. A visit without a code may have
    been a repair or an inspection, hence the ranges.
    """
    right = counts["defect_found"] + counts["failed"]
    coded = right + counts["nothing_found"]
    caught = counts["caught"] + counts["defect_found"]
    missed = counts["missed"] + counts["not_covered"]
    unknown = counts["no_code"]
    false = counts["nothing_found"] + counts["survived"]
    inspected = policy_cost(caught + missed, caught, false + unknown, costs)
    repaired = policy_cost(caught + missed + unknown, caught + unknown, false, costs)
    return {
        "precision": divide_defined(right, coded),
        "coded": divide_defined(coded, coded + counts["survived"] + unknown),
        "recall_from": divide_defined(caught, caught + missed),
        "recall_to": divide_defined(caught + unknown, caught + unknown + missed),
        "cost_from": np.minimum(inspected, repaired),
        "cost_to": np.maximum(inspected, repaired),
    }


def find_losing_shadows(outcomes: pl.DataFrame, versions: Mapping[str, str], params: Params) -> dict[str, str]:
    """Return, by plant, why a challenger in the shadow loses: its alarms have surely cost more than the champion's.

    `outcomes` are the ledger's rows as known at one instant, `versions` the challenger's models by plant. Both sides
    are judged on the failures that the challenger's predictions cover. ``gate.min_failures`` of these are needed,
    prevented ones included, which count for the challenger without an alarm of its own, and so favour it.
    """
    found = {}
    for plant, version in versions.items():
        shadow = outcomes.filter(plant=plant, role="challenger", model_version=version)
        since = shadow.select(pl.min("at")).to_series()
        champion = outcomes.filter(pl.col("at") >= since, plant=plant, role="champion")
        covered = shadow.filter(kind="failure").select("machine", "at", "kind")
        failures = champion.join(covered, on=["machine", "at", "kind"], how="semi")
        judged = live_figures(pl.concat([shadow, champion.filter(kind="alarm"), failures]), params)
        costs = {row["role"]: row["cost_interval"] for row in judged.to_dicts()}
        own, live = costs.get("challenger"), costs.get("champion")
        happened = shadow["outcome"].is_in(["caught", "missed", "defect_found"]).sum()
        if own and live and own[0] > live[1] and happened >= params.gate.min_failures:
            costs_of = f"its alarms have cost {own[0]:,.0f} at least, those live {live[1]:,.0f} at most"
            found[plant] = f"run in the shadow, {costs_of}"
    return found


def show_outcomes(outcomes: pl.DataFrame, params: Params, by: Sequence[str] = ("plant",)) -> str:
    """Return tables for the terminal: the count of each outcome by plant and role, and the groups' figures."""
    said, told = outcomes.drop_nulls("model_version"), ["nothing is known yet: no prediction was judged"]
    if said.height:
        counts, figures = (live_figures(said, params, groups).to_dicts() for groups in (("plant",), by))
        names = {name: name.replace("_", " ") for name in ("plant", "role", *OUTCOMES)}
        groups = [name for name in GROUPS if name in figures[0]]
        counted = [{head: str(row[name]) for name, head in names.items()} for row in counts]
        shown = [
            {name: str(row[name]) for name in groups} | {name: _show(row, name) for name in SHOWN} for row in figures
        ]
        told = [align_rows(counted), align_rows(shown)]
    if early := outcomes.height - said.height:
        told.append(f"left out: {count_things(early, 'failure')} before the first prediction, or too soon after it")
    return "\n\n".join(told)


def _show(row: Mapping[str, Any], name: str) -> str:
    form, figures = SHOWN[name]
    values, ends = [row[figure] for figure in figures], row.get(f"{name}_interval")
    text = "unknown" if None in values else " to ".join(dict.fromkeys(map(form.format, values)))
    return f"{text} ({' to '.join(map(form.format, ends))})" if ends else text
