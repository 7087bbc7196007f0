"""`upkeep backtest`: the models of past releases, by git and DVC, asked about today's newest rows."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.params import Params
from upkeep.gitlab import dvc
from upkeep.gitlab.champion import predict_newest
from upkeep.gitlab.snapshot import Snapshot, read_revision, read_working_tree
from upkeep.judging.comparison import compare
from upkeep.releases.backtest import FIGURES, PastRelease, show_past, tabulate_past
from upkeep.releases.git import git
from upkeep.releases.history import list_releases
from upkeep.reporting.experiments import flatten
from upkeep.reporting.markdown import format_table
from upkeep.reporting.plots import GREY, INK, Picture, draw_rows, explain_lines

FOLDER = paths.REPORTS / "backtest"


def run(params: Params, most: int) -> str:
    """Write ``reports/backtest`` about the newest releases, at `most` so many, and return their table.

    Raises an UpkeepError if this branch's own predictions are not there, or no release is.
    """
    today = read_working_tree()
    if not today.predictions:
        raise UpkeepError("there are no predictions of today to compare with", remedy="run `dvc repro`, or `dvc pull`")
    earlier: Mapping[str, Any] = {}
    releases = []
    for origin in list(find_origins())[-most:]:
        if past := read_revision(origin.commit, origin.name):
            settings = flatten(past.params.model_dump())
            changed = [name for name in settings if earlier and settings[name] != earlier.get(name)]
            releases.append(_judge(origin._replace(settings=changed), past, today, params))
            earlier = settings
    if not releases:
        what = "there is no past release: neither a tag, nor a commit of dvc.lock with models"
        raise UpkeepError(what, remedy="commit what `dvc repro` makes; `git fetch --unshallow` brings what others have")
    table = tabulate_past(releases)
    picture = draw_past(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    table.write_csv(FOLDER / "backtest.csv")
    picture.savefig(FOLDER / "backtest.png", metadata={"Software": None})
    page = f"# Past releases on today's rows\n\n![{picture.get_suptitle()}](backtest.png)\n\n"
    write_whole(FOLDER / "backtest.md", (page + format_table(table.columns, table.iter_rows())).encode())
    return f"{show_past(table)}\nwrote {FOLDER}"


def find_origins() -> Iterator[PastRelease]:
    """Yield releases by their tags, the oldest first; before there is any, commits that locked other models."""
    releases = [release for release in list_releases() if not release.stage]
    if releases:
        yield from (PastRelease(release.version, release.commit, release.why) for release in releases)
        return
    known = None
    log = git("log", "--first-parent", "--reverse", "--format=%H %s", "--", str(dvc.LOCK))
    for line in log.splitlines():
        commit, _, subject = line.partition(" ")
        try:
            outs = dvc.read_stages(commit)["train"]["outs"]
        except (UpkeepError, LookupError):  # no lock that anybody could read, or none yet
            continue
        models = [out.get("md5") for out in outs if out["path"] == paths.MODELS.as_posix()]
        if models != known:
            yield PastRelease(commit[:12], commit, subject)
        known = models


def _judge(release: PastRelease, past: Snapshot, today: Snapshot, params: Params) -> PastRelease:
    said, silent = predict_newest(past, today.predictions, params.parallel)
    how = (params.evaluate, params.dataset.horizon_hours, params.model.seed)
    return release._replace(
        until=str((past.params.fetch.model_extra or {}).get("until", "")),
        then=past.metrics.overall if past.metrics else None,
        now=compare(said, today.predictions, *how).overall,
        silent=[f"{what}: {why}" for what, why in {**silent, **past.missing}.items()],
    )


def draw_past(table: pl.DataFrame) -> Picture:
    """Draw of each release what it reached then and would reach now, with intervals, beside today's models."""
    title = "What past releases reached then, and what they would reach on today's newest rows"
    picture, panels = draw_rows(title, table["release"].to_list(), len(FIGURES))
    for panel, name in zip(panels, FIGURES, strict=True):
        for row, found in enumerate(table.iter_rows(named=True)):
            low, high = found[f"{name}_now_low"], found[f"{name}_now_high"]
            if low is not None:
                panel.plot((low, high), (row, row), color=INK, linewidth=4, alpha=0.35, solid_capstyle="round")
        marks = {"then": ("o", GREY, "then"), "now": ("o", INK, "now"), "today": ("|", INK, "today's models")}
        for when, (mark, colour, label) in marks.items():
            values = table[f"{name}_{when}"].to_numpy()
            panel.plot(values, range(table.height), mark, color=colour, markersize=9, label=label)
        panel.set_xlabel(name.replace("_", " "))
    return explain_lines(picture)
