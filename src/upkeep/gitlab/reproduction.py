"""What a branch's commits must hold: the lock, figures and log that its code, parameters and data give."""

import logging
import shlex
from collections.abc import Mapping, Sequence

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.gitlab import dvc, git

WRITTEN = ("dvc.lock", "data", "models", "reports")
"""Where a run changes files that git tracks."""

logger = logging.getLogger(__name__)


def check_freshness() -> str:
    """Say that no stage would run, or raise an error that names those that would."""
    stages = dvc.stale()
    if stages:
        raise UpkeepError(
            f"dvc.lock is stale: {', '.join(stages)}, and what depends on it, would run again",
            remedy='dvc repro && dvc push && git commit --all --message "Reproduce" && git push',
            stage=stages[0],
        )
    return "nothing to do: dvc.lock belongs to this code, these parameters and the data it lists"


def reproduce(environment: Mapping[str, str]) -> str:
    """Run what is stale, share its results, and see that the branch has the lock of it; return what was done.

    In a merge request, and with a token, a stale lock is replaced by a commit on its branch.

    Raises
    ------
    UpkeepError
        That of the stage which failed, or that the lock is stale and must be replaced by hand.
    """
    ran = bring_up_to_date()
    files = git.changed(WRITTEN)
    if ran or files:
        dvc.push()
    if not files:
        return f"dvc.lock is as committed; stages that ran: {', '.join(ran) or 'none'}"
    branch = environment.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME")
    if branch is None or not _may_push(environment):
        raise _stale(files, ran)
    if git.only_ours("-1", "HEAD"):
        raise _unsteady(files, ran)
    git.commit(f"Reproduce\n\nStages that ran: {', '.join(ran) or 'none'}.", files)
    git.push(branch)
    return f"dvc.lock was stale; {', '.join(files)} went to {branch}, whose new pipeline is the one that counts"


def bring_up_to_date() -> list[str]:
    """Run the stale stages and have models and reports in place; return the stages that ran."""
    stale = dvc.stale()
    if "fetch" in stale and not paths.RAW.exists() and not dvc.pull(paths.RAW):
        # Fetched batches are not read again from the source, which may have changed them since.
        logger.warning("the remote has no raw data: fetching all batches from the source")
    ran = dvc.repro() if stale else []
    missing = [path for path in dvc.outputs(paths.MODELS.parent, paths.REPORTS) if not path.exists()]
    return ran if dvc.pull(*missing) else ran + dvc.repro(allow_missing=False)


def _may_push(environment: Mapping[str, str]) -> bool:
    """Tell whether the newest commit is the branch's own, of this project, and there is a token to push with.

    A fork's branch is out of reach, and the commit of a merged-results pipeline or a merge train is on no branch.
    """
    own = environment.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID") == environment.get("CI_MERGE_REQUEST_PROJECT_ID")
    kind = environment.get("CI_MERGE_REQUEST_EVENT_TYPE", "detached")
    return bool(environment.get(git.TOKEN)) and own and kind == "detached"


def _stale(files: Sequence[str], ran: Sequence[str]) -> UpkeepError:
    return UpkeepError(
        f"the commit is stale in {', '.join(files)}; stages that ran: {', '.join(ran) or 'none'}",
        remedy="run these two and push; the results are on the remote, so it is quick:\n"
        "    dvc repro --pull\n"
        f"    git add {shlex.join(files)} && git commit --message Reproduce",
        stage=ran[0] if ran else None,
    )


def _unsteady(files: Sequence[str], ran: Sequence[str]) -> UpkeepError:
    return UpkeepError(
        f"the newest commit is upkeep's own, and yet {', '.join(files)} came out otherwise again",
        expected="the same bytes from the same code, parameters and data on every machine",
        remedy="find what differs with `git diff` after `dvc repro` on this runner's kind of machine",
        stage=ran[0] if ran else None,
    )
