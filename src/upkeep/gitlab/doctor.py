"""The doctor: what surrounds the pipeline, tried once each, and what to fix where it does not work.

What a program or server has said may hold a secret; :func:`examine` masks it.
"""

import os
import re
import socket
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_environment
from upkeep.gitlab import dvc, git, zones
from upkeep.gitlab.api import NOTE_TOKEN, TOKEN, read_token
from upkeep.gitlab.probes import (
    SECONDS,
    Environment,
    NotInUseError,
    fault,
    get,
    log_in_to_registry,
    log_in_to_server,
    reach_engine,
    run,
)
from upkeep.gitlab.readiness import find_storage_fault
from upkeep.reporting.tracking import connect, summarize

LARGEST_SKEW = 300
"""Seconds between two clocks; S3 refuses requests from 900 on."""

TOKEN_DAYS = 14
"""A token that ends sooner than this is one to renew."""

TOKENS = {TOKEN: "role Developer, scopes api and write_repository", NOTE_TOKEN: "role Reporter, scope api"}

IMAGES = ("UPKEEP_CI_IMAGE", "UPKEEP_TEST_IMAGE", "UPKEEP_BASE")
"""What jobs run in, and the service's image is built on."""

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
    return [
        Finding(name, state, mask_environment(what, environment), mask_environment(remedy, environment))
        for name, state, what, remedy in (_examine(name, environment) for name in CHECKS)
    ]


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
    failed = [finding.name for finding in findings if finding.state == "FAIL"]
    if failed:
        raise UpkeepError(
            f"{len(failed)} of the checks failed: {', '.join(failed)}",
            remedy="do what stands below each FAIL, from the top; docs/gitlab.md explains the variables",
        )


def _examine(name: str, environment: Environment) -> Finding:
    try:
        return Finding(name, "ok", CHECKS[name](environment))
    except NotInUseError as reason:
        return Finding(name, "skipped", str(reason))
    except UpkeepError as error:
        return Finding(name, "FAIL", error.what, error.remedy)
    except Exception as error:  # what answers is not what should: a proxy's login page, say
        what = f"the answer makes no sense: {type(error).__name__}, {error}"
        return Finding(name, "FAIL", what, "check the address, and proxies on the way")


def look_at_variables(environment: Environment) -> str:
    """Find the variables that are set as another kind than what reads them needs."""
    texts = [name for name in FILES if environment.get(name) and not Path(environment[name]).exists()]
    if texts:
        raise fault(f"no file: {', '.join(texts)}", "set the variable's type to File in the CI settings")
    if "$" in environment.get("UPKEEP_TEST_IMAGE", ""):
        raise fault("UPKEEP_TEST_IMAGE is not expanded", "tick *Expand variable reference* at it in the CI settings")
    return "what must be a file is one, and what refers to a variable is expanded"


def look_at_zones(environment: Environment) -> str:
    """Find what merge requests can do to protected pipelines, as far as a job can see it."""
    if zones.is_merge_request(environment):
        if shown := sorted(name for name in zones.PROTECTED - zones.SHARED if environment.get(name)):
            remedy = "tick *Protect variable* at each in the CI settings; docs/gitlab.md, step 5, says who needs it"
            raise fault(f"every merge request's job can read {', '.join(shown)}", remedy)
        return "this merge request's job sees no variable that is to be protected"
    registry = environment.get("CI_REGISTRY_IMAGE") or "none"
    images = {name: environment.get(name, "") for name in IMAGES}
    weak = [name for name, image in images.items() if re.match(rf"{re.escape(registry)}([/:](?!.*@sha256:)|\Z)", image)]
    if weak:
        remedy = "name it by digest, IMAGE@sha256:..., or keep it in another project's registry"
        raise fault(f"jobs of merge requests can push to where {', '.join(weak)} is", remedy)
    if environment.get("CI_COMMIT_REF_PROTECTED") == "false":
        remedy = "protect the branch, or the tag; docs/gitlab.md, step 1"
        raise fault("this pipeline's branch or tag is not protected, so it sees no protected variable", remedy)
    if not dvc.remotes_apart():
        raise NotInUseError(zones.ONE_REMOTE)
    if environment.get("GITLAB_CI") and not environment.get("UPKEEP_PROTECTED_RUNNER_TAG"):
        raise NotInUseError("one runner for all: who may push a branch can change what protected pipelines run")
    return "merge requests have a remote of their own, and no say in what protected pipelines run"


def read_git_remote(environment: Environment) -> str:
    """List the branches of `origin`."""
    done = run(["git", "ls-remote", "--heads", "origin"], environment)
    if done.returncode:
        remedy = "check the address that `git remote -v` shows, that it can be reached, and that you may read it"
        raise fault(f"origin cannot be read: {git.find_reason(done.stderr)}", remedy)
    return f"origin answers; branches: {len(done.stdout.splitlines())}"


def push_to_git_remote(environment: Environment) -> str:
    """Ask for a push without making it; rules for protected branches are not asked."""
    if environment.get("GITLAB_CI") and not environment.get("UPKEEP_GITLAB_TOKEN"):
        raise NotInUseError("UPKEEP_GITLAB_TOKEN is not set: jobs push neither fresh locks nor retrained models")
    git.push("upkeep-doctor", rehearse=True)
    return "a push would be taken"


