from base64 import b64encode
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prediction_cases import fleets

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Webhook
from upkeep.judging.episodes import find_episodes, read_timeline
from upkeep.scoring.alerts import SECRET, follow_episodes, open_receiver, read_watches, sign, write_watches
from upkeep.scoring.newest import Scored, describe_scores

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)
HORIZON = 48


def score(day, *, alarm=True, serviced=None, probability=0.9, machine="M1"):
    return {
        "plant": "lyon",
        "machine": machine,
        "time": MONDAY + timedelta(days=day),
        "probability": probability,
        "threshold": 0.5,
        "alarm": alarm,
        "reasons": ["mean of vibration over 8 h is 4: the odds of failing times 3"],
        "warnings": [{"code": "gap", "message": "no readings for 9 h", "column": "time"}],
        "maintained_at": MONDAY,
        "maintenance_code": "scheduled",
        "model_version": "abc",
        "horizon_hours": HORIZON,
        "serviced_at": None if serviced is None else MONDAY + timedelta(days=serviced),
    }


def follow(*scores, known=None):
    """The episode that one machine is in after these scores, each from a run of its own."""
    watches = known or {}
    for each in scores:
        watches = follow_episodes(watches, [each])
    return watches["lyon/M1"].episode


def test_machines_of_plants_with_a_slash_in_their_names_are_not_taken_for_one_another():
    scores = [{**score(0), "plant": plant, "machine": name} for plant, name in (("a/b", "c"), ("a", "b/c"))]
    assert len(follow_episodes({}, scores)) == 2


def accept(watches):
    return {
        name: watch.model_copy(update={"episode": watch.episode.model_copy(update={"accepted": True})})
        for name, watch in watches.items()
    }


def test_a_first_alarm_begins_an_episode_that_nobody_has_accepted():
    episode = follow(score(0, alarm=False), score(1))
    assert (episode.start, episode.accepted) == (MONDAY + timedelta(days=1), False)


def test_an_alarm_that_goes_on_stays_the_same_episode_and_stays_accepted():
    known = accept(follow_episodes({}, [score(1)]))
    episode = follow(score(2, probability=0.95), known=known)
    assert (episode.start, episode.accepted) == (MONDAY + timedelta(days=1), True)
    assert episode.alarm["probability"] == 0.95


@pytest.mark.parametrize("between", [score(2), score(2, alarm=False)])
def test_an_alarm_a_horizon_after_the_first_is_a_new_episode(between):
    known = accept(follow_episodes({}, [score(1)]))
    assert follow(between, known=known).accepted
    episode = follow(between, score(3), known=known)
    assert (episode.start, episode.accepted) == (MONDAY + timedelta(days=3), False)


def test_an_alarm_that_pauses_for_less_than_a_horizon_stays_the_same_episode():
    known = accept(follow_episodes({}, [score(1)]))
    episode = follow(score(1.5, alarm=False), score(2), known=known)
    assert (episode.start, episode.accepted) == (MONDAY + timedelta(days=1), True)


@given(fleets(), st.sampled_from([1, 10, 48]))
def test_alerts_begin_as_many_episodes_as_the_report_counts(rows, horizon):
    counted, _ = find_episodes(read_timeline(rows, horizon), rows["alarm"].to_numpy())
    sent, watches = set(), {}
    for row in rows.iter_rows(named=True):
        watches = follow_episodes(watches, [{**score(0), **row, "horizon_hours": horizon}])
        watch = watches[f"{row['plant']}/{row['machine']}"]
        sent |= {(row["plant"], row["machine"], watch.episode.start)} if watch.raised else set()
    assert len(sent) == len(counted)


def test_an_alarm_after_the_machine_was_serviced_is_a_new_episode():
    known = accept(follow_episodes({}, [score(1)]))
    episode = follow(score(3, serviced=2), known=known)
    assert (episode.start, episode.accepted) == (MONDAY + timedelta(days=3), False)


def test_a_service_before_the_episode_does_not_end_it():
    known = accept(follow_episodes({}, [score(1, serviced=0)]))
    assert follow(score(2, serviced=0), known=known).accepted


def test_an_alarm_from_before_the_service_is_not_raised():
    assert follow(score(1, serviced=2)) is None


