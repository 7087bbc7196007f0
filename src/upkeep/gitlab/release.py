"""A tag's GitLab Release: what the changelog says of that version, and the image by its digest."""

import re
from pathlib import Path

from upkeep.core.errors import UpkeepError
from upkeep.gitlab.api import JOB, open_project, put_release
from upkeep.gitlab.zones import Environment

CHANGELOG = Path("CHANGELOG.md")
SECTION = re.compile(r"^## (\S+).*\n(?s:(.*?))(?=^## |\Z)", re.MULTILINE)


def release(environment: Environment) -> str:
    """Make the release of the job's tag, or bring its text up to date, with the job's own token; return its address."""
    tag = environment.get("CI_COMMIT_TAG", "")
    text = describe_release(tag, CHANGELOG.read_text(encoding="utf-8"), environment.get("IMAGE_DIGEST"))
    return put_release(open_project(environment, token=JOB), tag, text)


def describe_release(tag: str, changelog: str, digest: str | None) -> str:
    """Return the changelog's section of a tag such as ``v1.2.0``, and the image's digest; an error if it has none."""
    version = tag.removeprefix("v")
    found = {name: body.strip() for name, body in SECTION.findall(changelog)}.get(version)
    if not found:
        what = f"{CHANGELOG} says nothing of {version or 'a release: the job has no tag'}"
        remedy = "name the section *Unreleased* after the version, as CONTRIBUTING.md says, and tag that commit"
        raise UpkeepError(what, remedy=remedy, file=CHANGELOG)
    return f"{found}\n\nImage: `{digest}`\n" if digest else f"{found}\n"
