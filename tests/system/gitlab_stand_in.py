"""A stand-in for GitLab's REST API, since GitLab itself is too large to run beside the tests.

It keeps to GitLab's documented schema (docs.gitlab.com/api: projects, notes, merge requests, issues, uploads, tokens,
CI variables, schedules, protections, runners, tags, releases) in what upkeep uses: fields, pages, statuses. It refuses
what GitLab refuses: no token or a wrong one (401), a token without the scope or role or another author's note (403), a
project or object that is not there, or is private and not this token's (404), missing fields, too long texts and
secrets that cannot be masked (400). On demand it answers as a busy one does (429), or a proxy before one that restarts
(502).
Unknown fields, which GitLab ignores, are refused as well, for they are our mistakes; but not those of a project, which
users word.
Everything else that this project's tests meet is the real thing.
"""

import email
import json
import re
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

LONGEST_TEXT = 1_000_000
LONGEST_TITLE = 255
LAST_DAY = "2999-12-31"
"""Of every token."""
REPORTER, DEVELOPER, MAINTAINER = 20, 30, 40
ISSUE_FIELDS = {"title", "description", "labels", "confidential", "assignee_ids", "state_event"}
MERGE_REQUEST_FIELDS = {"source_branch", "target_branch", "title", "description", "labels", "remove_source_branch"}


class Token(NamedTuple):
    """A project access token; GitLab makes one bot user for each."""

    id: int
    value: str
    scopes: list[str]
    role: int = DEVELOPER
    member: bool = True

    @property
    def author(self) -> dict:
        return {"id": self.id, "name": "upkeep", "username": f"project_1_bot_{self.id}", "state": "active"}


class RefusalError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, answer: dict) -> None:
        super().__init__(status)
        self.status, self.answer = status, answer


class GitLab(ThreadingHTTPServer):
    """One project, in memory.

    Attributes
    ----------
    notes
        By merge request.
    merge_requests, issues
        In the order they were made.
    tags
        Of the repository: `name`, and whether it is `protected`.
    uploads
        Content by address.
    requests
        Method and path of each, as they came.
    settings
        What maintainers set, by kind: the last part of its address.
    refusals
        Statuses that the next requests get in place of an answer.
    """

    daemon_threads = True

    def __init__(self, path: str = "plants/upkeep", number: int = 1) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        self.project = {
            "id": number,
            "path_with_namespace": path,
            "default_branch": "main",
            "name": path.split("/")[-1],
        }
        self.tokens: dict[str, Token] = {}
        self.notes: dict[int, list[dict]] = {}
        self.merge_requests: list[dict] = []
        self.issues: list[dict] = []
        self.tags: list[dict] = []
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.settings: dict[str, list[dict]] = {kind: [] for kind in SETTINGS}
        self.refusals: list[int] = []
        self.lock = threading.Lock()
        self.made = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def environment(self, merge_request: int | None = None, scopes: tuple[str, ...] = ("api",)) -> dict[str, str]:
        """Return the variables of a job that holds a new token."""
        variables = {
            "CI_SERVER_URL": self.url,
            "CI_PROJECT_ID": str(self.project["id"]),
            "UPKEEP_GITLAB_TOKEN": self.add_token(*scopes),
        }
        return variables | ({"CI_MERGE_REQUEST_IID": str(merge_request)} if merge_request else {})

    def add_token(self, *scopes: str, role: int = DEVELOPER, member: bool = True) -> str:
        token = Token(self._number(), f"glpat-{secrets.token_hex(10)}", list(scopes), role, member)
        self.tokens[token.value] = token
        return token.value

    def add_merge_request(self, source: str, target: str = "main", title: str = "Change", **fields: object) -> int:
        """Open a merge request as a push with options does, and return its number."""
        number = len(self.merge_requests) + 1
        self.merge_requests.append(
            self._stamped(
                {"iid": number, "title": title, "source_branch": source, "target_branch": target, "state": "opened"},
                description="",
                labels=[],
                draft=title.startswith("Draft:"),
                web_url=f"{self.url}/{self.project['path_with_namespace']}/-/merge_requests/{number}",
                **fields,
            )
        )
        self.notes[number] = []
        return number

    def add_note(self, merge_request: int, body: str, author: dict, *, system: bool = False) -> dict:
        note = self._stamped(
            {"body": body, "author": author, "system": system, "noteable_type": "MergeRequest"},
            noteable_iid=merge_request,
            resolvable=False,
            confidential=False,
        )
        self.notes[merge_request].append(note)
        return note

    def _stamped(self, fields: dict, **more: object) -> dict:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return {
            "id": self._number(),
            "project_id": self.project["id"],
            "created_at": now,
            "updated_at": now,
            **fields,
            **more,
        }

    def _number(self) -> int:
        self.made += 1
        return self.made


