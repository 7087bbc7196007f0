"""The doctor: what surrounds the pipeline, tried once each, and what to fix where it does not work.

A check takes the environment variables and returns what is well, or raises what is wrong and how to mend it. What a
program or server has said may hold a secret; :func:`examine` masks it.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit

import urllib3
from requests.utils import parse_dict_header

from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_environment
from upkeep.gitlab import dvc, zones
from upkeep.gitlab.api import find_open_tag, open_project, read_token
from upkeep.gitlab.deployment import SHIP
from upkeep.gitlab.failure import WEBHOOK, trust
from upkeep.gitlab.readiness import NotReadyError, find_engine, find_registry, find_storage
from upkeep.gitlab.setup import TOKENS
from upkeep.gitlab.zones import NOTE_TOKEN, REMOTE, TOKEN, Environment
from upkeep.releases import git
from upkeep.releases.history import ARTIFACT
from upkeep.reporting.tracking import connect, summarize

SECONDS = 20  # one connection may take
LARGEST_SKEW = 300  # seconds between two clocks; storage refuses what was signed 900 apart
TOKEN_DAYS = 14  # a token that ends sooner than this is one to renew
IMAGES = ("UPKEEP_CI_IMAGE", "UPKEEP_TEST_IMAGE", "UPKEEP_BASE")  # what jobs run in, or the service's is built on
DEPLOYMENT = ("DEPLOY_HOST", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS")
FILES = ("DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
STORAGE = "DVC remote"  # no project can do without: where nobody has set it up, this check fails

SSH_FAULTS = (  # what ssh says, what that means and what to do; the first that fits
    (
        "IDENTIFICATION HAS CHANGED",
        "the host key of {host} is not the pinned one",
        "if the server was set up anew, pin its new key in DEPLOY_KNOWN_HOSTS; if not, someone stands between",
    ),
    (
        "Host key verification failed",
        "DEPLOY_KNOWN_HOSTS holds no key of {host}, port {port}",
        "`ssh-keyscan -p {port} HOST` prints the line to pin; compare it with the server's own key first",
    ),
    (
        "Permission denied",
        "{host} refuses DEPLOY_KEY",
        "add the key's public half to ~/.ssh/authorized_keys of DEPLOY_HOST's user on the server",
    ),
    ("", "{host} does not answer: {printed}", "check DEPLOY_HOST, DEPLOY_PORT and the firewall"),
)


class Diagnosis(NamedTuple):
    """What one check found; `remedy` is empty unless it failed."""

    name: str
    state: Literal["ok", "FAIL", "skipped"]
    what: str
    remedy: str = ""


def examine(environment: Environment = os.environ) -> list[Diagnosis]:
    """Make every check, and return its diagnoses without a secret in them."""
    diagnoses = []
    for name, check in CHECKS.items():
        try:
            diagnosis = Diagnosis(name, "ok", check(environment))
        except UpkeepError as error:
            diagnosis = Diagnosis(name, "FAIL", error.what, error.remedy)
            if isinstance(error, NotReadyError) and name != STORAGE:
                diagnosis = Diagnosis(name, "skipped", error.what)
        except Exception as error:  # what answers is not what should: a proxy's login page, say
            what = f"the answer makes no sense: {type(error).__name__}, {error}"
            diagnosis = Diagnosis(name, "FAIL", what, "check the address, and proxies on the way")
        what, remedy = (mask_environment(text, environment) for text in (diagnosis.what, diagnosis.remedy))
        diagnoses.append(diagnosis._replace(what=what, remedy=remedy))
    return diagnoses


def tabulate_diagnoses(diagnoses: Iterable[Diagnosis]) -> str:
    """Return a line per diagnosis, and below a failed one what to do."""
    lines = []
    for diagnosis in diagnoses:
        lines.append(f"{diagnosis.state:<8} {diagnosis.name:<11} {diagnosis.what}")
        if diagnosis.remedy:
            lines.append(f"{'':<20} -> {diagnosis.remedy}")
    return "\n".join(lines)


def raise_if_failed(diagnoses: Iterable[Diagnosis]) -> None:
    """Raise an error that names the checks that failed, if any did."""
    if failed := [diagnosis.name for diagnosis in diagnoses if diagnosis.state == "FAIL"]:
        remedy = "do what stands below each FAIL, from the top; docs/gitlab.md explains the variables"
        raise UpkeepError(f"{len(failed)} of the checks failed: {', '.join(failed)}", remedy=remedy)


def look_at_variables(environment: Environment) -> str:
    """Find the variables that are set as another kind than what reads them needs, or were set for one run only."""
    texts = [name for name in FILES if environment.get(name) and not Path(environment[name]).exists()]
    if texts:
        raise UpkeepError(f"no file: {', '.join(texts)}", remedy="set the variable's type to File in the CI settings")
    if "$" in environment.get("UPKEEP_TEST_IMAGE", ""):
        raise UpkeepError("UPKEEP_TEST_IMAGE is not expanded", remedy="tick *Expand variable reference* at it")
    if today := environment.get("UPKEEP_TODAY"):
        raise UpkeepError(f"UPKEEP_TODAY is set: schedules take {today} for today", remedy="remove it after use")
    return "what must be a file is one, and what refers to a variable is expanded"


def look_at_zones(environment: Environment) -> str:
    """Find what merge requests can do to protected pipelines, as far as a job can see it."""
    if zones.is_merge_request(environment):
        if shown := sorted(name for name in zones.PROTECTED - zones.SHARED if environment.get(name)):
            what = f"every merge request's job can read {', '.join(shown)}"
            remedy = "tick *Protect variable* at each; docs/gitlab.md, step 5, says who needs it"
            if (
                environment.get("CI_COMMIT_REF_PROTECTED") == "true"
            ):  # between two protected branches, from GitLab 18 on
                remedy = "untick *Allow merge request pipelines to access protected variables*; docs/gitlab.md, step 1"
            raise UpkeepError(what, remedy=remedy)
        return "this merge request's job sees no variable that is to be protected"
    theirs = re.compile(rf"{re.escape(environment.get('CI_REGISTRY_IMAGE') or 'none')}([/:](?!.*@sha256:)|\Z)")
    if weak := [name for name in IMAGES if theirs.match(environment.get(name, ""))]:
        remedy = "name it by digest, IMAGE@sha256:..., or keep it in another project's registry"
        raise UpkeepError(f"jobs of merge requests can push to where {', '.join(weak)} is", remedy=remedy)
    if environment.get("CI_COMMIT_REF_PROTECTED") == "false":
        what = "this pipeline's branch or tag is not protected, so it sees no protected variable"
        raise UpkeepError(what, remedy="protect the branch, or the tag; docs/gitlab.md, step 1")
    if not dvc.remotes_apart():
        raise NotReadyError(zones.ONE_REMOTE)
    if environment.get("GITLAB_CI") and not environment.get("UPKEEP_PROTECTED_RUNNER_TAG"):
        raise NotReadyError("one runner for all: who may push a branch can change what protected pipelines run")
    return "merge requests have a remote of their own, and no say in what protected pipelines run"


def read_git_remote(environment: Environment) -> str:
    """List the branches of `origin`."""
    remedy = "check the address that `git remote -v` shows, that it can be reached, and that you may read it"
    branches = _run_program(["git", "ls-remote", "--heads", "origin"], environment, "origin cannot be read", remedy)
    return f"origin answers; branches: {len(branches.splitlines())}"


def push_to_git_remote(environment: Environment) -> str:
    """Ask for a push without making it; rules for protected branches are not asked."""
    if environment.get("GITLAB_CI") and not environment.get(TOKEN):
        raise NotReadyError(f"{TOKEN} is not set: jobs push neither fresh locks nor retrained models")
    git.push("upkeep-doctor", rehearse=True)
    return "a push would be taken"


def push_tags(environment: Environment) -> str:
    """Ask for a push of a tag as deployments make it, and whether anybody else may write the history of releases."""
    if zones.is_merge_request(environment):
        raise NotReadyError("merge requests make no releases")
    if environment.get("GITLAB_CI") and not (environment.get(git.RELEASE_TOKEN) or environment.get(TOKEN)):
        raise NotReadyError(f"{git.RELEASE_TOKEN} is not set: nothing can be deployed, since nothing would note it")
    git.push_tag(f"{ARTIFACT}#rehearsal", "HEAD", rehearse=True)
    if not (environment.get(TOKEN) and environment.get("CI_PROJECT_ID")):
        return f"a tag would be taken; without {TOKEN}, nobody can say whether {ARTIFACT}* are protected"
    if tag := find_open_tag(open_project(environment), ARTIFACT):
        remedy = f"protect the tags {ARTIFACT}*, for maintainers to create; docs/gitlab.md, step 1"
        raise UpkeepError(f"{tag} is not protected: anybody who may push can say what a rollback ships", remedy=remedy)
    return "a tag would be taken, and those there are are protected"


def use_dvc_remote(environment: Environment) -> str:
    """Write, read and remove a small file on this zone's remote as DVC itself would, with the rights that it has."""
    find_storage(environment)
    if not (zones.is_merge_request(environment) and dvc.remotes_apart()):
        return _use_remote(None)
    told = _use_remote(REMOTE)
    try:
        _use_remote(None)
    except UpkeepError:
        return told
    remedy = f"give merge requests a key that only reads there, and writes to {REMOTE}"
    raise UpkeepError("merge requests can write to the remote that protected pipelines believe", remedy=remedy)


