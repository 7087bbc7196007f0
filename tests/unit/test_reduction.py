"""Readings faster than rows: what a row says of them, whatever the order and the files they came in."""

from datetime import UTC, date, datetime, timedelta
from functools import partial

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parameters import SHIPPED, changed
from polars.testing import assert_frame_equal

from upkeep.contract.dictionary import Column, Dictionary
from upkeep.contract.reconcile import Delivered
from upkeep.contract.reduction import cut_cells, end_of_cell, reduce_readings, reduce_rows
from upkeep.contract.validation import Checked, check_table

MONDAY, START = date(2025, 1, 6), datetime(2025, 1, 6, tzinfo=UTC)
MINUTE = 60_000_000
STRICTNESS = changed(SHIPPED.validate_, max_near_duplicate_share=1.0)


def column(role: str, kind: str = "number", **rest: object) -> Column:
    return Column.model_validate({"meaning": "", "role": role, "type": kind, **rest})


KEYS = {"plant": column("key", "text"), "machine": column("key", "text")}
TELEMETRY = {
    **KEYS,
    "time": column("key", "time"),
    "load": column("setting", range=[0, 100]),
    "heat": column("sensor", range=[-100, 100]),
    "program": column("attribute", "text", required=False),
}


def reduce_one(values: list[float], seconds: list[int], every: int = MINUTE) -> dict[str, list[float]]:
    cells = cut_cells(np.array(seconds) * 1_000_000, every)
    return {name: found.tolist() for name, found in reduce_readings(np.array(values), cells).items()}


def readings(seconds: list[float], heat: list[float | None], machine: str = "M1", **others: object) -> pl.DataFrame:
    times = [START + timedelta(seconds=second) for second in seconds]
    schema = {name: entry.dtype for name, entry in TELEMETRY.items()}
    rows = {"plant": "lyon", "machine": machine, "time": times, "load": 1.0, "heat": heat, "program": None, **others}
    return pl.DataFrame(rows, schema_overrides=schema) if times else pl.DataFrame(schema=schema)


def check(*deliveries: pl.DataFrame, every: int = MINUTE, batches: list[date] | None = None) -> Checked:
    delivered = [
        Delivered(batches[number] if batches else MONDAY, number + 1, rows.lazy)
        for number, rows in enumerate(deliveries)
    ]
    return check_table("telemetry", "lyon", delivered, TELEMETRY, STRICTNESS, 7, every)


def test_a_cell_holds_its_end_and_not_its_beginning() -> None:
    cells = cut_cells(np.array([0, 1, 60, 61, 120, 121]) * 1_000_000, MINUTE)
    assert (cells.ends // MINUTE).tolist() == [0, 1, 2, 3]
    assert cells.starts.tolist() == [0, 1, 3, 5]


@given(st.integers(-(10**16), 10**16), st.integers(1, 86_400))
def test_frames_and_arrays_are_cut_alike_at_any_time(time, seconds):
    every = seconds * 1_000_000
    frame = pl.DataFrame({"time": pl.Series([time]).cast(pl.Datetime("us", "UTC"))})
    assert frame.select(end_of_cell(pl.col("time"), every)).item() == cut_cells(np.array([time]), every).ends[0]


def test_two_machines_share_no_cell() -> None:
    assert cut_cells(np.array([1, 2, 1, 2]), MINUTE, np.array([0, 2])).starts.tolist() == [0, 2]


def test_a_row_tells_mean_spread_bounds_last_and_number_of_what_is_known() -> None:
    found = reduce_one([1.0, 4.0, np.nan, 1.0, np.nan], [1, 2, 3, 4, 5])
    assert found == {"mean": [2.0], "std": [pytest.approx(3**0.5)], "min": [1], "max": [4], "last": [1], "count": [3]}


def test_equal_readings_are_their_own_mean_and_deviate_by_nothing_however_many() -> None:
    found = reduce_one([0.1] * 33, list(range(1, 34)))
    assert (found["mean"], found["std"]) == ([0.1], [0.0])


def test_a_mean_is_not_above_the_highest_reading_however_their_sum_was_rounded() -> None:
    found = reduce_one([0.1, 0.1, 0.09999999999999999], [1, 2, 3])
    assert found["mean"] == found["max"] == [0.1]


def test_a_single_reading_has_no_spread_and_a_cell_without_any_a_count_of_nothing() -> None:
    found = reduce_one([7.0, np.nan], [1, 61])
    assert found["count"] == [1, 0]
    assert np.isnan(found["std"]).all()
    assert np.isnan([found[name][1] for name in ("mean", "min", "max", "last")]).all()


def test_what_is_too_large_to_be_summed_is_not_known() -> None:
    found = reduce_one([1.7e308, 1.7e308, 1.6e308], [1, 2, 3])
    assert np.isnan([found["mean"][0], found["std"][0]]).all()
    assert (found["max"], found["count"]) == ([1.7e308], [3])


def test_a_spread_is_found_beside_a_large_level() -> None:
    assert reduce_one([1e9 + 1, 1e9 + 2, 1e9 + 3], [1, 2, 3])["std"] == [1.0]


@given(st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), min_size=1, max_size=300), st.integers(1, 40))
def test_a_cell_says_the_same_whatever_is_before_and_after_it(values, size) -> None:
    times = np.arange(1, len(values) + 1)
    whole = reduce_readings(np.array(values), cut_cells(times, size))
    for cell in range(len(whole["mean"])):
        own = np.array(values[cell * size : (cell + 1) * size])
        alone = reduce_readings(own, cut_cells(np.arange(1, len(own) + 1), size))
        for name, found in whole.items():
            np.testing.assert_array_equal(found[cell], alone[name][0])


