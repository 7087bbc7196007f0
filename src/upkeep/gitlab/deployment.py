"""Deployments: a version is tagged in git, its image shipped to a stage's server, and then that is tagged, too.

A rollback ships and tags a version that there is.
"""

import csv
import io
import logging
import re
import subprocess
from datetime import datetime
from typing import NamedTuple

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.judging.reports import Headline, name_groups, read_report
from upkeep.releases import git
from upkeep.releases.git import Environment
from upkeep.releases.history import Release, Stage, find_release, list_rollbacks
from upkeep.releases.tags import assign, has_remote, refresh, register, require_push
from upkeep.reporting.tracking import mirror_release

SHIP = "deploy/ship.sh"
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}")
JUDGED = (str(paths.PARAMS), "dvc.lock", str(paths.METRICS))  # what a release's tag describes

logger = logging.getLogger(__name__)


class Order(NamedTuple):
    """A deployment as asked for; `ship` is False if it is only to be recorded."""

    stage: Stage
    now: datetime
    why: str = ""
    ship: bool = True


def promote(order: Order, image: str, verdict: str, params: Params, environment: Environment) -> str:
    """Ship the newest commit's image and record the commit as the stage's release; return what was done.

    The release is tagged before anything is shipped, so that a token without the right to tag fails early.
    """
    if differing := git.changed(JUDGED):
        what = f"{', '.join(differing)} differ from the newest commit, which is what would be promoted"
        raise UpkeepError(what, remedy="commit them, or `git checkout` them")
    release = Release(
        commit=git.git("rev-parse", "HEAD"),
        stage=order.stage,
        at=order.now,
        action="promote",
        verdict=verdict or _describe_floors(params),
        until=str(params.fetch.until),
        image=image,
        by=_name_caller(environment),
        why=order.why or git.git("log", "-1", "--no-merges", "--format=%s"),
    )
    _require_deployable(release, order, environment)
    return _deliver(release._replace(version=register(release).version), order, environment)


def roll_back(order: Order, version: str, environment: Environment) -> str:
    """Ship the image of the stage's previous release, or of this version, and record it; return what was done."""
    had = [each for each in refresh() if each.stage == order.stage]
    kept = list_rollbacks(had, order.stage)
    if not kept or not (version or kept[1:]):
        remedy = "`deploy/ship.sh rollback` starts what the server has kept; `upkeep release list` shows the history"
        raise UpkeepError(f"{order.stage} has had no release before the live one", remedy=remedy)
    target = find_release(had, version) if version else kept[-2]
    if target.commit == kept[-1].commit:
        raise UpkeepError(f"{target.version} is live in {order.stage}", remedy="name another version with --to")
    why, by = order.why or f"instead of {kept[-1].version}", _name_caller(environment)
    release = target._replace(action="rollback", at=order.now, by=by, why=why)
    _require_deployable(release, order, environment)
    return _deliver(release, order, environment)


def _require_deployable(release: Release, order: Order, environment: Environment) -> None:
    """Raise an UpkeepError unless the commit is on the deployed branch and the image is named by digest."""
    if (release.image or order.ship) and not IMAGE.fullmatch(release.image):
        what = f"the image is '{release.image}', and not IMAGE@sha256:DIGEST: what runs must be what was tested"
        remedy = "pass the digest that `make push` left in image.env; or --tag-only, if nothing is to be shipped"
        raise UpkeepError(what, remedy=remedy)
    branch = environment.get("CI_COMMIT_BRANCH") or environment.get("UPKEEP_TARGET_BRANCH") or "main"
    tip = git.fetch(branch, history=True) if has_remote() else git.git("rev-parse", f"refs/heads/{branch}")
    if git.run(["git", "merge-base", "--is-ancestor", release.commit, tip]).returncode:
        what = f"the commit {release.commit[:12]} is not on the branch {branch}"
        raise UpkeepError(what, remedy="merge it first; UPKEEP_TARGET_BRANCH names another branch")


def _deliver(release: Release, order: Order, environment: Environment) -> str:
    require_push(release)
    if order.ship and subprocess.run([SHIP, "update", release.image], check=False).returncode:
        what = f"{release.image} was not shipped: {release.version} is not noted as {order.stage}'s"
        raise UpkeepError(what, remedy="read what stands above, from the server or from deploy/ship.sh")
    try:
        made = assign(release)
    except UpkeepError as error:
        if not order.ship:
            raise
        what = f"{release.version} was shipped to {order.stage}, but that is not noted: {error.what}"
        raise UpkeepError(what, remedy=f"{error.remedy}; then run this again") from error
    if uri := environment.get("MLFLOW_TRACKING_URI", ""):
        _mirror(made, uri)
    return f"{order.stage} has {made.version}, as {made.tag}" + ("" if has_remote() else ", in this repository only")


def _mirror(release: Release, uri: str) -> None:
    """Mirror the release to MLflow's registry; log a warning if that fails."""
    facts = {"commit": release.commit, "until": release.until, "image": release.image}
    try:
        *_, run = csv.DictReader(io.StringIO(git.read_committed(release.commit, paths.EXPERIMENTS)))
        fault = mirror_release(uri, run["model"], release.version, str(release.stage), facts, run["run"])
    except (UpkeepError, LookupError, ValueError, csv.Error) as error:
        fault = f"{paths.EXPERIMENTS} of {release.version} does not say which run it is: {error}"
    if fault:
        logger.warning(fault)


def _describe_floors(params: Params) -> str:
    headline = read_report(Headline)
    groups = name_groups(headline.overall, headline.plants)
    found = {name: groups.get(name.rpartition(".")[0]) for name in params.evaluate.floors}
    figures = {name: getattr(group, name.rpartition(".")[2], None) for name, group in found.items()}
    return "; ".join(f"{name} {figures[name]}, floor {floor}" for name, floor in params.evaluate.floors.items())


def _name_caller(environment: Environment) -> str:
    """Return the GitLab user who started the job, or else git's own user."""
    known = {f"GIT_COMMITTER_{part}": environment.get(f"GITLAB_USER_{part}") for part in ("NAME", "EMAIL")}
    told = {**environment, **{name: value for name, value in known.items() if value}}
    ident = git.run(["git", "var", "GIT_COMMITTER_IDENT"], told).stdout
    return ident.strip().rsplit(" ", 2)[0] or f"{git.AUTHOR} <{git.EMAIL}>"
