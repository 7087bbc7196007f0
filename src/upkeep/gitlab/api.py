"""GitLab's API: a note on a merge request, uploads, an issue; python-gitlab's only caller."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import gitlab
import requests
from gitlab.v4.objects import PersonalAccessToken, Project, ProjectMergeRequestNote
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from upkeep.core.errors import UpkeepError

TOKEN = "UPKEEP_GITLAB_TOKEN"  # noqa: S105  # the variable's name, not its value
JOB = "CI_JOB_TOKEN"
RETRIES = Retry(total=4, connect=0, status_forcelist=(502, 503, 504), backoff_factor=0.5, retry_after_max=60)
"""Of requests that may be sent twice; python-gitlab itself waits where GitLab asks for it, with 429."""

MARKER = "<!-- upkeep: the note on this merge request -->"
"""Invisible first line by which the note finds itself again."""

TIMEOUT_SECONDS = 30
MAX_TITLE = 255
"""Characters; GitLab refuses an issue with a longer title."""


def open_project(environment: Mapping[str, str], *, as_job: bool = False) -> Project:
    """Return the project that ``CI_PROJECT_ID`` names, on the server that ``CI_SERVER_URL`` names.

    `as_job` takes the job's own token, which may do little. A private certificate authority is taken from
    ``CI_SERVER_TLS_CA_FILE``. As all functions here do, it raises an UpkeepError if a variable is missing, the server
    does not answer, or it refuses the token.
    """
    project = _variable(environment, "CI_PROJECT_ID")
    server = _open_server(environment, as_job=as_job)
    with explained(f"opening project {project} on {server.url}"):
        if as_job:
            return server.projects.get(project, lazy=True)
        server.auth()
        return server.projects.get(project)


def read_token(environment: Mapping[str, str]) -> PersonalAccessToken:
    """Return what GitLab knows of the token: `scopes`, and `expires_at`, its last day in ISO 8601 or None."""
    with explained(f"asking for the rights of {TOKEN}"):
        return _open_server(environment).personal_access_tokens.get("self")


def _open_server(environment: Mapping[str, str], *, as_job: bool = False) -> gitlab.Gitlab:
    session = requests.Session()
    for scheme in ("http://", "https://"):  # a server that restarts, or a proxy before it
        session.mount(scheme, HTTPAdapter(max_retries=RETRIES))
    return gitlab.Gitlab(
        _variable(environment, "CI_SERVER_URL"),
        private_token=None if as_job else _variable(environment, TOKEN),
        job_token=_variable(environment, JOB) if as_job else None,
        ssl_verify=environment.get("CI_SERVER_TLS_CA_FILE") or True,
        timeout=TIMEOUT_SECONDS,
        session=session,
    )


def find_note(project: Project, merge_request: int) -> ProjectMergeRequestNote | None:
    """Return the note on a merge request that this token wrote, if there is one.

    That of an earlier token stays: only its own author and maintainers may change a note.
    """
    with explained(f"reading the notes of merge request !{merge_request}"):
        notes = project.mergerequests.get(merge_request, lazy=True).notes.list(iterator=True)
        user = project.manager.gitlab.user
        own = (note for note in notes if user and note.author["id"] == user.id)
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
        issue = next((issue for issue in issues if issue.title == title), None)
        if issue is None:
            issue = project.issues.create({"title": title, "description": body, "labels": ",".join(labels)})
        else:
            issue.description = body
            issue.save()
        return str(issue.web_url)


def put_release(project: Project, tag: str, text: str) -> str:
    """Make the release of a tag, or give the one that is there this text; return its address."""
    with explained(f"writing the release of {tag}"):
        if any(release.tag_name == tag for release in project.releases.list(iterator=True)):
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
    """Turn GitLab's refusals into what the user can mend; the token is in none of them."""
    try:
        yield
    except gitlab.GitlabError as error:
        remedy = "read what it answered; its administrator finds more in its log"
        raise UpkeepError(
            f"{doing} failed: GitLab answered {error.response_code}, {error.error_message}",
            remedy=_REMEDIES.get(error.response_code or 0, remedy),
        ) from error
    except OSError as error:  # what requests raises if there is no answer
        raise UpkeepError(
            f"{doing} failed: {type(error).__name__}, {error}",
            remedy="check CI_SERVER_URL and the network; a private authority's certificate goes to the file "
            "CI_SERVER_TLS_CA_FILE",
        ) from error


_REMEDIES = {
    400: "check that this GitLab is 17.0 or newer; what is masked must be 8 characters or more on one line",
    401: "make a new project access token with the scope `api` (Settings > Access tokens) and store it as a masked "
    f"variable {TOKEN}; an old one may have expired",
    403: f"make a project access token with the scope `api` and at least the role Developer, and store it in {TOKEN}",
    404: f"check that the token in {TOKEN} belongs to this very project, and that the merge request is there",
}
