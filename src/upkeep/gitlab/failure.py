"""What ended a command: kept for the jobs that come after, told to whoever has to mend it."""

import contextlib
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import urllib3

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_credentials

PIPELINE = Path("dvc.yaml")
FAILURE = paths.LOCAL / "failure.json"
WEBHOOK = "UPKEEP_ALERT_WEBHOOK"
LABELS = ["upkeep", "failure"]
PLACES = ("stage", "plant", "batch", "column", "table", "file")
TIMEOUT_SECONDS = 10
WELL = ("success", "canceled")

Failure = Mapping[str, Any]


class Alert(NamedTuple):
    """A failure in words: a title that is the same for the same fault in the same place, and Markdown below it."""

    title: str
    body: str


def keep_failure(error: UpkeepError, environment: Mapping[str, str]) -> None:
    """Write ``.upkeep/failure.json``: what, expected, remedy, where, and the job, None outside of CI.

    Only in a repository with a pipeline: anywhere else no later job would read it.
    """
    if not PIPELINE.exists():
        return
    content = {
        **{name: mask_credentials(str(getattr(error, name))) for name in ("what", "expected", "remedy")},
        "where": {name: mask_credentials(str(value)) for name, value in error.where.items()},
        "job": environment.get("CI_JOB_ID"),
    }
    with contextlib.suppress(OSError):  # a full disk is told by the error itself, not by a second one
        paths.LOCAL.mkdir(exist_ok=True)
        FAILURE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_failure() -> Failure | None:
    """Return what was kept last; None if nothing was, or it cannot be read."""
    try:
        content: Failure = json.loads(FAILURE.read_text(encoding="utf-8"))
        known = content.keys() >= {"what", "expected", "remedy"} and isinstance(content["where"], dict)
    except (OSError, ValueError, AttributeError, LookupError):
        return None
    return content if known else None


def tell_failure(environment: Mapping[str, str]) -> str:
    """Tell of the failure of this job: by a webhook, an issue, or both, whichever is set up.

    Returns
    -------
    str
        What was done, or why nothing was.

    Raises
    ------
    UpkeepError
        If the webhook or GitLab could not be told; the other one was all the same.
    """
    status = environment.get("CI_JOB_STATUS")
    if status in WELL:  # else it failed, or ran out of time
        return f"nothing to tell: the job's status is {status}"
    failure = read_failure()
    alert = describe_failure(
        failure if failure and failure.get("job") == environment.get("CI_JOB_ID") else None, environment
    )
    done, untold = [], []
    for name, tell in (("UPKEEP_GITLAB_TOKEN", _open_issue), (WEBHOOK, _post)):
        if environment.get(name):
            try:
                done.append(tell(alert, environment))
            except UpkeepError as error:
                untold.append(error)
    if untold:
        raise untold[0]
    told = "; ".join(done) or f"nobody was told: set UPKEEP_GITLAB_TOKEN for an issue, or {WEBHOOK} for a message"
    return f"{alert.title}\n{told}"


def _open_issue(alert: Alert, environment: Mapping[str, str]) -> str:
    from upkeep.gitlab.api import open_project, put_issue  # slow to import, and most teams have one of the two

    return f"wrote {put_issue(open_project(environment), *alert, LABELS)}"


def _post(alert: Alert, environment: Mapping[str, str]) -> str:
    post_alert(environment[WEBHOOK], alert, environment)
    return f"told {WEBHOOK}"


def describe_failure(failure: Failure | None, environment: Mapping[str, str]) -> Alert:
    """Put a failure into words; None stands for a job that ended without an error of upkeep's own."""
    job, link = environment.get("CI_JOB_NAME", "a command"), environment.get("CI_JOB_URL")
    log = f"[the job's log]({link})" if link else "the log"
    where = failure["where"] if failure else {}
    places = [f"{name} {as_code(where[name])}" for name in PLACES if name in where]
    title = f"{job} failed" + (
        f": {', '.join(f'{name} {where[name]}' for name in PLACES if name in where)}" if places else ""
    )
    lines = [f"**{as_code(job)}** failed{' in ' + ', '.join(places) if places else ''}; see {log}."]
    if failure:
        lines += [f"- {name}: {as_code(failure[key])}" for name, key in _WORDS.items()]
    else:
        lines.append(
            f"It left no error of upkeep's own (it may have been stopped or run out of time); {log} tells more."
        )
    commit, branch = environment.get("CI_COMMIT_SHORT_SHA"), environment.get("CI_COMMIT_REF_NAME")
    if commit:
        lines.append(f"At {commit} on {as_code(branch or 'an unnamed branch')}.")
    return Alert(title, "\n\n".join(lines) + "\n")


_WORDS = {"What was wrong": "what", "Expected": "expected", "What to do": "remedy"}


def as_code(text: object) -> str:
    """Return text as code: whatever data says, it must neither mention people nor format itself."""
    return f"`{' '.join(str(text).replace('`', chr(39)).split())}`"


def post_alert(url: str, alert: Alert, environment: Mapping[str, str]) -> None:
    """Send an alert as JSON with the key ``text``, which Mattermost, Slack and Rocket.Chat show as a message.

    Raises
    ------
    UpkeepError
        If it was not accepted. The address, whose path is a secret, is not shown.
    """
    trusted = ssl.create_default_context()
    if environment.get("CI_SERVER_TLS_CA_FILE"):
        trusted.load_verify_locations(environment["CI_SERVER_TLS_CA_FILE"])
    try:
        with urllib3.PoolManager(ssl_context=trusted, timeout=TIMEOUT_SECONDS) as pool:
            text = f"**{alert.title}**\n\n{alert.body}"
            status = pool.request("POST", url, json={"text": text}, redirect=False).status
        found = f"it answered {status}"
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        status, found = 0, type(error).__name__
    if not 200 <= status < 300:
        raise UpkeepError(
            f"the address in {WEBHOOK} was not told: {found}",
            expected="a web address that accepts JSON with the key text",
            remedy=f"correct {WEBHOOK} in Settings > CI/CD > Variables",
        )
