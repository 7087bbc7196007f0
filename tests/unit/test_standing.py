"""How a plant stands, given all that was looked at."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from upkeep.judging.reports import DriftReport
from upkeep.production.health import ORDER, Signal
from upkeep.production.standing import judge_drift, list_news, mark_told, summarise

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)


def looked_at(status, measure="quarantine", plant="lyon"):
    return Signal(plant=plant, measure=measure, status=status, words=f"it is {status}")


def run(statuses, days=0, before=None):
    signals = [looked_at(status, f"measure {row}") for row, status in enumerate(statuses)]
    return summarise(signals, before, "Nothing new.", ["lyon"], MONDAY + timedelta(days=days))


@pytest.mark.parametrize("statuses", list(product(ORDER, repeat=2)))
def test_a_plant_stands_as_the_worst_of_what_was_looked_at(statuses):
    standing = run(statuses).plants["lyon"]
    assert standing.status == min(statuses, key=ORDER.index)
    assert len(standing.why) == sum(status != "fine" for status in statuses)


def test_a_plant_of_which_nothing_was_looked_at_is_unknown():
    assert run([]).plants["lyon"].status == "unknown"


def test_since_when_and_for_how_many_runs_counts_from_the_change_of_status():
    first = run(["fine"])
    second = run(["watch"], 1, first)
    third = run(["watch"], 2, second)
    assert [each.plants["lyon"].runs for each in (first, second, third)] == [1, 1, 2]
    assert third.plants["lyon"].since == third.signals[0].since == MONDAY + timedelta(days=1)


def test_what_changed_since_the_last_run_is_said_and_what_did_not_is_not():
    before = run(["fine", "watch"])
    standing = run(["act", "watch", "unknown"], 1, before).plants["lyon"]
    assert standing.changes == ["measure 0: it is act (fine before)", "measure 2: it is unknown (new)"]
    assert before.plants["lyon"].changes == []


def test_a_status_is_told_once_it_has_held_and_only_once():
    monitoring, told = None, []
    for day, status in enumerate(["fine", "act", "fine", "act", "act", "act", "fine", "fine", "fine"]):
        monitoring = run([status], day, monitoring)
        news = list_news(monitoring, 2)
        told += [(day, standing.status) for plant, standing in news.items() if plant == "lyon"]
        monitoring = mark_told(monitoring, news)
    assert told == [(4, "act"), (7, "fine")]


def test_what_was_not_accepted_is_told_again():
    monitoring = run(["act"], 1, run(["act"]))
    assert "lyon" in list_news(mark_told(monitoring, [""]), 2)


def drift_report(*drifted):
    columns = {
        str(row): {"method": "", "score": 1.0, "threshold": 0.5, "drifted": each} for row, each in enumerate(drifted)
    }
    plant = {
        "drifted": any(drifted),
        "share": 0.5,
        "columns": columns,
        "current_rows": 1,
        "reference_rows": 1,
        "window": {"from": "", "to": ""},
        "notes": [],
    }
    return DriftReport.model_validate({"lyon": plant})


@pytest.mark.parametrize(("drifted", "status"), [((True, False), "watch"), ((False,), "fine"), ((), "unknown")])
def test_drift_is_to_be_watched_and_what_cannot_be_judged_is_unknown(drifted, status):
    (signal,) = judge_drift(["lyon"], drift_report(*drifted))
    assert signal.status == status


def test_a_plant_that_the_drift_report_does_not_know_is_unknown_with_the_command_that_makes_it_known():
    (signal,) = judge_drift(["porto"], drift_report())
    assert (signal.status, signal.remedy) == ("unknown", "dvc repro drift")
