"""What past releases did then and would do now, as a table, a picture and words for a terminal."""

from merge_request_cases import BLIND, plant, snapshot, succeeded

from upkeep.gitlab.backtest import draw_past
from upkeep.releases.backtest import PastRelease, show_past, tabulate_past

BEFORE, TODAY = snapshot("v1.0.0", plant("lyon", BLIND)), snapshot("today", plant("lyon"))
JUDGED = PastRelease(
    name="v1.0.0",
    commit="c0ffee",
    until="2025-02-24",
    tried="wider windows",
    settings=["fetch.until"],
    then=TODAY.metrics.overall,
    now=succeeded(BEFORE, TODAY).figures.overall,
    silent=[],
)
LOST = JUDGED._replace(name="v0.9.0", then=None, now=None, silent=["lyon: its model is missing"])


def test_a_release_stands_beside_what_it_would_do_now_and_what_today_does():
    (row,) = tabulate_past([JUDGED]).to_dicts()
    assert (row["failures_caught_then"], row["failures_caught_now"], row["failures_caught_today"]) == (1, 0, 1)
    assert row["average_precision_now_low"] <= row["average_precision_now"] <= row["average_precision_now_high"]
    assert (row["tried"], row["settings"], row["data_until"]) == ("wider windows", "fetch.until", "2025-02-24")


def test_a_release_that_cannot_be_asked_keeps_its_row_and_says_why():
    table = tabulate_past([LOST, JUDGED])
    assert table["not_scored"].to_list() == ["lyon: its model is missing", ""]
    assert "v0.9.0" in show_past(table)
    assert "1.00 / 0.00 / 1.00" in show_past(table)


def test_without_any_release_the_table_is_empty():
    assert tabulate_past([]).is_empty()


def test_the_picture_has_a_row_for_each_release():
    names = [label.get_text() for label in draw_past([LOST, JUDGED]).axes[0].get_yticklabels()]
    assert names == ["v0.9.0", "v1.0.0"]
