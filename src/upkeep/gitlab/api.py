"""GitLab's API: a note on a merge request, uploads, an issue; python-gitlab's only caller.

What answers is bounded: in time, in size, in the rows of a list; and it is GitLab's own server or nobody, for a
redirect to another host would take the token along.
"""

import hashlib
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gitlab
import requests
from gitlab.v4.objects import PersonalAccessToken, Project, ProjectMergeRequestNote
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from upkeep.core.errors import UpkeepError
from upkeep.core.text import show_text

TOKEN = "UPKEEP_GITLAB_TOKEN"  # noqa: S105  # the variable's name, not its value
NOTE_TOKEN = "UPKEEP_NOTE_TOKEN"  # noqa: S105  # as above
"""Of jobs of merge requests, where anybody with a branch can read it: it writes notes, and pushes nothing."""

JOB = "CI_JOB_TOKEN"
RETRIES = Retry(total=4, connect=0, status_forcelist=(502, 503, 504), backoff_factor=0.5, retry_after_max=60)
"""Of requests that may be sent twice; python-gitlab itself waits where GitLab asks for it, with 429."""

MARKER = "<!-- upkeep: the note on this merge request -->"
"""Invisible first line by which the note finds itself again."""

SECONDS, ALL_SECONDS = 30, 300
"""To wait for a server that says nothing, and for all that one step asks of it."""

MOST_BYTES = 20_000_000
"""Of one answer."""

MOST_ROWS = 2_000
"""Of a list, such as the notes on a merge request."""

MOST_SAID = 300
"""Characters of what it says in an error."""

MAX_TITLE = 255
"""Characters; GitLab refuses an issue with a longer title."""


def open_project(environment: Mapping[str, str], *, token: str = TOKEN) -> Project:
    """Return the project that ``CI_PROJECT_ID`` names, on the server that ``CI_SERVER_URL`` names.

    `token` is the variable of the token to use; :data:`JOB` is the job's own, which may do little. A private
    certificate authority is taken from ``CI_SERVER_TLS_CA_FILE``. As all functions here do, it raises an UpkeepError if
    a variable is missing, the server does not answer, or it refuses the token.
    """
    project = _variable(environment, "CI_PROJECT_ID")
    server = _open_server(environment, token)
    with explained(f"opening project {project} on {server.url}"):
        if token == JOB:
            return server.projects.get(project, lazy=True)
        server.auth()
        return server.projects.get(project)


def read_token(environment: Mapping[str, str], token: str) -> PersonalAccessToken:
    """Return what GitLab knows of a token: `scopes`, and `expires_at`, its last day in ISO 8601 or None."""
    with explained(f"asking for the rights of {token}"):
        return _open_server(environment, token).personal_access_tokens.get("self")


