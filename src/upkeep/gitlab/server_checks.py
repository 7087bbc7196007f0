"""The doctor's checks of what jobs connect to: storage, engine, registry, the customer's server, MLflow, webhook."""

from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

import urllib3
from requests.utils import parse_dict_header

from upkeep.core.errors import UpkeepError
from upkeep.gitlab import zones
from upkeep.gitlab.deployment import SHIP
from upkeep.gitlab.failure import WEBHOOK, trust
from upkeep.gitlab.readiness import SECONDS, NotReadyError, find_engine, find_registry, find_storage
from upkeep.gitlab.remotes import remotes_apart, try_remote
from upkeep.gitlab.zones import REMOTE, Environment
from upkeep.releases import git
from upkeep.reporting.tracking import connect, summarize

DEPLOYMENT = ("DEPLOY_HOST", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS")

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


def use_dvc_remote(environment: Environment) -> str:
    """Use this zone's remote as DVC would; merge requests must not be able to write to the default one."""
    find_storage(environment)
    if not (zones.is_merge_request(environment) and remotes_apart()):
        return try_remote(None)
    told = try_remote(REMOTE)
    try:
        try_remote(None)
    except UpkeepError:
        return told
    remedy = f"give merge requests a key that only reads there, and writes to {REMOTE}"
    raise UpkeepError("merge requests can write to the remote that protected pipelines believe", remedy=remedy)


def reach_engine(environment: Environment) -> str:
    """Ask the container engine for its version, where images are built."""
    _require_building(environment)
    engine = find_engine(environment)
    done = git.run([engine, "version"], environment, SECONDS)
    if done.returncode:
        remedy = "start the engine, and let this user use it; UPKEEP_ENGINE and DOCKER_HOST say which one"
        raise UpkeepError(f"{engine}: {git.find_reason(done.stderr)}", remedy=remedy)
    return f"{engine} answers"


def log_in_to_registry(environment: Environment) -> str:
    """Ask the registry for the right to push, which merge requests need not have."""
    _require_building(environment)
    if zones.is_merge_request(environment):
        raise NotReadyError("merge requests push no image")
    host, _, path = find_registry(environment).partition("/")
    # As deploy/push.sh does: GitLab's own login is for its own registry only.
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
        login = urllib3.make_headers(basic_auth=user and f"{user}:{password}", basic_auth_encoding="utf-8")
        answer = _ask_server(url, "UPKEEP_IMAGE", environment, **login)
    if "html" in answer.headers.get("Content-Type", ""):
        raise UpkeepError(f"{host} answers with a web page", remedy="check that UPKEEP_IMAGE names a registry")
    if answer.status != HTTPStatus.OK:
        remedy = "check UPKEEP_REGISTRY_USER and UPKEEP_REGISTRY_PASSWORD, such as a deploy token with write_registry"
        raise UpkeepError(f"{host} refuses the login of {user or 'nobody'}: {answer.status}", remedy=remedy)
    return f"{host} takes the login of {user or 'anybody'}"


def log_in_to_server(environment: Environment) -> str:
    """Log in to the customer's server as a deployment does, and ask whether it has what a deployment needs."""
    missing = [name for name in DEPLOYMENT if not environment.get(name)]
    if missing == [*DEPLOYMENT]:
        raise NotReadyError(f"not set: {', '.join(missing)}")
    if environment.get("CI_ENVIRONMENT_NAME") == "staging" and not environment.get("UPKEEP_STAGING_URL"):
        missing.append("UPKEEP_STAGING_URL")  # where `smoke staging` asks
    if missing:
        raise UpkeepError(f"not set: {', '.join(missing)}", remedy="set it in the CI settings, or export it")
    host, port = environment["DEPLOY_HOST"], environment.get("DEPLOY_PORT") or "22"
    done = git.run([SHIP, "check"], environment, SECONDS)
    if done.returncode and done.stderr.startswith("error: "):  # from the deployment's scripts, here or on the server
        what, *_, remedy = done.stderr.removeprefix("error: ").splitlines()
        raise UpkeepError(what, remedy=remedy.partition("remedy:")[2].strip())
    if done.returncode:
        what, remedy = next(words for sign, *words in SSH_FAULTS if sign in done.stderr)
        printed = git.find_reason(done.stderr)
        raise UpkeepError(what.format(host=host, port=port, printed=printed), remedy=remedy.format(port=port))
    return f"{host} has the pinned host key, lets us in, and has what a deployment needs"


def reach_tracking_server(environment: Environment) -> str:
    """Ask the tracking server for upkeep's experiment, which need not be there yet."""
    uri = environment.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not uri.startswith("http"):
        raise NotReadyError("MLFLOW_TRACKING_URI names no server: runs are recorded in a file")
    try:
        connect(uri)
    except Exception as error:  # MLflow raises many kinds; after each of them no run would arrive
        remedy = (
            "check the variables MLFLOW_TRACKING_*, firewall and proxy, and REQUESTS_CA_BUNDLE if you have your own "
            "authority"
        )
        raise UpkeepError(summarize(error, uri), remedy=remedy) from error
    return f"{uri} answers"


def reach_webhook(environment: Environment) -> str:
    """Ask the webhook's host for its front page, without sending a message."""
    url = urlsplit(environment.get(WEBHOOK, ""))
    if not url.hostname:
        raise NotReadyError(f"{WEBHOOK} is not set: a failed retraining opens an issue, if there is a token")
    _ask_server(f"{url.scheme}://{url.netloc}/", WEBHOOK, environment)
    return f"{url.hostname} can be reached"


def _require_building(environment: Environment) -> None:
    if environment.get("UPKEEP_BUILD") == "false":
        raise NotReadyError("UPKEEP_BUILD is false: no image is built or pushed")


def _ask_server(url: str, variable: str, environment: Environment, **headers: str) -> urllib3.BaseHTTPResponse:
    """Return a server's answer; an error names the `variable` that holds its address if there is none."""
    try:
        with urllib3.PoolManager(ssl_context=trust(environment), retries=False, timeout=SECONDS) as pool:
            return pool.request("GET", url, headers=headers)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        host = urlsplit(url).netloc.rpartition("@")[2]
        remedy = f"check {variable}, firewall and proxy, and SSL_CERT_FILE if the certificate is of your own authority"
        raise UpkeepError(f"{host} does not answer: {error}", remedy=remedy) from error