def test_an_alarm_from_before_the_service_neither_counts_nor_comes_first_in_the_terminal():
    rows = pl.DataFrame([score(1, serviced=2), score(1, serviced=0, machine="M2", probability=0.6)])
    plant, first, second = (
        line.split() for line in describe_scores({"lyon": Scored(rows, {})}).splitlines() if line[:5] == "lyon "
    )
    assert plant[3:5] == ["2", "1"]  # scored, alarms
    assert (first[1], first[5], second[1], second[5:7]) == ("M2", "alarm", "M1", ["failed", "or"])


def test_the_same_scores_again_change_nothing():
    once = accept(follow_episodes({}, [score(1)]))
    assert follow_episodes(once, [score(1)]) == once


def test_a_score_of_an_earlier_day_neither_ends_nor_begins_an_episode():
    known = follow_episodes({}, [score(5)])
    assert follow_episodes(known, [score(1, alarm=False)]) == known
    quiet = follow_episodes({}, [score(5, alarm=False)])
    assert follow_episodes(quiet, [score(1)]) == quiet


def test_a_machine_that_is_not_scored_keeps_its_episode():
    known = follow_episodes({}, [score(1)])
    assert follow_episodes(known, [score(2, machine="M2")])["lyon/M1"] == known["lyon/M1"]


def test_an_alarm_tells_the_planner_what_and_why():
    assert follow(score(1), score(2)).alarm == {
        "plant": "lyon",
        "machine": "M1",
        "episode": "2025-01-07T00:00:00Z",
        "time": "2025-01-08T00:00:00Z",
        "probability": 0.9,
        "threshold": 0.5,
        "reasons": ["mean of vibration over 8 h is 4: the odds of failing times 3"],
        "warnings": ["no readings for 9 h"],
        "last_maintenance": {"time": "2025-01-06T00:00:00Z", "code": "scheduled"},
        "model_version": "abc",
    }


def test_a_machine_never_maintained_has_no_last_maintenance():
    never = {**score(1), "maintained_at": None, "maintenance_code": None}
    assert follow(never).alarm["last_maintenance"] is None


def test_what_is_remembered_survives_the_file(tmp_path):
    watches = accept(follow_episodes({}, [score(1)]))
    write_watches(tmp_path / "alarms.json", watches)
    assert read_watches(tmp_path / "alarms.json") == watches
    assert read_watches(tmp_path / "none.json") == {}


def test_a_damaged_memory_is_told(tmp_path):
    (tmp_path / "alarms.json").write_text('{"lyon/M1": {"time": "2025')
    with pytest.raises(UpkeepError, match="what is remembered of alarms cannot be used"):
        read_watches(tmp_path / "alarms.json")


def test_the_signature_is_the_hmac_of_time_and_body():
    # printf '1736150400.{"a":1}' | openssl dgst -sha256 -hmac secret
    known = "sha256=5d5ed3a205c41c7ed467653f48b4eb694a66e9a612325a75c4792a52ba86e513"
    assert sign("secret", "1736150400", b'{"a":1}') == known


@pytest.mark.parametrize(
    "url",
    [
        *("http://planner.example/hook", "ftp://planner.example/hook", "planner.example/hook", "https://"),
        *("http://[::1/x", "https://upkeep:1/s3cret@planner.example/hook"),
    ],
)
def test_an_address_that_is_not_https_is_refused(url, monkeypatch):
    monkeypatch.setenv(SECRET, "s3cret")
    with pytest.raises(UpkeepError, match=r"score\.webhook\.url") as caught:
        open_receiver(Webhook(url=url))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "[::1]:9"])
def test_this_machine_may_be_told_without_https(host, monkeypatch):
    monkeypatch.setenv(SECRET, "s3cret")
    assert open_receiver(Webhook(url=f"http://{host}/hook")).address == f"http://{host}"


def test_a_trusted_network_may_be_told_without_https(monkeypatch):
    monkeypatch.setenv(SECRET, "s3cret")
    assert (
        open_receiver(Webhook(url="http://planner.example/hook", allow_http=True)).url == "http://planner.example/hook"
    )


def test_a_missing_secret_is_named(monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(UpkeepError, match=f"{SECRET} is not set"):
        open_receiver(Webhook(url="https://planner.example/hook"))


def test_credentials_may_come_from_variables_and_leave_the_url(monkeypatch):
    monkeypatch.setenv(SECRET, "s3cret")
    monkeypatch.setenv("PLANNER", "upkeep:pässword ☂")
    receiver = open_receiver(Webhook(url="https://${PLANNER}@planner.example:8443/hook"))
    assert receiver.url == "https://planner.example:8443/hook"
    assert receiver.headers["authorization"] == f"Basic {b64encode('upkeep:pässword ☂'.encode()).decode()}"
