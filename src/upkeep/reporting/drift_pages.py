"""The drift report's pages: one table of all plants, and a heading on each plant's detail page."""

from collections.abc import Iterator, Mapping
from math import inf

from upkeep.core.plants import name_file
from upkeep.judging.reports import PlantDrift
from upkeep.reporting.templates import render_html


def overview_page(findings: Mapping[str, PlantDrift]) -> str:
    """Return one HTML page with a line per plant, drifted plants first."""
    drifted = [plant for plant, found in findings.items() if found.drifted]
    headline = f"{len(drifted)} of {len(findings)} plants drifted" + (f": {', '.join(drifted)}" if drifted else "")
    order = sorted(findings, key=lambda plant: (not findings[plant].drifted, -(findings[plant].share or 0), plant))
    plants = [_describe_plant(plant, findings[plant]) for plant in order]
    return render_html("drift_overview.html", title="Drift", headline=headline, plants=plants)


def plant_page(plant: str, found: PlantDrift, detail: str) -> str:
    """Return Evidently's page with the verdict above it, or a page of its own if nothing could be judged."""
    heading = render_html("drift_heading.html", plant=_describe_plant(plant, found))
    if detail:
        return detail.replace("<body>", f"<body>\n{heading}", 1)
    return render_html("page.html", title="Drift", content=heading)


def _describe_plant(plant: str, found: PlantDrift) -> dict[str, object]:
    judged = sum(bool(column.threshold or column.drifted) for column in found.columns.values())
    return {
        "name": plant,
        "page": f"{name_file(plant)}.html",
        "found": found,
        "judged": judged,
        "shifts": list(_list_shifts(found)),
    }


def _list_shifts(found: PlantDrift) -> Iterator[tuple[str, str]]:
    """Yield each drifted column and how far it moved, the farthest first."""
    drifted = [(name, column) for name, column in found.columns.items() if column.drifted]
    for name, column in sorted(drifted, key=lambda item: (-(item[1].score or inf), item[0])):
        if column.score is None:
            yield name, "no values any more"
        else:
            yield name, f"shifted by {column.score:.2f}, usual up to {column.threshold:.2f}"
