"""`upkeep gitlab-setup`: list where a GitLab project differs from a file and, if asked to, change it.

The file holds no secret: ``$NAME`` in a value is filled in from the environment, and no value is ever shown.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from gitlab import GitlabError
from gitlab.v4.objects import Project
from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from upkeep.core.errors import UpkeepError
from upkeep.core.objects import read_object
from upkeep.core.secrets import SECRET_NAME, expand_variables
from upkeep.core.types import Frozen
from upkeep.gitlab import zones
from upkeep.gitlab.api import explained, open_project
from upkeep.gitlab.remotes import add_remote, find_remote, remotes_apart
from upkeep.gitlab.zones import NOTE_TOKEN, TOKEN, Environment
from upkeep.releases.git import RELEASE_TOKEN

Fields = dict[str, Any]
Step = tuple[str, Callable[[], object]]  # a difference from the file, in words, and what removes it

OWN_TOKEN = "GITLAB_TOKEN"  # noqa: S105  # the variable's name, not its value
EXAMPLE = "see examples/gitlab.yaml"
RENEW_DAYS = 30  # a token that ends sooner is replaced
# By their names in the file: the variable that keeps each token, and its defaults; roles are GitLab's numbers.
TOKENS: dict[str, tuple[str, Fields]] = {
    "token": (TOKEN, {"name": "upkeep", "scopes": ["api", "write_repository"], "role": 30}),
    "note_token": (NOTE_TOKEN, {"name": "upkeep-notes", "scopes": ["api"], "role": 20}),
    "release_token": (RELEASE_TOKEN, {"name": "upkeep-releases", "scopes": ["write_repository"], "role": 40}),
}

KINDS = {  # python-gitlab's manager of each, and the key of one; a variable's key is its environment, too
    "protected_tags": ("protectedtags", "name"),
    "protected_branches": ("protectedbranches", "name"),
    "schedules": ("pipelineschedules", "description"),
    "runners": ("runners", "description"),
    "variables": ("variables", "key"),
}


def _read_text(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(error.strerror) from error


class Variable(Frozen):
    """A CI variable: a `value` or a `file`'s content; its name gives the defaults of `masked` and `protected`."""

    value: str = ""
    file: Annotated[str, AfterValidator(_read_text)] | None = None
    masked: bool | None = None
    protected: bool | None = None
    expanded: bool = False
    environment: str = "*"

    def fields(self, name: str) -> Fields:
        """Return the variable as GitLab's API takes it."""
        text = self.value if self.expanded else expand_variables(self.value)
        secret = bool(SECRET_NAME.search(name)) and self.file is None
        theirs = self.environment == zones.ENVIRONMENT and name in zones.SHARED
        guarded = name in zones.PROTECTED and not theirs
        return {
            "key": name,
            "value": text if self.file is None else self.file,
            "variable_type": "env_var" if self.file is None else "file",
            "masked": secret if self.masked is None else self.masked,
            "protected": guarded if self.protected is None else self.protected,
            "raw": not self.expanded,
            "environment_scope": self.environment,
        }


class ProjectToken(Frozen):
    """A project access token, kept in a CI variable."""

    name: str
    scopes: tuple[str, ...]
    role: int
    days: int = 365


class ProjectSettings(Frozen):
    """The file. What it does not name stays as it is; all but variables and tokens are fields of GitLab's API."""

    url: str
    project: str
    project_settings: dict[str, Any] = Field(default={})
    protected_tags: tuple[dict[str, Any], ...] = ()
    protected_branches: tuple[dict[str, Any], ...] = ()
    schedules: tuple[dict[str, Any], ...] = ()
    runners: tuple[dict[str, Any], ...] = ()
    variables: dict[str, list[Variable]] = Field(default={})  # a form for each environment
    token: ProjectToken | None = None
    note_token: ProjectToken | None = None
    release_token: ProjectToken | None = None
    merge_requests_remote: str | None = None

    @field_validator(*TOKENS, mode="before")
    @classmethod
    def complete(cls, value: object, info: ValidationInfo) -> object:
        """Fill in a token's defaults."""
        return TOKENS[str(info.field_name)][1] | value if isinstance(value, dict) else value


def set_up(file: Path, environment: Environment, *, apply: bool) -> str:
    """Return what differs from the file and, with `apply`, change it; a second run finds nothing to do."""
    settings = read_object(ProjectSettings, file, what="the settings", remedy=EXAMPLE)
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


def plan(project: Project, settings: ProjectSettings) -> Iterator[Step]:
    """Yield the differences in the order in which they are to be removed."""
    wanted = settings.project_settings.items()
    if differing := {name: value for name, value in wanted if _differs(project.attributes, name, value)}:
        yield f"set {', '.join(differing)}", lambda: _set(project, differing)
    variables = [form.fields(name) for name, forms in settings.variables.items() for form in forms]
    known = _list(project, "variables")
    for kind, (_, key) in KINDS.items():
        expected = variables if kind == "variables" else getattr(settings, kind)
        there = known if kind == "variables" or not expected else _list(project, kind)
        for fields in expected:
            if key not in fields:
                raise UpkeepError(f"one of {kind} has no {key}", remedy=EXAMPLE)
            yield from _compare(project, kind, fields, there)
    for kind, (name, _) in TOKENS.items():
        if token := getattr(settings, kind):
            yield from _renew_token(project, name, token, known)
    url = settings.merge_requests_remote or ""
    if url and not Path(".dvc").is_dir():
        what = f"there is no .dvc here for the DVC remote {zones.REMOTE}"
        raise UpkeepError(what, remedy="run this in a checkout of the project")
    if url and not (remotes_apart() and ("://" not in url or url == find_remote(zones.REMOTE)["url"])):
        words = f"write the DVC remote {zones.REMOTE} to .dvc/config, which is then to be committed"
        yield words, lambda: add_remote(url)


