"""Which release was in which stage, and when: read from tags in GTO's grammar, which are the only state.

``fleet@v12.0.0`` makes a commit a release, and ``fleet#production#7`` says where it went; the trailers of their
messages say the rest. docs/decisions/0017-releases-are-tags.md says why.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from upkeep.core.errors import UpkeepError
from upkeep.core.text import align_columns
from upkeep.releases.git import git

ARTIFACT = "fleet"
NAME = re.compile(rf"{ARTIFACT}(?:@(?P<version>v\d+\.\d+\.\d+)|#(?P<stage>[a-z]+)#\d+)")
SECONDS = re.compile(r"\d{1,11}")  # since 1970; git takes any number for a time
TAGS = f"refs/tags/{ARTIFACT}*"
FIELDS = (
    *("refname:strip=2", "*objecttype", "*objectname", "taggername", "taggeremail", "taggerdate:unix"),
    "contents:trailers:only,unfold",
)
TRAILERS = {"action": "Action", "verdict": "Verdict", "until": "Fetch-until", "image": "Image", "why": "Why"}
SHOWN = 12  # characters of an image's digest or a commit
TIME = "%Y-%m-%d %H:%M"

Stage = Literal["staging", "production"]


class Release(NamedTuple):
    """What one tag says: a commit was made a release, or went to a stage; what its message does not say is empty.

    An assignment's `version` is that of its commit, or the commit itself if that is no release. `action` is
    ``register``, ``promote`` or ``rollback``, `until` the first day of the newest batch that the models know, `image` a
    reference by digest, and `by` name and address as git writes them.
    """

    commit: str
    stage: str | None
    at: datetime
    tag: str = ""
    version: str = ""
    action: str = ""
    verdict: str = ""
    until: str = ""
    image: str = ""
    by: str = ""
    why: str = ""

    @property
    def number(self) -> int:
        """The number of an assignment, 0 of a tag that assigns nothing."""
        return int(self.tag.rpartition("#")[2]) if self.stage else 0


def list_releases() -> list[Release]:
    """Read all releases and assignments from this repository's annotated tags, the oldest first.

    Tags of the same artifact that mean something else to GTO, such as a deprecation, are ignored.
    """
    form = "".join(f"%({field})%00" for field in FIELDS)
    values = iter(git("for-each-ref", f"--format={form}", TAGS).split("\0"))
    found = []
    for tag, kind, commit, name, email, seconds, trailers in zip(*[values] * len(FIELDS), strict=False):
        if (match := NAME.fullmatch(tag.strip())) and kind == "commit" and SECONDS.fullmatch(seconds):
            said = dict(line.split(": ", 1) for line in trailers.splitlines() if ": " in line)
            fields: Any = {field: said.get(key, "") for field, key in TRAILERS.items()}
            at, by = datetime.fromtimestamp(int(seconds), UTC), f"{name} {email}"
            found.append(Release(commit, match["stage"], at, match[0], match["version"] or "", by=by, **fields))
    found.sort(key=lambda release: (release.at, release.number))
    versions = {release.commit: release.version for release in found if not release.stage}
    return [each._replace(version=versions.get(each.commit, each.commit)) if each.stage else each for each in found]


def list_rollbacks(releases: Iterable[Release], stage: str) -> list[Release]:
    """Return the stack of a stage's releases that rollbacks go back through, the live one last.

    A promotion is put on top; a rollback removes what lies above the release that it went back to.
    """
    kept: list[Release] = []
    for release in (each for each in releases if each.stage == stage):
        commits = [each.commit for each in kept]
        if release.action == "rollback" and release.commit in commits:
            kept = kept[: commits.index(release.commit)]
        kept = [each for each in kept if each.commit != release.commit] + [release]
    return kept


def find_release(releases: Sequence[Release], name: str) -> Release:
    """Return the newest release of this tag, version or stage; an UpkeepError is raised if there is none."""
    for release in reversed(releases):
        if name in (release.tag, release.version, release.stage):
            return release
    raise UpkeepError(f"there is no release called {name}", remedy="`upkeep release list` shows what there is")


def show_release(release: Release) -> str:
    """Return what a tag says, line by line, and the command that gets its models."""
    said = {**release._asdict(), "at": f"{release.at.strftime(TIME)} UTC"}
    lines = [f"{name:<9}{value}" for name, value in said.items() if value]
    return "\n".join([*lines, f"models   dvc artifacts get . {ARTIFACT} --rev {release.version}"])


def tabulate_releases(releases: Iterable[Release]) -> str:
    """Return a table of all assignments, the newest first."""
    rows, ends = [], dict[str, str]()
    for each in reversed([release for release in releases if release.stage]):
        stage, begin, digest = each.stage or "", each.at.strftime(TIME), each.image.rpartition(":")[2][:SHOWN]
        where = (stage, begin, ends.get(stage, "now"), each.version[:SHOWN], each.until, digest)
        rows.append((*where, each.by.partition(" <")[0], each.action, each.why))
        ends[stage] = begin
    header = ("stage", "from (UTC)", "to", "version", "data until", "image", "by", "action", "why")
    return align_columns(header, rows) if rows else "nothing has been promoted yet"
