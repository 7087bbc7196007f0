"""The doctor: what surrounds the pipeline, tried once each, and what to fix where it does not work.

Each check takes the environment variables and returns what is well, or raises what is wrong and how to mend it. Either
may repeat a secret that a program or server has said; :func:`examine` masks it.
"""

import os
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import urllib3

from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_environment
from upkeep.gitlab import git
from upkeep.gitlab.api import TOKEN, read_token
from upkeep.gitlab.readiness import find_engine, find_storage_fault, image_name
from upkeep.reporting.tracking import connect, summarize

Environment = Mapping[str, str]

SECONDS = 20
"""How long one connection may take."""

LARGEST_SKEW = 300
"""Seconds between two clocks; S3 refuses requests from 900 on."""

TOKEN_DAYS = 14
"""A token that ends sooner than this is one to renew."""

SHIP = "deploy/ship.sh"
DEPLOYMENT = ("DEPLOY_HOST", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS")

FILES = ("DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Variables of type File."""


class Finding(NamedTuple):
    """What one check found; `remedy` is empty unless it failed."""

    name: str
    state: Literal["ok", "FAIL", "skipped"]
    what: str
    remedy: str = ""


class NotInUseError(Exception):
    """There is nothing to try: this part is not in use here."""


def examine(environment: Environment = os.environ) -> list[Finding]:
    """Make every check, and return its findings without a secret in them."""
    return [
        Finding(name, state, mask_environment(what, environment), mask_environment(remedy, environment))
        for name, state, what, remedy in (_examine(name, environment) for name in CHECKS)
    ]


def tabulate(findings: Iterable[Finding]) -> str:
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
        raise _fault(f"no file: {', '.join(texts)}", "set the variable's type to File in the CI settings")
    if "$" in environment.get("UPKEEP_TEST_IMAGE", ""):
        raise _fault("UPKEEP_TEST_IMAGE is not expanded", "tick *Expand variable reference* at it in the CI settings")
    return "what must be a file is one, and what refers to a variable is expanded"


def read_git_remote(environment: Environment) -> str:
    """List the branches of `origin`."""
    done = _run(["git", "ls-remote", "--heads", "origin"], environment)
    if done.returncode:
        remedy = "check the address that `git remote -v` shows, that it can be reached, and that you may read it"
        raise _fault(f"origin cannot be read: {git.find_reason(done.stderr)}", remedy)
    return f"origin answers; branches: {len(done.stdout.splitlines())}"


def push_to_git_remote(environment: Environment) -> str:
    """Ask for a push without making it; rules for protected branches are not asked."""
    if environment.get("GITLAB_CI") and not environment.get("UPKEEP_GITLAB_TOKEN"):
        raise NotInUseError("UPKEEP_GITLAB_TOKEN is not set: jobs push neither fresh locks nor retrained models")
    git.push("upkeep-doctor", rehearse=True)
    return "a push would be taken"


def use_dvc_remote(environment: Environment) -> str:
    """Write, read and remove a small file as DVC itself would, with the rights that it has."""
    from dvc.repo import Repo

    content = uuid.uuid4().hex.encode()
    try:
        with Repo(".") as repo:
            store: Any = repo.cloud.get_remote_odb()
            if not store.verify:
                name = repo.config["core"]["remote"]
                raise _fault(
                    f"files that were damaged on the remote {name} would be taken for sound ones",
                    f"dvc remote modify {name} verify true",
                )
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
        raise _fault(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", remedy) from error
    if found != content:
        raise _fault(f"{store.path} gives back other bytes than were written", "look at the storage's own log")
    return f"{store.path} can be written and read"


def _doubt_folder(remote: Path, environment: Environment) -> None:
    """Raise if a remote that is a folder is not mounted, or goes with the job."""
    if not remote.parent.is_dir():
        raise _fault(f"there is no folder {remote.parent}", f"mount it, or correct the address of {remote}")
    if what := find_storage_fault(remote, environment):
        raise _fault(what, "dvc remote add --default storage s3://BUCKET/dvc, see docs/gitlab.md, step 2")


def _ask_for_building(environment: Environment) -> None:
    if environment.get("UPKEEP_BUILD") == "false":
        raise NotInUseError("UPKEEP_BUILD is false: no image is built or pushed")


def reach_engine(environment: Environment) -> str:
    """Ask the container engine for its version, where images are built."""
    _ask_for_building(environment)
    if not any(environment.get(name) for name in ("GITLAB_CI", "UPKEEP_ENGINE", "UPKEEP_IMAGE")):
        raise NotInUseError("UPKEEP_ENGINE and UPKEEP_IMAGE are not set: images are built in GitLab's jobs")
    engine = find_engine(environment)
    if engine is None:
        raise NotInUseError("neither docker nor podman is here: images are built elsewhere")
    done = _run([engine, "version"], environment)
    if done.returncode:
        remedy = "start the engine, and let this user use it; UPKEEP_ENGINE and DOCKER_HOST say which one"
        raise _fault(f"{engine}: {git.find_reason(done.stderr)}", remedy)
    return f"{engine} answers"


def log_in_to_registry(environment: Environment) -> str:
    """Ask the registry for the right to push."""
    _ask_for_building(environment)
    image = image_name(environment)
    if not image:
        raise NotInUseError("UPKEEP_IMAGE and CI_REGISTRY_IMAGE are not set: images are pushed nowhere")
    host, _, path = image.partition("/")
    # As deploy/push.sh does: GitLab's own login is for nobody but its own registry.
    login_of = "UPKEEP" if environment.get("UPKEEP_REGISTRY_USER") or environment.get("CI_REGISTRY") != host else "CI"
    user, password = (environment.get(f"{login_of}_REGISTRY_{part}", "") for part in ("USER", "PASSWORD"))
    local = host.startswith(("127.0.0.1", "localhost"))  # engines take these without TLS, too
    url = f"{'http' if local else 'https'}://{host}/v2/"
    login = urllib3.make_headers(basic_auth=f"{user}:{password}") if user else {}
    answer = _get(url, {}, "UPKEEP_IMAGE")
    challenge = answer.headers.get("WWW-Authenticate", "")
    if challenge.lower().startswith("bearer "):
        terms = parse_keqv_list(parse_http_list(challenge[len("bearer ") :]))
        query = urlencode({"service": terms.get("service", ""), "scope": f"repository:{path}:pull,push"})
        own = urlsplit(terms["realm"]).hostname == environment.get("CI_SERVER_HOST")
        authority = environment.get("CI_SERVER_TLS_CA_FILE") if own else None
        answer = _get(f"{terms['realm']}?{query}", login, "UPKEEP_IMAGE", authority)
    elif challenge:
        answer = _get(url, login, "UPKEEP_IMAGE")
    if "html" in answer.headers.get("Content-Type", ""):
        raise _fault(f"{host} answers with a web page", "check that UPKEEP_IMAGE names a registry")
    if answer.status != HTTPStatus.OK:
        remedy = (
            "check UPKEEP_REGISTRY_USER and UPKEEP_REGISTRY_PASSWORD, such as a deploy token with write_registry; if "
            "they are protected, they are not there in a merge request"
        )
        raise _fault(f"{host} refuses the login of {user or 'nobody'}: {answer.status}", remedy)
    return f"{host} takes the login of {user or 'anybody'}"


def log_in_to_server(environment: Environment) -> str:
    """Ask the customer's server whether it has what a deployment needs, the way a deployment gets there."""
    missing = [name for name in DEPLOYMENT if not environment.get(name)]
    if len(missing) == len(DEPLOYMENT):
        raise NotInUseError(f"not set: {', '.join(DEPLOYMENT)}")
    if missing:
        raise _fault(f"not set: {', '.join(missing)}", "set it in the CI settings, or export it")
    done = _run([SHIP, "check"], environment)
    if done.returncode:
        raise _explain_ssh(done.stderr, environment["DEPLOY_HOST"], environment.get("DEPLOY_PORT") or "22")
    return f"{environment['DEPLOY_HOST']} has the pinned host key, lets us in, and has what a deployment needs"


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
        raise _fault(summarize(error, uri), remedy) from error
    return f"{uri} answers"


def use_token(environment: Environment) -> str:
    """Ask GitLab what the project token may do, and until when."""
    if not environment.get(TOKEN):
        raise NotInUseError(f"{TOKEN} is not set: jobs write no notes and issues and push nothing")
    token = read_token(environment)
    remedy = "make a project access token (role Developer, scopes api and write_repository) and set the variable to it"
    if "api" not in token.scopes:
        raise _fault(f"{TOKEN} has no scope api, only {', '.join(token.scopes)}", remedy)
    ends = token.expires_at
    if ends and (date.fromisoformat(ends) - datetime.now(UTC).date()).days < TOKEN_DAYS:
        raise _fault(f"{TOKEN} ends on {ends}", remedy)
    return f"{TOKEN} has the scope api{f' until {ends}' if ends else ''}"


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
        raise _fault(f"{address.hostname}:{port} cannot be reached: {error}", remedy) from error
    return f"{address.hostname}:{port} can be reached"


def compare_clocks(environment: Environment) -> str:
    """Compare this machine's clock, by which schedules tell what is new, with GitLab's."""
    if today := environment.get("UPKEEP_TODAY"):
        raise _fault(f"UPKEEP_TODAY is set: schedules take {today} for today", "remove it once back-filling is done")
    server = environment.get("CI_SERVER_URL")
    if not server:
        raise NotInUseError("compared with GitLab's in its jobs only")
    answer = _get(server, {}, "CI_SERVER_URL", environment.get("CI_SERVER_TLS_CA_FILE"))
    skew = abs((datetime.now(UTC) - parsedate_to_datetime(answer.headers["Date"])).total_seconds())
    if skew > LARGEST_SKEW:
        raise _fault(f"this machine's clock is {skew:.0f} s off GitLab's", "switch on time synchronisation (NTP)")
    return "this machine's clock agrees with GitLab's"


def _fault(what: str, remedy: str) -> UpkeepError:
    return UpkeepError(what, remedy=remedy)


def _explain_ssh(printed: str, host: str, port: str) -> UpkeepError:
    if printed.startswith("error: "):  # what the scripts found, there or here
        what, *_, remedy = printed.removeprefix("error: ").splitlines()
        remedy = remedy.partition("remedy:")[2].strip()
    elif "IDENTIFICATION HAS CHANGED" in printed:
        what = f"the host key of {host} is not the pinned one"
        remedy = "if the server was set up anew, pin its new key in DEPLOY_KNOWN_HOSTS; if not, someone stands between"
    elif "Host key verification failed" in printed:
        what = f"DEPLOY_KNOWN_HOSTS holds no key of {host}, port {port}"
        remedy = f"`ssh-keyscan -p {port} HOST` prints the line to pin; compare it with the server's own key first"
    elif "Permission denied" in printed:
        what = f"{host} refuses DEPLOY_KEY"
        remedy = "add the key's public half to ~/.ssh/authorized_keys of DEPLOY_HOST's user on the server"
    else:
        what = f"{host} does not answer: {git.find_reason(printed)}"
        remedy = "check DEPLOY_HOST, DEPLOY_PORT and the firewall"
    return _fault(what, remedy)


def _get(url: str, headers: Mapping[str, str], variable: str, authority: str | None = None) -> Any:
    try:
        with urllib3.PoolManager(ca_certs=authority or None, retries=False, timeout=SECONDS) as pool:
            return pool.request("GET", url, headers=dict(headers))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        remedy = f"check {variable}, firewall and proxy, and SSL_CERT_FILE if the certificate is of your own authority"
        address = urlsplit(url).netloc.rpartition("@")[2]
        raise _fault(f"{address} does not answer: {error}", remedy) from error


def _run(command: list[str], environment: Environment) -> subprocess.CompletedProcess[str]:
    variables = {**git.job_environment(environment), "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
    try:
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=SECONDS)
    except FileNotFoundError as error:
        raise _fault(f"{command[0]} was not found", f"install {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise _fault(f"{command[0]} had no answer in {SECONDS} s", "check the address, firewall and proxy") from error


CHECKS: dict[str, Callable[[Environment], str]] = {
    "variables": look_at_variables,
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
