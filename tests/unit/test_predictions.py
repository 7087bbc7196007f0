"""The prediction log's rows and layout, in memory."""

from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
from log_cases import DAY, NOON, prediction, read_log
from parameters import SHIPPED

from upkeep.core.errors import UpkeepError
from upkeep.features.labels import find_repairs
from upkeep.scoring import prediction_log
from upkeep.scoring.prediction_log import SCHEMA, LastService, as_log_rows, find_services, read_parts, write_part

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000


@pytest.fixture
def root():
    """The address of a log that nobody has written to."""
    return f"memory://{uuid4().hex}"


def test_a_prediction_becomes_a_row_of_the_schema():
    warning = {"code": "gap", "message": "3 h without data", "column": None}
    rows = as_log_rows([prediction(1, warnings=[warning], maintained_at=NOON, maintenance_code="repair")])
    assert rows.schema == SCHEMA
    row = rows.row(0, named=True)
    assert row["scored_at"] == datetime(2025, 3, 31, 12, tzinfo=UTC) + timedelta(microseconds=1)
    assert row["maintained_at"] == datetime(2025, 3, 31, 12, tzinfo=UTC)
    assert row["warnings"] == [warning]
    assert row["probability"] == 0.25


def test_a_service_ends_with_its_maintenance_or_as_labels_have_it_after_the_longest_repair():
    failures, maintenance = [("A", 1), ("B", 7), ("C", 3)], [("A", 5), ("B", 2), ("C", 3)]
    times = [(*each, kind) for kind, of in (("maintenance", maintenance), ("failure", failures)) for each in of]
    times += [("B", 8, "error"), ("D", 9, "error")]
    happened = [(machine, NOON + hour * HOUR_US, kind, "any") for machine, hour, kind in times]
    longest = SHIPPED.dataset.max_repair_hours
    found = find_services(happened, longest)
    ended = {name: each.serviced_at for name, each in found.items()}
    assert ended == {name: NOON + hour * HOUR_US for name, hour in {"A": 5, "B": 7 + longest, "C": 3}.items()}
    events = pl.DataFrame(happened, ["machine", "time", "kind", "code"], orient="row")
    events = events.with_columns(pl.col("time").cast(SCHEMA["time"]))
    repairs = find_repairs(events, SHIPPED.dataset).select("machine", pl.col("repaired").to_physical())
    assert dict(repairs.iter_rows()) == ended


def test_the_newest_maintenance_is_told_whatever_its_code_and_whatever_failed_since():
    hours = {"failure": 9, "maintenance": 5, "error": 8}
    happened = [("A", hour, kind, None) for kind, hour in hours.items()] + [("A", 2, "maintenance", "scheduled")]
    assert find_services(happened, 72)["A"][1:] == (5, None)
    assert find_services(happened[-1:], 72)["A"] == LastService(2, 2, "scheduled")


def test_no_predictions_become_no_rows():
    assert as_log_rows([]).schema == SCHEMA


def test_features_keep_every_bit_and_the_unknown_ones_become_null():
    odd = np.array([0.1, -0.0, 1e-45, 3.4028235e38, np.inf, np.nan, 16777217], dtype=np.float32)
    stored = as_log_rows([prediction(1, features=odd)])["features"][0]
    assert stored.dtype == pl.Float32
    assert stored.is_null().to_list() == np.isnan(odd).tolist()
    assert stored.drop_nulls().to_numpy().tobytes() == odd[~np.isnan(odd)].tobytes()


def test_plants_may_have_different_numbers_of_features():
    lengths = [3, 0, 5]
    rows = as_log_rows([prediction(n, features=np.ones(n, dtype=np.float32)) for n in lengths])
    assert rows["features"].to_list() == [[1.0] * n for n in lengths]


@pytest.mark.parametrize("broken", [{"probability": "high"}, {"warnings": "gap"}, {"machine": "\ud800"}])
def test_what_does_not_fit_the_schema_is_refused(broken):
    with pytest.raises((TypeError, ValueError, pl.exceptions.PolarsError)):
        as_log_rows([prediction(1, **broken)])


def test_a_part_is_split_by_day_and_plant(root):
    rows = as_log_rows([prediction(1), prediction(2, plant="porto"), prediction(3, scored_at=NOON + DAY_US)])
    assert write_part(root, "p1", rows) == [
        "day=2025-03-31/plant=lyon/p1.parquet",
        "day=2025-03-31/plant=porto/p1.parquet",
        "day=2025-04-01/plant=lyon/p1.parquet",
    ]
    assert read_log(root).sort("scored_at").equals(rows)


def test_a_part_of_the_same_name_replaces_the_one_before(root):
    write_part(root, "p1", as_log_rows([prediction(1), prediction(2)]))
    write_part(root, "p1", as_log_rows([prediction(1), prediction(3)]))
    assert read_log(root)["id"].to_list() == ["request-1/0", "request-3/0"]


def test_reading_starts_at_a_day_and_leaves_out_what_is_known(root):
    days = [as_log_rows([prediction(day, scored_at=NOON + day * DAY_US)]) for day in range(3)]
    known = [name for rows in days for name in write_part(root, "p1", rows)]
    found = dict(read_parts(root, DAY + timedelta(days=1), {known[2]}))
    assert list(found) == ["day=2025-04-01/plant=lyon/p1.parquet"]
    assert found[known[1]].equals(days[1])


def test_only_the_wanted_columns_are_read(root):
    write_part(root, "p1", as_log_rows([prediction(1)]))
    [(_, rows)] = read_parts(root, DAY, set(), columns=["machine", "probability"])
    assert rows.columns == ["machine", "probability"]


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_a_file_is_read_whole_however_many_slices_that_takes(root, monkeypatch, count):
    monkeypatch.setattr(prediction_log, "SLICE_ROWS", 3)
    rows = as_log_rows([prediction(number) for number in range(count)])
    write_part(root, "p1", rows)
    assert read_log(root).equals(rows)


def test_a_log_that_nobody_has_written_to_is_empty(root):
    assert list(read_parts(root, date(2025, 1, 1), set())) == []


def test_a_plants_name_cannot_lead_out_of_the_log(root):
    [name] = write_part(root, "p1", as_log_rows([prediction(1, plant="../../etc")]))
    assert name == "day=2025-03-31/plant=..%2F..%2Fetc/p1.parquet"


def test_an_error_names_the_address_without_its_password():
    with pytest.raises(UpkeepError) as refused:
        write_part("nosuch://planner:s3cret@store.example.com/log", "p1", as_log_rows([prediction(1)]))
    assert "predictions cannot be written: ValueError: Protocol not known: nosuch" in str(refused.value)
    assert "file=nosuch://***@store.example.com/log" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_file_from_before_there_were_challengers_has_no_roles(root):
    [name] = write_part(root, "p1", as_log_rows([prediction(1, role="challenger")]).drop("role"))
    assert name
    assert read_log(root)["role"].to_list() == [None]
