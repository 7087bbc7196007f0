"""Two branches' reports in; the note on the merge request out, and an error if the gate lets it not pass."""

import os
import shutil
from pathlib import Path

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.params import Params
from upkeep.core.text import show_lines
from upkeep.core.timing import stage_times
from upkeep.gitlab import check, dvc
from upkeep.gitlab.api import find_note, open_project, put_note, upload
from upkeep.gitlab.champion import judge_sides
from upkeep.gitlab.failure import read_failure
from upkeep.gitlab.gate import judge
from upkeep.gitlab.markdown import bullets, name_first, sentence, show
from upkeep.gitlab.note_plots import draw_cost, draw_precision
from upkeep.gitlab.note_text import Review, write_note
from upkeep.gitlab.snapshot import read_revision, read_working_tree
from upkeep.gitlab.zones import NOTE_TOKEN, TARGET, TOKEN, Environment
from upkeep.judging.acceptance import Check
from upkeep.releases import git

STAGE = "note"
NOTE = paths.REPORTS / "merge_request.md"
PICTURES = paths.REPORTS / "merge_request"
MERGE_REQUEST = "CI_MERGE_REQUEST_IID"
PAGES = {
    "model quality": paths.MODEL_QUALITY,
    "model card": paths.MODEL_CARD,
    "data": paths.EDA,
    "drift": paths.DRIFT / "index.html",
}


def run(params: Params, target: str | None = None) -> None:
    """Write ``reports/merge_request.md`` and, in a job that may, the note on the merge request.

    `target` is the revision to compare with; None: the newest commit of the merge request's target branch. Raises an
    UpkeepError if the gate says no, or GitLab does not take the note.
    """
    review = make_review(params, target)
    pictures = _draw(review)
    images = [f"![{title}]({file.relative_to(paths.REPORTS)})" for file, title in pictures.items()]
    text = write_note(review, params.evaluate, images, _link_pages("."))
    write_whole(NOTE, text.encode())
    ships, reasons, remarks = review.verdict
    said = f"{text.partition(chr(10))[0].removeprefix('## ')}\n{bullets([*reasons, *remarks])}{NOTE} says more"
    print(show_lines(said))  # noqa: T201  # what the job's log is read for
    token = next((name for name in (NOTE_TOKEN, TOKEN) if os.environ.get(name)), None)
    if token and os.environ.get(MERGE_REQUEST):
        project, number = open_project(os.environ, token=token), int(os.environ[MERGE_REQUEST])
        earlier = find_note(project, number)
        known = earlier.body if earlier else ""
        images = [f"![{title}]({upload(project, file, known)})" for file, title in pictures.items()]
        pages = _link_pages(f"{os.environ.get('CI_JOB_URL', '')}/artifacts/file/{paths.REPORTS}")
        put_note(project, number, write_note(review, params.evaluate, images, pages))
    if not ships:
        others = f"; {len(reasons) - 1} more stand above" if len(reasons) > 1 else ""
        raise UpkeepError(
            f"this may not ship: {show(reasons[0])}{others}",
            expected="a model that is no worse than the target branch's, as `gate` in params.yaml defines it",
            remedy=f"see {NOTE}; a limit that is wrong is changed in a commit that says so",
            stage=STAGE,
        )


def make_review(params: Params, target: str | None) -> Review:
    """Read both sides, judge them on the newest rows and let the gate decide."""
    champion, challenger = read_revision(*find_target(target, os.environ)), read_working_tree()
    faults = _find_faults()
    checks: list[Check] = []
    try:
        dvc.pull(*(judged for judged in dvc.outputs(paths.MODELS, paths.EVALUATION) if not judged.exists()))
        checks = check.make_checks(params)
    except UpkeepError as error:
        faults.append(sentence("the checks could not be made: {}", error.what))
    missed = check.find_missed(checks, params.evaluate.floors)
    succession = judge_sides(champion, challenger, params, missed)
    verdict = judge(champion, challenger, succession, checks, missed, faults)
    return Review(champion, challenger, succession.figures, verdict, checks, stage_times())


def find_target(target: str | None, environment: Environment) -> tuple[str, str]:
    """Return the revision to compare with, and its name."""
    if target is not None:
        return target, target
    branch = environment.get(TARGET)
    if not branch:
        raise UpkeepError(
            "there is nothing to compare with",
            expected=f"a merge request's job, where GitLab sets {TARGET}, or a revision",
            remedy="name it: upkeep note --target main",
        )
    # A runner's own copy of the branch may be old or missing: it fetches the merge request only.
    return git.fetch(branch), branch


def _find_faults() -> list[str]:
    """Say why this branch's reports are not those of its code, parameters and data, if so."""
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


def _draw(review: Review) -> dict[Path, str]:
    """Draw what changed, and return the titles by file; nothing if there is nothing to compare."""
    if PICTURES.is_symlink():  # a branch may hold one, and nothing is to be written elsewhere
        PICTURES.unlink()
    shutil.rmtree(PICTURES, ignore_errors=True)  # those of an earlier comparison
    group = review.comparison.overall
    if review.champion is None or group is None or not group.changed:
        return {}
    PICTURES.mkdir(parents=True, exist_ok=True)
    titles = {}
    for file, draw in ((PICTURES / "cost.png", draw_cost), (PICTURES / "average_precision.png", draw_precision)):
        picture = draw(review.comparison, review.champion.name)
        picture.savefig(file, metadata={"Software": None})
        titles[file] = picture.get_suptitle().replace("\n", " ")
    return titles


def _link_pages(reports: str) -> dict[str, str]:
    """Return the pages' addresses, given that of the folder ``reports``."""
    return {name: f"{reports}/{page.relative_to(paths.REPORTS)}" for name, page in PAGES.items() if page.exists()}
