"""`upkeep backtest`: the models of past releases, by git and DVC, asked about today's newest rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.gitlab.gate import predict_newest
from upkeep.gitlab.pictures import KnownFigure, draw_estimates
from upkeep.gitlab.snapshot import read_revision, read_working_tree
from upkeep.judging.comparison import Change, compare
from upkeep.releases.backtest import FIGURES, PastRelease, show_past, tabulate_past
from upkeep.releases.history import list_releases
from upkeep.reporting.plots import Picture

FOLDER = paths.REPORTS / "backtest"


def run(params: Params, most: int) -> str:
    """Write ``reports/backtest`` about the newest releases, at `most` so many, and return their table."""
    today = read_working_tree()
    if not today.predictions:
        raise UpkeepError("there are no predictions of today to compare with", remedy="run `dvc repro`, or `dvc pull`")
    how = (params.evaluate, params.dataset.horizon_hours, params.model.seed)
    earlier: Mapping[str, Any] = {}
    releases = []
    for release in [each for each in list_releases() if not each.stage][-most:]:
        past = read_revision(release.commit, release.version)
        if past is None:  # its pipeline had never run
            continue
        said, silent = predict_newest(past, today.predictions)
        judged = PastRelease(
            release.version,
            release.commit,
            release.why,
            until=str(past.params.get("fetch.until", "")),
            settings=[name for name, value in past.params.items() if earlier and value != earlier.get(name)],
            then=past.metrics.overall if past.metrics else None,
            now=compare(said, today.predictions, *how).overall,
            silent=[f"{what}: {why}" for what, why in {**silent, **past.missing}.items()],
        )
        releases.append(judged)
        earlier = past.params
    if not releases:
        remedy = "`git fetch --tags` brings others'; `upkeep release promote staging --tag-only` notes the first"
        raise UpkeepError("there is no past release", remedy=remedy)
    table, picture = tabulate_past(releases), draw_past(releases)
    FOLDER.mkdir(parents=True, exist_ok=True)
    table.write_csv(FOLDER / "backtest.csv")
    picture.savefig(FOLDER / "backtest.png", metadata={"Software": None})
    return f"{show_past(table)}\nwrote {FOLDER}"


def draw_past(releases: Sequence[PastRelease]) -> Picture:
    """Draw of each release what it reached then and would reach now, with intervals, beside today's models."""
    found: dict[str, dict[str, list[KnownFigure]]] = {"then": {}, "now": {}, "today's models": {}}
    for name in FIGURES:
        changes = [each.now.changes[name] if each.now else Change(None, None) for each in releases]
        found["then"][name] = [(getattr(each.then, name, None), None) for each in releases]
        found["now"][name] = [(change.before, change.before_interval) for change in changes]
        found["today's models"][name] = [(change.after, None) for change in changes]
    title = "What past releases reached then, and what they would reach on today's newest rows"
    return draw_estimates(title, [each.name for each in releases], found)
