"""GitLab's API: notes, uploads, issues, releases.

Answers are bounded in time, in size and in the rows of a list, and redirects to other hosts are refused, since they
would take the token along.
"""

import hashlib
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gitlab
import requests
from gitlab.v4.objects import PersonalAccessToken, Project
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from upkeep.core.errors import UpkeepError
from upkeep.core.text import show_text
from upkeep.gitlab.zones import TOKEN, Environment

JOB = "CI_JOB_TOKEN"
MARKER = "<!-- upkeep: the note on this merge request -->"  # its invisible first line, by which it is found again
CHANGELOG = Path("CHANGELOG.md")
SECTION = re.compile(r"^## (\S+).*\n(?s:(.*?))(?=^## |\Z)", re.MULTILINE)
SECONDS, ALL_SECONDS = 30, 300  # to wait for a server that says nothing, and for all that one step asks of it
MOST_BYTES = 20_000_000  # of one answer
MOST_ROWS = 2_000  # of a list, such as the notes on a merge request
MOST_SAID = 300  # characters of what it says in an error
MAX_TITLE = 255  # characters; GitLab refuses an issue with a longer title

# Of requests that may be sent twice; python-gitlab itself waits where GitLab asks for it, with 429.
RETRIES = Retry(total=4, connect=0, other=0, status_forcelist=(502, 503, 504), backoff_factor=0.5, retry_after_max=60)
REMEDIES = {  # by GitLab's answer; 0 is any other
    0: "read what it answered; its administrator finds more in its log",
    400: "check that this GitLab is 17.1 or newer; what is masked must be 8 characters or more on one line",
    401: "make a new project access token with the scope `api` (Settings > Access tokens) and store it in the variable "
    "of the old one, which may have expired",
    403: "make a project access token with the scope `api` and the role that docs/gitlab.md, step 4, names",
    404: "check that the token belongs to this very project, and that the merge request is there",
}
NO_ANSWER = (
    "check CI_SERVER_URL, whose host no redirect may leave, and the network; a private authority's certificate goes to "
    "the file CI_SERVER_TLS_CA_FILE"
)

