"""A command's last error: kept for later jobs, and sent to the people who have to fix it."""

import contextlib
import re
import ssl
from functools import partial
from pathlib import Path

import urllib3
from pydantic import ValidationError

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_regular, write_whole
from upkeep.core.threads import call_within
from upkeep.core.types import Frozen
from upkeep.gitlab.markdown import WORD_JOINER, code, inert
from upkeep.gitlab.zones import TOKEN, Environment
from upkeep.reporting.markdown import Markdown

PIPELINE = Path("dvc.yaml")
FAILURE = paths.LOCAL / "failure.json"
WEBHOOK = "UPKEEP_ALERT_WEBHOOK"
LABELS = ["upkeep", "failure"]
PLACES = ("stage", "plant", "batch", "column", "table", "file")
SECONDS = 10  # to wait for the webhook
MOST_BYTES = 1_000_000  # of what is kept of a failure; a branch may bring the file along


class Failure(Frozen):
    """An UpkeepError as stored; `job` is GitLab's job ID, None outside CI."""

    what: str
    expected: str
    remedy: str
    where: dict[str, str]
    job: str | None = None

    def as_error(self) -> UpkeepError:
        """Return the error that was kept."""
        return UpkeepError(self.what, expected=self.expected, remedy=self.remedy, **self.where)


def keep_failure(error: UpkeepError, environment: Environment) -> None:
    """Write ``.upkeep/failure.json`` if this folder has a pipeline; elsewhere no later job would read it."""
    if PIPELINE.exists():
        where = {name: str(value) for name, value in error.where.items()}
        job = environment.get("CI_JOB_ID")
        failure = Failure(what=error.what, expected=error.expected, remedy=error.remedy, where=where, job=job)
        with contextlib.suppress(OSError, ValueError):  # a full disk must not hide the error itself
            write_whole(FAILURE, f"{failure.model_dump_json(indent=1)}\n".encode())


def read_failure() -> Failure | None:
    """Return the failure that was kept last; None if there is none or it cannot be read."""
    with contextlib.suppress(OSError, ValidationError):
        return Failure.model_validate_json(read_regular(FAILURE, MOST_BYTES))
    return None


def notify_failure(environment: Environment) -> str:
    """Report this job's failure by an issue, a webhook, or both, whichever is set up; return what was done.

    Raises an UpkeepError if one of them fails; the other is tried all the same.
    """
    status = environment.get("CI_JOB_STATUS")
    if status in ("success", "canceled"):  # else it failed, or ran out of time
        return f"nothing to tell: the job's status is {status}"
    failure = read_failure()
    own = failure and failure.job == environment.get("CI_JOB_ID")
    title, body = describe_failure(failure if own else None, environment)
    done, errors = [], []
    for name, notify in ((TOKEN, _open_issue), (WEBHOOK, _call_webhook)):
        if environment.get(name):
            try:
                done.append(notify(title, body, environment))
            except UpkeepError as error:
                errors.append(error)
    if errors:
        what = "; ".join(error.what for error in errors)
        raise UpkeepError(what, remedy="; ".join(error.remedy for error in errors)) from errors[0]
    nobody = f"nobody was told: set {TOKEN} for an issue, or {WEBHOOK} for a message"
    return f"{title}\n{'; '.join(done) or nobody}"


def describe_failure(failure: Failure | None, environment: Environment) -> tuple[str, Markdown]:
    """Return a title, the same for the same fault, and a Markdown body; `failure` is None if upkeep kept no error."""
    from upkeep.reporting.templates import render_markdown  # the service's image, which keeps errors too, lacks jinja2

    places = {name: failure.where[name] for name in PLACES if name in failure.where} if failure else {}
    named = ", ".join(f"{name} {value}" for name, value in places.items())
    job, link = environment.get("CI_JOB_NAME", "a command"), environment.get("CI_JOB_URL")
    at = {"commit": environment.get("CI_COMMIT_SHORT_SHA"), "branch": environment.get("CI_COMMIT_REF_NAME")}
    log = Markdown(f"[the job's log]({link})" if link else "the log")
    body = render_markdown("failure.md", code=code, job=job, places=places, failure=failure, log=log, **at)
    return inert(f"{job} failed{named and f': {named}'}"), body


def trust(environment: Environment) -> ssl.SSLContext:
    """Return a TLS context that trusts the machine's authorities, or ``SSL_CERT_FILE``'s, and GitLab's own."""
    trusted = ssl.create_default_context()
    if authority := environment.get("CI_SERVER_TLS_CA_FILE"):
        trusted.load_verify_locations(authority)
    return trusted


def _open_issue(title: str, body: str, environment: Environment) -> str:
    from upkeep.gitlab.api import open_project, put_issue  # slow to import, and most teams have one of the two

    return f"wrote {put_issue(open_project(environment), title, body, LABELS)}"


def _call_webhook(title: str, body: str, environment: Environment) -> str:
    """Post JSON with the key ``text``, as Mattermost, Slack and Rocket.Chat read it; the address is a secret."""
    # Slack and Rocket.Chat mention people from within code, too.
    message = {"text": re.sub("[<@]", rf"\g<0>{WORD_JOINER}", f"**{title}**\n\n{body}")}
    try:
        with urllib3.PoolManager(ssl_context=trust(environment), timeout=SECONDS) as pool:
            # What it says is not read: it may never end.
            send = partial(pool.request, "POST", environment[WEBHOOK], json=message, redirect=False)
            status = call_within(SECONDS, partial(send, preload_content=False)).status
        found = f"it answered {status}"
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        status, found = 0, type(error).__name__
    if not 200 <= status < 300:
        remedy = f"set {WEBHOOK} in Settings > CI/CD > Variables to an address that accepts JSON with the key text"
        raise UpkeepError(f"the address in {WEBHOOK} was not told: {found}", remedy=remedy)
    return f"told {WEBHOOK}"
