"""The doctor: what surrounds the pipeline, tried once each, and what to fix where it does not work.

A check takes the environment variables and returns what is well, or raises what is wrong and how to mend it. What a
program or server has said may hold a secret; :func:`examine` masks it.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_environment
from upkeep.gitlab import dvc, zones
from upkeep.gitlab.api import find_open_tag, open_project, read_token
from upkeep.gitlab.probes import (
    NotInUseError,
    compare_clocks,
    log_in_to_registry,
    log_in_to_server,
    reach_engine,
    reach_tracking_server,
    reach_webhook,
    run,
)
from upkeep.gitlab.readiness import find_storage_fault
from upkeep.gitlab.zones import NOTE_TOKEN, REMOTE, TOKEN, Environment
from upkeep.releases import git
from upkeep.releases.history import ARTIFACT

TOKEN_DAYS = 14  # a token that ends sooner than this is one to renew
TOKENS = {TOKEN: "role Developer, scopes api and write_repository", NOTE_TOKEN: "role Reporter, scope api"}
IMAGES = ("UPKEEP_CI_IMAGE", "UPKEEP_TEST_IMAGE", "UPKEEP_BASE")  # what jobs run in, or the service's is built on
FILES = ("DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Variables of type File."""


class Finding(NamedTuple):
    """What one check found; `remedy` is empty unless it failed."""

    name: str
    state: Literal["ok", "FAIL", "skipped"]
    what: str
    remedy: str = ""


def examine(environment: Environment = os.environ) -> list[Finding]:
    """Make every check, and return its findings without a secret in them."""
    findings = []
    for name, check in CHECKS.items():
        try:
            finding = Finding(name, "ok", check(environment))
        except NotInUseError as reason:
            finding = Finding(name, "skipped", str(reason))
        except UpkeepError as error:
            finding = Finding(name, "FAIL", error.what, error.remedy)
        except Exception as error:  # what answers is not what should: a proxy's login page, say
            what = f"the answer makes no sense: {type(error).__name__}, {error}"
            finding = Finding(name, "FAIL", what, "check the address, and proxies on the way")
        what, remedy = (mask_environment(text, environment) for text in (finding.what, finding.remedy))
        findings.append(finding._replace(what=what, remedy=remedy))
    return findings


def tabulate_findings(findings: Iterable[Finding]) -> str:
    """Return a line per finding, and below a failed one what to do."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.name:<11} {finding.what}")
        if finding.remedy:
            lines.append(f"{'':<20} -> {finding.remedy}")
    return "\n".join(lines)


def raise_if_failed(findings: Iterable[Finding]) -> None:
    """Raise an error that names the checks that failed, if any did."""
    if failed := [finding.name for finding in findings if finding.state == "FAIL"]:
        remedy = "do what stands below each FAIL, from the top; docs/gitlab.md explains the variables"
        raise UpkeepError(f"{len(failed)} of the checks failed: {', '.join(failed)}", remedy=remedy)


def look_at_variables(environment: Environment) -> str:
    """Find the variables that are set as another kind than what reads them needs."""
    texts = [name for name in FILES if environment.get(name) and not Path(environment[name]).exists()]
    if texts:
        raise UpkeepError(f"no file: {', '.join(texts)}", remedy="set the variable's type to File in the CI settings")
    if "$" in environment.get("UPKEEP_TEST_IMAGE", ""):
        raise UpkeepError("UPKEEP_TEST_IMAGE is not expanded", remedy="tick *Expand variable reference* at it")
    return "what must be a file is one, and what refers to a variable is expanded"


def look_at_zones(environment: Environment) -> str:
    """Find what merge requests can do to protected pipelines, as far as a job can see it."""
    if zones.is_merge_request(environment):
        if shown := sorted(name for name in zones.PROTECTED - zones.SHARED if environment.get(name)):
            what = f"every merge request's job can read {', '.join(shown)}"
            raise UpkeepError(what, remedy="tick *Protect variable* at each; docs/gitlab.md, step 5, says who needs it")
        return "this merge request's job sees no variable that is to be protected"
    theirs = re.compile(rf"{re.escape(environment.get('CI_REGISTRY_IMAGE') or 'none')}([/:](?!.*@sha256:)|\Z)")
    if weak := [name for name in IMAGES if theirs.match(environment.get(name, ""))]:
        remedy = "name it by digest, IMAGE@sha256:..., or keep it in another project's registry"
        raise UpkeepError(f"jobs of merge requests can push to where {', '.join(weak)} is", remedy=remedy)
    if environment.get("CI_COMMIT_REF_PROTECTED") == "false":
        what = "this pipeline's branch or tag is not protected, so it sees no protected variable"
        raise UpkeepError(what, remedy="protect the branch, or the tag; docs/gitlab.md, step 1")
    if not dvc.remotes_apart():
        raise NotInUseError(zones.ONE_REMOTE)
    if environment.get("GITLAB_CI") and not environment.get("UPKEEP_PROTECTED_RUNNER_TAG"):
        raise NotInUseError("one runner for all: who may push a branch can change what protected pipelines run")
    return "merge requests have a remote of their own, and no say in what protected pipelines run"


def read_git_remote(environment: Environment) -> str:
    """List the branches of `origin`."""
    remedy = "check the address that `git remote -v` shows, that it can be reached, and that you may read it"
    branches = run(["git", "ls-remote", "--heads", "origin"], environment, "origin cannot be read", remedy)
    return f"origin answers; branches: {len(branches.splitlines())}"


def push_to_git_remote(environment: Environment) -> str:
    """Ask for a push without making it; rules for protected branches are not asked."""
    if environment.get("GITLAB_CI") and not environment.get(TOKEN):
        raise NotInUseError(f"{TOKEN} is not set: jobs push neither fresh locks nor retrained models")
    git.push("upkeep-doctor", rehearse=True)
    return "a push would be taken"


def push_tags(environment: Environment) -> str:
    """Ask for a push of a tag as deployments make it, and whether anybody else may write the history of releases."""
    if zones.is_merge_request(environment):
        raise NotInUseError("merge requests make no releases")
    if environment.get("GITLAB_CI") and not (environment.get(git.RELEASE_TOKEN) or environment.get(TOKEN)):
        raise NotInUseError(f"{git.RELEASE_TOKEN} is not set: nothing can be deployed, since nothing would note it")
    git.push_tag(f"{ARTIFACT}#rehearsal", "HEAD", rehearse=True)
    if not (environment.get(TOKEN) and environment.get("CI_PROJECT_ID")):
        return f"a tag would be taken; without {TOKEN}, nobody can say whether {ARTIFACT}* are protected"
    if tag := find_open_tag(open_project(environment), ARTIFACT):
        remedy = f"protect the tags {ARTIFACT}*, for maintainers to create; docs/gitlab.md, step 1"
        raise UpkeepError(f"{tag} is not protected: anybody who may push can say what a rollback ships", remedy=remedy)
    return "a tag would be taken, and those there are are protected"


def use_dvc_remote(environment: Environment) -> str:
    """Write, read and remove a small file on this zone's remote as DVC itself would, with the rights that it has."""
    if not (zones.is_merge_request(environment) and dvc.remotes_apart()):
        return _use_remote(None, environment)
    told = _use_remote(REMOTE, environment)
    try:
        _use_remote(None, environment)
    except UpkeepError:
        return told
    remedy = f"give merge requests a key that only reads there, and writes to {REMOTE}"
    raise UpkeepError("merge requests can write to the remote that protected pipelines believe", remedy=remedy)


