"""`upkeep note`: compare two branches' reports, write the note on the merge request, and fail if the gate does."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import polars as pl

from upkeep.contract.dictionary import TABLES
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.params import Evaluate, Params
from upkeep.core.secrets import mask_credentials
from upkeep.core.text import count_things, show_lines
from upkeep.core.timing import stage_times
from upkeep.gitlab import dvc
from upkeep.gitlab.api import open_project, put_note
from upkeep.gitlab.failure import read_failure
from upkeep.gitlab.gate import Verdict, find_missed, judge_sides, make_checks, reach_verdict
from upkeep.gitlab.markdown import bullets, code, name_first, sentence, show, tabulate
from upkeep.gitlab.snapshot import CommitFiles, Snapshot, read_revision, read_working_tree
from upkeep.gitlab.zones import NOTE_TOKEN, TARGET, TOKEN
from upkeep.judging.acceptance import Check
from upkeep.judging.comparison import JUDGED, Change, Comparison, Group
from upkeep.judging.reports import LOWER_IS_BETTER, DataQuality, DriftReport, Interval
from upkeep.production.figures import find_losing_shadows
from upkeep.production.ledger import as_known, read_ledger
from upkeep.releases import git
from upkeep.reporting.markdown import Markdown, format_interval, format_known
from upkeep.reporting.pages import REPORTS
from upkeep.reporting.plots import MOST_PLANTS, Picture
from upkeep.reporting.quality_plots import KnownFigure, draw_estimates
from upkeep.reporting.templates import MARKDOWN
from upkeep.sources.manifest import Manifest, RawFile

STAGE = "note"
NOTE = paths.REPORTS / "merge_request.md"
PICTURE = paths.REPORTS / "merge_request.png"
MERGE_REQUEST = "CI_MERGE_REQUEST_IID"
DRAWN = ("average_precision", "cost")
FORMS = {"average_precision": "{:.2f}", "failures_caught": "{:.0%}", "cost": "{:,.0f}"}
MINUTE = "%Y-%m-%d %H:%M"
NO_BREAK = "\N{NO-BREAK SPACE}"

Rows = Sequence[Sequence[object]]


class Review(NamedTuple):
    """What the note reports; `champion` is None, and the `comparison` empty, if the target branch has no history.

    The `comparison` is on the newest rows, `checks` are this branch's, and `times` the seconds of each stage that ran.
    """

    champion: Snapshot | None
    challenger: Snapshot
    comparison: Comparison
    verdict: Verdict
    checks: Sequence[Check]
    times: Mapping[str, float]


class AddedData(NamedTuple):
    """The raw data that a branch adds: its batches, a row of counts per plant, and how many files are gone."""

    batches: Sequence[date]
    rows: Rows
    removed: int


def run(params: Params, target: str | None = None) -> None:
    """Write ``reports/merge_request.md`` and, with a token, the note; an UpkeepError if the gate says no.

    `target` is the revision to compare with, by default the newest commit of the merge request's target branch.
    """
    review = make_review(params, target)
    image = _save_picture(review)
    text = write_note(review, params.evaluate, image, ".")
    write_whole(NOTE, text.encode())
    ships, reasons, remarks = review.verdict
    said = f"{text.partition(chr(10))[0].removeprefix('## ')}\n{bullets([*reasons, *remarks])}{NOTE} says more"
    print(show_lines(said))  # noqa: T201  # what the job's log is read for
    _post(review, params.evaluate, image)
    if not ships:
        others = f"; {len(reasons) - 1} more stand above" if len(reasons) > 1 else ""
        expected = "a model that is no worse than the target branch's, as `gate` in params.yaml defines it"
        remedy = f"see {NOTE}; a limit that is wrong is changed in a commit that says so"
        what = f"this may not ship: {show(reasons[0])}{others}"
        raise UpkeepError(what, expected=expected, remedy=remedy, stage=STAGE)


def _save_picture(review: Review) -> str:
    """Write the picture of the changes and return a link to it; empty if nothing has changed."""
    picture = draw_changes(review)
    PICTURE.unlink(missing_ok=True)  # an earlier comparison's, or a branch's link to elsewhere
    if picture is None:
        return ""
    picture.savefig(PICTURE, metadata={"Software": None})
    return f"![{picture.get_suptitle().replace(chr(10), ' ')}]({PICTURE.name})"


def _post(review: Review, evaluate: Evaluate, image: str) -> None:
    token = next((name for name in (NOTE_TOKEN, TOKEN) if os.environ.get(name)), None)
    if token and os.environ.get(MERGE_REQUEST):
        reports = f"{os.environ.get('CI_JOB_URL', '')}/artifacts/file/{paths.REPORTS}"
        text = write_note(review, evaluate, image, reports)
        project = open_project(os.environ, token=token)
        put_note(project, int(os.environ[MERGE_REQUEST]), text, PICTURE if image else None)


def make_review(params: Params, target: str | None) -> Review:
    """Read both sides, judge them on the newest rows and let the gate decide."""
    branch = target or os.environ.get(TARGET)
    if not branch:
        what = f"there is nothing to compare with: {TARGET}, which merge requests' jobs have, is not set"
        raise UpkeepError(what, remedy="name it: upkeep note --target main")
    revision = target or git.fetch(branch)  # a runner's own copy of the branch may be old or missing
    champion, challenger = read_revision(revision, branch), read_working_tree()
    faults = [*_find_faults(), *_find_losses_in_shadow(challenger.predictions, params)]
    checks: list[Check] = []
    try:
        dvc.bring(paths.MODELS, paths.EVALUATION)
        checks = make_checks(params)
    except UpkeepError as error:
        faults.append(sentence("the checks could not be made: {}", error.what))
    missed = find_missed(checks, params.evaluate.floors)
    succession = judge_sides(champion, challenger, params, missed)
    verdict = reach_verdict(champion, challenger, succession, checks, missed, faults)
    return Review(champion, challenger, succession.figures, verdict, checks, stage_times())


def _find_faults() -> list[str]:
    """Return the reasons why this branch's reports may not be those of its code, parameters and data."""
    try:
        stale = dvc.stale()
    except UpkeepError as error:
        return [sentence("whether the reports are up to date is not known: {}", error.what)]
    if not stale:
        return []
    failure = read_failure()
    if failure is None or failure.where.get("stage") == STAGE:
        words = "the reports are not up to date, for {} did not run: `dvc repro`, and commit `dvc.lock`"
        return [sentence(words, name_first(stale))]
    place = ", ".join(f"{name} {value}" for name, value in failure.where.items())
    where = sentence(" ({})", place) if place else ""
    return [sentence("the pipeline stopped{}: {}. What to do: {}", where, failure.what, failure.remedy)]


