"""What past models would do today: each release's figures of its own time beside those on today's newest rows."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import polars as pl

from upkeep.core.text import align_columns
from upkeep.judging.comparison import Change, Group
from upkeep.judging.reports import Metrics

FIGURES = ("average_precision", "failures_caught", "cost_saving")
"""Figures that mean the same on rows of any time; cost depends on how many there are."""
WHEN = ("then", "now", "today")


class PastRelease(NamedTuple):
    """A release, what was tried with it, and how it did.

    `until` is the newest batch that it was trained on, `settings` are those that differ from the release before, and
    `then` is its own report, on its own test rows. `now` compares it with today's models on the newest test rows
    that it did not see; None if there are none, and `silent` says why some plants' rows are left out.
    """

    name: str
    commit: str
    tried: str
    until: str = ""
    settings: Sequence[str] = ()
    then: Metrics | None = None
    now: Group | None = None
    silent: Sequence[str] = ()


def tabulate_past(releases: Sequence[PastRelease]) -> pl.DataFrame:
    """Return a row per release: what was tried, on which data, how it did then and would do now, beside today's.

    ``_then`` is on the release's own test rows, ``_now`` with its interval, and ``_today`` by today's models, on the
    newest rows that it did not see: ``rows`` of them with ``failures``.
    """
    columns = [f"{figure}_{when}" for figure in FIGURES for when in ("then", "now", "now_low", "now_high", "today")]
    rows = [
        {
            "release": release.name,
            "commit": release.commit,
            "data_until": release.until,
            "tried": release.tried,
            "settings": ", ".join(release.settings),
            "rows": release.now.rows if release.now else 0,
            "failures": release.now.failures if release.now else 0,
            **dict(zip(columns, chain.from_iterable(_list_figures(release, name) for name in FIGURES), strict=True)),
            "not_scored": "; ".join(release.silent),
        }
        for release in releases
    ]
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(columns, pl.Float64()) if rows else None)


def _list_figures(release: PastRelease, figure: str) -> Sequence[float | None]:
    change = release.now.changes[figure] if release.now else Change(None, None)
    return getattr(release.then, figure, None), change.before, *(change.before_interval or (None, None)), change.after


def show_past(table: pl.DataFrame) -> str:
    """Return the table for a terminal: of each figure, then, now and what today's models reach."""
    columns = [
        pl.col("release"),
        pl.col("data_until").alias("data until"),
        pl.col("tried"),
        pl.col("failures").cast(pl.String),
    ]
    for name in FIGURES:
        shown = (pl.col(f"{name}_{when}").map_elements("{:.2f}".format, pl.String).fill_null("-") for when in WHEN)
        columns.append(pl.concat_str(shown, separator=" / ").alias(name.replace("_", " ")))
    cells = table.select(columns)
    legend = "of each figure: then, on the release's own test rows / now, on the newest rows / today's models on these"
    return f"{align_columns(cells.columns, cells.rows())}\n{legend}"
