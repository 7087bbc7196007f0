"""What tags say of releases: GTO's grammar, and how far a rollback goes back."""

from datetime import UTC, datetime

import pytest
from gto.tag import parse_name

from upkeep.core.errors import UpkeepError
from upkeep.releases.history import NAME, Release, find_release, list_rollbacks, show_release, tabulate_releases

AT = datetime(2026, 1, 5, 9, tzinfo=UTC)


def went(*steps: str) -> list[Release]:
    """Return a history of production: `a` promotes commit a, `-a` rolls back to it."""
    return [
        Release(
            commit=step[-1],
            stage="production",
            at=AT.replace(hour=number),
            tag=f"fleet#production#{number}",
            version=f"v{ord(step[-1]) - 96}.0.0",
            action="rollback" if step.startswith("-") else "promote",
        )
        for number, step in enumerate(steps, start=1)
    ]


@pytest.mark.parametrize("tag", ["fleet@v1.0.0", "fleet@v12.3.4", "fleet#production#7", "fleet#staging#10"])
def test_a_name_means_to_us_what_it_means_to_gto(tag):
    ours, theirs = NAME.fullmatch(tag), parse_name(tag)
    found = (theirs["name"], theirs.get("version"), theirs.get("stage"))
    assert found == ("fleet", ours["version"], ours["stage"])


@pytest.mark.parametrize(
    "tag", ["fleet", "fleet@v1", "fleet@v1.0.0!", "fleet#production#7!", "fleet@deprecated", "fleets@v1.0.0", "v1.0.0"]
)
def test_other_names_mean_nothing(tag):
    assert NAME.fullmatch(tag) is None


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ("a", "a"),
        ("a b c", "abc"),
        ("a b -a", "a"),
        ("a b c -b", "ab"),
        ("a b c -b -a", "a"),
        ("a b -a c", "ac"),
        ("a b -a -b", "ab"),  # a rollback to what lies above is a way forward
        ("a b a", "ba"),
        ("", ""),
    ],
)
def test_rollbacks_go_back_through_what_was_promoted_and_not_rolled_back(steps, kept):
    assert "".join(each.commit for each in list_rollbacks(went(*steps.split()), "production")) == kept


def test_what_another_stage_had_is_nothing_to_go_back_to():
    assert list_rollbacks([each._replace(stage="staging") for each in went("a")], "production") == []


def test_the_table_says_from_when_to_when():
    lines = tabulate_releases(went("a", "b")).splitlines()
    assert lines[1].startswith("production  2026-01-05 02:00  now               v2.0.0")
    assert lines[2].startswith("production  2026-01-05 01:00  2026-01-05 02:00  v1.0.0")


def test_a_stage_means_what_is_live_there_and_a_name_that_nobody_has_an_error():
    history = went("a", "b")
    assert find_release(history, "production") == history[1]
    assert find_release(history, "v1.0.0") == find_release(history, "fleet#production#1") == history[0]
    with pytest.raises(UpkeepError, match="there is no release called staging"):
        find_release(history, "staging")


def test_a_description_names_what_is_known_and_how_to_get_the_models():
    assert show_release(went("a")[0]).splitlines()[-2:] == [
        "action   promote",
        "models   dvc artifacts get . fleet --rev v1.0.0",
    ]
