"""Why to train again, up to which batch, and how the result is offered."""

from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from fleet_cases import at
from outcome_cases import PARAMS
from parameters import LIMITS
from test_live_figures import ledger

from upkeep.core.params import Fetch, Params
from upkeep.gitlab import retraining, snapshot
from upkeep.gitlab.gate import Verdict
from upkeep.gitlab.retraining import advance, describe_offer, find_losses, new_batches, weigh_outcomes
from upkeep.judging.reports import Headline, Metrics
from upkeep.model.storage import checksum
from upkeep.production.ledger import OUTCOMES
from upkeep.scoring.prediction_log import write_part
from upkeep.sources import Delivery

ROOT = Path(__file__).parents[2]
MONDAY = date(2025, 12, 29)
ONE, THREE = [MONDAY], [MONDAY + timedelta(weeks=week) for week in range(3)]


def test_hundreds_of_reasons_are_cut_to_what_git_takes():
    verdict = Verdict(False, [f"plant {number}: {'worse ' * 20}" for number in range(2000)])
    options = describe_offer("main", MONDAY, {"new data": "3 new batches"}, verdict, None)
    assert max(len(option.encode()) for option in options) < 60_000
    assert any("see the note" in option for option in options)


class Shelf:
    """A source that must be listed only."""

    def __init__(self, options, batch_days):  # noqa: ARG002  # a source gets it
        self.batches = options["batches"]

    def deliveries(self, until):  # noqa: ARG002  # a shelf shows all it has
        for batch in self.batches:
            yield Delivery("telemetry", "lyon", date.fromisoformat(batch), read=self.refuse)
        yield Delivery("events", "lyon", MONDAY + timedelta(weeks=9), read=self.refuse)

    def refuse(self):
        raise AssertionError("a batch was read")


def fetch(*batches):
    options = {"batches": [str(batch) for batch in batches]}
    until = MONDAY - timedelta(weeks=1)
    return Fetch(source=f"{__name__}:Shelf", mode="copy", until=until, batch_days=7, reread_batches=4, options=options)


@pytest.mark.parametrize(
    ("today", "complete"),
    [(MONDAY, []), (MONDAY + timedelta(days=6), []), (MONDAY + timedelta(days=7), ONE), (date(2027, 1, 1), THREE)],
)
def test_a_batch_is_new_once_its_last_day_is_over(today, complete):
    assert new_batches(fetch(MONDAY - timedelta(weeks=1), *THREE), LIMITS, today) == complete


def test_where_rows_are_made_of_events_their_batches_are_new():
    scheduled = fetch().model_copy(update={"rows_every_hours": 12})
    assert new_batches(scheduled, LIMITS, date(2027, 1, 1)) == [MONDAY + timedelta(weeks=9)]


def test_a_source_is_not_even_listed_before_a_batch_can_be_complete():
    assert new_batches(fetch().model_copy(update={"source": "nowhere:Nothing"}), LIMITS, MONDAY) == []