def test_rows_stand_at_the_end_of_their_cell_with_the_last_of_what_is_no_number() -> None:
    rows = readings([10, 30, 60, 70], [1.0, 3.0, 5.0, 7.0], load=[1.0, 2.0, 3.0, 9.0], program=["a", "b", None, None])
    clean = check(rows).clean
    assert clean.columns == [*TELEMETRY, *(f"heat.{name}" for name in ("std", "min", "max", "last", "count"))]
    assert clean["time"].to_list() == [START + timedelta(minutes=1), START + timedelta(minutes=2)]
    assert clean.drop("plant", "machine", "time").rows() == [
        (2.0, 3.0, "b", 2.0, 1.0, 5.0, 5.0, 3.0),
        (9.0, 7.0, None, None, 7.0, 7.0, 7.0, 1.0),
    ]


def test_all_raw_rows_are_accounted_for_before_they_are_reduced() -> None:
    first = readings([10, 20, 20, 30], [1.0, 2.0, 9.0, 500.0])
    checked = check(first, readings([10, 40], [1.0, 4.0]))
    assert (checked.rows_in, checked.kept, checked.clean.height) == (6, 3, 1)
    assert checked.duplicates == {"exact": 0, "near": 1, "repeated_batch": 1}
    assert checked.quarantined["value"].to_list() == ["500.0"]
    assert checked.clean.select("heat", "heat.count").row(0) == (pytest.approx(7 / 3), 3.0)


def test_readings_seconds_apart_are_no_near_duplicates_where_rows_are_reduced() -> None:
    checked = check(readings([1, 2, 3], [1.0, 2.0, 3.0]))
    assert (checked.kept, checked.duplicates["near"]) == (3, 0)


def test_the_reading_on_a_border_joins_the_cell_that_an_earlier_batch_opened() -> None:
    week = 7 * 86_400
    before, after = readings([week - 30, week - 10], [1.0, 3.0]), readings([week, week + 1], [5.0, 7.0])
    checked = check(before, after, batches=[MONDAY, MONDAY + timedelta(days=7)])
    assert checked.clean.select("heat", "heat.last", "heat.count").rows() == [(3.0, 5.0, 3.0), (7.0, 7.0, 1.0)]
    assert [finding["kind"] for finding in checked.findings] == []


def test_rows_wait_for_the_last_delivery_that_has_any_of_their_cell_or_may_complete_it(monkeypatch) -> None:
    frames = [readings([30, 90, 150], [1.0, 2.0, 3.0]), readings([200], [4.0]), readings([100], [5.0])]
    taken: list[int] = []
    found: list[tuple[int, list[float]]] = []

    def scan(number: int) -> pl.LazyFrame:
        taken.append(number)
        return frames[number].lazy()

    def reduce(rows: pl.DataFrame, *how: object) -> pl.DataFrame:
        found.append((len(taken) - len(frames), rows["heat"].to_list()))  # each was scanned once for its cells
        return reduce_rows(rows, *how)

    monkeypatch.setattr("upkeep.contract.table_check.reduce_rows", reduce)
    delivered = [Delivered(MONDAY, number, partial(scan, number)) for number in range(len(frames))]
    check_table("telemetry", "lyon", delivered, TELEMETRY, STRICTNESS, 7, MINUTE)
    assert found == [(1, [1.0]), (2, [3.0]), (3, [4.0]), (3, [2.0, 5.0])]


