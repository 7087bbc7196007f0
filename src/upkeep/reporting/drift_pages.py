"""The drift report's pages: one table of all plants, and Evidently's page of each plant in which something drifted.

Nothing else calls Evidently. It takes half a second a plant, so :mod:`upkeep.judging.drift` takes the distances itself,
as Evidently defines them.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import count, islice

from upkeep.core.params import Drift
from upkeep.core.plants import name_file
from upkeep.judging.drift import WindowRows
from upkeep.judging.reports import ColumnDrift, PlantDrift
from upkeep.reporting.markdown import format_names
from upkeep.reporting.templates import render_html

SCRIPT = "evidently.js"  # what the plants' pages share

MOST_COLUMNS, MOST_PAGES = 15, 15
"""Columns of a plant that are named on the page of all plants, and plants that have a page of their own."""
MOST_DRAWN = 30  # columns on a plant's page, those farthest from their threshold; each takes 90 kB

RANDOM_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|(?<=metric_)[0-9a-f]{32}\b")
"""What Evidently draws anew for each page: an id per widget and one for the page."""
STAND_IN = re.compile(r"\\ue000(\d+)\\ue001")  # a column's number between what no font has, as JSON spells it


def list_pages(findings: Mapping[str, PlantDrift]) -> list[str]:
    """Return the plants that have a page: those that drifted most, if a column did that can be drawn."""
    drifted = (
        plant
        for plant in _sort_plants(findings)
        if any(column.drifted and column.score is not None for column in findings[plant].columns.values())
    )
    return [*islice(drifted, MOST_PAGES)]


def overview_page(findings: Mapping[str, PlantDrift]) -> str:
    """Return one HTML page with a line per plant, drifted plants first."""
    pages = list_pages(findings)
    drifted = [plant for plant, found in findings.items() if found.drifted]
    headline = f"{len(drifted)} of {len(findings)} plants drifted" + (f": {format_names(drifted)}" if drifted else "")
    plants = [_describe_plant(plant, findings[plant], pages) for plant in _sort_plants(findings)]
    return render_html("drift_overview.html", title="Drift", headline=headline, plants=plants, most_pages=MOST_PAGES)


def _sort_plants(findings: Mapping[str, PlantDrift]) -> list[str]:
    """Return the plants, those that drifted most first."""
    return sorted(findings, key=lambda plant: (not findings[plant].drifted, -(findings[plant].share or 0), plant))


def plant_page(plant: str, found: PlantDrift, detail: str) -> str:
    """Return Evidently's page of a plant with the verdict above it."""
    heading = render_html("drift_heading.html", plant=_describe_plant(plant, found))
    return detail.replace("<body>", f"<body>\n{heading}", 1)


def split_script(page: str) -> tuple[str, str]:
    """Return a page with the longest script of its body replaced by a link, and that script.

    The script in the page's head holds the plant's own data, which may be longer.
    """
    script = max(re.findall(r"<script>(.*?)</script>", page.partition("<body>")[2], re.DOTALL), key=len)
    return page.replace(f"<script>{script}</script>", f'<script src="{SCRIPT}"></script>'), script


def _describe_plant(plant: str, found: PlantDrift, pages: Collection[str] = ()) -> dict[str, object]:
    drifted = {name: column for name, column in found.columns.items() if column.drifted}
    farthest = sorted(drifted, key=lambda name: (-drifted[name].excess, name))[:MOST_COLUMNS]
    return {
        "name": plant,
        "page": f"{name_file(plant)}.html" if plant in pages else None,
        "found": found,
        "judged": sum(column.judged for column in found.columns.values()),
        "drifted": len(drifted),
        "shifts": {name: _describe_shift(drifted[name]) for name in farthest},
    }


def _describe_shift(column: ColumnDrift) -> str:
    if column.score is None:
        return "no values any more"
    words = "shifted by" if column.method == "wasserstein" else "distribution differs by"
    return f"{words} {column.score:.3f}, usual up to {column.threshold:.3f}"


def draw_page(current: WindowRows, reference: WindowRows, found: PlantDrift, how: Drift) -> str:
    """Return Evidently's page of the columns that could be judged, the same bytes on every run."""
    os.environ["DO_NOT_TRACK"] = "1"
    # Importing Evidently takes four seconds; who needs no page should not have to wait for it.
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    drawn = _choose_columns(found)
    # Evidently puts names into a script as they are, where `</script>` would end it; a name may look like an id, too.
    stand_ins = {name: f"\ue000{number}\ue001" for number, name in enumerate(drawn)}
    columns = list(stand_ins.values())
    preset = DataDriftPreset(
        columns=columns,
        per_column_method={stand_ins[name]: column.method for name, column in drawn.items()},
        per_column_threshold={stand_ins[name]: column.threshold for name, column in drawn.items()},
        drift_share=_choose_share(found, drawn, how.max_drifted_share),
    )
    definition = DataDefinition(numerical_columns=columns)
    sides = [
        Dataset.from_pandas(rows.sample.select(list(stand_ins)).rename(stand_ins).to_pandas(), definition)
        for rows in (current, reference)
    ]
    page = number_ids(Report([preset]).run(*sides).get_html_str(as_iframe=False))
    names = [json.dumps(name)[1:-1].replace("<", r"\u003c") for name in drawn]
    return STAND_IN.sub(lambda stand_in: names[int(stand_in[1])], page)


def _choose_columns(found: PlantDrift) -> dict[str, ColumnDrift]:
    """Return the columns to draw, in the report's order."""
    judged = {name: column for name, column in found.columns.items() if column.threshold is not None}
    farthest = sorted(judged, key=lambda name: -judged[name].excess)[:MOST_DRAWN]
    return {name: column for name, column in judged.items() if name in farthest}


def _choose_share(found: PlantDrift, drawn: Mapping[str, ColumnDrift], largest: float) -> float:
    """Return the share of drifted columns from which on Evidently, which sees those drawn only, agrees with us."""
    share = round(largest + 1e-4, 6)  # the page shows it
    drifted = sum(column.drifted for column in drawn.values())
    if (drifted >= share * max(len(drawn), 1)) == found.drifted:
        return share
    return 1e-4 if found.drifted else 1.01


def number_ids(page: str) -> str:
    """Return Evidently's page with its random ids numbered in order of appearance."""
    start = page.index("var metric_")
    numbers: dict[str, int] = defaultdict(count().__next__)
    return page[:start] + RANDOM_ID.sub(lambda found: f"{numbers[found[0]]:0{len(found[0])}d}", page[start:])
