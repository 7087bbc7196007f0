"""`upkeep backtest`: the models of past releases, from git and DVC, judged on today's newest rows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.core.text import align_columns
from upkeep.gitlab.gate import predict_newest
from upkeep.gitlab.snapshot import Snapshot, read_revision, read_working_tree
from upkeep.judging.comparison import Change, Group, compare
from upkeep.judging.reports import Metrics
from upkeep.releases.history import Release, list_releases
from upkeep.reporting.plots import Picture
from upkeep.reporting.quality_plots import KnownFigure, draw_estimates

FOLDER = paths.REPORTS / "backtest"
FIGURES = ("average_precision", "failures_caught", "cost_saving")
"""Figures that mean the same on rows of any time; cost depends on how many there are."""
LEGEND = "of each figure: then, on the release's own test rows / now, on the newest rows / today's models on these"


class PastRelease(NamedTuple):
    """A release, what it reached on its own test rows (`then`), and both sides on newer ones (`now`).

    `now` compares the release (before) with today's models (after) on the newest test rows that the release did not
    see. `settings` are the parameters that differ from the release before it, `not_scored` why rows were left out.
    """

    release: Release
    data_until: str
    settings: Sequence[str] = ()
    then: Metrics | None = None
    now: Group | None = None
    not_scored: Sequence[str] = ()

    def find_change(self, figure: str) -> Change:
        """Return a figure of the release and of today's models on the newest rows."""
        return self.now.changes[figure] if self.now else Change(None, None)

    def as_row(self) -> dict[str, Any]:
        """Return the release as a row of ``backtest.csv``."""
        row = {
            "release": self.release.version,
            "commit": self.release.commit,
            "data_until": self.data_until,
            "tried": self.release.why,
            "settings": ", ".join(self.settings),
            "rows": self.now.rows if self.now else 0,
            "failures": self.now.failures if self.now else 0,
        }
        for name in FIGURES:
            change = self.find_change(name)
            low, high = change.before_interval or (None, None)
            row |= {f"{name}_then": getattr(self.then, name, None), f"{name}_now": change.before}
            row |= {f"{name}_now_low": low, f"{name}_now_high": high, f"{name}_today": change.after}
        return {**row, "not_scored": "; ".join(self.not_scored)}


def run(params: Params, most: int) -> str:
    """Write ``reports/backtest`` about the `most` newest releases and return their table."""
    today = read_working_tree()
    if not today.predictions:
        raise UpkeepError("there are no predictions of today to compare with", remedy="run `dvc repro`, or `dvc pull`")
    releases: list[PastRelease] = []
    settings: Mapping[str, Any] = {}
    for release in [each for each in list_releases() if not each.stage][-most:]:
        past = read_revision(release.commit, release.version)
        if past is not None:  # None if its pipeline had never run
            releases.append(judge_release(release, past, settings, today, params))
            settings = past.params
    if not releases:
        remedy = "`git fetch --tags` brings others'; `upkeep release promote staging --tag-only` notes the first"
        raise UpkeepError("there is no past release", remedy=remedy)
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [release.as_row() for release in releases]
    pl.DataFrame(rows, infer_schema_length=None).write_csv(FOLDER / "backtest.csv")
    draw_releases(releases).savefig(FOLDER / "backtest.png", metadata={"Software": None})
    return f"{tabulate_releases(releases)}\nwrote {FOLDER}"


def judge_release(
    release: Release, past: Snapshot, settings_before: Mapping[str, Any], today: Snapshot, params: Params
) -> PastRelease:
    """Judge a release, of which `past` is the snapshot, beside today's models on the newest rows."""
    said, silent = predict_newest(past, today.predictions)
    now = compare(said, today.predictions, params.evaluate, params.dataset.horizon_hours, params.model.seed).overall
    changed = [name for name, value in past.params.items() if settings_before and value != settings_before.get(name)]
    reasons = [f"{what}: {why}" for what, why in {**silent, **past.missing}.items()]
    then = past.metrics.overall if past.metrics else None
    return PastRelease(release, str(past.params.get("fetch.until", "")), changed, then, now, reasons)


def tabulate_releases(releases: Sequence[PastRelease]) -> str:
    """Return releases for a terminal: of each figure, then, now and what today's models reach."""
    header = ["release", "data until", "tried", "failures", *(name.replace("_", " ") for name in FIGURES)]
    lines = []
    for past in releases:
        row = past.as_row()
        values = [[row[f"{name}_{when}"] for when in ("then", "now", "today")] for name in FIGURES]
        shown = [" / ".join("-" if each is None else f"{each:.2f}" for each in own) for own in values]
        lines.append([row["release"], row["data_until"], row["tried"], str(row["failures"]), *shown])
    return f"{align_columns(header, lines)}\n{LEGEND}"


def draw_releases(releases: Sequence[PastRelease]) -> Picture:
    """Draw what each release reached then and reaches now, with intervals, beside today's models."""
    found: dict[str, dict[str, list[KnownFigure]]] = {"then": {}, "now": {}, "today's models": {}}
    for name in FIGURES:
        changes = [past.find_change(name) for past in releases]
        found["then"][name] = [(getattr(past.then, name, None), None) for past in releases]
        found["now"][name] = [(change.before, change.before_interval) for change in changes]
        found["today's models"][name] = [(change.after, None) for change in changes]
    title = "What past releases reached then, and what they would reach on today's newest rows"
    return draw_estimates(title, [past.release.version for past in releases], found)