def test_until_moves_on_and_no_other_byte_changes():
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    after = advance(before, MONDAY)
    changed = [(old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    ((old, new),) = changed
    assert old.replace(str(yaml.safe_load(before)["fetch"]["until"]), str(MONDAY)) == new
    assert Params.model_validate(yaml.safe_load(after)).fetch.until == MONDAY


@pytest.mark.parametrize("written", ['"2025-12-22"', "'2025-12-22'", "2025-12-22"])
def test_until_is_found_however_it_is_written(written):
    text = (
        f"other:\n  until: 1\nfetch:  # whence\n  source: x\n\n# aside\n  until: {written}  # last\n  batch_days: 7\n"
    )
    assert advance(text, MONDAY) == text.replace(written, '"2025-12-29"')


def test_a_line_of_another_section_is_left_alone():
    text = 'fetch:\n  source: x\nother:\n  until: "2025-12-22"\n'
    assert advance(text, MONDAY) == text


TEST = Metrics(rows=9, machines=3, positives=1, failures=4, cost=20_000.0)
"""Test figures that promise 5,000 per failure; a missed one costs 20,000, a planned repair 4,000."""


def test_a_loss_is_what_alarms_have_cost_at_least_beside_what_the_test_figures_promise_for_as_many_failures():
    missed = ledger(*["missed"] * 6)
    least, promised = weigh_outcomes(missed, TEST, PARAMS)
    assert (0 < least <= 6 * 20_000, promised) == (True, 6 * 5_000)
    assert weigh_outcomes(missed.vstack(ledger(*["not_covered"] * 6)), TEST, PARAMS) == (least, promised)
    assert weigh_outcomes(ledger(*["defect_found"] * 6), TEST, PARAMS).least < 6 * 5_000


@pytest.mark.parametrize(
    ("found", "test"),
    [
        ([], TEST),
        (["nothing_found"] * 3, TEST),  # no failure to hold it to
        (["missed"], TEST),  # of one machine, which tells no interval
        (["missed"] * 3, TEST.model_copy(update={"failures": 0})),
        (["missed"] * 3, TEST.model_copy(update={"cost": None})),
    ],
)
def test_where_nobody_can_tell_there_is_no_loss(found, test):
    assert weigh_outcomes(ledger(*found), test, PARAMS) is None


@pytest.fixture
def champion(tmp_path, monkeypatch):
    """A commit whose models of two plants are told by their metadata, and where the ledger is to be."""
    headline = Headline(overall=TEST, plants={"lyon": TEST, "porto": TEST})
    content = {"metrics.json": headline.model_dump_json().encode(), "model.json": b"{}"}

    class CommitFiles(snapshot.CommitFiles):
        def __init__(self, commit):
            assert commit == "base"

        def read(self, path, parse):
            return parse(content[path.name])

    monkeypatch.setattr(retraining, "CommitFiles", CommitFiles)
    folder = tmp_path / "ledger"
    return folder, PARAMS.model_copy(
        update={"production": PARAMS.production.model_copy(update={"ledger": str(folder)})}
    )


def test_only_outcomes_of_the_target_branchs_models_that_are_known_by_today_tell_of_a_loss(champion):
    folder, params = champion
    assert find_losses("base", MONDAY, params) == {}
    live = {"model_version": checksum(b"{}")[:12], "settled_at": at(1), "known_at": at(2)}
    write_part(str(folder), "part", ledger(*["missed"] * 3, **live), OUTCOMES)
    others = {"model_version": "old"}, {"role": "challenger"}, {"known_at": at(48), "plant": "porto"}
    for number, changes in enumerate(others):
        write_part(str(folder), f"part{number}", ledger(*["missed"] * 3, **live | changes), OUTCOMES)
    assert {plant: found.promised for plant, found in find_losses("base", at(3).date(), params).items()} == {
        "lyon": 15_000
    }


def test_a_ledger_that_cannot_be_read_tells_of_no_loss(champion):
    params = champion[1]
    elsewhere = params.production.model_copy(update={"ledger": "nowhere://ledger"})
    assert find_losses("base", MONDAY, params.model_copy(update={"production": elsewhere})) == {}


def test_a_retraining_knows_the_losses_of_the_commit_that_it_starts_from(monkeypatch):
    known, losses = [], {"lyon": retraining.RealisedLoss(9.0, 5.0)}
    monkeypatch.setattr(retraining, "load_params", lambda: PARAMS)
    monkeypatch.setattr(retraining, "new_batches", lambda *_: ONE)
    monkeypatch.setattr(retraining, "_find_offer", lambda _: (None, None))
    monkeypatch.setattr(retraining, "_bring", lambda *_: ONE)
    monkeypatch.setattr(retraining, "find_losses", lambda base, *_: losses if base == "base" else {})
    monkeypatch.setattr(retraining, "decide", lambda evidence, _: known.append(evidence.realised))
    monkeypatch.setattr(retraining.git, "git", lambda *_: "")
    assert "no drift or loss that lasts" in retraining._retrain(MONDAY, "main", "base", None)
    assert known == [losses]


def options(reasons, verdict, job="https://gitlab.example.com/j/7"):
    found = describe_offer("develop", MONDAY, reasons, verdict, job)
    assert not any("\n" in option for option in found), "git refuses push options with line breaks"
    return found


def test_a_model_that_may_ship_is_offered_as_a_merge_request():
    reasons = {"new data": "1 new batch up to that of 2025-12-29", "drift": "drift of lyon in 3 of its last 5 windows"}
    assert options(reasons, Verdict(True, [])) == [
        "merge_request.create",
        "merge_request.target=develop",
        "merge_request.title=Retrain up to 2025-12-29",
        "merge_request.description=**Why:** 1 new batch up to that of 2025-12-29; drift of lyon in 3 of its last 5 "
        "windows.\\n\\n**The gate:** it may ship.\\n\\nMade by [this job](https://gitlab.example.com/j/7).",
        "merge_request.label=new data",
        "merge_request.label=drift",
        "merge_request.unlabel=loss",
        "merge_request.unlabel=age",
        "merge_request.remove_source_branch",
    ]


def test_a_model_that_may_not_ship_is_a_draft_that_says_why():
    found = options({"age": "old"}, Verdict(False, ["lyon is worse", "one\ntwo"]), job=None)
    assert "merge_request.title=Draft: Retrain up to 2025-12-29" in found
    description = next(option for option in found if "description" in option)
    assert description.endswith("so this is a draft.\\n\\n- lyon is worse\\n- one two")