def _list(project: Project, kind: str) -> list[Fields]:
    manager, server = getattr(project, KINDS[kind][0]), project.manager.gitlab
    if kind == "runners":  # whose list has neither tags nor protection
        listed = manager.list(type="project_type", iterator=True)
        return [server.runners.get(each.id).attributes for each in listed]
    return [_tell_roles(each.attributes) for each in manager.list(iterator=True)]


def _tell_roles(found: Fields) -> Fields:
    """Return GitLab's record with roles as its API takes them: push_access_levels of one as push_access_level."""
    roles = {name[:-1]: told for name, told in found.items() if name.endswith("_access_levels") and told}
    return {**found, **{name: told if told[1:] else told[0]["access_level"] for name, told in roles.items()}}


def _compare(project: Project, kind: str, fields: Fields, known: Iterable[Fields]) -> Iterator[Step]:
    """Yield the step that adds or changes one object; a field that GitLab does not show counts as equal."""
    scope, names = fields.get("environment_scope", "*"), (KINDS[kind][1], "environment_scope")
    what = f"{kind}: {fields[names[0]]}"
    if kind == "variables":
        masked = ", masked" if fields["masked"] else ""
        what = f"variable {fields['key']}{f' of {scope}' if scope != '*' else ''}{masked}"
    found = next((each for each in known if all(each.get(name) == fields.get(name) for name in names)), None)
    if found is None:
        yield f"add {what}", lambda: _add(project, kind, fields)
        return
    told = {name: value for name, value in found.items() if (name, value) != ("value", None)}  # hidden
    if differing := [name for name, value in fields.items() if name in told and _differs(told, name, value)]:
        yield f"change {', '.join(differing)} of {what}", lambda: _change(project, kind, found, fields)


def _differs(found: Fields, name: str, value: object) -> bool:
    # GitLab shows container_expiration_policy_attributes as container_expiration_policy, with more fields.
    there = found.get(name.removesuffix("_attributes"))
    if isinstance(value, dict) and isinstance(there, dict):
        return not value.items() <= there.items()
    if isinstance(value, list) and isinstance(there, list):
        return sorted(map(str, value)) != sorted(map(str, there))  # a runner's tags have no order
    return bool(there != value)


def _set(project: Project, fields: Fields) -> str | None:
    made = project.manager.gitlab.projects.update(project.id, fields)
    ignored = [name for name, value in fields.items() if _differs(made, name, value)]
    return f"  this GitLab does not take {', '.join(ignored)}: misspelt, or of another version" if ignored else None


def _add(project: Project, kind: str, fields: Fields) -> str | None:
    if kind != "runners":
        getattr(project, KINDS[kind][0]).create(fields)
        return None
    server, of_project = project.manager.gitlab, {"runner_type": "project_type", "project_id": project.id}
    made: Any = server.http_post("/user/runners", post_data={**of_project, **fields})
    return f"  on its machine: gitlab-runner register --url {server.url} --token {made['token']}"


def _change(project: Project, kind: str, found: Fields, fields: Fields) -> None:
    manager = project.manager.gitlab.runners if kind == "runners" else getattr(project, KINDS[kind][0])
    if kind == "variables":
        manager.update(found["key"], fields, filter={"environment_scope": found["environment_scope"]})
    elif not kind.startswith("protected"):
        manager.update(found["id"], fields)
    else:  # GitLab cannot change a tag's roles nor, in its Free tier, a branch's: the protection is made again
        kept = {name: value for name, value in found.items() if name.endswith(("_access_level", "_force_push"))}
        if several := [name for name, value in kept.items() if isinstance(value, list) and name not in fields]:
            what = f"{found['name']} has more than one {several[0]}"
            raise UpkeepError(what, remedy="name it in the file, or change it in GitLab: Settings > Repository")
        manager.delete(found["name"])
        try:
            manager.create({**kept, **fields})
        except GitlabError:
            manager.create({"name": found["name"], **kept})  # it must not stay unprotected
            raise


def _renew_token(project: Project, name: str, token: ProjectToken, known: Iterable[Fields]) -> Iterator[Step]:
    soon, ends = (
        str((datetime.now(UTC) + timedelta(days=days)).date())
        for days in (min(RENEW_DAYS, token.days // 2), token.days)
    )
    same = [each for each in project.access_tokens.list(iterator=True) if each.active and each.name == token.name]
    # A token with more rights is replaced, too.
    fitting = [each for each in same if (each.access_level, {*each.scopes}) == (token.role, {*token.scopes})]
    found, guarded = next(iter(fitting), None), name in zones.PROTECTED
    hidden = (name, "*", guarded) in [(each["key"], each["environment_scope"], each["protected"]) for each in known]
    if found and hidden and (found.expires_at or ends) > soon:  # one that was not hidden may be known to others
        return

    def make() -> None:
        # Rotation keeps the token's user, who is the author of the notes so far.
        value = found.rotate(expires_at=ends)["token"] if found else project.access_tokens.create(fields).token
        try:
            for _, change in _compare(project, "variables", Variable(value=value, masked=True).fields(name), known):
                change()
        except BaseException as error:  # Ctrl-C, too: the next run would find a sound token and not renew it
            what = f"the token {token.name} is new, but the variable {name} does not hold it: {type(error).__name__}"
            remedy = f"revoke {token.name} in Settings > Access tokens, then run this again, which makes another one"
            raise UpkeepError(what, remedy=remedy) from error

    fields = {"name": token.name, "scopes": list(token.scopes), "access_level": token.role, "expires_at": ends}
    yield f"{'rotate' if found else 'make'} the token with {' and '.join(token.scopes)}, kept in {name}", make
