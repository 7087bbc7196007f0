"""`upkeep backtest`: the models of past releases, by git and DVC, asked about today's newest rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.core.text import align_columns
from upkeep.gitlab.gate import predict_newest
from upkeep.gitlab.pictures import KnownFigure, draw_estimates
from upkeep.gitlab.snapshot import read_revision, read_working_tree
from upkeep.judging.comparison import Change, Group, compare
from upkeep.judging.reports import Metrics
from upkeep.releases.history import list_releases
from upkeep.reporting.plots import Picture

FOLDER = paths.REPORTS / "backtest"
FIGURES = ("average_precision", "failures_caught", "cost_saving")
"""Figures that mean the same on rows of any time; cost depends on how many there are."""
LEGEND = "of each figure: then, on the release's own test rows / now, on the newest rows / today's models on these"

Row = dict[str, Any]


def run(params: Params, most: int) -> str:
    """Write ``reports/backtest`` about the newest releases, at `most` so many, and return their table."""
    today = read_working_tree()
    if not today.predictions:
        raise UpkeepError("there are no predictions of today to compare with", remedy="run `dvc repro`, or `dvc pull`")
    how = (params.evaluate, params.dataset.horizon_hours, params.model.seed)
    earlier: Mapping[str, Any] = {}
    rows = []
    for release in [each for each in list_releases() if not each.stage][-most:]:
        past = read_revision(release.commit, release.version)
        if past is None:  # its pipeline had never run
            continue
        changed = [name for name, value in past.params.items() if earlier and value != earlier.get(name)]
        said, silent = predict_newest(past, today.predictions)
        reasons = [f"{what}: {why}" for what, why in {**silent, **past.missing}.items()]
        until = str(past.params.get("fetch.until", ""))
        row = {"release": release.version, "commit": release.commit, "data_until": until, "tried": release.why}
        then = past.metrics.overall if past.metrics else None
        judged = measure_release(then, compare(said, today.predictions, *how).overall)
        rows.append({**row, "settings": ", ".join(changed), **judged, "not_scored": "; ".join(reasons)})
        earlier = past.params
    if not rows:
        remedy = "`git fetch --tags` brings others'; `upkeep release promote staging --tag-only` notes the first"
        raise UpkeepError("there is no past release", remedy=remedy)
    FOLDER.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, infer_schema_length=None).write_csv(FOLDER / "backtest.csv")
    draw_past(rows).savefig(FOLDER / "backtest.png", metadata={"Software": None})
    return f"{show_past(rows)}\nwrote {FOLDER}"


def measure_release(then: Metrics | None, now: Group | None) -> Row:
    """Return what a release reached on its own test rows (``_then``) and, with an interval, reaches on newer ones.

    Those are the newest test rows that it did not see (``_now``), ``rows`` of them with ``failures``. Today's models
    reach ``_today`` on them.
    """
    row: Row = {"rows": now.rows if now else 0, "failures": now.failures if now else 0}
    for name in FIGURES:
        change = now.changes[name] if now else Change(None, None)
        low, high = change.before_interval or (None, None)
        row |= {f"{name}_then": getattr(then, name, None), f"{name}_now": change.before}
        row |= {f"{name}_now_low": low, f"{name}_now_high": high, f"{name}_today": change.after}
    return row


def show_past(rows: Sequence[Row]) -> str:
    """Return releases for a terminal: of each figure, then, now and what today's models reach."""
    header = ["release", "data until", "tried", "failures", *(name.replace("_", " ") for name in FIGURES)]
    lines = []
    for row in rows:
        values = [[row[f"{name}_{when}"] for when in ("then", "now", "today")] for name in FIGURES]
        shown = [" / ".join("-" if each is None else f"{each:.2f}" for each in own) for own in values]
        lines.append([row["release"], row["data_until"], row["tried"], str(row["failures"]), *shown])
    return f"{align_columns(header, lines)}\n{LEGEND}"


def draw_past(rows: Sequence[Row]) -> Picture:
    """Draw of each release what it reached then and would reach now, with intervals, beside today's models."""
    found: dict[str, dict[str, list[KnownFigure]]] = {"then": {}, "now": {}, "today's models": {}}
    for name in FIGURES:
        low, high = f"{name}_now_low", f"{name}_now_high"
        found["then"][name] = [(row[f"{name}_then"], None) for row in rows]
        found["now"][name] = [(row[f"{name}_now"], None if row[low] is None else [row[low], row[high]]) for row in rows]
        found["today's models"][name] = [(row[f"{name}_today"], None) for row in rows]
    title = "What past releases reached then, and what they would reach on today's newest rows"
    return draw_estimates(title, [row["release"] for row in rows], found)
