"""The changelog tells of the version that the code has."""

import re

from conftest import ROOT

from upkeep import __version__

HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"}


def headings() -> list[str]:
    return HEADING.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_the_newest_release_in_the_changelog_is_the_version_of_the_code():
    released = [heading.split()[0] for heading in headings() if heading != "Unreleased"]
    assert released[0] == __version__


def test_what_is_not_released_stands_at_the_top_or_nowhere():
    assert "Unreleased" not in headings()[1:]


def test_every_entry_says_what_kind_of_change_it_is():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE)) <= KINDS
