"""What past models would do today: each release's figures of its own time beside those on today's newest rows."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from upkeep.core.text import align_columns
from upkeep.judging.comparison import Group
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
    until: str
    tried: str
    settings: Sequence[str]
    then: Metrics | None
    now: Group | None
    silent: Sequence[str]


def tabulate_past(releases: Sequence[PastRelease]) -> pl.DataFrame:
    """Return a row per release: what was tried, on which data, how it did then and would do now, beside today's.

    ``_then`` is on the release's own test rows, ``_now`` with its interval, and ``_today`` by today's models, on the
    newest rows that it did not see: ``rows`` of them with ``failures``.
    """
    rows = []
    for release in releases:
        figures: dict[str, float | None] = {}
        for name in FIGURES:
            change = release.now.changes[name] if release.now else None
            low, high = (change and change.before_interval) or (None, None)
            figures |= {
                f"{name}_then": getattr(release.then, name) if release.then else None,
                f"{name}_now": change.before if change else None,
                f"{name}_now_low": low,
                f"{name}_now_high": high,
                f"{name}_today": change.after if change else None,
            }
        rows.append(
            {
                "release": release.name,
                "commit": release.commit,
                "data_until": release.until,
                "tried": release.tried,
                "settings": ", ".join(release.settings),
                "rows": release.now.rows if release.now else 0,
                "failures": release.now.failures if release.now else 0,
                **figures,
                "not_scored": "; ".join(release.silent),
            }
        )
    types = {name: pl.Float64() for name in (rows[0] if rows else ()) if name.startswith(FIGURES)}
    return pl.DataFrame(rows, schema_overrides=types)


def show_past(table: pl.DataFrame) -> str:
    """Return the table for a terminal: of each figure, then, now and what today's models reach."""
    header = ("release", "data until", "tried", "failures", *(name.replace("_", " ") for name in FIGURES))
    rows = []
    for row in table.iter_rows(named=True):
        shown = [
            " / ".join("-" if (value := row[f"{name}_{when}"]) is None else f"{value:.2f}" for when in WHEN)
            for name in FIGURES
        ]
        rows.append((row["release"], row["data_until"], row["tried"], str(row["failures"]), *shown))
    legend = "of each figure: then, on the release's own test rows / now, on the newest rows / today's models on these"
    return f"{align_columns(header, rows)}\n{legend}"
