"""The ledger only grows, and tells what was known on any day, in whatever order labels arrive."""

from datetime import timedelta

import polars as pl
from fleet_cases import at
from hypothesis import given
from hypothesis import strategies as st
from outcome_cases import PARAMS, ends, event, events, judge, predictions, said

from upkeep.production.ledger import as_known, find_news
from upkeep.production.outcomes import LEDGER

MONTHS = 90 * 24
"""Hours that a label may be late."""
MACHINES = ["m1", "m2"]
SCORED = [
    said(hour, probability, machine, model_version=version)
    for machine, shift in (("m1", 0), ("m2", 5))
    for hour, probability, version in [
        (4, 0.2, "v1"),
        (8, 0.8, "v1"),
        (16, 0.9, "v1"),
        (24, 0.7, "v2"),
        (32, 0.1, "v2"),
    ]
    for hour in [hour + shift]
]

happenings = st.builds(
    event,
    st.integers(0, 50),
    st.sampled_from(["failure", "maintenance", "maintenance", "error"]),
    st.sampled_from(MACHINES),
    finding=st.sampled_from([None, "defect", "nothing"]),
    alarm_at=st.sampled_from([None, at(8), at(13), at(16)]),
)
arrivals = st.lists(st.tuples(st.one_of(happenings, st.sampled_from(SCORED)), st.integers(0, MONTHS)), max_size=12)
corrections = st.lists(st.tuples(st.integers(0, 11), happenings, st.integers(0, MONTHS)), max_size=3)


def known_by(day: int, arrived, corrected) -> tuple[list[dict], list[dict]]:
    """Return the predictions and the events that are there on a day; a correction takes an event's place."""
    there = {number: row for number, (row, late) in enumerate(arrived) if late <= day}
    for number, row, late in sorted(corrected, key=lambda each: each[2]):
        if late <= day and "kind" in there.get(number, {}):
            there[number] = row
    rows = list(there.values())
    return [row for row in rows if "kind" not in row], [row for row in rows if "kind" in row]


@given(arrivals, corrections, st.lists(st.integers(1, MONTHS), max_size=4, unique=True).map(sorted))
def test_labels_late_doubled_corrected_and_out_of_order_end_as_if_judged_at_once(arrived, corrected, days) -> None:
    until, ledger, judged = ends(60, m2=30), LEDGER.to_frame(), {}
    for day in [*days, MONTHS + 1]:
        said_so_far, happened = known_by(day, arrived, corrected)
        judged[day] = judge(said_so_far, happened, until, known=day)
        doubled = (predictions(*said_so_far, *said_so_far[:3]), events(*reversed(happened), *happened[:2]))
        ledger = ledger.vstack(find_news(ledger, *doubled, until, PARAMS, at(day)))
        assert find_news(ledger, *doubled, until, PARAMS, at(day + 0.5)).is_empty()
    for day, then in judged.items():
        assert as_known(ledger, at(day)).drop("known_at").equals(then.drop("known_at"))
    assert as_known(ledger, at(0)).is_empty()


def grow(ledger: pl.DataFrame, rows: list[dict], happened: list[dict], until: float, known: float) -> pl.DataFrame:
    news = find_news(ledger, predictions(*rows), events(*happened), ends(until), PARAMS, at(known))
    return ledger.vstack(news)


def states(ledger: pl.DataFrame) -> list[tuple]:
    return as_known(ledger, at(10_000)).select("at", "outcome").rows()


def test_only_what_is_new_is_added_and_nothing_before_it_changes() -> None:
    first = grow(LEDGER.to_frame(), [said(0), said(0, machine="m2")], [], 5, known=5)
    second = grow(first, [said(0), said(0, machine="m2")], [event(7, "maintenance", finding="defect")], 8, known=9)
    assert second.head(2).equals(first)
    assert second.tail(-2).select("machine", "outcome", "known_at").rows() == [("m1", "defect_found", at(9))]


def test_a_failure_whose_time_is_corrected_is_withdrawn_not_forgotten() -> None:
    ledger = grow(LEDGER.to_frame(), [said(0)], [event(5, "failure")], 30, known=30)
    ledger = grow(ledger, [said(0)], [event(6, "failure")], 30, known=40)
    assert states(ledger) == [(at(0), "failed"), (at(6), "caught")]
    assert as_known(ledger, at(30))["at"].to_list() == [at(0), at(5)]


def test_predictions_that_were_removed_since_leave_what_they_settled() -> None:
    rows = [said(hour) for hour in range(0, 40, 2)]
    happened = [event(35, "failure")]
    whole = grow(LEDGER.to_frame(), rows, [], 30, known=41)
    pruned = [row for row in rows if row["scored_at"] >= at(24)]
    expected = states(grow(whole, rows, happened, 60, known=61))
    assert states(grow(whole, pruned, happened, 60, known=61)) == expected
    later = grow(grow(whole, rows, happened, 60, known=61), [], happened, 60, known=62)
    assert states(later) == expected


def test_plants_and_times_that_are_no_longer_read_stay() -> None:
    ledger = grow(LEDGER.to_frame(), [said(0)], [event(5, "failure")], 30, known=30)
    since = PARAMS.model_copy(
        update={"fetch": PARAMS.fetch.model_copy(update={"since": (at(5) + timedelta(days=1)).date()})}
    )
    assert find_news(ledger, predictions(said(0)), events(), ends(30).clear(), PARAMS, at(40)).is_empty()
    gone = find_news(ledger, predictions(said(0)), events(), ends(30), since, at(40))
    assert gone.select("kind", "outcome").rows() == [("alarm", "survived")]