def _use_remote(name: str | None) -> str:
    from dvc.repo import Repo

    settings, label = dvc.find_remote(name), f"doctor-{uuid.uuid4().hex}"
    if not settings.get("verify"):
        remedy = f"dvc remote modify {settings['name']} verify true"
        raise UpkeepError("damaged files on the remote would be taken for sound ones", remedy=remedy)
    folder = Path(settings["url"]).parent
    if "://" not in settings["url"] and not folder.is_dir():
        raise UpkeepError(f"there is no folder {folder}", remedy="mount it, or correct the remote's address")
    try:
        with Repo(".") as repo:
            store: Any = repo.cloud.get_remote_odb(name)
            file = store.fs.join(store.path, label)
            store.fs.makedirs(store.path, exist_ok=True)
            store.fs.pipe_file(file, label.encode())
            found = store.fs.cat_file(file)
            store.fs.rm_file(file)
    except Exception as error:  # each kind of storage has errors of its own
        what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        remedy = "check the address in .dvc/config, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do there"
        raise UpkeepError(what, remedy=f"{remedy}: write, read and delete; and AWS_CA_BUNDLE") from error
    if found != label.encode():
        raise UpkeepError(f"{store.path} gives back other bytes than were written", remedy="read the storage's log")
    return f"{store.path} can be written and read"


