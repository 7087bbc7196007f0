"""A project on GitLab set up from one file: what differs from it is listed, and changed if so wished.

The file holds no secret: ``$NAME`` in a value stands for a variable of whoever runs this, and no value is ever shown.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from gitlab.base import RESTObject
from gitlab.v4.objects import Project
from pydantic import AfterValidator, Field

from upkeep.core.errors import UpkeepError
from upkeep.core.objects import read_object
from upkeep.core.secrets import SECRET_NAME, expand_variables
from upkeep.core.types import Frozen
from upkeep.gitlab import dvc, zones
from upkeep.gitlab.api import explained, open_project
from upkeep.gitlab.zones import NOTE_TOKEN, TOKEN, Environment
from upkeep.releases.git import RELEASE_TOKEN

OWN_TOKEN = "GITLAB_TOKEN"  # noqa: S105  # the variable's name, not its value
EXAMPLE = "see examples/gitlab.yaml"
REPORTER, DEVELOPER, MAINTAINER = 20, 30, 40  # GitLab's numbers for the roles
RENEW_DAYS = 30  # a token that ends sooner is replaced
KINDS = {
    "protected_tags": ("protectedtags", "name"),
    "protected_branches": ("protectedbranches", "name"),
    "schedules": ("pipelineschedules", "description"),
    "runners": ("runners", "description"),
}
"""What python-gitlab calls them, and what they are told apart by."""

Step = tuple[str, Callable[[], object]]  # what is not as the file says, and what makes it so


def _read_text(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(error.strerror) from error


class Variable(Frozen):
    """A CI variable: `value`, or a `file`'s content; its name decides on masking and protection if it does not."""

    value: str = ""
    file: Annotated[str, AfterValidator(_read_text)] | None = None
    masked: bool | None = None
    protected: bool | None = None
    expanded: bool = False
    environment: str = "*"

    def fields(self, name: str) -> dict[str, Any]:
        """Return what GitLab keeps of it."""
        text = self.value if self.expanded else expand_variables(self.value)
        secret = bool(SECRET_NAME.search(name)) and self.file is None
        theirs = self.environment == zones.ENVIRONMENT and name in zones.SHARED
        guarded = name in zones.PROTECTED and not theirs
        return {
            "key": name,
            "value": self.file or text,
            "variable_type": "file" if self.file else "env_var",
            "masked": secret if self.masked is None else self.masked,
            "protected": guarded if self.protected is None else self.protected,
            "raw": not self.expanded,
            "environment_scope": self.environment,
        }


class ProjectToken(Frozen):
    """A project access token, kept in a CI variable."""

    name: str = "upkeep"
    scopes: tuple[str, ...] = ("api", "write_repository")
    role: int = DEVELOPER
    days: int = 365


class NoteToken(ProjectToken):
    """That of merge requests, whose jobs can all read it; GitLab knows no smaller one that writes notes."""

    name: str = "upkeep-notes"
    scopes: tuple[str, ...] = ("api",)
    role: int = REPORTER


class ReleaseToken(ProjectToken):
    """That of deployments, which makes protected tags; it can do nothing but push."""

    name: str = "upkeep-releases"
    scopes: tuple[str, ...] = ("write_repository",)
    role: int = MAINTAINER


class ProjectSettings(Frozen):
    """The file; what it does not name stays as it is. Settings, protections and schedules are as GitLab's API has them.

    A variable has a list of forms, one for each environment.
    """

    url: str
    project: str
    project_settings: dict[str, Any] = Field(default={})
    protected_tags: tuple[dict[str, Any], ...] = ()
    protected_branches: tuple[dict[str, Any], ...] = ()
    schedules: tuple[dict[str, Any], ...] = ()
    runners: tuple[dict[str, Any], ...] = ()
    variables: dict[str, list[Variable]] = Field(default={})
    token: ProjectToken | None = None
    note_token: NoteToken | None = None
    release_token: ReleaseToken | None = None
    merge_requests_remote: str | None = None


class _Runners(NamedTuple):
    """The project's runners, as python-gitlab has other things: its own list tells neither tags nor protection."""

    project: Project

    def list(self, **how: Any) -> Iterator[RESTObject]:
        server = self.project.manager.gitlab
        return (server.runners.get(each.id) for each in self.project.runners.list(type="project_type", **how))

    def create(self, fields: Mapping[str, Any]) -> str:
        server, kind = self.project.manager.gitlab, {"runner_type": "project_type", "project_id": self.project.id}
        made: Any = server.http_post("/user/runners", post_data={**kind, **fields})
        return f"  on its machine: gitlab-runner register --url {server.url} --token {made['token']}"

    def update(self, number: int, fields: dict[str, Any]) -> None:
        self.project.manager.gitlab.runners.update(number, fields)