# What python-gitlab raises if an answer is not as GitLab's API describes it.
MALFORMED = (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def open_project(environment: Environment, *, token: str = TOKEN) -> Project:
    """Open the project ``CI_PROJECT_ID`` on ``CI_SERVER_URL`` with the token in the variable `token`.

    Like all functions here it raises an UpkeepError if a variable is missing or GitLab does not answer or refuses.
    """
    project = _variable(environment, "CI_PROJECT_ID")
    server = _open_server(environment, token)
    with explained(f"opening project {project} on {server.url}"):
        if token != JOB:
            server.auth()
        return server.projects.get(project, lazy=token == JOB)


def read_token(environment: Environment, token: str) -> PersonalAccessToken:
    """Return GitLab's record of a token: its `scopes`, and `expires_at`, its last day in ISO 8601 or None."""
    with explained(f"asking for the rights of {token}"):
        return _open_server(environment, token).personal_access_tokens.get("self")


def put_note(project: Project, merge_request: int, body: str, picture: Path | None = None) -> None:
    """Write upkeep's note on a merge request, or replace the text of the one that is there.

    A note by an earlier token stays, since only its author and maintainers may change it. A picture that `body` links
    to by name is uploaded unless the present note shows the same one.
    """
    own = getattr(project.manager.gitlab.user, "id", None)
    with explained(f"writing the note on merge request !{merge_request}"):
        notes = project.mergerequests.get(merge_request, lazy=True).notes
        found = _find(notes, lambda note: note.author["id"] == own and note.body.startswith(MARKER))
        if picture:
            content = picture.read_bytes()
            name = f"{hashlib.sha256(content).hexdigest()[:12]}-{picture.name}"
            shown = re.search(rf"\]\(([^)]*/{re.escape(name)})\)", found.body if found else "")
            address = shown[1] if shown else project.upload(name, filedata=content)["url"]
            body = body.replace(f"]({picture.name})", f"]({address})")
        _put(notes, found, {"body": f"{MARKER}\n{body}"})


def put_issue(project: Project, title: str, body: str, labels: Sequence[str]) -> str:
    """Open an issue, or update the open one with this title and these labels; return its address."""
    title = title[:MAX_TITLE]
    with explained(f"writing the issue '{title}'"):
        found = _find(project.issues, lambda issue: issue.title == title, state="opened", labels=list(labels))
        fields = {"description": body, "title": title, "labels": ",".join(labels)}
        return str(_put(project.issues, found, fields)["web_url"])


def find_open_tag(project: Project, beginning: str) -> str | None:
    """Return the name of an unprotected tag with this beginning, or None.

    Only maintainers can list protections, but whoever may read a tag sees whether it is protected.
    """
    with explained(f"reading the tags {beginning}*"):
        found = _find(project.tags, lambda tag: not tag.protected, search=f"^{beginning}")
        return str(found.name) if found else None


def release(environment: Environment) -> str:
    """Create the release of the job's tag from the changelog, or update its text; return its address."""
    tag, digest = environment.get("CI_COMMIT_TAG", ""), environment.get("IMAGE_DIGEST")
    version = tag.removeprefix("v")
    text = dict(SECTION.findall(CHANGELOG.read_text(encoding="utf-8"))).get(version, "").strip()
    if not text:
        what = f"{CHANGELOG} says nothing of {version or 'a release: the job has no tag'}"
        remedy = "name the section *Unreleased* after the version, as CONTRIBUTING.md says, and tag that commit"
        raise UpkeepError(what, remedy=remedy, file=CHANGELOG)
    text += f"\n\nImage: `{digest}`\n" if digest else "\n"
    project = open_project(environment, token=JOB)
    with explained(f"writing the release of {tag}"):
        found = _find(project.releases, lambda made: made.tag_name == tag)
        fields = {"description": text, "tag_name": tag, "name": tag}
        return str(_put(project.releases, found, fields)["_links"]["self"])


def _find(manager: Any, fits: Callable[[Any], bool], **which: Any) -> Any:
    return next(filter(fits, islice(manager.list(iterator=True, **which), MOST_ROWS)), None)


def _put(manager: Any, found: Any, fields: dict[str, str]) -> Any:
    """Update the text of what was found, the first of the `fields`, or create it; return GitLab's record of it."""
    text = dict(islice(fields.items(), 1))
    return manager.update(found.get_id(), text) if found else manager.create(fields).attributes


class _Adapter(HTTPAdapter):
    """Reads no more of an answer than `MOST_BYTES`."""

    def send(self, request: requests.PreparedRequest, *options: Any, **named: Any) -> requests.Response:
        response = super().send(request, *options, **named)
        content = b""
        for chunk in response.iter_content(MOST_BYTES // 20):
            content += chunk
            if len(content) > MOST_BYTES:
                raise requests.ConnectionError(f"its answer is larger than {MOST_BYTES:,} bytes")
        response._content = content  # what requests itself would keep of it
        return response


def _open_server(environment: Environment, token: str) -> gitlab.Gitlab:
    url, secret = _variable(environment, "CI_SERVER_URL"), _variable(environment, token)
    session = requests.Session()
    session.adapters.clear()  # only the server itself can be asked: a redirect to another one would get the token
    session.mount(f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/", _Adapter(max_retries=RETRIES))
    return gitlab.Gitlab(
        url,
        private_token=None if token == JOB else secret,
        job_token=secret if token == JOB else None,
        ssl_verify=environment.get("CI_SERVER_TLS_CA_FILE") or True,
        timeout=SECONDS,
        session=session,
        per_page=100,
        keep_base_url=True,  # what it takes for its own address, in links to further pages, may be another one
    )


def _variable(environment: Environment, name: str) -> str:
    if value := environment.get(name):
        return value
    remedy = f"set {TOKEN} to a project access token with the scope `api`, in Settings > CI/CD > Variables; "
    raise UpkeepError(f"the variable {name} is not set", remedy=f"{remedy}GitLab itself sets those that begin with CI_")


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn refusals, silence and malformed answers into an UpkeepError without the token in it.

    An alarm signal ends whatever takes too long: a look-up, a byte, or the pause that a busy server asks for.
    """

    def stop(*_: object) -> None:
        remedy = "run the job again; if it happens again, ask GitLab's administrator what it is busy with"
        raise UpkeepError(f"{doing} took longer than {ALL_SECONDS} s", remedy=remedy)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, ALL_SECONDS)
    try:
        yield
    except (gitlab.GitlabError, OSError, *MALFORMED) as error:
        what = f"the answer is not what GitLab's API says ({type(error).__name__})"
        remedy = "check that CI_SERVER_URL is GitLab's, 17.1 or newer, and what proxies make of its answers"
        if isinstance(error, gitlab.GitlabError):
            what = f"GitLab answered {error.response_code}, {show_text(error.error_message)[:MOST_SAID]}"
            remedy = REMEDIES.get(error.response_code or 0, REMEDIES[0])
        elif isinstance(error, OSError):  # what requests raises if there is no answer, or it comes from elsewhere
            what, remedy = f"{type(error).__name__}, {show_text(error)[:MOST_SAID]}", NO_ANSWER
        raise UpkeepError(f"{doing} failed: {what}", remedy=remedy) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