class _Adapter(HTTPAdapter):
    """Reads no more of an answer than it may hold."""

    def send(self, request: requests.PreparedRequest, *options: Any, **named: Any) -> requests.Response:
        response = super().send(request, *options, **named)
        content = b""
        for chunk in response.iter_content(MOST_BYTES // 20):
            content += chunk
            if len(content) > MOST_BYTES:
                raise requests.ConnectionError(f"its answer is larger than {MOST_BYTES:,} bytes")
        response._content = content  # what requests itself would keep of it
        return response


def _open_server(environment: Mapping[str, str], token: str) -> gitlab.Gitlab:
    url = _variable(environment, "CI_SERVER_URL")
    session = requests.Session()
    session.adapters.clear()  # only the server itself can be asked: a redirect to another one would get the token
    session.mount(f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/", _Adapter(max_retries=RETRIES))
    return gitlab.Gitlab(
        url,
        private_token=None if token == JOB else _variable(environment, token),
        job_token=_variable(environment, JOB) if token == JOB else None,
        ssl_verify=environment.get("CI_SERVER_TLS_CA_FILE") or True,
        timeout=SECONDS,
        session=session,
        per_page=100,
        keep_base_url=True,  # what it takes for its own address, in links to further pages, may be another one
    )


def find_note(project: Project, merge_request: int) -> ProjectMergeRequestNote | None:
    """Return the note on a merge request that this token wrote, if there is one.

    That of an earlier token stays: only its own author and maintainers may change a note.
    """
    with explained(f"reading the notes of merge request !{merge_request}"):
        notes = project.mergerequests.get(merge_request, lazy=True).notes.list(iterator=True)
        user = project.manager.gitlab.user
        own = (note for note in islice(notes, MOST_ROWS) if user and note.author["id"] == user.id)
        return next((note for note in own if note.body.startswith(MARKER)), None)


def put_note(project: Project, merge_request: int, body: str) -> None:
    """Write upkeep's one note on a merge request: a new one, or the one that is there with a new text."""
    note, text = find_note(project, merge_request), f"{MARKER}\n{body}"
    with explained(f"writing the note on merge request !{merge_request}"):
        if note is None:
            project.mergerequests.get(merge_request, lazy=True).notes.create({"body": text})
        else:
            note.body = text
            note.save()


def upload(project: Project, file: Path, known: str = "") -> str:
    """Upload a picture, unless its address is in the text `known`, and return its address within the project."""
    content = file.read_bytes()
    name = f"{file.stem}-{hashlib.sha256(content).hexdigest()[:12]}{file.suffix}"
    earlier = re.search(rf"\]\(([^)]*/{re.escape(name)})\)", known)
    if earlier:
        return earlier[1]
    with explained(f"uploading {file}"):
        return str(project.upload(name, filedata=content)["url"])


def put_issue(project: Project, title: str, body: str, labels: Sequence[str]) -> str:
    """Open an issue, or write `body` into the open one that has this title and these labels; return its address."""
    title = title[:MAX_TITLE]
    with explained(f"writing the issue '{title}'"):
        issues = project.issues.list(state="opened", labels=list(labels), iterator=True)
        issue = next((issue for issue in islice(issues, MOST_ROWS) if issue.title == title), None)
        if issue is None:
            issue = project.issues.create({"title": title, "description": body, "labels": ",".join(labels)})
        else:
            issue.description = body
            issue.save()
        return str(issue.web_url)


def put_release(project: Project, tag: str, text: str) -> str:
    """Make the release of a tag, or give the one that is there this text; return its address."""
    with explained(f"writing the release of {tag}"):
        if any(release.tag_name == tag for release in islice(project.releases.list(iterator=True), MOST_ROWS)):
            project.releases.update(tag, {"description": text})
        else:
            project.releases.create({"tag_name": tag, "name": tag, "description": text})
        return str(project.releases.get(tag).attributes["_links"]["self"])


def _variable(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise UpkeepError(
            f"the variable {name} is not set",
            remedy=f"set {TOKEN} to a project access token with the scope `api`, in Settings > CI/CD > Variables; "
            "GitLab itself sets those that begin with CI_",
        )
    return value


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn GitLab's refusals, silence and nonsense into what the user can mend; the token is in none of it."""
    try:
        with _deadline(doing):
            yield
    except gitlab.GitlabError as error:
        raise UpkeepError(
            f"{doing} failed: GitLab answered {error.response_code}, {show_text(error.error_message)[:MOST_SAID]}",
            remedy=_REMEDIES.get(
                error.response_code or 0, "read what it answered; its administrator finds more in its log"
            ),
        ) from error
    except OSError as error:  # what requests raises if there is no answer, or it comes from elsewhere
        raise UpkeepError(
            f"{doing} failed: {type(error).__name__}, {show_text(error)[:MOST_SAID]}",
            remedy="check CI_SERVER_URL, whose host no redirect may leave, and the network; a private authority's "
            "certificate goes to the file CI_SERVER_TLS_CA_FILE",
        ) from error
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UpkeepError(
            f"{doing} failed: the answer is not what GitLab's API says ({type(error).__name__})",
            remedy="check that CI_SERVER_URL is GitLab's, 17.0 or newer, and what proxies make of its answers",
        ) from error


@contextmanager
def _deadline(doing: str) -> Iterator[None]:
    """End what takes too long, wherever it waits: for a name, a byte, or the end that a busy server names."""

    def stop(*_: object) -> None:
        remedy = "run the job again; if it happens again, ask GitLab's administrator what it is busy with"
        raise UpkeepError(f"{doing} took longer than {ALL_SECONDS} s", remedy=remedy)

    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return
    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, ALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


_REMEDIES = {
    400: "check that this GitLab is 17.0 or newer; what is masked must be 8 characters or more on one line",
    401: "make a new project access token with the scope `api` (Settings > Access tokens) and store it in the variable "
    "of the old one, which may have expired",
    403: "make a project access token with the scope `api` and the role that docs/gitlab.md, step 4, names",
    404: "check that the token belongs to this very project, and that the merge request is there",
}
