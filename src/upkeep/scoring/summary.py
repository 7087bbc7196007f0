"""What `upkeep score` shows on the terminal: plants, the most urgent machines, and those that say nothing."""

from collections.abc import Mapping

import polars as pl

from upkeep.core.text import align_columns
from upkeep.scoring.newest import Scored

URGENT = 5
SILENT = 20
"""Machines that are named at most."""

MINUTE = "%Y-%m-%d %H:%M"


def describe_scores(scored: Mapping[str, Scored]) -> str:
    """Return the plants, the most urgent machines and the silent ones as tables."""
    plants = [(name, *_count_machines(plant)) for name, plant in scored.items()]
    tables = [
        align_columns(("plant", "data until", "scored", "alarms", "silent", "warnings"), plants),
        align_columns(("most urgent", "data until", "probability", "", "because"), _rank(scored)),
    ]
    silent = [
        (f"{name} {machine}", f"{last:{MINUTE}}" if last else "long before")
        for name, plant in scored.items()
        for machine, last in sorted(plant.silent.items())
    ]
    if silent:
        others = [(f"and {len(silent) - SILENT} more", "")] if len(silent) > SILENT else []
        tables.append(align_columns(("silent", "no data since"), silent[:SILENT] + others))
    return "\n\n".join(tables)


def _count_machines(plant: Scored) -> tuple[str, ...]:
    rows = plant.predictions
    counts = (rows.height, rows["alarm"].sum(), len(plant.silent), rows["warnings"].list.len().sum())
    return str(rows["time"].dt.strftime(MINUTE).max()), *map(str, counts)


def _rank(scored: Mapping[str, Scored]) -> list[tuple[str, ...]]:
    rows = pl.concat([plant.predictions for plant in scored.values()])
    urgent = rows.sort("alarm", "probability", "plant", "machine", descending=[True, True, False, False]).head(URGENT)
    return [
        (
            f"{row['plant']} {row['machine']}",
            f"{row['time']:{MINUTE}}",
            f"{row['probability']:.1%}",
            "alarm" if row["alarm"] else "",
            next(iter(row["reasons"]), "nothing raises it"),
        )
        for row in urgent.iter_rows(named=True)
    ]
