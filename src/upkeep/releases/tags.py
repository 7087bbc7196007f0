"""Makes and pushes the tags of releases, each under the next number that nobody else took first."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from upkeep.core.errors import UpkeepError
from upkeep.core.text import show_text
from upkeep.releases import git
from upkeep.releases.history import ARTIFACT, TAGS, TRAILERS, Release, list_releases

ATTEMPTS = 5  # to be the first with a number
LONGEST = 300  # characters of one thing that a message says

Number = Callable[[Sequence[Release]], Release]
"""Returns a release with its name, given those that exist, or the one of these that says the same already."""


def refresh() -> list[Release]:
    """Return all releases, after fetching the remote's tags, which replace local ones of the same name."""
    if has_remote():
        git.git("fetch", "--quiet", "--force", "--no-tags", "origin", f"{TAGS}:{TAGS}")
    return list_releases()


def has_remote() -> bool:
    """Return whether there is an ``origin``; without one, tags stay in this repository."""
    return "origin" in git.git("remote").split()


def register(release: Release) -> Release:
    """Make a commit a release under the next major version, unless it is one; an UpkeepError if the remote refuses."""

    def number(known: Sequence[Release]) -> Release:
        versions = {each.commit: each for each in known if not each.stage}
        newest = max((int(each.version[1:].partition(".")[0]) for each in versions.values()), default=0)
        version = f"v{newest + 1}.0.0"
        made = release._replace(tag=f"{ARTIFACT}@{version}", version=version, stage=None, action="register")
        return versions.get(release.commit, made)

    return _add(number)


def assign(release: Release) -> Release:
    """Assign a release to its stage, unless it is there; as in GTO, one series of numbers serves all stages."""

    def number(known: Sequence[Release]) -> Release:
        newest = max((each.number for each in known), default=0)
        made = release._replace(tag=f"{ARTIFACT}#{release.stage}#{newest + 1}")
        live = next((each for each in reversed(known) if each.stage == release.stage), made)
        return live if (live.commit, live.image) == (made.commit, made.image) else made

    return _add(number)


def require_push(release: Release) -> None:
    """Raise an UpkeepError if the remote would refuse a new tag on the release's commit."""
    if has_remote():
        git.push_tag(f"{ARTIFACT}#rehearsal", release.commit, rehearse=True)


def _add(number: Number) -> Release:
    for _ in range(ATTEMPTS):
        known = refresh()
        release = number(known)
        if release in known:
            return release
        # GTO and DVC sort by time, so with a clock that is behind the newest tag would not be the last.
        release = release._replace(at=max([release.at, *(each.at + timedelta(seconds=1) for each in known[-1:])]))
        made = git.git("mktag", text=_format_tag(release))
        if _publish(release.tag, made):
            return release
    what = f"{ATTEMPTS} times in a row somebody else was first with the next tag of {ARTIFACT}"
    raise UpkeepError(what, remedy="see who releases with `upkeep release list`, then try again")


def _publish(tag: str, made: str) -> bool:
    """Push the tag to the remote, if there is one, and keep it here; return False if its name is taken."""
    if has_remote():
        return git.push_tag(tag, made) and not git.git("update-ref", f"refs/tags/{tag}", made)
    return not git.run(["git", "update-ref", f"refs/tags/{tag}", made, "0" * len(made)]).returncode


def _format_tag(release: Release) -> str:
    said = {key: show_text(getattr(release, field))[:LONGEST] for field, key in TRAILERS.items()}
    trailers = "".join(f"{key}: {value}\n" for key, value in said.items() if value)
    where = f" to {release.stage}" if release.stage else ""
    return (
        f"object {release.commit}\ntype commit\ntag {release.tag}\n"
        f"tagger {release.by} {release.at.timestamp():.0f} +0000\n\n"
        f"{release.action} {release.version}{where}\n\n{trailers}"
    )
