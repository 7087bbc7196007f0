"""What a branch's commits must hold: the lock, figures and log that its code, parameters and data give."""

import contextlib
import logging
import shlex
import shutil
from collections.abc import Mapping
from typing import Any

import yaml

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.gitlab import dvc
from upkeep.gitlab.remotes import remotes_apart
from upkeep.gitlab.zones import REMOTE, TOKEN, Environment, is_protected
from upkeep.releases import git
from upkeep.sources.manifest import empty_manifest, read_manifest

WRITTEN = ("dvc.lock", "data", "models", "reports")  # where a run changes files that git tracks
PATCH = paths.LOCAL / "reproduced.patch"  # what a job would have committed that may not push
EARLIER = 10  # how many locks before the newest one are searched for raw data
SAME_BYTES = "the same bytes from the same code, parameters and data, on every machine"
NO_RAW_DATA = "the remote has no raw data: fetching all batches from the source"

logger = logging.getLogger(__name__)


def check_freshness() -> str:
    """Say that no stage would run, or raise an error that names those that would."""
    if stages := dvc.stale():
        where = f" --remote {REMOTE}" if remotes_apart() else ""
        what = f"dvc.lock is stale: {', '.join(stages)}, and what depends on it, would run again"
        remedy = f'dvc repro && dvc push{where} && git commit --all --message "Reproduce" && git push'
        raise UpkeepError(what, remedy=remedy, stage=stages[0])
    return "nothing to do: dvc.lock belongs to this code, these parameters and the data it lists"


def reproduce(environment: Environment) -> str:
    """Run what is stale, share its results, and see that the branch has the lock of it; return what was done.

    In a merge request, a stale lock is replaced by a commit on its branch if there is a token for it, else an error.
    A protected pipeline makes everything itself instead, and compares.
    """
    if is_protected(environment):
        return _prove()
    stages = bring_up_to_date()
    files = git.changed(WRITTEN)
    if stages or files:
        dvc.push()
    ran = ", ".join(stages) or "none"
    if not files:
        return f"dvc.lock is as committed; stages that ran: {ran}"
    named, stage = ", ".join(files), stages[0] if stages else None
    # The newest commit must be on a branch of this project, unlike a merge train's.
    branch = environment.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME")
    own = environment.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID") == environment.get("CI_MERGE_REQUEST_PROJECT_ID")
    detached = environment.get("CI_MERGE_REQUEST_EVENT_TYPE", "detached") == "detached"
    if not (branch and environment.get(TOKEN) and own and detached):
        git.git("add", "--intent-to-add", "--", *files)
        PATCH.parent.mkdir(exist_ok=True)
        PATCH.write_bytes(f"{git.git('diff', '--binary', 'HEAD', '--', *files)}\n".encode(errors="surrogateescape"))
        remedy = (
            f"`git apply` the file {PATCH} of this job's artifacts, or run the first of these two; then push:\n"
            f"    dvc repro --pull\n    git add {shlex.join(files)} && git commit --message Reproduce"
        )
        raise UpkeepError(f"the commit is stale in {named}; stages that ran: {ran}", remedy=remedy, stage=stage)
    if git.only_ours("-1", "HEAD"):
        what = f"the newest commit is upkeep's own, and yet {named} came out otherwise again"
        remedy = "find what differs with `git diff` after `dvc repro` on this runner's kind of machine"
        raise UpkeepError(what, expected=SAME_BYTES, remedy=remedy, stage=stage)
    git.commit(f"Reproduce\n\nStages that ran: {ran}.", files)
    git.push(branch)
    return f"dvc.lock was stale; {named} went to {branch}, whose new pipeline is the one that counts"


def _prove() -> str:
    """Make everything from raw data, and see that it is what is committed; what is deployed may come from here only.

    A lock, and what it names on a remote, is whatever the author of a merge request has put there. Believed are raw
    data, if it is where no merge request writes, and results that protected pipelines have recorded there.
    """
    committed, claimed = dvc.LOCK.read_bytes(), dvc.read_stages()
    _take_raw_data(claimed)
    ran = dvc.repro()
    made = dvc.read_stages()
    if made == claimed:
        dvc.LOCK.write_bytes(committed)  # the order of its stages depends on their history
    if files := git.changed(WRITTEN):
        differing = [name for name, stage in made.items() if stage != claimed.get(name)]
        what = f"{', '.join(files)}: what is committed is not what this pipeline makes of the raw data"
        what += f" from {', '.join(differing)}" if differing else ""
        remedy = "run `dvc repro` on a branch and merge what differs; if nothing does there, ask who made the commit"
        raise UpkeepError(what, expected=SAME_BYTES, remedy=remedy, stage=next(iter(differing), None))
    dvc.push()
    return f"what is committed is what this pipeline makes of the raw data; stages that ran: {', '.join(ran) or 'none'}"


def _take_raw_data(claimed: Mapping[str, Any]) -> None:
    """Have the commit's raw data in place, or an earlier one's to add to, and in ``dvc.lock`` nothing else."""
    locks = [claimed]
    for commit in git.git("log", f"--max-count={EARLIER}", "--skip=1", "--format=%H", "--", str(dvc.LOCK)).split():
        with contextlib.suppress(UpkeepError):  # no lock there, or no readable one
            locks.append(dvc.read_stages(commit))
    for stages in (each for each in locks if "fetch" in each):
        dvc.LOCK.write_text(yaml.safe_dump({"schema": "2.0", "stages": {"fetch": stages["fetch"]}}), encoding="utf-8")
        if dvc.pull(paths.RAW):
            if stages is not claimed or not _holds_all():
                dvc.LOCK.unlink()
            return
        shutil.rmtree(paths.RAW, ignore_errors=True)  # half of it may have come
    logger.warning(NO_RAW_DATA)
    dvc.LOCK.unlink(missing_ok=True)


def _holds_all() -> bool:
    """Tell whether the raw data is that of ``params.yaml``, and not an earlier state that was sound, too."""
    fetch = load_params().fetch
    try:
        manifest = read_manifest()
    except UpkeepError:
        return False
    batches = {file.batch for file in manifest.files if file.table == "telemetry"}
    return manifest.with_files(()) == empty_manifest(fetch) and max(batches, default=None) == fetch.until


def bring_up_to_date() -> list[str]:
    """Run the stale stages and have models and reports in place; return the stages that ran."""
    stale = dvc.stale()
    if "fetch" in stale and not paths.RAW.exists() and not dvc.pull(paths.RAW):
        # Fetched batches are not read again from the source, which may have changed them since.
        logger.warning(NO_RAW_DATA)
    ran = dvc.repro() if stale else []
    return ran if dvc.bring(paths.MODELS.parent, paths.REPORTS) else ran + dvc.repro(allow_missing=False)