def _find_losses_in_shadow(plants: Iterable[str], params: Params) -> list[str]:
    """Return the plants where this branch's models, run in shadow, have cost more than the live ones, as reasons."""
    try:
        outcomes = as_known(read_ledger(params.production.ledger), datetime.max.replace(tzinfo=UTC))
    except UpkeepError:
        return []
    if outcomes.filter(role="challenger").is_empty():
        return []
    files = CommitFiles(None)
    versions = {plant: files.read_version(plant) for plant in plants}
    return [sentence("{}: {}", *each) for each in find_losing_shadows(outcomes, versions, params).items()]


def draw_changes(review: Review) -> Picture | None:
    """Draw both sides' figures in the plants whose cost changed most; None if no figure has changed."""
    common, plants = review.comparison.overall, review.comparison.plants
    if review.champion is None or common is None or not common.changed:
        return None
    changes = {plant: group.changes for plant, group in plants.items()}
    differ = {plant: abs((own["cost"].after or 0) - (own["cost"].before or 0)) for plant, own in changes.items()}
    shown = sorted(changes, key=lambda plant: -differ[plant])[:MOST_PLANTS]
    saved = (common.changes["cost"].before or 0) - (common.changes["cost"].after or 0)
    words = f"{abs(saved):,.0f} {'less' if saved > 0 else 'more'}" if saved else "the same money"
    drawn = {name: [changes[plant][name] for plant in shown] for name in DRAWN}
    found: dict[str, dict[str, list[KnownFigure]]] = {
        review.champion.name: {name: [(own.before, own.before_interval) for own in drawn[name]] for name in drawn},
        "this branch": {name: [(own.after, own.after_interval) for own in drawn[name]] for name in drawn},
    }
    return draw_estimates(f"On the newest rows, following this branch's alarms costs {words}", shown, found)


def write_note(review: Review, evaluate: Evaluate, image: str, reports: str) -> str:
    """Return the note; `image` is the picture's link, `reports` the address below which HTML reports are linked.

    It is cut to less than half of the million characters that GitLab takes.
    """
    before, after = review.champion or Snapshot("nothing"), review.challenger
    failures = review.comparison.failures
    alarms = review.comparison.alarms.sort("false", maintain_order=True)  # first those before a failure, which are few
    pages = {title: page.relative_to(paths.REPORTS) for title, page in REPORTS.items() if page.exists()}
    return NOTE_TEMPLATE.render(
        review=review,
        tried=_compare_settings(before, after) if review.champion else [],
        before=before,
        after=after,
        common=review.comparison.overall,
        evaluate=evaluate,
        plants=_list_plants(review),
        image=Markdown(image),
        alarms=alarms.select(
            *("plant", "machine", pl.col("time").dt.strftime(MINUTE)),
            *(pl.when("gained").then(pl.lit("gained")).otherwise(pl.lit("lost")), ~pl.col("false")),
        ).rows(),
        failures=failures.select(
            *("plant", "machine", pl.col("failed_at").dt.strftime(MINUTE)),
            pl.when("gained").then(pl.lit("caught in time")).otherwise(pl.lit("no longer caught")),
        ).rows(),
        caught=failures["gained"].sum(),
        gained=_count_alarms(alarms.filter("gained")),
        lost=_count_alarms(alarms.filter(~pl.col("gained"))),
        added=_find_added(before.manifest, after.manifest),
        quarantine=_list_quarantined(before.quality, after.quality),
        drift=_compare_drift(before.drift, after.drift),
        drifted=[plant for plant, found in sorted(after.drift.root.items() if after.drift else ()) if found.drifted],
        links={title.lower(): Markdown(f"{reports}/{page}") for title, page in pages.items()},
    )


