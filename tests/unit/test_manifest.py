from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch
from upkeep.sources import Key
from upkeep.sources.manifest import RawFile, empty_manifest, raise_without_telemetry
from upkeep.sources.store import same_rows, to_fetch

MONDAY = date(2025, 1, 6)


def fetch(**changes):
    batches = {"until": MONDAY, "batch_days": 7, "reread_batches": 1}
    chosen = {"source": "sql", "mode": "copy", **batches, "options": {"url": "${DB}"}}
    return Fetch(**{**chosen, **changes})


def weeks(table, plant, *numbers):
    return {Key(table, plant, MONDAY + timedelta(weeks=number)): [] for number in numbers}


def raw_file(plant, batch, delivery=1):
    return RawFile(table="events", plant=plant, batch=batch, delivery=delivery, file="f", rows=1, bytes=1, sha256="0")


def test_what_is_not_stored_is_fetched_and_the_newest_stored_batches_of_each_table_are_read_again():
    stored = {**weeks("telemetry", "lyon", 0, 1), **weeks("machines", "lyon", 0)}
    listed = {**weeks("telemetry", "lyon", 0, 1, 2), **weeks("machines", "lyon", 0)}
    assert to_fetch(listed, stored, 1) == sorted({**weeks("telemetry", "lyon", 1, 2), **weeks("machines", "lyon", 0)})


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_without_rereading_every_listed_batch_is_fetched_exactly_once(listed, stored):
    chosen = to_fetch(weeks("telemetry", "lyon", *listed), weeks("telemetry", "lyon", *stored), 0)
    assert chosen == sorted(weeks("telemetry", "lyon", *(listed - stored)))


def test_a_stored_batch_that_the_source_has_forgotten_is_left_alone():
    assert to_fetch({}, weeks("telemetry", "lyon", 0), 4) == []


def test_other_options_or_batches_are_another_origin():
    origin = empty_manifest(fetch())
    assert origin == empty_manifest(fetch(until=MONDAY + timedelta(weeks=1), reread_batches=3))
    assert origin != empty_manifest(fetch(options={"url": "${OTHER}"}))
    assert origin != empty_manifest(fetch(batch_days=1))
    assert origin != empty_manifest(fetch(source="files"))


def test_a_since_later_than_until_is_named_as_the_fault():
    with pytest.raises(ValidationError, match="since, 2025-01-13, is later than until, 2025-01-06"):
        fetch(since=MONDAY + timedelta(weeks=1))


def test_a_since_later_than_the_data_is_among_what_to_check():
    with pytest.raises(UpkeepError) as refused:
        raise_without_telemetry([], fetch(since=MONDAY))
    assert "no telemetry from 2025-01-06 up to the batch of 2025-01-06" in str(refused.value)
    assert "check fetch.since, fetch.until and fetch.options" in str(refused.value)
    with pytest.raises(UpkeepError, match=r"check fetch\.until and"):
        raise_without_telemetry([], fetch())


def test_the_value_of_a_variable_does_not_enter_the_manifest(monkeypatch):
    monkeypatch.setenv("DB", "sqlite:///one")
    before = empty_manifest(fetch())
    monkeypatch.setenv("DB", "sqlite:///two")
    assert before == empty_manifest(fetch())


def test_files_are_listed_in_one_order_whatever_the_order_they_came_in():
    files = [raw_file("porto", MONDAY), raw_file("lyon", MONDAY, 2), raw_file("lyon", MONDAY)]
    ordered = empty_manifest(fetch()).with_files(files).files
    assert [(file.plant, file.delivery) for file in ordered] == [("lyon", 1), ("lyon", 2), ("porto", 1)]


def test_rows_in_another_order_are_the_same_rows():
    rows = pl.DataFrame({"machine": ["m1", "m2"], "load": [1.0, float("nan")]})
    assert same_rows(rows, rows.reverse())


def test_one_row_twice_is_not_that_row_once():
    rows = pl.DataFrame({"machine": ["m1", "m2"]})
    assert not same_rows(rows, pl.concat([rows, rows[:1]]))
    assert not same_rows(pl.concat([rows, rows[:1]]), pl.concat([rows, rows[1:]]))


def test_another_type_is_another_delivery():
    assert not same_rows(pl.DataFrame({"load": [1]}), pl.DataFrame({"load": [1.0]}))