def test_a_late_reading_changes_neither_the_last_one_nor_another_cell() -> None:
    later = MONDAY + timedelta(days=7)
    checked = check(readings([10, 50], [1.0, 3.0]), readings([20], [8.0]), batches=[MONDAY, later])
    assert checked.clean.select("heat", "heat.last", "heat.count").rows() == [(4.0, 3.0, 3.0)]
    assert [finding["kind"] for finding in checked.findings] == ["late_rows"]


def test_a_sensor_that_repeats_a_value_is_stuck_in_reduced_rows_however_many_readings_each_holds() -> None:
    seconds = [600.0 * step + step % 5 for step in range(600) if step % 7]
    heat = [0.1 if 150 <= step < 330 else step % 7.3 for step in range(600) if step % 7]
    sound = {"sound": column("sensor")}
    rows = readings(seconds, heat, sound=seconds)
    checked = check_table(
        "telemetry", "lyon", [Delivered(MONDAY, 1, rows.lazy)], TELEMETRY | sound, STRICTNESS, 7, 60 * MINUTE
    )
    assert [(found["kind"], found["detail"]) for found in checked.findings] == [("stuck_sensor", "0.1 for 28.0 h")]


ONE = st.tuples(st.sampled_from(["M1", "M2"]), st.integers(0, 400), st.floats(-99, 99) | st.none())


@given(st.lists(ONE, max_size=40, unique_by=lambda one: one[:2]), st.randoms(use_true_random=False))
def test_rows_are_the_same_to_the_bit_however_readings_are_cut_into_files_doubled_and_shuffled(found, random) -> None:
    rows = pl.concat([readings([], []), *(readings([at], [heat], machine) for machine, at, heat in found)])
    whole = check(rows.sort("machine", "time"))
    files: list[list[int]] = [[] for _ in range(4)]
    for row in range(rows.height):
        for file in random.sample(files, random.randint(1, 3)):
            file.append(row)
    for file in files:
        random.shuffle(file)
    pieces = check(*(rows[file] for file in files))
    assert_frame_equal(pieces.clean, whole.clean, check_exact=True)
    assert pieces.kept == whole.kept == rows.height


DICTIONARY = {
    "rows_every": "10m",
    "tables": {
        "telemetry": {name: entry.model_dump(exclude_defaults=True) for name, entry in TELEMETRY.items()},
        "events": {
            **{name: {"meaning": "", "role": "key", "type": "text"} for name in ("plant", "machine", "kind", "code")},
            "time": {"meaning": "", "role": "key", "type": "time"},
        },
        "machines": {
            **{name: {"meaning": "", "role": "key", "type": "text"} for name in ("plant", "machine")},
            "model": {"meaning": "", "role": "attribute", "type": "text"},
            "installed": {"meaning": "", "role": "attribute", "type": "time"},
        },
    },
}


def test_the_spread_and_number_of_readings_are_sensors_of_their_own() -> None:
    dictionary = Dictionary.model_validate(DICTIONARY)
    assert dictionary.row_length == 10 * MINUTE
    assert dictionary.names("telemetry", "sensor") == ["heat", "heat.std", "heat.count"]
    assert list(dictionary.row_columns("telemetry")) == check(readings([1], [1.0])).clean.columns
    assert dictionary.row_columns("telemetry")["heat.std"].label == "spread of heat within 10m"


@pytest.mark.parametrize("every", ["0h", "1", "1w", "1.5h", "", "-1h", "99999s"])
def test_a_length_of_rows_is_a_whole_number_of_one_unit(every: str) -> None:
    with pytest.raises(ValueError, match="rows_every"):
        Dictionary.model_validate(DICTIONARY | {"rows_every": every})


def test_a_column_that_the_reduction_would_make_is_refused() -> None:
    tables = DICTIONARY["tables"] | {
        "telemetry": DICTIONARY["tables"]["telemetry"] | {"heat.std": {"meaning": "", "role": "sensor"}}
    }
    with pytest.raises(ValueError, match=r"heat\.std"):
        Dictionary.model_validate(DICTIONARY | {"tables": tables})