def is_sure(change: Change) -> bool:
    """Tell whether a change is more than chance explains."""
    return change.interval is not None and (change.interval[0] > 0 or change.interval[1] < 0)


def _list_plants(review: Review) -> Rows:
    """Return a row per plant: both sides on common rows, or else this branch on its own test rows."""
    groups: dict[str, Group] = dict(review.comparison.plants)
    if review.comparison.overall:
        groups = {Markdown("**all in both**"): review.comparison.overall, **groups}
    rows = [[plant, *(_format_change(name, group.changes[name]) for name in JUDGED)] for plant, group in groups.items()]
    for plant, own in sorted(review.challenger.judged.items()):
        if plant not in groups:
            figures = ((name, getattr(own.metrics, name), own.intervals.get(name)) for name in JUDGED)
            rows.append([plant, *(_format_figure(*figure) for figure in figures)])
    return rows


def _format_change(name: str, change: Change) -> Markdown:
    before, after = change.before, change.after
    was, now = _format_figure(name, before, change.before_interval), _format_figure(name, after, change.after_interval)
    if before is None or after is None:
        return Markdown(f"{was}<br>{now}")
    if before == after:
        return Markdown(f"{was}<br>= same")
    words = f"{'↑' if after > before else '↓'} {'better' if (after > before) != (name in LOWER_IS_BETTER) else 'worse'}"
    if is_sure(change):
        words = f"**{words}**"
    elif _format_figure(name, before) == _format_figure(name, after):
        words = "≈ same"
    return Markdown(f"{was}<br>{now}<br>{words}")


def _format_figure(name: str, value: float | None, interval: Interval = None) -> Markdown:
    text = format_interval(value, interval, FORMS.get(name, "{:.2f}"))
    return Markdown(text.replace(" ", NO_BREAK))


def _count_alarms(alarms: pl.DataFrame) -> str:
    false = alarms["false"].sum()
    return f"{alarms.height} ({alarms.height - false} before a failure, {false} before none)"


def _find_added(before: Manifest | None, after: Manifest | None) -> AddedData | None:
    if after is None or not after.files:
        return None
    old, new = (set(side.files) if side else set[RawFile]() for side in (before, after))
    known, plants = {file.batch for file in old}, sorted({file.plant for file in new - old})
    rows = []
    for plant in plants:
        files = [file for file in new - old if file.plant == plant]
        counts = [sum(file.rows for file in files if file.table == table) for table in TABLES]
        late = sum(file.batch in known or file.delivery > 1 for file in files)
        rows.append([plant, len({file.batch for file in files} - known), *counts, late])
    return AddedData(sorted({file.batch for file in new} - known), rows, len(old - new))


def _list_quarantined(before: DataQuality | None, after: DataQuality | None) -> Rows | None:
    """Return a row per plant and table: the rows quarantined before and now, and why; None if not known."""
    if after is None or not after.plants:
        return None
    rows = []
    for plant, found in sorted(after.plants.items()):
        earlier = before.plants[plant].tables if before and plant in before.plants else {}
        for table, counts in found.tables.items():
            was = sum(earlier[table].quarantined.values()) if table in earlier else None
            reasons = +Counter(counts.quarantined)  # without those that no row has
            why = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common())
            rows += [[plant, table, was, reasons.total(), why]] if was or reasons else []
    return rows


def _compare_drift(before: DriftReport | None, after: DriftReport | None) -> Rows:
    """Return a row per plant: the share of drifted columns before and now, and their names."""
    old, new = (report.root if report else {} for report in (before, after))
    return [
        [
            plant,
            *(format_known("{:.0%}", side[plant].share if plant in side else None) for side in (old, new)),
            name_first(name for name, column in found.columns.items() if column.drifted),
        ]
        for plant, found in sorted(new.items())
    ]


def _compare_settings(before: Snapshot, after: Snapshot) -> Rows:
    old, new = before.params, after.params
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return [
        [code(name), *(mask_credentials(str(side.get(name, "not set"))) for side in (old, new))] for name in changed
    ]


WORDS = {"table": tabulate, "bullets": bullets, "code": code, "count": count_things, "first": name_first}
NOTE_TEMPLATE = MARKDOWN.overlay(finalize=show).get_template("note.md", globals={**WORDS, "is_sure": is_sure})
