"""What past releases did then and would do now, as rows, a picture and words for a terminal."""

from datetime import UTC, datetime

from merge_request_cases import BLIND, plant, snapshot, succeeded

from upkeep.gitlab.backtest import PastRelease, draw_releases, tabulate_releases
from upkeep.releases.history import Release

BEFORE, TODAY = snapshot("v1.0.0", plant("lyon", BLIND)), snapshot("today", plant("lyon"))
LOST, FOUND = (
    Release("c0ffee", None, datetime(2025, 3, 1, tzinfo=UTC), version=version, why="wider windows")
    for version in ("v0.9.0", "v1.0.0")
)
NOW = succeeded(BEFORE, TODAY).figures.overall
RELEASES = [
    PastRelease(LOST, "2025-02-24"),
    PastRelease(FOUND, "2025-02-24", then=TODAY.metrics.overall, now=NOW),
]


def test_a_release_stands_beside_what_it_would_do_now_and_what_today_does():
    row = RELEASES[1].as_row()
    assert [row[f"failures_caught_{when}"] for when in ("then", "now", "today")] == [1, 0, 1]
    assert row["average_precision_now_low"] <= row["average_precision_now"] <= row["average_precision_now_high"]


def test_a_release_that_cannot_be_asked_keeps_its_row():
    _, lost, judged, _ = tabulate_releases(RELEASES).splitlines()
    assert lost.split()[0] == "v0.9.0"
    assert "- / - / -" in lost
    assert "1.00 / 0.00 / 1.00" in judged


def test_the_picture_has_a_row_for_each_release():
    names = [label.get_text() for label in draw_releases(RELEASES).axes[0].get_yticklabels()]
    assert names == ["v0.9.0", "v1.0.0"]
