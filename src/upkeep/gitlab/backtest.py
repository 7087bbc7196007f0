"""`upkeep backtest`: the models of past releases, from git and DVC, judged on today's newest rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.core.text import align_columns
from upkeep.gitlab.gate import predict_newest
from upkeep.gitlab.snapshot import Snapshot, read_revision, read_working_tree
from upkeep.judging.comparison import Change, compare
from upkeep.releases.history import Release, list_releases
from upkeep.reporting.plots import Picture
from upkeep.reporting.quality_plots import KnownFigure, draw_estimates

FOLDER = paths.REPORTS / "backtest"
FIGURES = ("average_precision", "failures_caught", "cost_saving")
"""Figures that mean the same on rows of any time; cost depends on how many there are."""
LEGEND = "of each figure: then, on the release's own test rows / now, on the newest rows / today's models on these"

Row = dict[str, Any]


def run(params: Params, most: int) -> str:
    """Write ``reports/backtest`` about the `most` newest releases and return their table."""
    today = read_working_tree()
    if not today.predictions:
        raise UpkeepError("there are no predictions of today to compare with", remedy="run `dvc repro`, or `dvc pull`")
    rows: list[Row] = []
    settings: Mapping[str, Any] = {}
    for release in [each for each in list_releases() if not each.stage][-most:]:
        past = read_revision(release.commit, release.version)
        if past is not None:  # None if its pipeline had never run
            rows.append(judge_release(release, past, settings, today, params))
            settings = past.params
    if not rows:
        remedy = "`git fetch --tags` brings others'; `upkeep release promote staging --tag-only` notes the first"
        raise UpkeepError("there is no past release", remedy=remedy)
    FOLDER.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, infer_schema_length=None).write_csv(FOLDER / "backtest.csv")
    draw_releases(rows).savefig(FOLDER / "backtest.png", metadata={"Software": None})
    return f"{tabulate_releases(rows)}\nwrote {FOLDER}"


def judge_release(
    release: Release, past: Snapshot, settings_before: Mapping[str, Any], today: Snapshot, params: Params
) -> Row:
    """Judge a release, of which `past` is the snapshot, beside today's models; return its row of ``backtest.csv``.

    Of each figure the row has what the release reached on its own test rows (``_then``), what it reaches on the newest
    test rows, which it did not see (``_now``, with its interval), and what today's models reach there (``_today``).
    ``settings`` are the parameters that differ from the release before it, ``not_scored`` says why rows were left out.
    """
    said, silent = predict_newest(past, today.predictions)
    now = compare(said, today.predictions, params.evaluate, params.dataset.horizon_hours, params.model.seed).overall
    then = past.metrics.overall if past.metrics else None
    changed = [name for name, value in past.params.items() if settings_before and value != settings_before.get(name)]
    row = {
        "release": release.version,
        "commit": release.commit,
        "data_until": str(past.params.get("fetch.until", "")),
        "tried": release.why,
        "settings": ", ".join(changed),
        "rows": now.rows if now else 0,
        "failures": now.failures if now else 0,
    }
    for name in FIGURES:
        change = now.changes[name] if now else Change(None, None)
        low, high = change.before_interval or (None, None)
        row |= {f"{name}_then": getattr(then, name, None), f"{name}_now": change.before}
        row |= {f"{name}_now_low": low, f"{name}_now_high": high, f"{name}_today": change.after}
    return row | {"not_scored": "; ".join(f"{what}: {why}" for what, why in {**silent, **past.missing}.items())}


def tabulate_releases(rows: Sequence[Row]) -> str:
    """Return releases for a terminal: of each figure, then, now and what today's models reach."""
    header = ["release", "data until", "tried", "failures", *(name.replace("_", " ") for name in FIGURES)]
    lines = []
    for row in rows:
        values = [[row[f"{name}_{when}"] for when in ("then", "now", "today")] for name in FIGURES]
        shown = [" / ".join("-" if each is None else f"{each:.2f}" for each in own) for own in values]
        lines.append([row["release"], row["data_until"], row["tried"], str(row["failures"]), *shown])
    return f"{align_columns(header, lines)}\n{LEGEND}"


def draw_releases(rows: Sequence[Row]) -> Picture:
    """Draw what each release reached then and reaches now, with intervals, beside today's models."""
    found: dict[str, dict[str, list[KnownFigure]]] = {"then": {}, "now": {}, "today's models": {}}
    for name in FIGURES:
        ends = [[row[f"{name}_now_low"], row[f"{name}_now_high"]] for row in rows]
        intervals = [None if None in each else each for each in ends]
        found["then"][name] = [(row[f"{name}_then"], None) for row in rows]
        found["now"][name] = [(row[f"{name}_now"], each) for row, each in zip(rows, intervals, strict=True)]
        found["today's models"][name] = [(row[f"{name}_today"], None) for row in rows]
    title = "What past releases reached then, and what they would reach on today's newest rows"
    return draw_estimates(title, [row["release"] for row in rows], found)
