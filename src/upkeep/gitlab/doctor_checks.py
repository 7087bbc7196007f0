"""What surrounds the pipeline, tried once each: the doctor's checks.

Each function takes the environment variables and returns what is well, or raises what is wrong and how to mend it.
Either may repeat a secret that a program or server has said; :mod:`upkeep.gitlab.doctor` masks it.
"""

import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import urllib3

from upkeep.core.errors import UpkeepError
from upkeep.gitlab import git
from upkeep.reporting.tracking import connect, summarize

Environment = Mapping[str, str]

SECONDS = 20
"""How long one connection may take."""

LARGEST_SKEW = 300
"""Seconds between two clocks; S3 refuses requests from 900 on."""

TOKEN_DAYS = 14
"""A token that ends sooner than this is one to renew."""

MISSING_ON_SERVER = """
for program in curl flock tar; do command -v $program >/dev/null || echo $program; done
docker version >/dev/null 2>&1 || podman version >/dev/null 2>&1 || echo docker-or-podman
"""


class NotInUseError(Exception):
    """There is nothing to try: this part is not in use here."""


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
    builds = environment.get("CI_BUILDS_DIR")
    if builds and remote.is_relative_to(builds):
        raise _fault(
            f"{remote} lies among the runner's own files, and may go with the job",
            "dvc remote add --default storage s3://BUCKET/dvc, see docs/gitlab.md, step 2",
        )


def reach_engine(environment: Environment) -> str:
    """Ask the container engine for its version, where images are built."""
    if not any(environment.get(name) for name in ("GITLAB_CI", "UPKEEP_ENGINE", "UPKEEP_IMAGE")):
        raise NotInUseError("UPKEEP_ENGINE and UPKEEP_IMAGE are not set: images are built in GitLab's jobs")
    engine = environment.get("UPKEEP_ENGINE") or shutil.which("docker") or shutil.which("podman")
    if engine is None:
        raise NotInUseError("neither docker nor podman is here: images are built elsewhere")
    done = _run([engine, "version"], environment)
    if done.returncode:
        remedy = "start the engine, and let this user use it; UPKEEP_ENGINE and DOCKER_HOST say which one"
        raise _fault(f"{engine}: {git.find_reason(done.stderr)}", remedy)
    return f"{engine} answers"


def log_in_to_registry(environment: Environment) -> str:
    """Ask the registry for the right to push."""
    image = environment.get("UPKEEP_IMAGE") or environment.get("CI_REGISTRY_IMAGE")
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
    """Run a command on the customer's server, whose host key must be the pinned one."""
    host, key, known_hosts = _all_or_none(environment, "DEPLOY_HOST", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS")
    for name in ("DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS"):
        if not Path(environment[name]).is_file():
            raise _fault(f"{name} is no file", "set the variable's type to File in the CI settings")
    port = environment.get("DEPLOY_PORT") or "22"
    with tempfile.TemporaryDirectory() as folder:
        private = Path(folder) / "key"  # ssh refuses a key that others can read, as CI's file variables are
        private.touch(0o600)
        private.write_text(Path(key).read_text(encoding="utf-8").rstrip() + "\n", encoding="utf-8")
        pinned = ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={known_hosts}", "GlobalKnownHostsFile=/dev/null"]
        options = [f"-o{option}" for option in (*pinned, "IdentitiesOnly=yes", "BatchMode=yes", "ConnectTimeout=10")]
        command = ["ssh", "-F", "/dev/null", "-p", port, "-i", str(private), *options, "--", host, MISSING_ON_SERVER]
        done = _run(command, environment)
    if done.returncode:
        raise _explain_ssh(done.stderr, host, port)
    if missing := done.stdout.split():
        raise _fault(f"{host} lacks {', '.join(missing)}", "install it there; that user must be able to use the engine")
    return f"{host} has the pinned host key, lets us in, and has what a deployment needs"


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
    if not environment.get("UPKEEP_GITLAB_TOKEN"):
        raise NotInUseError("UPKEEP_GITLAB_TOKEN is not set: jobs write no notes and issues and push nothing")
    server, token = _all_or_none(environment, "CI_SERVER_URL", "UPKEEP_GITLAB_TOKEN")
    url = f"{server.rstrip('/')}/api/v4/personal_access_tokens/self"
    answer = _get(url, {"PRIVATE-TOKEN": token}, "CI_SERVER_URL", environment.get("CI_SERVER_TLS_CA_FILE"))
    remedy = "make a project access token (role Developer, scopes api and write_repository) and set the variable to it"
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise _fault(f"GitLab refuses UPKEEP_GITLAB_TOKEN: {answer.status}", remedy)
    if answer.status != HTTPStatus.OK:
        raise _fault(f"{server} answers {answer.status}", "check CI_SERVER_URL, and ask GitLab's administrator")
    scopes, ends = answer.json()["scopes"], answer.json()["expires_at"]
    if "api" not in scopes:
        raise _fault(f"UPKEEP_GITLAB_TOKEN has no scope api, only {', '.join(scopes)}", remedy)
    if ends and (date.fromisoformat(ends) - datetime.now(UTC).date()).days < TOKEN_DAYS:
        raise _fault(f"UPKEEP_GITLAB_TOKEN ends on {ends}", remedy)
    return f"UPKEEP_GITLAB_TOKEN has the scope api{f' until {ends}' if ends else ''}"


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
    if "IDENTIFICATION HAS CHANGED" in printed:
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


def _all_or_none(environment: Environment, *names: str) -> list[str]:
    """Return the variables' values; if only some are set, the others were forgotten."""
    missing = [name for name in names if not environment.get(name)]
    if len(missing) == len(names):
        raise NotInUseError(f"not set: {', '.join(names)}")
    if missing:
        raise _fault(f"not set: {', '.join(missing)}", "set it in the CI settings, or export it")
    return [environment[name] for name in names]


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