def use_dvc_remote(environment: Environment) -> str:
    """Write, read and remove a small file on this zone's remote as DVC itself would, with the rights that it has."""
    own = zones.is_merge_request(environment) and dvc.remotes_apart()
    told = _use_remote(zones.REMOTE if own else None, environment)
    if own and _can_use(None, environment):
        remedy = f"give merge requests a key that only reads there, and writes to {zones.REMOTE}"
        raise fault("merge requests can write to the remote that protected pipelines believe", remedy)
    return told


def _can_use(name: str | None, environment: Environment) -> bool:
    try:
        return bool(_use_remote(name, environment))
    except UpkeepError:
        return False


def _use_remote(name: str | None, environment: Environment) -> str:
    from dvc.repo import Repo

    content = uuid.uuid4().hex.encode()
    try:
        with Repo(".") as repo:
            name = name or repo.config["core"].get("remote")
            store: Any = repo.cloud.get_remote_odb(name)
            if not store.verify:
                what = f"files that were damaged on the remote {name} would be taken for sound ones"
                raise fault(what, f"dvc remote modify {name} verify true")
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
        remedy = (
            "check the address that `dvc remote list` shows, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_CA_BUNDLE, "
            "and that this key may write, read and delete there"
        )
        raise fault(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", remedy) from error
    if found != content:
        raise fault(f"{store.path} gives back other bytes than were written", "look at the storage's own log")
    return f"{store.path} can be written and read"


def _doubt_folder(remote: Path, environment: Environment) -> None:
    """Raise if a remote that is a folder is not mounted, or goes with the job."""
    if not remote.parent.is_dir():
        raise fault(f"there is no folder {remote.parent}", f"mount it, or correct the address of {remote}")
    if what := find_storage_fault(remote, environment):
        raise fault(what, "dvc remote add --default storage s3://BUCKET/dvc, see docs/gitlab.md, step 2")


def reach_tracking_server(environment: Environment) -> str:
    """Search MLflow's experiments."""
    uri = environment.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not uri.startswith("http"):
        raise NotInUseError("MLFLOW_TRACKING_URI names no server: runs are recorded in a file")
    try:
        connect(uri, SECONDS)
    except Exception as error:  # MLflow has many kinds; each means that no run would arrive
        remedy = (
            "check MLFLOW_TRACKING_URI, and MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, firewall and proxy, and REQUESTS_CA_BUNDLE if the certificate is of your own "
            "authority"
        )
        raise fault(summarize(error, uri), remedy) from error
    return f"{uri} answers"


def use_token(environment: Environment) -> str:
    """Ask GitLab what the project tokens may do, and until when."""
    found = [name for name in TOKENS if environment.get(name)]
    if not found:
        raise NotInUseError(f"{' and '.join(TOKENS)} are not set: jobs write no notes and issues and push nothing")
    return "; ".join(_examine_token(name, environment) for name in found)


def _examine_token(name: str, environment: Environment) -> str:
    token = read_token(environment, name)
    remedy = f"make a project access token ({TOKENS[name]}) and set the variable to it"
    if "api" not in token.scopes:
        raise fault(f"{name} has no scope api, only {', '.join(token.scopes)}", remedy)
    if name == NOTE_TOKEN and len(token.scopes) > 1:
        raise fault(f"{name}, which merge requests can read, has more scopes: {', '.join(token.scopes)}", remedy)
    ends = token.expires_at
    if ends and (date.fromisoformat(ends) - datetime.now(UTC).date()).days < TOKEN_DAYS:
        raise fault(f"{name} ends on {ends}", remedy)
    return f"{name} has the scope api{f' until {ends}' if ends else ''}"


def reach_webhook(environment: Environment) -> str:
    """Connect to the host that failures are told to, without telling one."""
    url = environment.get("UPKEEP_ALERT_WEBHOOK", "")
    if not url:
        raise NotInUseError("UPKEEP_ALERT_WEBHOOK is not set: a failed schedule opens an issue, if there is a token")
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), SECONDS).close()
    except OSError as error:
        remedy = "check UPKEEP_ALERT_WEBHOOK and the firewall"
        raise fault(f"{address.hostname}:{port} cannot be reached: {error}", remedy) from error
    return f"{address.hostname}:{port} can be reached"


def compare_clocks(environment: Environment) -> str:
    """Compare this machine's clock, by which schedules tell what is new, with GitLab's."""
    if today := environment.get("UPKEEP_TODAY"):
        raise fault(f"UPKEEP_TODAY is set: schedules take {today} for today", "remove it once back-filling is done")
    server = environment.get("CI_SERVER_URL")
    if not server:
        raise NotInUseError("compared with GitLab's in its jobs only")
    answer = get(server, {}, "CI_SERVER_URL", environment.get("CI_SERVER_TLS_CA_FILE"))
    skew = abs((datetime.now(UTC) - parsedate_to_datetime(answer.headers["Date"])).total_seconds())
    if skew > LARGEST_SKEW:
        raise fault(f"this machine's clock is {skew:.0f} s off GitLab's", "switch on time synchronisation (NTP)")
    return "this machine's clock agrees with GitLab's"


CHECKS: dict[str, Callable[[Environment], str]] = {
    "variables": look_at_variables,
    "zones": look_at_zones,
    "git remote": read_git_remote,
    "push": push_to_git_remote,
    "DVC remote": use_dvc_remote,
    "engine": reach_engine,
    "registry": log_in_to_registry,
    "server": log_in_to_server,
    "MLflow": reach_tracking_server,
    "token": use_token,
    "alerts": reach_webhook,
    "clock": compare_clocks,
}
