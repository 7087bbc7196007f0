"""`upkeep fresh` and `upkeep reproduce`: hold a branch to the lock and reports that its code and data produce."""

import contextlib
import logging
import shlex
import shutil
from collections.abc import Mapping, Sequence
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
PATCH = paths.LOCAL / "reproduced.patch"  # left by a job that may not push
EARLIER = 10  # how many locks before the newest one are searched for raw data
SAME_BYTES = "the same bytes from the same code, parameters and data, on every machine"
NO_RAW_DATA = "the remote has no raw data: fetching all batches from the source"

logger = logging.getLogger(__name__)


def check_freshness() -> str:
    """Raise an UpkeepError that names the stages that would run again, if there are any."""
    if stages := dvc.stale():
        where = f" --remote {REMOTE}" if remotes_apart() else ""
        what = f"dvc.lock is stale: {', '.join(stages)}, and what depends on it, would run again"
        remedy = f'dvc repro && dvc push{where} && git commit --all --message "Reproduce" && git push'
        raise UpkeepError(what, remedy=remedy, stage=stages[0])
    return "nothing to do: dvc.lock belongs to this code, these parameters and the data it lists"


def reproduce(environment: Environment) -> str:
    """Run stale stages, push their results, and hold the branch to the new lock; return what was done.

    In a merge request, a stale lock is replaced by a commit on its branch, or an error without a token for that. A
    protected pipeline makes everything from raw data instead, and compares.
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
    branch = _find_own_branch(environment)
    if not (branch and environment.get(TOKEN)):
        _write_patch(files)
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


def _find_own_branch(environment: Environment) -> str | None:
    """Return the merge request's branch if the newest commit is on it; a fork's or a merge train's is not."""
    own = environment.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID") == environment.get("CI_MERGE_REQUEST_PROJECT_ID")
    detached = environment.get("CI_MERGE_REQUEST_EVENT_TYPE", "detached") == "detached"
    return environment.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME") if own and detached else None


def _write_patch(files: Sequence[str]) -> None:
    git.git("add", "--intent-to-add", "--", *files)
    PATCH.parent.mkdir(exist_ok=True)
    PATCH.write_bytes(f"{git.git('diff', '--binary', 'HEAD', '--', *files)}\n".encode(errors="surrogateescape"))


def _prove() -> str:
    """Make everything from raw data and compare it with the commit; only this may be deployed.

    The lock, and what it names on a remote, come from the author of a merge request and are not trusted. Trusted are
    raw data on a remote that no merge request writes to, and results that protected pipelines recorded there.
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
    """Pull the commit's raw data, or an earlier commit's to add to, and leave only its stage in ``dvc.lock``."""
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
        shutil.rmtree(paths.RAW, ignore_errors=True)  # it may be incomplete
    logger.warning(NO_RAW_DATA)
    dvc.LOCK.unlink(missing_ok=True)


def _holds_all() -> bool:
    """Tell whether the raw data is all that ``params.yaml`` asks for, and not an earlier state."""
    fetch = load_params().fetch
    try:
        manifest = read_manifest()
    except UpkeepError:
        return False
    batches = {file.batch for file in manifest.files if file.table == "telemetry"}
    return manifest.with_files(()) == empty_manifest(fetch) and max(batches, default=None) == fetch.until


def bring_up_to_date() -> list[str]:
    """Run the stale stages and pull models and reports; return the stages that ran."""
    stale = dvc.stale()
    if "fetch" in stale and not paths.RAW.exists() and not dvc.pull(paths.RAW):
        # Fetched batches are pulled rather than read again, since the source may have changed them.
        logger.warning(NO_RAW_DATA)
    ran = dvc.repro() if stale else []
    return ran if dvc.bring(paths.MODELS.parent, paths.REPORTS) else ran + dvc.repro(allow_missing=False)