def set_up(file: Path, environment: Environment, *, apply: bool) -> str:
    """List what differs from the file and, with `apply`, change it; a second time there is nothing left to do."""
    settings = read_setup(file)
    if not environment.get(OWN_TOKEN):
        remedy = f"export {OWN_TOKEN}=..., a token of your own (role Maintainer, scope api); it is kept nowhere"
        raise UpkeepError(f"the variable {OWN_TOKEN} is not set", remedy=remedy)
    access = {"CI_SERVER_URL": settings.url, "CI_PROJECT_ID": settings.project, TOKEN: environment[OWN_TOKEN]}
    project = open_project({**environment, **access})
    with explained(f"reading how {settings.project} is set up"):
        steps = list(plan(project, settings))
    told = [words for words, _ in steps]
    for words, make in steps if apply else ():
        with explained(words):
            made = make()
        told += [made] if isinstance(made, str) else []
    if not steps:
        return "everything is as the file says"
    return "\n".join([*told, "done" if apply else "nothing is changed yet: --apply does it"])


def read_setup(file: Path) -> ProjectSettings:
    """Read the file; an error names what is wrong in it, without values."""
    return read_object(ProjectSettings, file, what="the settings", remedy=EXAMPLE)


def plan(project: Project, settings: ProjectSettings) -> Iterator[Step]:
    """Yield what differs, in the order in which it is to be changed."""
    server, wanted = project.manager.gitlab, settings.project_settings
    differing = {name: value for name, value in wanted.items() if not _holds(project.attributes, name, value)}
    if differing:
        yield f"set {', '.join(differing)}", lambda: server.projects.update(project.id, differing)
    for kind, (attribute, key) in KINDS.items():
        manager = _Runners(project) if kind == "runners" else getattr(project, attribute)
        expected = getattr(settings, kind)
        there = {getattr(each, key): each for each in (manager.list(iterator=True) if expected else ())}
        for fields in expected:
            if key not in fields:
                raise UpkeepError(f"one of {kind} has no {key}", remedy=EXAMPLE)
            yield from _compare(manager, f"{kind}: {fields[key]}", fields, there.get(fields[key]))
    known = {(each.key, each.environment_scope): each for each in project.variables.list(iterator=True)}
    for name, forms in settings.variables.items():
        for form in forms:
            yield from _compare_variable(project, form.fields(name), known.get((name, form.environment)))
    tokens = {TOKEN: settings.token, NOTE_TOKEN: settings.note_token, RELEASE_TOKEN: settings.release_token}
    for name, token in tokens.items():
        if token:
            yield from _renew_token(project, name, token, known.get((name, "*")))
    url = settings.merge_requests_remote
    if url and not dvc.remotes_apart():
        words = f"add the DVC remote {zones.REMOTE} to .dvc/config, which is then to be committed"
        yield words, lambda: dvc.add_remote(url)


def _holds(found: Mapping[str, Any], name: str, value: object) -> bool:
    # What is set as container_expiration_policy_attributes is told as container_expiration_policy, with more in it.
    there = found.get(name.removesuffix("_attributes"))
    return value.items() <= there.items() if isinstance(value, dict) and isinstance(there, dict) else there == value


def _compare(
    manager: Any, what: str, fields: dict[str, Any], found: RESTObject | None, **which: object
) -> Iterator[Step]:
    if found is None:
        yield f"add {what}", lambda: manager.create(fields)
        return
    # GitLab does not tell the value of a variable that is hidden.
    differing = [name for name, value in fields.items() if found.attributes.get(name) not in (value, None)]
    if differing:
        yield f"change {', '.join(differing)} of {what}", lambda: manager.update(found.get_id(), fields, **which)


def _compare_variable(project: Project, fields: dict[str, Any], known: RESTObject | None) -> Iterator[Step]:
    scope = fields["environment_scope"]
    what = f"variable {fields['key']}{f' of {scope}' if scope != '*' else ''}{', masked' if fields['masked'] else ''}"
    return _compare(project.variables, what, fields, known, filter={"environment_scope": scope})


def _renew_token(project: Project, name: str, token: ProjectToken, kept: RESTObject | None) -> Iterator[Step]:
    soon, ends = (str((datetime.now(UTC) + timedelta(days=days)).date()) for days in (RENEW_DAYS, token.days))
    found = None
    for each in project.access_tokens.list(iterator=True):
        fits = each.active and (each.name, each.access_level) == (token.name, token.role)
        if fits and {*token.scopes} == {*each.scopes}:  # one that may do more is no token for notes
            found = found or each
    hidden = kept is not None and kept.protected == (name in zones.PROTECTED)  # else others may know it
    if found and hidden and (found.expires_at or ends) > soon:
        return

    def make() -> None:
        # A rotated one is still the user who wrote the notes that there are.
        value = found.rotate(expires_at=ends)["token"] if found else project.access_tokens.create(fields).token
        for _, change in _compare_variable(project, Variable(value=value, masked=True).fields(name), kept):
            change()

    fields = {"name": token.name, "scopes": list(token.scopes), "access_level": token.role, "expires_at": ends}
    yield f"{'rotate' if found else 'make'} the token with {' and '.join(token.scopes)}, kept in {name}", make