def _use_remote(name: str | None, environment: Environment) -> str:
    from dvc.repo import Repo

    content = uuid.uuid4().hex.encode()
    try:
        with Repo(".") as repo:
            name = name or repo.config["core"].get("remote")
            store: Any = repo.cloud.get_remote_odb(name)
            if not store.verify:
                remedy = f"dvc remote modify {name} verify true"
                raise UpkeepError(f"damaged files on the remote {name} would be taken for sound ones", remedy=remedy)
            if store.fs.protocol == "local":
                _doubt_folder(Path(store.path).parents[1], environment)
            file = store.fs.join(store.path, f"doctor-{content.decode()}")
            store.fs.makedirs(store.path, exist_ok=True)
            store.fs.pipe_file(file, content)
            found = store.fs.cat_file(file)
            store.fs.rm_file(file)
    except UpkeepError:
        raise
    except Exception as error:  # each kind of storage has errors of its own
        raise UpkeepError(
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            remedy="check the address that `dvc remote list` shows, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "AWS_CA_BUNDLE, and that this key may write, read and delete there",
        ) from error
    if found != content:
        raise UpkeepError(f"{store.path} gives back other bytes than were written", remedy="read the storage's log")
    return f"{store.path} can be written and read"


def _doubt_folder(remote: Path, environment: Environment) -> None:
    """Raise if a remote that is a folder is not mounted, or goes with the job."""
    if not remote.parent.is_dir():
        raise UpkeepError(f"there is no folder {remote.parent}", remedy=f"mount it, or correct the address {remote}")
    if what := find_storage_fault(remote, environment):
        raise UpkeepError(what, remedy="dvc remote add --default storage s3://BUCKET/dvc, see docs/gitlab.md, step 2")


def use_token(environment: Environment) -> str:
    """Ask GitLab what the project tokens may do, and until when."""
    told = []
    for name in (name for name in TOKENS if environment.get(name)):
        token = read_token(environment, name)
        remedy = f"make a project access token ({TOKENS[name]}) and set the variable to it"
        if "api" not in token.scopes:
            raise UpkeepError(f"{name} has no scope api, only {', '.join(token.scopes)}", remedy=remedy)
        if name == NOTE_TOKEN and len(token.scopes) > 1:
            what = f"{name}, which merge requests can read, has more scopes: {', '.join(token.scopes)}"
            raise UpkeepError(what, remedy=remedy)
        ends = token.expires_at
        if ends and (date.fromisoformat(ends) - datetime.now(UTC).date()).days < TOKEN_DAYS:
            raise UpkeepError(f"{name} ends on {ends}", remedy=remedy)
        told.append(f"{name} has the scope api{f' until {ends}' if ends else ''}")
    if not told:
        raise NotInUseError(f"{' and '.join(TOKENS)} are not set: jobs write no notes and issues and push nothing")
    return "; ".join(told)


CHECKS: dict[str, Callable[[Environment], str]] = {
    "variables": look_at_variables,
    "zones": look_at_zones,
    "git remote": read_git_remote,
    "push": push_to_git_remote,
    "releases": push_tags,
    "DVC remote": use_dvc_remote,
    "engine": reach_engine,
    "registry": log_in_to_registry,
    "server": log_in_to_server,
    "MLflow": reach_tracking_server,
    "token": use_token,
    "alerts": reach_webhook,
    "clock": compare_clocks,
}
