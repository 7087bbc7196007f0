"""The drift report's pages: one table of all plants, and a heading on each plant's detail page."""

from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = """<style>
.upkeep{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:70rem;margin:0 auto;padding:1.5rem}
.upkeep h1{font-size:1.6rem;margin:0 0 .5rem}
.upkeep table{border-collapse:collapse;width:100%}
.upkeep th,.upkeep td{text-align:left;vertical-align:top;padding:.5rem .8rem;border-bottom:1px solid #ddd}
.upkeep .drifted{color:#b00020;font-weight:600}
.upkeep .steady{color:#1b6e2c}
.upkeep .unjudged,.upkeep small{color:#666}
</style>"""

EXPLANATION = (
    "Each column of the newest weeks is compared with the weeks that the models were trained on. "
    "A shift is measured in standard deviations of the training values and counts as drift once it is larger than any "
    "shift the training weeks had among themselves."
)


def overview_page(findings: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one HTML page with a line per plant, drifted plants first.

    Parameters
    ----------
    findings
        What ``drift.json`` says of each plant.
    """
    drifted = [plant for plant, finding in findings.items() if finding["drifted"]]
    headline = f"{len(drifted)} of {len(findings)} plants drifted" + (f": {', '.join(drifted)}" if drifted else "")
    order = sorted(findings, key=lambda plant: (not findings[plant]["drifted"], -findings[plant]["share"], plant))
    rows = "\n".join(_row(plant, findings[plant]) for plant in order)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Drift</title>{STYLE}</head><body><div class="upkeep">
<h1>{escape(headline)}</h1>
<p>{EXPLANATION}</p>
<table>
<tr><th>Plant</th><th>Verdict</th><th>Drifted columns, largest shift first</th><th>Notes</th></tr>
{rows}
</table>
</div></body></html>
"""


def plant_page(plant: str, finding: Mapping[str, Any], detail: str) -> str:
    """Return Evidently's page with the verdict above it, or a page of its own if nothing could be judged."""
    window = f"{finding['window']['from'][:10]} to {finding['window']['to'][:10]}"
    heading = f"""{STYLE}<div class="upkeep">
<h1>{escape(plant)}: {_verdict(finding)}</h1>
<p>{finding["current_rows"]} rows from {window} against {finding["reference_rows"]} rows of the training window.
<a href="index.html">All plants</a></p>
<p>{_shifts(finding)}</p>
{_notes(finding)}
</div>"""
    if detail:
        return detail.replace("<body>", f"<body>\n{heading}", 1)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Drift</title></head><body>{heading}</body></html>
"""


def _row(plant: str, finding: Mapping[str, Any]) -> str:
    link = f'<a href="{escape(plant)}.html">{escape(plant)}</a>'
    return f"<tr><td>{link}</td><td>{_verdict(finding)}</td><td>{_shifts(finding)}</td><td>{_notes(finding)}</td></tr>"


def _verdict(finding: Mapping[str, Any]) -> str:
    n_drifted, n_judged = len(_drifted(finding)), len(_judged(finding))
    if not n_judged:
        return '<span class="unjudged">cannot be judged</span>'
    name = "drifted" if finding["drifted"] else "steady"
    return f'<span class="{name}">{name}</span> <small>({n_drifted} of {n_judged} columns)</small>'


def _judged(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {name: column for name, column in finding["columns"].items() if column["threshold"] or column["drifted"]}


def _drifted(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {name: column for name, column in finding["columns"].items() if column["drifted"]}


def _shifts(finding: Mapping[str, Any]) -> str:
    columns = sorted(_drifted(finding).items(), key=lambda item: (-(item[1]["score"] or float("inf")), item[0]))
    return "<br>".join(f"{escape(name)} <small>{_shift(column)}</small>" for name, column in columns) or "none"


def _shift(column: Mapping[str, Any]) -> str:
    if column["score"] is None:
        return "no values any more"
    return f"shifted by {column['score']:.2f}, usual up to {column['threshold']:.2f}"


def _notes(finding: Mapping[str, Any]) -> str:
    return "".join(f"<small>{escape(note)}</small><br>" for note in finding["notes"])
