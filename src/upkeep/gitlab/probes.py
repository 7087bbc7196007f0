"""Programs and servers tried once: what it takes to build an image and to ship it, and how to ask at all.

Each check takes the environment variables and returns what is well, or raises what is wrong and how to mend it.
"""

import subprocess
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from requests.utils import parse_dict_header

from upkeep.core.errors import UpkeepError
from upkeep.gitlab import git
from upkeep.gitlab.readiness import find_engine, image_name

Environment = Mapping[str, str]

SECONDS = 20
"""How long one connection may take."""

SHIP = "deploy/ship.sh"
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
)
"""What ssh says, what that means and what to do."""

DEPLOYMENT = ("DEPLOY_HOST", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS")


class NotInUseError(Exception):
    """There is nothing to try: this part is not in use here."""


def fault(what: str, remedy: str) -> UpkeepError:
    """Return what a check raises; it may repeat a secret that a program or server has said."""
    return UpkeepError(what, remedy=remedy)


def get(url: str, headers: Mapping[str, str], variable: str, authority: str | None = None) -> Any:
    """Return a server's answer; an error, which names the `variable` that holds its address, if there is none."""
    try:
        with urllib3.PoolManager(ca_certs=authority or None, retries=False, timeout=SECONDS) as pool:
            return pool.request("GET", url, headers=dict(headers))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        remedy = f"check {variable}, firewall and proxy, and SSL_CERT_FILE if the certificate is of your own authority"
        address = urlsplit(url).netloc.rpartition("@")[2]
        raise fault(f"{address} does not answer: {error}", remedy) from error


def run(command: list[str], environment: Environment) -> subprocess.CompletedProcess[str]:
    """Run a program that asks nobody anything."""
    variables = {**git.job_environment(environment), "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
    try:
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=SECONDS)
    except FileNotFoundError as error:
        raise fault(f"{command[0]} was not found", f"install {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise fault(f"{command[0]} had no answer in {SECONDS} s", "check the address, firewall and proxy") from error


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
    done = run([engine, "version"], environment)
    if done.returncode:
        remedy = "start the engine, and let this user use it; UPKEEP_ENGINE and DOCKER_HOST say which one"
        raise fault(f"{engine}: {git.find_reason(done.stderr)}", remedy)
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
    answer = get(url, {}, "UPKEEP_IMAGE")
    challenge = answer.headers.get("WWW-Authenticate", "")
    if challenge.lower().startswith("bearer "):
        terms = parse_dict_header(challenge[len("bearer ") :])
        query = urlencode({"service": terms.get("service", ""), "scope": f"repository:{path}:pull,push"})
        own = urlsplit(terms["realm"]).hostname == environment.get("CI_SERVER_HOST")
        authority = environment.get("CI_SERVER_TLS_CA_FILE") if own else None
        answer = get(f"{terms['realm']}?{query}", login, "UPKEEP_IMAGE", authority)
    elif challenge:
        answer = get(url, login, "UPKEEP_IMAGE")
    if "html" in answer.headers.get("Content-Type", ""):
        raise fault(f"{host} answers with a web page", "check that UPKEEP_IMAGE names a registry")
    if answer.status != HTTPStatus.OK:
        remedy = (
            "check UPKEEP_REGISTRY_USER and UPKEEP_REGISTRY_PASSWORD, such as a deploy token with write_registry; if "
            "they are protected, they are not there in a merge request"
        )
        raise fault(f"{host} refuses the login of {user or 'nobody'}: {answer.status}", remedy)
    return f"{host} takes the login of {user or 'anybody'}"


def log_in_to_server(environment: Environment) -> str:
    """Ask the customer's server whether it has what a deployment needs, the way a deployment gets there."""
    missing = [name for name in DEPLOYMENT if not environment.get(name)]
    if len(missing) == len(DEPLOYMENT):
        raise NotInUseError(f"not set: {', '.join(DEPLOYMENT)}")
    if missing:
        raise fault(f"not set: {', '.join(missing)}", "set it in the CI settings, or export it")
    done = run([SHIP, "check"], environment)
    if done.returncode:
        raise _explain_ssh(done.stderr, environment["DEPLOY_HOST"], environment.get("DEPLOY_PORT") or "22")
    return f"{environment['DEPLOY_HOST']} has the pinned host key, lets us in, and has what a deployment needs"


def _explain_ssh(printed: str, host: str, port: str) -> UpkeepError:
    if printed.startswith("error: "):  # what the scripts found, there or here
        what, *_, remedy = printed.removeprefix("error: ").splitlines()
        return fault(what, remedy.partition("remedy:")[2].strip())
    for sign, what, remedy in SSH_FAULTS:
        if sign in printed:
            return fault(what.format(host=host, port=port), remedy.format(port=port))
    what = f"{host} does not answer: {git.find_reason(printed)}"
    return fault(what, "check DEPLOY_HOST, DEPLOY_PORT and the firewall")
