"""Why to train again, up to which batch, and how the result is offered."""

from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from parameters import LIMITS

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch, Params
from upkeep.gitlab.gate import Verdict
from upkeep.gitlab.retraining import advance, describe_offer, new_batches, read_clock
from upkeep.sources import Delivery

ROOT = Path(__file__).parents[2]
MONDAY = date(2025, 12, 29)
ONE, THREE = [MONDAY], [MONDAY + timedelta(weeks=week) for week in range(3)]


def test_the_clock_can_be_set():
    assert read_clock({"UPKEEP_TODAY": "2025-12-29"}) == MONDAY


@pytest.mark.parametrize("text", ["tomorrow", "29.12.2025", "0001-01-01", "9999-12-31"])
def test_a_clock_that_says_nonsense_is_refused(text):
    with pytest.raises(UpkeepError, match=f"UPKEEP_TODAY is '{text}'"):
        read_clock({"UPKEEP_TODAY": text})


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
    return Fetch(source=f"{__name__}:Shelf", until=until, batch_days=7, reread_batches=4, options=options)


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
