"""The doctor's checks of programs and servers, where images are built and shipped, runs recorded and people told."""

import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from requests.utils import parse_dict_header

from upkeep.core.errors import UpkeepError
from upkeep.gitlab.failure import WEBHOOK
from upkeep.gitlab.readiness import find_engine, image_name
from upkeep.gitlab.zones import Environment
from upkeep.releases import git
from upkeep.reporting.tracking import connect, summarize

SECONDS = 20  # one connection may take
LARGEST_SKEW = 300  # seconds between two clocks; S3 refuses requests from 900 on
AUTHORITY = "CI_SERVER_TLS_CA_FILE"
DEPLOYMENT = ("DEPLOY_HOST", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS")
SHIP = "deploy/ship.sh"
NO_QUESTIONS = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}

SSH_FAULTS = (
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
"""What ssh says, what that means and what to do; the first that fits."""


class NotInUseError(Exception):
    """There is nothing to try: this part is not in use here."""


def run(command: list[str], environment: Environment, what: str, remedy: str) -> str:
    """Run a program and return what it prints; an error says why it failed."""
    done = git.run(command, {**environment, **NO_QUESTIONS}, SECONDS)
    if done.returncode:
        raise UpkeepError(f"{what}: {git.find_reason(done.stderr)}", remedy=remedy)
    return done.stdout


def _get(url: str, variable: str, authority: str | None = None, **headers: str) -> Any:
    """Return a server's answer; an error, which names the `variable` that holds its address, if there is none."""
    try:
        with urllib3.PoolManager(ca_certs=authority or None, retries=False, timeout=SECONDS) as pool:
            return pool.request("GET", url, headers=headers)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        remedy = f"check {variable}, firewall and proxy, and SSL_CERT_FILE if the certificate is of your own authority"
        raise UpkeepError(
            f"{urlsplit(url).netloc.rpartition('@')[2]} does not answer: {error}", remedy=remedy
        ) from error


def _require_building(environment: Environment) -> None:
    if environment.get("UPKEEP_BUILD") == "false":
        raise NotInUseError("UPKEEP_BUILD is false: no image is built or pushed")


def reach_engine(environment: Environment) -> str:
    """Ask the container engine for its version, where images are built."""
    _require_building(environment)
    if not any(environment.get(name) for name in ("GITLAB_CI", "UPKEEP_ENGINE", "UPKEEP_IMAGE")):
        raise NotInUseError("UPKEEP_ENGINE and UPKEEP_IMAGE are not set: images are built in GitLab's jobs")
    engine = find_engine(environment)
    if engine is None:
        raise NotInUseError("neither docker nor podman is here: images are built elsewhere")
    remedy = "start the engine, and let this user use it; UPKEEP_ENGINE and DOCKER_HOST say which one"
    run([engine, "version"], environment, engine, remedy)
    return f"{engine} answers"


def log_in_to_registry(environment: Environment) -> str:
    """Ask the registry for the right to push."""
    _require_building(environment)
    image = image_name(environment)
    if not image:
        raise NotInUseError("UPKEEP_IMAGE and CI_REGISTRY_IMAGE are not set: images are pushed nowhere")
    host, _, path = image.partition("/")
    # As deploy/push.sh does: GitLab's own login is for nobody but its own registry.
    login_of = "UPKEEP" if environment.get("UPKEEP_REGISTRY_USER") or environment.get("CI_REGISTRY") != host else "CI"
    user, password = (environment.get(f"{login_of}_REGISTRY_{part}", "") for part in ("USER", "PASSWORD"))
    local = host.startswith(("127.0.0.1", "localhost"))  # engines take these without TLS, too
    url = f"{'http' if local else 'https'}://{host}/v2/"
    answer = _get(url, "UPKEEP_IMAGE")
    challenge = answer.headers.get("WWW-Authenticate", "")
    if challenge.lower().startswith("bearer "):
        terms = parse_dict_header(challenge[len("bearer ") :])
        query = {"service": terms.get("service", ""), "scope": f"repository:{path}:pull,push"}
        url = f"{terms['realm']}?{urlencode(query)}"
    if challenge:
        own = urlsplit(url).hostname == environment.get("CI_SERVER_HOST")
        login = urllib3.make_headers(basic_auth=f"{user}:{password}") if user else {}
        answer = _get(url, "UPKEEP_IMAGE", environment.get(AUTHORITY) if own else None, **login)
    if "html" in answer.headers.get("Content-Type", ""):
        raise UpkeepError(f"{host} answers with a web page", remedy="check that UPKEEP_IMAGE names a registry")
    if answer.status != HTTPStatus.OK:
        raise UpkeepError(
            f"{host} refuses the login of {user or 'nobody'}: {answer.status}",
            remedy="check UPKEEP_REGISTRY_USER and UPKEEP_REGISTRY_PASSWORD, such as a deploy token with "
            "write_registry; if they are protected, they are not there in a merge request",
        )
    return f"{host} takes the login of {user or 'anybody'}"


def log_in_to_server(environment: Environment) -> str:
    """Ask the customer's server whether it has what a deployment needs, the way a deployment gets there."""
    missing = [name for name in DEPLOYMENT if not environment.get(name)]
    if len(missing) == len(DEPLOYMENT):
        raise NotInUseError(f"not set: {', '.join(DEPLOYMENT)}")
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
        raise NotInUseError("MLFLOW_TRACKING_URI names no server: runs are recorded in a file")
    try:
        connect(uri)
    except Exception as error:  # MLflow has many kinds; each means that no run would arrive
        raise UpkeepError(
            summarize(error, uri),
            remedy="check MLFLOW_TRACKING_URI, and MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, firewall and proxy, and REQUESTS_CA_BUNDLE if the certificate is of your own "
            "authority",
        ) from error
    return f"{uri} answers"


def reach_webhook(environment: Environment) -> str:
    """Connect to the host that failures are told to, without telling one."""
    url = environment.get(WEBHOOK, "")
    if not url:
        raise NotInUseError(f"{WEBHOOK} is not set: a failed schedule opens an issue, if there is a token")
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    host = f"{address.hostname}:{port}"
    try:
        socket.create_connection((address.hostname or "", port), SECONDS).close()
    except OSError as error:
        raise UpkeepError(f"{host} cannot be reached: {error}", remedy=f"check {WEBHOOK} and the firewall") from error
    return f"{host} can be reached"


def compare_clocks(environment: Environment) -> str:
    """Compare this machine's clock, by which schedules tell what is new, with GitLab's."""
    if today := environment.get("UPKEEP_TODAY"):
        raise UpkeepError(f"UPKEEP_TODAY is set: schedules take {today} for today", remedy="remove it after use")
    server = environment.get("CI_SERVER_URL")
    if not server:
        raise NotInUseError("compared with GitLab's in its jobs only")
    answer = _get(server, "CI_SERVER_URL", environment.get(AUTHORITY))
    skew = abs((datetime.now(UTC) - parsedate_to_datetime(answer.headers["Date"])).total_seconds())
    if skew > LARGEST_SKEW:
        raise UpkeepError(f"this machine's clock is {skew:.0f} s off GitLab's", remedy="switch on NTP")
    return "this machine's clock agrees with GitLab's"