def reach_engine(environment: Environment) -> str:
    """Ask the container engine for its version, where images are built."""
    _require_building(environment)
    engine = find_engine(environment)
    remedy = "start the engine, and let this user use it; UPKEEP_ENGINE and DOCKER_HOST say which one"
    _run_program([engine, "version"], environment, engine, remedy)
    return f"{engine} answers"


def log_in_to_registry(environment: Environment) -> str:
    """Ask the registry for the right to push, which merge requests need not have."""
    _require_building(environment)
    if zones.is_merge_request(environment):
        raise NotReadyError("merge requests push no image")
    host, _, path = find_registry(environment).partition("/")
    # As deploy/push.sh does: GitLab's own login is for nobody but its own registry.
    login_of = "UPKEEP" if environment.get("UPKEEP_REGISTRY_USER") or environment.get("CI_REGISTRY") != host else "CI"
    user, password = (environment.get(f"{login_of}_REGISTRY_{part}", "") for part in ("USER", "PASSWORD"))
    local = host.startswith(("127.0.0.1", "localhost"))  # engines take these without TLS, too
    url = f"{'http' if local else 'https'}://{host}/v2/"
    answer = _ask_server(url, "UPKEEP_IMAGE", environment)
    challenge = answer.headers.get("WWW-Authenticate", "")
    if challenge.lower().startswith("bearer "):
        terms = parse_dict_header(challenge[len("bearer ") :])
        query = {"service": terms.get("service", ""), "scope": f"repository:{path}:pull,push"}
        url = f"{terms['realm']}?{urlencode(query)}"
    if challenge:
        login = urllib3.make_headers(basic_auth=f"{user}:{password}") if user else {}
        answer = _ask_server(url, "UPKEEP_IMAGE", environment, **login)
    if "html" in answer.headers.get("Content-Type", ""):
        raise UpkeepError(f"{host} answers with a web page", remedy="check that UPKEEP_IMAGE names a registry")
    if answer.status != HTTPStatus.OK:
        remedy = "check UPKEEP_REGISTRY_USER and UPKEEP_REGISTRY_PASSWORD, such as a deploy token with write_registry"
        raise UpkeepError(f"{host} refuses the login of {user or 'nobody'}: {answer.status}", remedy=remedy)
    return f"{host} takes the login of {user or 'anybody'}"


def log_in_to_server(environment: Environment) -> str:
    """Ask the customer's server whether it has what a deployment needs, the way a deployment gets there."""
    missing = [name for name in DEPLOYMENT if not environment.get(name)]
    if missing == [*DEPLOYMENT]:
        raise NotReadyError(f"not set: {', '.join(missing)}")
    if environment.get("CI_ENVIRONMENT_NAME") == "staging" and not environment.get("UPKEEP_STAGING_URL"):
        missing.append("UPKEEP_STAGING_URL")  # where `smoke staging` asks
    if missing:
        raise UpkeepError(f"not set: {', '.join(missing)}", remedy="set it in the CI settings, or export it")
    host, port = environment["DEPLOY_HOST"], environment.get("DEPLOY_PORT") or "22"
    done = git.run([SHIP, "check"], environment, SECONDS)
    if done.returncode and done.stderr.startswith("error: "):  # what the scripts found, there or here
        what, *_, remedy = done.stderr.removeprefix("error: ").splitlines()
        raise UpkeepError(what, remedy=remedy.partition("remedy:")[2].strip())
    if done.returncode:
        what, remedy = next(words for sign, *words in SSH_FAULTS if sign in done.stderr)
        printed = git.find_reason(done.stderr)
        raise UpkeepError(what.format(host=host, port=port, printed=printed), remedy=remedy.format(port=port))
    return f"{host} has the pinned host key, lets us in, and has what a deployment needs"


