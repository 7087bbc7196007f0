"""The merge request that offers a retraining: what it says, and whether one stands already."""

from collections.abc import Mapping
from datetime import date

import yaml

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.yaml import parse_yaml
from upkeep.gitlab import git
from upkeep.gitlab.gate import Verdict
from upkeep.gitlab.markdown import bullets, show

BRANCH = "retrain"
"""The one branch that retrainings are offered on, so that there are never two merge requests."""

LABELS = ("new data", "drift", "age")
"""One for each reason to train again."""

MOST_REASONS = 10
"""Of the gate's in a description, which git takes with the title and all as one line of at most 64 kB."""


def find_offer(base: str) -> tuple[str | None, date | None]:
    """Return the commit that is offered already, and its ``fetch.until`` if it was made from `base`.

    Raises
    ------
    UpkeepError
        If somebody else has worked on the branch.
    """
    if git.tip(BRANCH) is None:
        return None, None
    commit = git.fetch(BRANCH, history=True)
    if not git.only_ours(f"{base}..{commit}"):
        raise UpkeepError(
            f"the branch {BRANCH} holds commits that are not upkeep's, and each retraining overwrites it",
            remedy=f"merge it, or move the commits to a branch of your own and delete {BRANCH}",
        )
    if not git.contains(commit, base):
        return commit, None
    try:
        offered = parse_yaml(git.git("show", f"{commit}:{paths.PARAMS}"))
        return commit, date.fromisoformat(str(offered["fetch"]["until"]))
    except (yaml.YAMLError, LookupError, TypeError, ValueError):  # no offer that anybody could take: made anew
        return commit, None


def describe_offer(
    target: str, until: date, reasons: Mapping[str, str], verdict: Verdict, job: str | None
) -> list[str]:
    r"""Return the push options that make GitLab open the merge request, or update the open one, without its API.

    A push option cannot hold a line break: GitLab makes one of ``\n`` in a description.
    """
    paragraphs = [
        f"**Why:** {'; '.join(map(show, reasons.values()))}.",
        f"**The gate:** {state_gate(verdict)}",
        bullets(verdict.reasons, MOST_REASONS, ", see the note on this merge request").rstrip(),
        f"Made by [this job]({job})." if job else "",
    ]
    # A backslash of somebody else's could be followed by an n.
    description = "\n\n".join(filter(None, paragraphs)).replace("\\", "/").replace("\n", "\\n")
    return [
        "merge_request.create",
        f"merge_request.target={target}",
        f"merge_request.title={'' if verdict.ships else 'Draft: '}Retrain up to {until}",
        f"merge_request.description={description}",
        *(f"merge_request.{'label' if label in reasons else 'unlabel'}={label}" for label in LABELS),
        "merge_request.remove_source_branch",
    ]


def state_gate(verdict: Verdict) -> str:
    """Say whether the gate lets a retraining pass."""
    return "it may ship." if verdict.ships else "it may not ship, so this is a draft."
