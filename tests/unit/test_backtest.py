"""What past releases did then and would do now, as rows, a picture and words for a terminal."""

from merge_request_cases import BLIND, plant, snapshot, succeeded

from upkeep.gitlab.backtest import draw_past, measure_release, show_past

BEFORE, TODAY = snapshot("v1.0.0", plant("lyon", BLIND)), snapshot("today", plant("lyon"))
COMMON = {"commit": "c0ffee", "data_until": "2025-02-24", "tried": "wider windows"}
JUDGED = measure_release(TODAY.metrics.overall, succeeded(BEFORE, TODAY).figures.overall)
ROWS = [{"release": "v0.9.0", **COMMON, **measure_release(None, None)}, {"release": "v1.0.0", **COMMON, **JUDGED}]


def test_a_release_stands_beside_what_it_would_do_now_and_what_today_does():
    assert [JUDGED[f"failures_caught_{when}"] for when in ("then", "now", "today")] == [1, 0, 1]
    assert (
        JUDGED["average_precision_now_low"] <= JUDGED["average_precision_now"] <= JUDGED["average_precision_now_high"]
    )


def test_a_release_that_cannot_be_asked_keeps_its_row():
    _, lost, judged, _ = show_past(ROWS).splitlines()
    assert lost.split()[0] == "v0.9.0"
    assert "- / - / -" in lost
    assert "1.00 / 0.00 / 1.00" in judged


def test_the_picture_has_a_row_for_each_release():
    names = [label.get_text() for label in draw_past(ROWS).axes[0].get_yticklabels()]
    assert names == ["v0.9.0", "v1.0.0"]