def reach_tracking_server(environment: Environment) -> str:
    """Search MLflow's experiments."""
    uri = environment.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not uri.startswith("http"):
        raise NotReadyError("MLFLOW_TRACKING_URI names no server: runs are recorded in a file")
    try:
        connect(uri)
    except Exception as error:  # MLflow has many kinds; each means that no run would arrive
        remedy = (
            "check the variables MLFLOW_TRACKING_*, firewall and proxy, and REQUESTS_CA_BUNDLE if you have your own"
        )
        raise UpkeepError(summarize(error, uri), remedy=f"{remedy} authority") from error
    return f"{uri} answers"


def use_token(environment: Environment) -> str:
    """Ask GitLab what the project tokens may do, and until when."""
    told = []
    for name, wanted in TOKENS.values():
        if not environment.get(name):
            continue
        token, needed, remedy = read_token(environment, name), wanted["scopes"][0], "see docs/gitlab.md, step 4"
        if needed not in token.scopes:
            raise UpkeepError(f"{name} has no scope {needed}, only {', '.join(token.scopes)}", remedy=remedy)
        if name == NOTE_TOKEN and len(token.scopes) > 1:
            what = f"{name}, which merge requests can read, has more scopes: {', '.join(token.scopes)}"
            raise UpkeepError(what, remedy=remedy)
        ends = token.expires_at
        if ends and (date.fromisoformat(ends) - datetime.now(UTC).date()).days < TOKEN_DAYS:
            raise UpkeepError(f"{name} ends on {ends}", remedy=f"*Rotate* it, or run `upkeep gitlab-setup`; {remedy}")
        told.append(f"{name} has the scope {needed}{f' until {ends}' if ends else ''}")
    if not told:
        raise NotReadyError("no token is set: jobs write no notes and issues and push nothing", step=4)
    return "; ".join(told)


def reach_webhook(environment: Environment) -> str:
    """Ask for the front page of the host that failures are told to, without telling one."""
    url = urlsplit(environment.get(WEBHOOK, ""))
    if not url.hostname:
        raise NotReadyError(f"{WEBHOOK} is not set: a failed schedule opens an issue, if there is a token")
    _ask_server(f"{url.scheme}://{url.netloc}/", WEBHOOK, environment)
    return f"{url.hostname} can be reached"


def compare_clocks(environment: Environment) -> str:
    """Compare this machine's clock, by which a schedule tells what is new and storage is asked, with GitLab's."""
    if not (server := environment.get("CI_SERVER_URL")):
        raise NotReadyError("compared with GitLab's in its jobs only")
    theirs = parsedate_to_datetime(_ask_server(server, "CI_SERVER_URL", environment).headers["Date"])
    if (skew := abs((datetime.now(UTC) - theirs).total_seconds())) > LARGEST_SKEW:
        raise UpkeepError(f"this machine's clock is {skew:,.0f} s off GitLab's", remedy="switch on NTP")
    return "this machine's clock agrees with GitLab's"


def _run_program(command: list[str], environment: Environment, what: str, remedy: str) -> str:
    """Run a program and return what it prints; an error says why it failed."""
    done = git.run(command, {**environment, "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}, SECONDS)
    if done.returncode:
        raise UpkeepError(f"{what}: {git.find_reason(done.stderr)}", remedy=remedy)
    return done.stdout


def _ask_server(url: str, variable: str, environment: Environment, **headers: str) -> Any:
    """Return a server's answer; an error, which names the `variable` that holds its address, if there is none."""
    try:
        with urllib3.PoolManager(ssl_context=trust(environment), retries=False, timeout=SECONDS) as pool:
            return pool.request("GET", url, headers=headers)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        host = urlsplit(url).netloc.rpartition("@")[2]
        remedy = f"check {variable}, firewall and proxy, and SSL_CERT_FILE if the certificate is of your own authority"
        raise UpkeepError(f"{host} does not answer: {error}", remedy=remedy) from error


def _require_building(environment: Environment) -> None:
    if environment.get("UPKEEP_BUILD") == "false":
        raise NotReadyError("UPKEEP_BUILD is false: no image is built or pushed")


CHECKS: dict[str, Callable[[Environment], str]] = {
    "variables": look_at_variables,
    "zones": look_at_zones,
    "git remote": read_git_remote,
    "push": push_to_git_remote,
    "releases": push_tags,
    STORAGE: use_dvc_remote,
    "engine": reach_engine,
    "registry": log_in_to_registry,
    "server": log_in_to_server,
    "MLflow": reach_tracking_server,
    "token": use_token,
    "alerts": reach_webhook,
    "clock": compare_clocks,
}
