"""The drift report's pages: one table of all plants, and a heading on the pages of those that drifted."""

import re
from collections.abc import Collection, Mapping
from math import inf

from upkeep.core.plants import name_file
from upkeep.judging.reports import ColumnDrift, PlantDrift
from upkeep.reporting.markdown import format_names
from upkeep.reporting.templates import render_html

SCRIPT = "evidently.js"  # what the plants' pages share

MOST_COLUMNS, MOST_PAGES = 15, 50
"""Columns of a plant that are named on the page of all plants, and plants that have a page of their own."""


def list_pages(findings: Mapping[str, PlantDrift]) -> list[str]:
    """Return the first plants of which there is more to see than a line: a column drifted that can be drawn."""
    return [
        plant
        for plant, found in findings.items()
        if any(column.drifted and column.score is not None for column in found.columns.values())
    ][:MOST_PAGES]


def overview_page(findings: Mapping[str, PlantDrift]) -> str:
    """Return one HTML page with a line per plant, drifted plants first."""
    pages = list_pages(findings)
    drifted = [plant for plant, found in findings.items() if found.drifted]
    headline = f"{len(drifted)} of {len(findings)} plants drifted" + (f": {format_names(drifted)}" if drifted else "")
    order = sorted(findings, key=lambda plant: (not findings[plant].drifted, -(findings[plant].share or 0), plant))
    plants = [_describe_plant(plant, findings[plant], pages) for plant in order]
    return render_html("drift_overview.html", title="Drift", headline=headline, plants=plants, most_pages=MOST_PAGES)


def plant_page(plant: str, found: PlantDrift, detail: str) -> str:
    """Return Evidently's page of a plant with the verdict above it."""
    heading = render_html("drift_heading.html", plant=_describe_plant(plant, found))
    return detail.replace("<body>", f"<body>\n{heading}", 1)


def split_script(page: str) -> tuple[str, str]:
    """Return a page without the longest script of its body, which it names instead, and that script.

    What stands in its head is the plant's own data, which may be longer.
    """
    script = max(re.findall(r"<script>(.*?)</script>", page.partition("<body>")[2], re.DOTALL), key=len)
    return page.replace(f"<script>{script}</script>", f'<script src="{SCRIPT}"></script>'), script


def _describe_plant(plant: str, found: PlantDrift, pages: Collection[str] = ()) -> dict[str, object]:
    drifted = {name: column for name, column in found.columns.items() if column.drifted}
    farthest = sorted(drifted, key=lambda name: (-(drifted[name].score or inf), name))[:MOST_COLUMNS]
    return {
        "name": plant,
        "page": f"{name_file(plant)}.html" if plant in pages else None,
        "found": found,
        "judged": sum(bool(column.threshold or column.drifted) for column in found.columns.values()),
        "drifted": len(drifted),
        "shifts": {name: _describe_shift(drifted[name]) for name in farthest},
    }


def _describe_shift(column: ColumnDrift) -> str:
    if column.score is None:
        return "no values any more"
    return f"shifted by {column.score:.2f}, usual up to {column.threshold:.2f}"
