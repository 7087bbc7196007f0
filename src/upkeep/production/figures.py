"""Live figures: what the ledger of outcomes says of alarms in production, with what is not known beside it.

docs/outcomes.md defines them. Episodes and failures are counted, not rows, so how often machines are scored does not
change them. What is void, censored or pending counts for none, nor do failures before any model was in force.
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
"""What people are shown, in which form, and of which figures."""

FIGURES = [name for _, names in SHOWN.values() for name in names]
INTERVALS = {f"{name}_interval": (ends[0], ends[-1]) for name, (_, ends) in SHOWN.items() if name != "coded"}
"""From the low end of the first figure's resamples to the high end of the second's."""


def live_figures(outcomes: pl.DataFrame, params: Params, by: Sequence[str] = ("plant",)) -> pl.DataFrame:
    """Return the figures of each group of what is known: the ledger's rows as of one instant.

    Groups are roles, which are kept apart, and `by`: any of plant, model_version and week, the Monday (UTC) of episode
    or failure. Columns are the groups', a count per outcome, `FIGURES`, null where nothing divides, and `INTERVALS`,
    each [low, high] from machines resampled, null where none can be told.
    """
    rows = outcomes.drop_nulls("model_version").with_columns(week=pl.col("at").dt.truncate("1w").dt.date())
    names = [name for name in GROUPS if name in ("role", *by)]
    found = []
    for key, own in rows.sort(names).partition_by(names, as_dict=True, maintain_order=True).items():
        group = dict(zip(names, key, strict=True))
        # A machine that a week or a model says nothing of is one of the plant all the same.
        fleet = {name: group[name] for name in ("role", "plant") if name in group}
        machines = rows.filter(**fleet).select(MACHINE).unique().sort(MACHINE)
        found.append(group | _measure_group(own, machines, params))
    schema = {name: GROUPS[name] for name in names} | dict.fromkeys(OUTCOMES, pl.Int64())
    schema |= dict.fromkeys(FIGURES, pl.Float64()) | dict.fromkeys(INTERVALS, pl.List(pl.Float64()))
    return pl.DataFrame(found, schema=schema).with_columns(pl.col(FIGURES).fill_nan(None))


def _measure_group(rows: pl.DataFrame, machines: pl.DataFrame, params: Params) -> dict[str, object]:
    """Return counts, figures and intervals of one group, of whose role and plant these are all machines."""
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
    """Return `FIGURES` of counts of each outcome, arrays of one shape; NaN where nothing divides.

    A repair in time prevents the failure that it was for, so a defect found counts as one caught; a visit without a
    code may have been a repair or an inspection.
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
    """Say in which plants a challenger's alarms have surely cost more than the champion's since it runs beside it.

    `outcomes` are the ledger's rows as of one instant, `versions` the challenger's models by plant. Of failures count
    those that its predictions cover, of which ``gate.min_failures`` are needed, prevented ones included; those need no
    alarm of its own, which favours it.
    """
    found = {}
    for plant, version in versions.items():
        shadow = outcomes.filter(plant=plant, role="challenger", model_version=version)
        champion = outcomes.filter(
            pl.col("at") >= shadow.select(pl.min("at")).to_series(), plant=plant, role="champion"
        )
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
    """Return for a terminal how many ended in each class by plant and role, and groups' figures with intervals."""
    said, told = outcomes.drop_nulls("model_version"), ["nothing is known yet: no prediction was judged"]
    if said.height:
        counts, figures = (live_figures(said, params, groups).to_dicts() for groups in (("plant",), by))
        names = {name: name.replace("_", " ") for name in ("plant", "role", *OUTCOMES)}
        groups = [name for name in GROUPS if name in figures[0]]
        told = [
            align_rows([{head: str(row[name]) for name, head in names.items()} for row in counts]),
            align_rows(
                [
                    {name: str(row[name]) for name in groups} | {name: _show(row, name) for name in SHOWN}
                    for row in figures
                ]
            ),
        ]
    if early := outcomes.height - said.height:
        told.append(f"left out: {count_things(early, 'failure')} from before there was any prediction")
    return "\n\n".join(told)


def _show(row: Mapping[str, Any], name: str) -> str:
    form, figures = SHOWN[name]
    values, ends = [row[figure] for figure in figures], row.get(f"{name}_interval")
    text = "unknown" if None in values else " to ".join(dict.fromkeys(map(form.format, values)))
    return f"{text} ({' to '.join(map(form.format, ends))})" if ends else text
