"""How a plant stands, given all that was looked at."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upkeep.judging.reports import PlantDrift
from upkeep.production.estimates import Agreement
from upkeep.production.expectations import WINDOW, list_windows
from upkeep.production.health import ORDER, Signal
from upkeep.production.standing import judge_alarms, judge_drift, summarise_signals
from upkeep.reporting.templates import render_html

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)


def looked_at(status, measure="quarantine", plant="lyon"):
    return Signal(plant=plant, measure=measure, status=status, words=f"it is {status}")


def run(statuses, days=0, before=None):
    signals = [looked_at(status, f"measure {row}") for row, status in enumerate(statuses)]
    return summarise_signals(signals, before, "Nothing new.", ["lyon"], MONDAY + timedelta(days=days))


@pytest.mark.parametrize("statuses", list(product(ORDER, repeat=2)))
def test_a_plant_stands_as_the_worst_of_what_was_looked_at(statuses):
    standing = run(statuses).standings["lyon"]
    assert standing.status == min(statuses, key=ORDER.index)
    assert len(standing.why) == sum(status != "fine" for status in statuses)


def test_a_plant_of_which_nothing_was_looked_at_is_unknown():
    assert run([]).standings["lyon"].status == "unknown"


@pytest.mark.parametrize(
    ("statuses", "headline"),
    [
        (["act", "unknown"], "1 of 2 plants needs you now"),
        (["unknown", "watch"], "1 of 2 plants may need you: too little is known"),
        (["fine", "watch"], "No plant needs you now"),
        ([], "Any plant may need you: too little is known"),
    ],
)
def test_the_planners_page_begins_with_how_many_plants_need_or_may_need_somebody(statuses, headline):
    signals = [looked_at(status, plant=f"plant {row}") for row, status in enumerate(statuses)]
    monitoring = summarise_signals(signals, None, "", [signal.plant for signal in signals], MONDAY)
    assert f"<h1>{headline}</h1>" in render_html("monitoring_planner.html", monitoring=monitoring, order=ORDER)


def test_since_when_and_for_how_many_runs_counts_from_the_change_of_status():
    first = run(["fine"])
    second = run(["watch"], 1, first)
    third = run(["watch"], 2, second)
    assert [each.standings["lyon"].runs for each in (first, second, third)] == [1, 1, 2]
    assert third.standings["lyon"].since == third.signals[0].since == MONDAY + timedelta(days=1)


def test_what_changed_since_the_last_run_is_said_and_what_did_not_is_not():
    before = run(["fine", "watch"])
    standing = run(["act", "watch", "unknown"], 1, before).standings["lyon"]
    assert standing.changes == ["measure 0: act, fine before", "measure 2: unknown, not looked at before"]
    assert before.standings["lyon"].changes == []


def test_a_status_is_told_once_it_has_held_and_only_once():
    monitoring, told = None, []
    for day, status in enumerate(["fine", "act", "fine", "act", "act", "act", "fine", "fine", "fine"]):
        monitoring = run([status], day, monitoring)
        news = monitoring.list_news(2)
        told += [(day, standing.status) for plant, standing in news.items() if plant == "lyon"]
        monitoring = monitoring.mark_told(news)
    assert told == [(4, "act"), (7, "fine")]


def test_what_was_not_accepted_is_told_again():
    monitoring = run(["act"], 1, run(["act"]))
    assert "lyon" in monitoring.mark_told([""]).list_news(2)


def drifted(*columns):
    judged = {
        str(row): {"method": "wasserstein", "score": 1.0, "threshold": 0.5, "drifted": each}
        for row, each in enumerate(columns)
    }
    window = {"from": "", "to": ""}
    rows = {"current_rows": 1, "reference_rows": 1}
    found = {"drifted": any(columns), "share": 0.5, "columns": judged, "window": window, "notes": [], **rows}
    return PlantDrift.model_validate(found)


@pytest.mark.parametrize(
    ("found", "status"),
    [(drifted(True, False), "watch"), (drifted(False), "fine"), (drifted(), "unknown"), (None, "unknown")],
)
def test_drift_is_to_be_watched_and_what_cannot_be_judged_is_unknown_with_the_command_that_tells(found, status):
    signal = judge_drift("lyon", found)
    assert (signal.status, signal.remedy) == (status, "run `dvc repro drift`" if status == "unknown" else "")


FIGURES = {"precision": 0.6, "coded": 0.8, "recall_from": 0.5, "recall_to": 0.7}


def stand_with(figures, verdict):
    agreement = verdict and Agreement(verdict=verdict, why="precision outside of its interval", windows=[])
    signals = [judge_drift("lyon", drifted(False)), *judge_alarms("lyon", figures, agreement)]
    return summarise_signals(signals, None, "", ["lyon"], MONDAY).standings["lyon"]


@pytest.mark.parametrize(
    ("figures", "verdict", "status"),
    [
        (FIGURES, "agrees", "fine"),
        (FIGURES, "disagrees", "act"),  # machines fail otherwise than they did, while no sensor drifts
        (FIGURES, "unknown", "unknown"),
        (FIGURES, None, "unknown"),
        (None, None, "unknown"),
        ({**FIGURES, "coded": None}, "agrees", "unknown"),
    ],
)
def test_a_plant_is_fine_only_if_what_came_of_its_alarms_is_known_and_expected(figures, verdict, status):
    assert stand_with(figures, verdict).status == status


@given(st.none() | st.fixed_dictionaries(dict.fromkeys(FIGURES, st.none() | st.floats(0, 1))))
def test_whatever_the_figures_say_a_plant_is_never_fine_once_outcomes_disagree(figures):
    assert stand_with(figures, "disagrees").status == "act"


def test_nothing_known_yet_says_which_command_makes_it_known_and_from_when_on():
    remedies = {signal.remedy for signal in judge_alarms("lyon", None, None)}
    assert remedies == {"run `upkeep outcomes` once the horizon of its alarms is over"}


@given(st.datetimes(MONDAY.replace(tzinfo=None), MONDAY.replace(year=2100, tzinfo=None)), st.integers(0, 27))
def test_what_is_compared_with_outcomes_changes_only_once_another_window_is_complete(now, days):
    windows = list_windows(now.replace(tzinfo=UTC))
    assert all(later.start == earlier.end for later, earlier in pairwise(windows))
    assert windows[0].end <= now.replace(tzinfo=UTC) < windows[0].end + WINDOW
    assert list_windows(windows[0].end + timedelta(days=days)) == windows