class Handler(BaseHTTPRequestHandler):
    server: GitLab
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        self.server.requests.append(f"{self.command} {address.path}")
        if self.server.refusals:
            self._send(self.server.refusals.pop(0), {"message": "not now"}, {"Retry-After": "0"})
            return
        try:
            with self.server.lock:
                answer = self._route(unquote(address.path.removeprefix("/api/v4/")), address.path)
                self._send(201 if self.command == "POST" else 200, answer)
        except RefusalError as refusal:
            self._send(refusal.status, refusal.answer)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  # http.server's names

    def _route(self, path: str, raw: str) -> object:
        if not raw.startswith("/api/v4/"):
            raise RefusalError(404, {"error": "404 Not Found"})
        self.token = self._authenticate()
        project = rf"projects/(?:{self.server.project['id']}|{re.escape(self.server.project['path_with_namespace'])})"
        if path.startswith("projects/") and not (self.token.member and re.match(rf"{project}(/|$)", path)):
            raise RefusalError(404, {"message": "404 Project Not Found"})
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern.format(project=project), path)
            if match and method == self.command:
                self._require_scope(pattern)
                return answer(self, *(int(group) if group.isdigit() else group for group in match.groups()))
        raise RefusalError(404, {"error": "404 Not Found"})

    def _authenticate(self) -> Token:
        given = (
            self.headers.get("PRIVATE-TOKEN")
            or self.headers.get("JOB-TOKEN")
            or (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        )
        if given not in self.server.tokens:
            raise RefusalError(401, {"message": "401 Unauthorized"})
        return self.server.tokens[given]

    def _require_scope(self, pattern: str) -> None:
        enough = {"api", "read_api"} if self.command == "GET" else {"api"}
        if pattern.endswith(SETTABLE) and self.token.role < MAINTAINER:
            raise RefusalError(403, {"message": "403 Forbidden"})
        if pattern != OWN_TOKEN and not enough & set(self.token.scopes):
            told = "The request requires higher privileges than provided by the access token."
            raise RefusalError(
                403, {"error": "insufficient_scope", "error_description": told, "scope": " ".join(enough)}
            )

    def fields(self, known: set[str], required: set[str] = frozenset()) -> dict:
        """Return the fields of a JSON body, none of them unknown, too long or missing."""
        fields = json.loads(self.body or b"{}")
        for name in sorted(required):
            if not fields.get(name):
                raise RefusalError(400, {"error": f"{name} is missing"})
        unknown = ", ".join(sorted(fields.keys() - known - {"id"}))
        if unknown:
            raise RefusalError(400, {"error": f"{unknown}: no such field"})
        for name, longest in (("body", LONGEST_TEXT), ("description", LONGEST_TEXT), ("title", LONGEST_TITLE)):
            if len(fields.get(name) or "") > longest:
                raise RefusalError(400, {"message": {name: [f"is too long (maximum is {longest} characters)"]}})
        return fields

    def _send(self, status: int, answer: object, more: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json", **(more or {})}
        if isinstance(answer, list):
            answer, headers = self._page(answer, headers)
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _page(self, rows: list, headers: dict[str, str]) -> tuple[list, dict[str, str]]:
        page, size = int(self.query.get("page", 1)), min(int(self.query.get("per_page", 20)), 100)
        more = page * size < len(rows)
        following = f"{self.server.url}{urlsplit(self.path).path}?{urlencode({**self.query, 'page': page + 1})}"
        headers = headers | {"X-Page": str(page), "X-Per-Page": str(size), "X-Total": str(len(rows))}
        headers |= {"X-Next-Page": str(page + 1), "Link": f'<{following}>; rel="next"'} if more else {"X-Next-Page": ""}
        return rows[(page - 1) * size : page * size], headers

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _found(rows: list[dict], key: str, number: int) -> dict:
    for row in rows:
        if row[key] == number:
            return row
    raise RefusalError(404, {"message": "404 Not found"})


def get_own_token(call: Handler) -> object:
    token = call.token
    named = {"id": token.id, "name": "upkeep", "user_id": token.id, "scopes": token.scopes}
    return named | {"active": True, "revoked": False, "expires_at": LAST_DAY}


def upload(call: Handler) -> object:
    form = email.message_from_bytes(b"Content-Type: " + call.headers["Content-Type"].encode() + b"\r\n\r\n" + call.body)
    part = next((part for part in form.get_payload() if 'name="file"' in part["Content-Disposition"]), None)
    if part is None:
        raise RefusalError(400, {"error": "file is missing"})
    name = part.get_filename()
    url = f"/uploads/{secrets.token_hex(16)}/{name}"
    call.server.uploads[url] = part.get_payload(decode=True)
    stem, number = Path(name).stem, call.server.project["id"]
    return {"alt": stem, "url": url, "full_path": f"/-/project/{number}{url}", "markdown": f"![{stem}]({url})"}


def list_notes(call: Handler, merge_request: int) -> object:
    _found(call.server.merge_requests, "iid", merge_request)
    return call.server.notes[merge_request][::-1]  # the newest first, as GitLab has it


def create_note(call: Handler, merge_request: int) -> object:
    _found(call.server.merge_requests, "iid", merge_request)
    return call.server.add_note(merge_request, call.fields({"body"}, {"body"})["body"], call.token.author)


def update_note(call: Handler, merge_request: int, number: int) -> object:
    _found(call.server.merge_requests, "iid", merge_request)
    note = _found(call.server.notes[merge_request], "id", number)
    if note["author"]["id"] != call.token.id or note["system"]:
        raise RefusalError(403, {"message": "403 Forbidden"})
    note.update(call.fields({"body"}, {"body"}))
    return note


def create_merge_request(call: Handler) -> object:
    fields = call.fields(MERGE_REQUEST_FIELDS, {"source_branch", "target_branch", "title"})
    source, target = fields["source_branch"], fields["target_branch"]
    if any((each["source_branch"], each["state"]) == (source, "opened") for each in call.server.merge_requests):
        raise RefusalError(409, {"message": ["Another open merge request already exists for this source branch"]})
    number = call.server.add_merge_request(source, target, fields["title"])
    return call.server.merge_requests[number - 1]


def create_issue(call: Handler) -> object:
    fields = call.fields(ISSUE_FIELDS, {"title"})
    number = len(call.server.issues) + 1
    address = f"{call.server.url}/{call.server.project['path_with_namespace']}/-/issues/{number}"
    issue = call.server._stamped({"iid": number, "state": "opened", "description": None, "web_url": address})
    call.server.issues.append(
        issue | fields | {"labels": _labels(fields.get("labels", "")), "author": call.token.author}
    )
    return call.server.issues[-1]


def update_issue(call: Handler, number: int) -> object:
    issue, fields = _found(call.server.issues, "iid", number), call.fields(ISSUE_FIELDS)
    if fields.pop("state_event", None) == "close":
        issue["state"] = "closed"
    issue.update(fields)
    return issue


def update_project(call: Handler) -> object:
    if call.token.role < MAINTAINER:
        raise RefusalError(403, {"message": "403 Forbidden"})
    for name, value in json.loads(call.body).items():
        if name in PROJECT_FIELDS:
            call.server.project[name.removesuffix("_attributes")] = value
    return call.server.project


def list_tags(call: Handler) -> object:
    beginning = call.query["search"].removeprefix("^")
    return [tag for tag in call.server.tags if tag["name"].startswith(beginning)]


def create_setting(call: Handler, kind: str) -> object:
    fields = _check_setting(call, kind)
    made = {"id": call.server._number(), **fields}
    if kind in ROLES:
        made = _protect(call, kind, made)
    if kind == "access_tokens":
        made |= {"active": True, "token": call.server.add_token(*fields["scopes"], role=fields["access_level"])}
    if kind == "releases":
        made |= {"_links": {"self": f"{call.server.url}/plants/upkeep/-/releases/{fields['tag_name']}"}}
    call.server.settings[kind].append({name: value for name, value in made.items() if name != "token"})
    return made


def update_setting(call: Handler, kind: str, key: str | int) -> object:
    found = _find_setting(call, kind, key)
    found.update(_check_setting(call, kind))
    return found


def _protect(call: Handler, kind: str, fields: dict) -> dict:
    """Return a protection as GitLab tells it: roles as lists of those who may, maintainers where nobody was named."""
    if any(each["name"] == fields["name"] for each in call.server.settings[kind]):
        raise RefusalError(409, {"message": f"{fields['name']} is protected already"})
    roles = {f"{role}s": [{"access_level": fields.pop(role, MAINTAINER)}] for role in ROLES[kind]}
    return {**fields, **roles, **({"allow_force_push": False} if kind == "protected_branches" else {})}


def unprotect(call: Handler, kind: str, name: str) -> object:
    call.server.settings[kind].remove(_find_setting(call, kind, name))
    return {}


def rotate_token(call: Handler, key: int) -> object:
    found = _find_setting(call, "access_tokens", key)
    found["expires_at"] = json.loads(call.body)["expires_at"]
    return {**found, "token": call.server.add_token(*found["scopes"], role=found["access_level"])}


def _list_runner(row: dict) -> dict:
    """Tell of a runner only what GitLab's list does."""
    return {name: row[name] for name in ("id", "description")}


def create_runner(call: Handler) -> object:
    return {"id": create_setting(call, "runners")["id"], "token": f"glrt-{secrets.token_hex(10)}"}


def _find_setting(call: Handler, kind: str, key: str | int) -> dict:
    scope = call.query.get("filter[environment_scope]")
    for row in call.server.settings[kind]:
        if row[SETTINGS[kind][0]] == key and scope in (None, row.get("environment_scope")):
            return row
    raise RefusalError(404, {"message": "404 Not found"})


def _check_setting(call: Handler, kind: str) -> dict:
    fields = json.loads(call.body)
    unknown = fields.keys() - SETTINGS[kind][1]
    if unknown:
        raise RefusalError(400, {"error": f"{', '.join(sorted(unknown))}: no such field"})
    if fields.get("masked") and not re.fullmatch(r"\S{8,}", fields["value"]):
        raise RefusalError(400, {"message": {"value": ["is invalid"]}})
    return fields


def _chosen(call: Handler, rows: list[dict]) -> list[dict]:
    """Return the rows that the query asks for: state, labels (all of them), branches; the newest first."""
    state, labels = call.query.get("state", "all"), set(_labels(call.query.get("labels", "")))
    same = {name: call.query[name] for name in ("source_branch", "target_branch") if name in call.query}
    return [
        row
        for row in reversed(rows)
        if state in ("all", row["state"])
        and labels <= set(row["labels"])
        and all(row[name] == value for name, value in same.items())
    ]


def _labels(text: str) -> list[str]:
    return [label.strip() for label in text.split(",") if label.strip()]


VARIABLE = {"key", "value", "variable_type", "masked", "protected", "raw", "environment_scope"}
SETTINGS = {
    "variables": ("key", VARIABLE),
    "pipeline_schedules": ("id", {"description", "ref", "cron", "cron_timezone", "active"}),
    "protected_tags": ("name", {"name", "create_access_level"}),
    "protected_branches": ("name", {"name", "push_access_level", "merge_access_level", "allow_force_push"}),
    "access_tokens": ("id", {"name", "scopes", "access_level", "expires_at"}),
    "releases": ("tag_name", {"tag_name", "name", "description"}),
    "runners": ("id", {"runner_type", "project_id", "description", "tag_list", "access_level", "run_untagged"}),
}
"""What names a setting of each kind, and its fields."""

ROLES = {"protected_tags": ["create_access_level"], "protected_branches": ["push_access_level", "merge_access_level"]}
PROJECT_FIELDS = {"only_allow_merge_if_pipeline_succeeds", "container_expiration_policy_attributes"}

SETTABLE = "(variables|pipeline_schedules|protected_tags|protected_branches|access_tokens)"
SETTABLE_ONE = r"(variables|pipeline_schedules|releases)/([\w.-]+)"
OWN_TOKEN = "personal_access_tokens/self"
ROUTES: list[tuple[str, str, Callable[..., object]]] = [
    ("GET", "user", lambda call: call.token.author | {"bot": True}),
    ("GET", OWN_TOKEN, get_own_token),
    ("GET", "{project}", lambda call: call.server.project),
    ("PUT", "{project}", update_project),
    ("GET", "{project}/repository/tags", list_tags),
    ("GET", "{project}/" + SETTABLE, lambda call, kind: call.server.settings[kind]),
    ("POST", "{project}/" + SETTABLE, create_setting),
    ("DELETE", r"{project}/(protected_tags|protected_branches)/([\w.*-]+)", unprotect),
    ("POST", r"{project}/access_tokens/(\d+)/rotate", rotate_token),
    ("GET", "{project}/(releases)", lambda call, kind: call.server.settings[kind]),
    ("POST", "{project}/(releases)", create_setting),
    ("GET", "{project}/" + SETTABLE_ONE, _find_setting),
    ("PUT", "{project}/" + SETTABLE_ONE, update_setting),
    ("GET", "{project}/runners", lambda call: [_list_runner(row) for row in call.server.settings["runners"]]),
    ("POST", "user/runners", create_runner),
    ("GET", r"(runners)/(\d+)", _find_setting),
    ("PUT", r"(runners)/(\d+)", update_setting),
    ("POST", "{project}/uploads", upload),
    ("GET", r"{project}/merge_requests", lambda call: _chosen(call, call.server.merge_requests)),
    ("POST", r"{project}/merge_requests", create_merge_request),
    ("GET", r"{project}/merge_requests/(\d+)", lambda call, iid: _found(call.server.merge_requests, "iid", iid)),
    ("GET", r"{project}/merge_requests/(\d+)/notes", list_notes),
    ("POST", r"{project}/merge_requests/(\d+)/notes", create_note),
    ("PUT", r"{project}/merge_requests/(\d+)/notes/(\d+)", update_note),
    ("GET", r"{project}/issues", lambda call: _chosen(call, call.server.issues)),
    ("POST", r"{project}/issues", create_issue),
    ("PUT", r"{project}/issues/(\d+)", update_issue),
]


@contextmanager
def serving_gitlab(certificate: Path | None = None) -> Iterator[GitLab]:
    """Serve a new GitLab on a free port, over TLS if given a file of certificate and key."""
    with GitLab() as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
