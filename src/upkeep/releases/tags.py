"""Tags made and pushed, each once: where somebody else was first, under the next number."""

from collections.abc import Callable
from datetime import timedelta

from upkeep.core.errors import UpkeepError
from upkeep.core.text import show_text
from upkeep.releases import git
from upkeep.releases.history import ARTIFACT, TAGS, Release, list_releases

ATTEMPTS = 5  # to be the first with a number
LONGEST = 300  # characters of one thing that a message says


def refresh() -> list[Release]:
    """Return all releases, with the remote's tags in place of what is here under their names."""
    if has_remote():
        git.git("fetch", "--quiet", "--force", "--no-tags", "origin", f"{TAGS}:{TAGS}")
    return list_releases()


def has_remote() -> bool:
    """Tell whether there is an ``origin``; without one, tags stay in this repository."""
    return "origin" in git.git("remote").split()


def register(release: Release) -> Release:
    """Make the release's commit one, under the next major version; return the one that it is already, if it is.

    Of `release` everything but tag and version counts. Raises an UpkeepError if the remote refuses.
    """

    def number(known: list[Release]) -> Release:
        versions = [each for each in known if not each.stage]
        if mine := next((each for each in versions if each.commit == release.commit), None):
            return mine
        newest = max((int(each.version[1:].partition(".")[0]) for each in versions), default=0)
        version = f"v{newest + 1}.0.0"
        return release._replace(tag=f"{ARTIFACT}@{version}", version=version, stage=None, action="register")

    return _add(number)


def assign(release: Release) -> Release:
    """Note that a release went to its stage, unless it is there; return what says so.

    Numbers are GTO's, which counts all stages together.
    """

    def number(known: list[Release]) -> Release:
        live = [each for each in known if each.stage == release.stage][-1:]
        if [(each.commit, each.image) for each in live] == [(release.commit, release.image)]:
            return live[0]
        newest = max((each.number for each in known), default=0)
        return release._replace(tag=f"{ARTIFACT}#{release.stage}#{newest + 1}")

    return _add(number)


def require_push(release: Release) -> None:
    """Raise an UpkeepError if the remote would not even hear of a new tag on the release's commit."""
    if has_remote():
        git.push_tag(f"{ARTIFACT}#rehearsal", release.commit, rehearse=True)


def _add(number: Callable[[list[Release]], Release]) -> Release:
    for _ in range(ATTEMPTS):
        known = refresh()
        release = number(known)
        if release in known:
            return release
        # GTO and DVC go by time, so a clock that is behind must not put the newest tag before others.
        latest = max((each.at + timedelta(seconds=1) for each in known), default=release.at)
        release = release._replace(at=max(release.at, latest).replace(microsecond=0))
        made = git.git("mktag", text=_word(release))
        if _publish(release.tag, made):
            return release
    what = f"{ATTEMPTS} times in a row somebody else was first with the next tag of {ARTIFACT}"
    raise UpkeepError(what, remedy="see who releases with `upkeep release list`, then try again")


def _publish(tag: str, made: str) -> bool:
    """Give the tag to the remote and to this repository, or to this one only; False if there is one of that name."""
    if has_remote():
        return git.push_tag(tag, made) and not git.git("update-ref", f"refs/tags/{tag}", made)
    return not git.run(["git", "update-ref", f"refs/tags/{tag}", made, "0" * len(made)]).returncode


def _word(release: Release) -> str:
    """Return the tag object, in git's own format."""
    said = {
        "Action": release.action,
        "Verdict": release.verdict,
        "Fetch-until": release.until,
        "Image": release.image,
        "Why": release.why,
    }
    where = f" to {release.stage}" if release.stage else ""
    trailers = [f"{key}: {show_text(value)[:LONGEST]}" for key, value in said.items() if value]
    return "\n".join(
        [
            f"object {release.commit}",
            "type commit",
            f"tag {release.tag}",
            f"tagger {release.by} {int(release.at.timestamp())} +0000",
            "",
            f"{release.action} {release.version}{where}",
            "",
            *trailers,
            "",
        ]
    )
