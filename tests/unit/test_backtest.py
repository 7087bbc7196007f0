"""What past releases did then and would do now, as rows, a picture and words for a terminal."""

from datetime import UTC, datetime

from merge_request_cases import BLIND, params, plant, snapshot

from upkeep.gitlab.backtest import draw_releases, judge_release, tabulate_releases
from upkeep.releases.history import Release

TODAY = snapshot("today", plant("lyon"))
PAST = {
    "v0.9.0": snapshot("v0.9.0", predictions={}, metrics=None),
    "v1.0.0": snapshot("v1.0.0", plant("lyon", BLIND), metrics=TODAY.metrics),
}
ROWS = [
    judge_release(
        Release("c0ffee", None, datetime(2025, 3, 1, tzinfo=UTC), version=version, why="wider windows"),
        past,
        {},
        TODAY,
        params(),
    )
    for version, past in PAST.items()
]


def test_a_release_stands_beside_what_it_would_do_now_and_what_today_does():
    row = ROWS[1]
    assert [row[f"failures_caught_{when}"] for when in ("then", "now", "today")] == [1, 0, 1]
    assert row["average_precision_now_low"] <= row["average_precision_now"] <= row["average_precision_now_high"]


def test_a_release_that_cannot_be_asked_keeps_its_row():
    _, lost, judged, _ = tabulate_releases(ROWS).splitlines()
    assert lost.split()[0] == "v0.9.0"
    assert "- / - / -" in lost
    assert "1.00 / 0.00 / 1.00" in judged


def test_the_picture_has_a_row_for_each_release():
    names = [label.get_text() for label in draw_releases(ROWS).axes[0].get_yticklabels()]
    assert names == ["v0.9.0", "v1.0.0"]
