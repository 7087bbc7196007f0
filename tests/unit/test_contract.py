import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parameters import SHIPPED, changed
from polars.testing import assert_frame_equal

from upkeep.contract.dictionary import Column
from upkeep.contract.duplicates import Deduplicated, drop_duplicates
from upkeep.contract.reconcile import QUARANTINE, Delivered
from upkeep.contract.validation import Checked, add_missing_machines, check_table
from upkeep.core.errors import UpkeepError
from upkeep.sources.excess import find_excess, refuse_excess

MONDAY = date(2025, 1, 6)
START = datetime(2025, 1, 6, tzinfo=UTC)
STRICTNESS = changed(SHIPPED.validate_, max_near_duplicate_share=1.0)
QUARANTINE_FOLDER = Path("quarantine")
FAHRENHEIT = {"°F": {"factor": 5 / 9, "offset": -160 / 9}}


def column(role: str, kind: str = "number", **rest: object) -> Column:
    return Column.model_validate({"meaning": "", "role": role, "type": kind, **rest})


KEYS = {"plant": column("key", "text"), "machine": column("key", "text")}
TELEMETRY = {
    **KEYS,
    "time": column("key", "time"),
    "heat": column("sensor", range=[-20, 130], unit="°C", also=FAHRENHEIT),
    "hum": column("sensor", required=False),
}
EVENTS = {
    **KEYS,
    "time": column("key", "time"),
    "kind": column("key", "text", values=["error", "failure"]),
    "code": column("attribute", "text"),
}
MACHINES = {**KEYS, "model": column("attribute", "text")}


def hours(count: int, start: datetime = START) -> list[datetime]:
    return [start + timedelta(hours=hour) for hour in range(count)]


def week_later() -> list[datetime]:
    return hours(2, START + timedelta(days=7))


def telemetry(**columns: object) -> pl.DataFrame:
    """Two rows that hold the contract, unless `columns` say otherwise."""
    usual = {"plant": "lyon", "machine": "M1", "time": hours(2), "heat": [20.0, 21.0], "hum": [50.0, 51.0]}
    return pl.DataFrame({**usual, **columns}, strict=False)


def check(*frames: pl.DataFrame, table: str = "telemetry", columns: dict[str, Column] = TELEMETRY) -> Checked:
    """Check frames that are delivered as one batch each, week after week."""
    deliveries = [Delivered(MONDAY + timedelta(weeks=week), 1, frame.lazy) for week, frame in enumerate(frames)]
    return check_table(table, "lyon", deliveries, columns, STRICTNESS, 7)


def faults(checked: Checked) -> list[tuple[str, str, str | None]]:
    return checked.quarantined.select("reason", "column", "value").rows()


def found(checked: Checked, kind: str) -> list[dict[str, str | None]]:
    return [finding for finding in checked.findings if finding["kind"] == kind]


def test_rows_that_hold_the_contract_come_out_as_they_went_in() -> None:
    checked = check(telemetry())
    expected = telemetry().with_columns(pl.col("time").dt.cast_time_unit("us"))
    assert_frame_equal(checked.clean, expected)
    assert checked.findings == []


def test_clean_rows_are_sorted_by_machine_and_time() -> None:
    checked = check(telemetry(machine=["M2", "M1"]), telemetry(machine="M1", time=hours(2)[::-1], heat=1))
    assert checked.clean.select("machine", "time").rows() == [("M1", hours(2)[0]), ("M1", hours(2)[1]), ("M2", START)]


def test_an_extra_column_is_reported_and_left_out() -> None:
    checked = check(telemetry(), telemetry(time=hours(2, START + timedelta(days=7)), sound=1.0))
    assert checked.clean.columns == list(TELEMETRY)
    [finding] = found(checked, "extra_column")
    assert (finding["column"], finding["batch"], finding["detail"]) == (
        "sound",
        "2025-01-13",
        "not in the dictionary, left out; in 1 of 2 deliveries",
    )


def test_a_missing_optional_column_becomes_null_and_is_reported_once() -> None:
    weeks = [telemetry(time=hours(2, START + timedelta(weeks=week))).drop("hum") for week in range(3)]
    checked = check(*weeks)
    assert checked.clean["hum"].null_count() == checked.rows_in == 6
    [finding] = found(checked, "missing_column")
    assert (finding["column"], finding["from"], finding["to"]) == ("hum", "2025-01-06", "2025-01-20")


def test_a_missing_required_column_quarantines_its_batch_only() -> None:
    checked = check(telemetry().drop("heat"), telemetry(time=hours(2, START + timedelta(days=7))))
    assert checked.clean.height == 2
    assert faults(checked) == [("missing column heat", "heat", None)] * 2
    assert checked.quarantined["batch"].to_list() == ["2025-01-06"] * 2
    assert checked.quarantined["machine"].to_list() == ["M1"] * 2


def test_a_missing_plant_column_is_filled_with_the_plant_that_delivered() -> None:
    checked = check(telemetry().drop("plant"))
    assert checked.clean["plant"].to_list() == ["lyon"] * 2


@pytest.mark.parametrize(
    "delivered",
    [
        ["20", " 21.0 "],
        [20, 21],
        pl.Series([20.0, 21.0], dtype=pl.Float32),
        pl.Series(["20", "21"]).cast(pl.Decimal(6, 2)),
    ],
)
def test_numbers_of_other_types_are_cast(delivered: object) -> None:
    assert check(telemetry(heat=delivered)).clean["heat"].to_list() == [20.0, 21.0]


@pytest.mark.parametrize("sign", [",", None])
def test_a_signal_that_is_true_or_false_is_1_or_0_in_text_as_in_parquet(sign: str | None) -> None:
    delivered = [" True", "FALSE", "true ", "", "0", "trueish"]
    checked = check(
        telemetry(heat=[20.0] * 6, hum=delivered, time=hours(6)).with_columns(pl.lit(sign, pl.String).alias("@decimal"))
    )
    assert checked.clean["hum"].to_list() == [1.0, 0.0, 1.0, None, 0.0]
    assert faults(checked) == [(*NOT_A_NUMBER, "trueish")]
    assert check(telemetry(hum=[True, False])).clean["hum"].to_list() == [1.0, 0.0]


@pytest.mark.parametrize("delivered", ["warm", "21,5", date(2025, 1, 1), timedelta(hours=1), [1.0], {"a": 1}, b"21"])
def test_what_is_not_a_number_quarantines_its_row(delivered: object) -> None:
    checked = check(telemetry(heat=pl.Series([None, delivered])))
    assert checked.clean.height == 1
    assert [fault[:2] for fault in faults(checked)] == [("not a number", "heat")]


NOT_A_NUMBER = ("not a number", "hum")
WRITTEN_WITH = {
    ",": {
        "1.001": 1001, "1.001,5": 1001.5, "1 001,5": 1001.5, "1'001": 1001, "1.001.000": 1_001_000, "-1.001": -1001,
        "1\N{NARROW NO-BREAK SPACE}001,5": 1001.5, "\N{MINUS SIGN}3,5": -3.5, "1,5e3": 1500, ",5": 0.5, " 7,0 ": 7,
        "12.5": None, "0.001": None, "1,001.5": None, "1.00.000": None, "1.001 000": None, "1_000": None, "n/a": None,
        "1" * 50: float("1" * 50),
    },
    ".": {"1,001.5": 1001.5, "1 001.5": 1001.5, "1.001": 1.001, "1,5": None, "1.001,5": None, "1e400": None},
}  # fmt: skip


@pytest.mark.parametrize(("sign", "text"), [(sign, text) for sign, texts in WRITTEN_WITH.items() for text in texts])
def test_a_number_is_read_by_the_decimal_sign_that_its_row_tells(sign: str, text: str) -> None:
    checked = check(telemetry(hum=[text, "7"]).with_columns(pl.Series("@decimal", [sign, None])))
    number = WRITTEN_WITH[sign][text]
    assert checked.clean["hum"].to_list() == ([7.0] if number is None else [number, 7.0])
    assert faults(checked) == ([(*NOT_A_NUMBER, text)] if number is None else [])
    assert checked.findings == []


def test_gaps_stay_gaps_and_text_stays_text_whatever_the_decimal_sign() -> None:
    rows = pl.DataFrame({"plant": "lyon", "machine": ["1,5", "1.5"], "model": ["12,5", "12.5"], "@decimal": ","})
    assert check(rows, table="machines", columns=MACHINES).clean["model"].to_list() == ["12,5", "12.5"]
    gaps = check(telemetry(hum=["NaN", " "]).with_columns(pl.lit(",").alias("@decimal")))
    assert gaps.clean["hum"].to_list() == [None, None]


def test_a_quarantined_row_is_kept_whole_as_it_was_delivered() -> None:
    checked = check(telemetry(heat=["20", "warm"], extra=[b"x", b"y"]))
    assert dict(checked.quarantined.schema) == QUARANTINE
    row = checked.quarantined.row(0, named=True)
    assert row | {"row": None} == {
        "table": "telemetry",
        "batch": "2025-01-06",
        "delivery": 1,
        "machine": "M1",
        "time": START + timedelta(hours=1),
        "reason": "not a number",
        "column": "heat",
        "value": "warm",
        "row": None,
    }
    assert json.loads(row["row"]) == {
        "plant": "lyon",
        "machine": "M1",
        "time": "2025-01-06T01:00:00.000000+00:00",
        "heat": "warm",
        "hum": 51.0,
        "extra": "79",
    }


@pytest.mark.parametrize("name", ["*", "^heat.*$", "@x", "value", "row", ""])
def test_a_quarantined_row_holds_columns_of_any_name(name: str) -> None:
    checked = check(telemetry(heat=["20", "hot"]).with_columns(pl.lit(7).alias(name)))
    [row] = checked.quarantined.iter_rows(named=True)
    assert json.loads(row["row"])[name] == 7
    assert row["value"] == "hot"


@pytest.mark.parametrize("name", ["value", "row", "batch", "delivery", "reason", "column", "table", "literal"])
def test_a_sensor_may_be_called_as_a_column_of_the_quarantine(name: str) -> None:
    columns = {**{key: TELEMETRY[key] for key in ("plant", "machine", "time")}, name: column("sensor")}
    checked = check(telemetry(heat=[1.0, 2.0]).rename({"heat": name}), columns=columns)
    assert checked.clean[name].to_list() == [1.0, 2.0]
    bad = check(telemetry(heat=["20", "hot"]).rename({"heat": name}), columns=columns)
    assert bad.quarantined.select("column", "value").rows() == [(name, "hot")]


@pytest.mark.parametrize(
    "delivered",
    [
        "2025-01-06T01:00:00Z",
        "2025-01-06 01:00",
        "2025-01-06 03:00:00.000+02",
        "2025-01-06T01:00:00 UTC",
        "2025-01-05T22:30:00-0230",
        datetime(2025, 1, 6, 1),
        datetime(2025, 1, 6, 3, tzinfo=datetime.strptime("+0200", "%z").tzinfo),
        pl.Series([datetime(2025, 1, 6, 1)], dtype=pl.Datetime("ns")),
        pl.Series([datetime(2025, 1, 6, 1)], dtype=pl.Datetime("ms")),
    ],
)
def test_a_time_in_any_clear_form_is_read_as_utc(delivered: object) -> None:
    times = delivered if isinstance(delivered, pl.Series) else pl.Series([delivered])
    assert check(telemetry().head(1).with_columns(time=times)).clean["time"].to_list() == [START + timedelta(hours=1)]


def test_a_date_is_its_first_instant() -> None:
    assert check(telemetry().head(1).with_columns(time=pl.Series([MONDAY]))).clean["time"].to_list() == [START]


@pytest.mark.parametrize(
    "delivered",
    [
        pl.Series([1_736_121_600]),
        pl.Series([1.7e9]),
        pl.Series(["06.01.2025"]),
        pl.Series(["2025-13-01"]),
        pl.Series([2**62]).cast(pl.Datetime("ms")),
        pl.Series([True]),
    ],
)
def test_what_is_not_clearly_a_time_is_never_guessed(delivered: pl.Series) -> None:
    checked = check(telemetry().head(1).with_columns(time=delivered))
    assert [fault[:2] for fault in faults(checked)] == [("not a time", "time")]


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_blank_key_quarantines_its_row(blank: str | None) -> None:
    assert [fault[:2] for fault in faults(check(telemetry(machine=["M1", blank])))] == [("null key", "machine")]


@pytest.mark.parametrize("blank", [[None, None], ["", "NaN"], [float("nan"), None]])
def test_a_reading_without_any_value_is_a_gap_and_stays(blank: list[object]) -> None:
    checked = check(telemetry(heat=pl.Series(blank, dtype=pl.String if "" in blank else pl.Float64), hum=None))
    assert checked.clean["heat"].to_list() == [None, None]


@pytest.mark.parametrize("value", [131.0, -20.5])
def test_a_value_out_of_range_quarantines_its_row(value: float) -> None:
    assert faults(check(telemetry(heat=[value, 20.0]))) == [("out of range", "heat", str(value))]


def test_infinity_is_no_number_with_a_range_or_without() -> None:
    assert faults(check(telemetry(hum=[float("-inf"), 1.0]))) == [("not a number", "hum", "-inf")]
    assert faults(check(telemetry(heat=[float("inf"), 1.0]))) == [("not a number", "heat", "inf")]


def test_another_plants_row_goes_to_quarantine() -> None:
    assert faults(check(telemetry(plant=["lyon", "porto"]))) == [("other plant", "plant", "porto")]


def test_a_value_that_the_dictionary_does_not_list_goes_to_quarantine() -> None:
    rows = pl.DataFrame({"plant": "lyon", "machine": "M1", "time": START, "kind": ["error", "party"], "code": "E1"})
    assert faults(check(rows, table="events", columns=EVENTS)) == [("unknown value", "kind", "party")]


VISITS = {
    **EVENTS,
    "kind": column("key", "text", values=["maintenance", "failure"]),
    "finding": column("attribute", "text", required=False, values=["defect", "nothing"]),
    "alarm_at": column("attribute", "time", required=False),
}


def visits(**columns: object) -> pl.DataFrame:
    row = {"plant": "lyon", "machine": "M1", "time": hours(2), "kind": "maintenance", "code": "inspection"}
    return pl.DataFrame({**row, **columns})


def test_what_visits_found_is_kept_and_anything_else_goes_to_quarantine() -> None:
    alarms = ["2025-01-05T12:00:00+01:00", None]
    checked = check(visits(finding=["defect", ""], alarm_at=alarms), table="events", columns=VISITS)
    assert checked.clean.select("finding", "alarm_at").rows() == [("defect", START - timedelta(hours=13)), (None, None)]
    assert faults(check(visits(finding=["ok", "nothing"]), table="events", columns=VISITS)) == [
        ("unknown value", "finding", "ok")
    ]
    assert faults(check(visits(alarm_at=["soon", None]), table="events", columns=VISITS)) == [
        ("not a time", "alarm_at", "soon")
    ]


@pytest.mark.parametrize(
    ("words", "newest"),
    [([None, "defect"], "defect"), (["defect", None], "defect"), (["defect", "nothing"], "nothing")],
)
def test_the_newest_word_on_what_a_visit_found_counts_and_is_no_changed_row(
    words: list[str | None], newest: str
) -> None:
    said = [visits(finding=pl.Series([word] * 2, dtype=pl.String)).lazy for word in words]
    again = [Delivered(MONDAY, number, scan) for number, scan in enumerate(said, start=1)]
    checked = check_table("events", "lyon", again, VISITS, STRICTNESS, 7)
    assert checked.clean["finding"].to_list() == [newest] * 2
    assert (checked.duplicates["repeated_batch"], checked.findings) == (2, [])


def test_deliveries_that_never_say_what_visits_found_lack_nothing() -> None:
    never, later = check(visits(), table="events", columns=VISITS), visits(time=week_later(), finding="defect")
    assert (never.findings, never.clean["finding"].null_count()) == ([], 2)
    told = check(visits(), later, table="events", columns=VISITS)
    assert [finding["column"] for finding in found(told, "missing_column")] == ["finding"]


LONG, BROKEN = "x" * 201, "a\x1b[2Jb"
EVENT = {"plant": "lyon", "machine": "M1", "time": START, "kind": "error", "code": "E1"}
MACHINE = {"plant": "lyon", "machine": "M1", "model": "A"}


@pytest.mark.parametrize(("name", "reason"), [(LONG, "name too long"), (BROKEN, "unprintable name")])
@pytest.mark.parametrize(
    ("table", "at_fault"),
    [
        *(("telemetry", name) for name in ("plant", "machine")),
        *(("events", name) for name in ("plant", "machine", "kind", "code")),
        *(("machines", name) for name in ("machine", "model")),
    ],
)
def test_a_row_with_what_is_no_name_goes_to_quarantine(table: str, at_fault: str, name: str, reason: str) -> None:
    columns = {"telemetry": TELEMETRY, "events": EVENTS, "machines": MACHINES}[table]
    rows = {"telemetry": telemetry(), "events": pl.DataFrame([EVENT]), "machines": pl.DataFrame([MACHINE])}[table]
    checked = check(rows.with_columns(pl.lit(name).alias(at_fault)), table=table, columns=columns)
    assert faults(checked) == [(reason, at_fault, name)] * rows.height
    assert checked.clean.is_empty()
    assert checked.quarantined["machine"].str.len_chars().max() <= 200
    assert json.loads(checked.quarantined["row"][0])[at_fault] == name


def test_a_name_of_two_hundred_characters_is_clean_however_many_blanks_are_around_it() -> None:
    checked = check(telemetry(machine=["x" * 200, f"{' ' * 300}y\n"]))
    assert checked.clean["machine"].to_list() == ["x" * 200, "y"]


def test_text_that_is_no_input_may_be_long() -> None:
    columns = {**MACHINES, "notes": column("attribute", "text", input=False)}
    rows = pl.DataFrame([{**MACHINE, "notes": LONG}])
    assert check(rows, table="machines", columns=columns).clean["notes"].to_list() == [LONG]


@pytest.mark.parametrize("name", ["x" * 100_000, "sound\n| a | b |"])
def test_a_column_whose_name_is_none_is_reported_in_short_on_one_line(name: str) -> None:
    [finding] = found(check(telemetry().with_columns(pl.lit(1.0).alias(name))), "extra_column")
    assert finding["column"] is not None
    assert len(finding["column"]) <= 200
    assert "\n" not in finding["column"]


def test_a_finding_repeats_no_long_value() -> None:
    columns = {**MACHINES, "notes": column("attribute", "text", input=False)}
    rows = pl.DataFrame([{**MACHINE, "notes": text * 500} for text in ("old ", "new ")])
    [finding] = found(check(rows, table="machines", columns=columns), "near_duplicate")
    assert finding["detail"] is not None
    assert "beside new new" in finding["detail"]
    assert len(finding["detail"]) < 600


def test_a_time_long_after_the_end_of_its_batch_goes_to_quarantine() -> None:
    times = [START + timedelta(days=7, hours=14), datetime(2099, 1, 1, tzinfo=UTC)]
    assert [fault[:2] for fault in faults(check(telemetry(time=times)))] == [("after its batch", "time")]


def test_a_time_of_a_clock_that_was_reset_goes_to_quarantine() -> None:
    for reset in (datetime(1970, 1, 1, tzinfo=UTC), START - timedelta(days=370)):
        times = [START - timedelta(days=360), reset]
        assert [fault[:2] for fault in faults(check(telemetry(time=times)))] == [("clock was reset", "time")]


def test_a_machine_keeps_its_name_when_a_delivery_has_numbers() -> None:
    later = hours(2, START + timedelta(days=7))
    checked = check(
        telemetry(machine="7"),
        telemetry(machine=7, time=later),
        telemetry(machine=7.0, time=hours(2, later[0] + timedelta(days=7))),
    )
    assert checked.clean["machine"].unique().to_list() == ["7"]


def test_an_exact_copy_is_left_out_within_and_across_deliveries() -> None:
    checked = check(pl.concat([telemetry(), telemetry()]), telemetry())
    assert checked.clean.height == 2
    assert checked.duplicates == {"exact": 4, "near": 0, "repeated_batch": 0}


def test_of_near_duplicates_the_first_delivered_is_kept() -> None:
    checked = check(telemetry(time=[START + timedelta(seconds=5), START], heat=[20.0, 99.0]))
    assert checked.clean["heat"].to_list() == [20.0]
    assert checked.duplicates == {"exact": 0, "near": 1, "repeated_batch": 0}


def test_rows_of_a_batch_delivered_twice_are_counted_apart_and_new_ones_kept() -> None:
    again = telemetry(time=[START, START + timedelta(hours=5)])
    checked = check_table(
        "telemetry",
        "lyon",
        [Delivered(MONDAY, 2, again.lazy), Delivered(MONDAY, 1, telemetry().lazy)],
        TELEMETRY,
        STRICTNESS,
        7,
    )
    assert checked.clean["time"].to_list() == [START, START + timedelta(hours=1), START + timedelta(hours=5)]
    assert checked.duplicates == {"exact": 0, "near": 0, "repeated_batch": 1}


def test_a_copy_of_a_quarantined_row_does_not_take_a_good_rows_place() -> None:
    checked = check(telemetry(time=[START, START], heat=[999.0, 20.0]))
    assert checked.clean["heat"].to_list() == [20.0]
    assert checked.quarantined.height == 1


def test_two_errors_at_one_time_are_two_events_unless_they_have_one_code() -> None:
    rows = pl.DataFrame(
        {"plant": "lyon", "machine": "M1", "time": START, "kind": "error", "code": ["E1", "E2", "E1", None, None]}
    )
    checked = check(rows, table="events", columns=EVENTS)
    assert checked.clean["code"].to_list() == [None, "E1", "E2"]
    assert checked.duplicates["exact"] == 2


def test_of_a_machine_the_newest_row_is_kept() -> None:
    old, new = (pl.DataFrame({"plant": "lyon", "machine": ["M1", "M2"], "model": ["A", model]}) for model in "AB")
    checked = check(old, new, table="machines", columns=MACHINES)
    assert checked.clean["model"].to_list() == ["A", "B"]
    assert checked.duplicates == {"exact": 1, "near": 1, "repeated_batch": 0}


def test_machines_that_only_telemetry_knows_are_added_without_attributes() -> None:
    machines = pl.DataFrame({"plant": "lyon", "machine": ["M2"], "model": ["A"]})
    assert add_missing_machines(machines, telemetry()).rows() == [("lyon", "M1", None), ("lyon", "M2", "A")]


def test_nothing_delivered_gives_empty_tables_of_the_right_types() -> None:
    checked = check(table="events", columns=EVENTS)
    assert checked.clean.schema == {name: column.dtype for name, column in EVENTS.items()}
    assert checked.quarantined.is_empty()
    assert checked.findings == []


def weeks_of_heat(*weeks: float) -> list[pl.DataFrame]:
    """One machine, 168 rows a week, around each week's level."""
    wave = pl.Series([float(hour % 24) for hour in range(168)])
    return [
        pl.DataFrame(
            {
                "plant": "lyon",
                "machine": "M1",
                "time": hours(168, START + timedelta(weeks=week)),
                "heat": level + wave,
                "hum": 1.0,
            }
        )
        for week, level in enumerate(weeks)
    ]


def in_fahrenheit(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("heat") * 9 / 5 + 32)


def test_a_delivery_out_of_range_that_another_unit_brings_into_range_is_converted() -> None:
    [week] = weeks_of_heat(80.0)
    checked = check(in_fahrenheit(week))
    assert checked.clean["heat"].to_list() == pytest.approx(week["heat"].to_list())
    [finding] = found(checked, "unit_converted")
    assert (finding["column"], finding["batch"]) == ("heat", "2025-01-06")
    assert finding["detail"] == "°F instead of °C in 1 of 1 deliveries"


def test_a_unit_change_within_the_range_shows_in_the_plants_history() -> None:
    weeks = weeks_of_heat(20.0, 21.0, 22.0, 20.0)
    checked = check(weeks[0], in_fahrenheit(weeks[1]), in_fahrenheit(weeks[2]), weeks[3])
    assert checked.clean["heat"].to_list() == pytest.approx(pl.concat(weeks)["heat"].to_list())
    [finding] = found(checked, "unit_converted")
    assert (finding["from"], finding["to"]) == ("2025-01-13", "2025-01-20")


@pytest.mark.parametrize("levels", [(20.0, 60.0), (60.0, 20.0), (0.0, 100.0), (20.0, 20.1)])
def test_a_change_of_regime_is_not_taken_for_a_change_of_unit(levels: tuple[float, ...]) -> None:
    checked = check(*weeks_of_heat(*levels))
    assert found(checked, "unit_converted") == []


def test_later_deliveries_never_change_how_an_earlier_one_is_read() -> None:
    weeks = weeks_of_heat(20.0, 21.0, 60.0)
    deliveries = [weeks[0], in_fahrenheit(weeks[1]), weeks[2]]
    whole = check(*deliveries).clean
    for count in (1, 2):
        assert_frame_equal(check(*deliveries[:count]).clean, whole.head(168 * count))


def test_most_of_the_quarantine_is_blamed_when_it_holds_too_much() -> None:
    checked = {"telemetry": check(telemetry(heat=[999.0, 20.0]), telemetry(time=week_later()).drop("heat"))}
    lenient, strict = (STRICTNESS.model_copy(update={"max_quarantined_share": share}) for share in (0.75, 0.7))
    assert find_excess("lyon", checked, lenient, QUARANTINE_FOLDER) == []
    with pytest.raises(UpkeepError, match=r"75\.0% of the rows .* most of them, 2, as 'missing column heat'") as caught:
        refuse_excess(find_excess("lyon", checked, strict, QUARANTINE_FOLDER), strict)
    assert caught.value.where == {"plant": "lyon", "table": "telemetry", "batch": "2025-01-13", "column": "heat"}
    assert "`upkeep fetch --again --plant lyon`" in caught.value.remedy


def test_distinct_readings_of_one_interval_are_counted_with_an_example() -> None:
    checked = check(telemetry(time=[START, START + timedelta(seconds=5)], heat=[20.0, 31.0]))
    [finding] = found(checked, "near_duplicate")
    shown = "M1 at 2025-01-06 00:00:05: time 2025-01-06 00:00:05+00:00 beside 2025-01-06 00:00:00+00:00, heat 31.0"
    assert finding["detail"].startswith(f"1 rows left out that are no copies, such as that of {shown} beside 20.0")
    assert check(pl.concat([telemetry(), telemetry()]), telemetry()).findings == []


LONG_FORMAT = pl.concat([telemetry(heat=1.0, hum=None, tag=tag) for tag in ("heat", "speed", "load")])


def test_in_long_format_equal_values_of_several_sensors_are_no_copies() -> None:
    checked = check(LONG_FORMAT)
    assert checked.duplicates == {"exact": 0, "near": 4, "repeated_batch": 0}
    [finding] = found(checked, "near_duplicate")
    assert "M1 at 2025-01-06 00:00:00: alike but for columns that the dictionary does not have" in finding["detail"]


@pytest.mark.parametrize("again", [LONG_FORMAT, LONG_FORMAT.drop("tag"), LONG_FORMAT.with_columns(file=pl.lit("b"))])
def test_what_comes_again_in_a_later_batch_is_a_copy_whatever_other_columns_say(again: pl.DataFrame) -> None:
    assert check(LONG_FORMAT, again).duplicates == {"exact": 6, "near": 4, "repeated_batch": 0}


def test_a_row_that_one_delivery_holds_twice_in_every_column_is_a_copy() -> None:
    checked = check(pl.concat([telemetry(sound=[1, 2]), telemetry(sound=[1, 2])]))
    assert checked.duplicates == {"exact": 2, "near": 0, "repeated_batch": 0}
    rows = pl.DataFrame([{**EVENT, "operator": name} for name in ("Ann", "Bob", "Bob")])
    assert check(rows, table="events", columns=EVENTS).duplicates == {"exact": 1, "near": 1, "repeated_batch": 0}


def test_a_machines_row_that_a_newer_one_replaces_is_said_if_it_differs() -> None:
    old, new = (pl.DataFrame({"plant": "lyon", "machine": ["M1", "M2"], "model": ["A", model]}) for model in "AB")
    [finding] = check(old, new, table="machines", columns=MACHINES).findings
    assert "1 rows left out that are no copies, such as that of M2: model A beside B" in finding["detail"]


CROWDED = STRICTNESS.model_copy(update={"max_near_duplicate_share": 0.4})


def crowding(*frames: pl.DataFrame, **changed: object) -> str:
    deliveries = [Delivered(MONDAY + timedelta(weeks=week), 1, rows.lazy) for week, rows in enumerate(frames)]
    strictness = CROWDED.model_copy(update=changed)
    checked = check_table("telemetry", "lyon", deliveries, TELEMETRY, strictness, 7)
    with pytest.raises(UpkeepError) as caught:
        refuse_excess(find_excess("lyon", {"telemetry": checked}, strictness, QUARANTINE_FOLDER), strictness)
    return str(caught.value)


def test_above_their_share_near_duplicates_are_refused_by_what_they_look_like() -> None:
    seconds = telemetry(time=[START, START + timedelta(seconds=20)])
    assert "readings come every 20 s" in (text := crowding(seconds))
    assert "set validate.near_duplicate_seconds, which is 60, to 0" in text
    instant = pl.concat([telemetry(time=START, heat=[20.0, 50.0]), telemetry(heat=[60.0, 70.0], time=START)])
    text = crowding(instant)
    assert "several readings at one instant" in text
    assert "`upkeep fetch --again --plant lyon`" in text
    assert "differ in tag (heat, speed, load): are they of several sensors" in crowding(LONG_FORMAT)
    long = instant.drop("hum").unique("heat").with_columns(tag=pl.Series(["heat", "speed", "heat", "speed"]))
    long = long.with_columns(machine=pl.Series(["M1", "M1", "M2", "M2"]), row=pl.int_range(4))
    text = crowding(long)
    assert "differ in tag (heat, speed): are they of several sensors, in long format?" in text
    assert "pivot: {name: tag, value: heat}" in text
    clocks = long.drop("tag").with_columns(clock=pl.Series(["9:00", "10:00"] * 2))
    text = crowding(clocks)
    assert "differ in clock (9:00, 10:00): is that the time of day?" in text
    assert "set fetch.options.telemetry.time_of_day: clock, named as in the file, or do so in the query" in text


def test_where_most_near_duplicates_are_of_one_instant_none_is_to_be_saved_by_a_shorter_interval() -> None:
    days = [START + timedelta(days=day) for day in range(6)]
    rows = pl.concat([telemetry(time=days[day : day + 2]) for day in (0, 2, 4)])
    twins = telemetry(heat=[90.0, 91.0], time=days[:2])
    assert "several readings at one instant" in crowding(pl.concat([rows, twins]), max_near_duplicate_share=0.1)


def test_files_of_one_sensor_each_are_told_from_several_readings_of_one() -> None:
    rows = telemetry()
    apart = pl.concat([rows.with_columns(heat=None), rows.with_columns(hum=None)], how="vertical_relaxed")
    assert "at one instant, each of other sensors" in (text := crowding(apart))
    assert "join them to one row" in text


def test_where_only_readings_of_one_instant_are_one_no_rate_is_said_to_crowd_them() -> None:
    rows = pl.concat([telemetry(), telemetry(heat=30.0, time=[START, START + timedelta(hours=2)])])
    assert "several readings at one instant" in crowding(rows, near_duplicate_seconds=0, max_near_duplicate_share=0.1)


def test_where_few_of_the_instants_have_several_readings_no_rate_and_no_column_that_differs_in_them_is_blamed() -> None:
    times = pl.Series([START + timedelta(days=day) for day in (0, 0, 1, 1, *range(2, 8))])
    words = ["no", "no", "no", "no", *["yes", "no"] * 3]
    rows = pl.DataFrame({"plant": "lyon", "machine": "M1", "time": times, "heat": pl.int_range(10, eager=True) + 20.0})
    text = crowding(rows.with_columns(hum=1.0, delayed=pl.Series(words)), max_near_duplicate_share=0.1)
    assert "several readings at one instant [" in text


def test_crowding_is_explained_by_a_delivery_that_has_some_though_the_largest_has_no_times() -> None:
    untimed = telemetry(operator="Ann").drop("time")
    twins = telemetry(time=START, heat=[20.0, 50.0], hum=1.0)
    strictness = {"max_near_duplicate_share": 0.1, "max_quarantined_share": 1.0}
    assert "several readings at one instant" in crowding(twins, pl.concat([untimed] * 2), **strictness)


CELLS = st.one_of(
    st.sampled_from(["lyon", "porto", "M1", "M2", "", "20", "nan", "2025-01-06", "2025-01-07T10:00:00+01:00", "error"]),
    st.text(max_size=3),
)
SERIES = st.one_of(
    st.lists(CELLS | st.none(), min_size=4, max_size=4).map(lambda values: pl.Series(values, dtype=pl.String)),
    st.lists(st.floats() | st.none(), min_size=4, max_size=4).map(lambda values: pl.Series(values, dtype=pl.Float64)),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=4, max_size=4).map(
        lambda values: pl.Series(values, dtype=pl.Int64)
    ),
    st.tuples(
        st.lists(st.integers(-(2**63), 2**63 - 1) | st.just(1_736_121_600_000), min_size=4, max_size=4),
        st.sampled_from(["ms", "us", "ns"]),
        st.sampled_from([None, "UTC", "Europe/Paris"]),
    ).map(lambda made: pl.Series(made[0], dtype=pl.Int64).cast(pl.Datetime(made[1], made[2]))),
    st.sampled_from(
        [
            pl.Series([None] * 4),
            pl.Series([True, False, None, True]),
            pl.Series([b"\xff", b"", None, b"1"]),
            pl.Series([MONDAY, None, MONDAY, date(1, 1, 1)]),
            pl.Series([timedelta(1), None, timedelta(2), timedelta(3)]),
            pl.Series([[1.0], None, [], [float("nan")]]),
            pl.Series([{"a": b"x"}, None, {"a": None}, {"a": b""}]),
            pl.Series(["lyon", "M1", None, "lyon"], dtype=pl.Categorical),
            pl.Series([2**100, 0, None, 1], dtype=pl.Int128),
            pl.Series([START, START, START + timedelta(hours=30), START + timedelta(hours=60)]),
            pl.Series(["lyon"] * 4),
            pl.Series([20.0] * 4),
        ]
    ),
)
TABLES = {"telemetry": TELEMETRY, "events": EVENTS, "machines": MACHINES}
FRAMES = st.dictionaries(
    st.sampled_from(["plant", "machine", "time", "heat", "hum", "kind", "code", "model", "extra"]), SERIES, min_size=1
).map(pl.DataFrame)
GOOD = telemetry().with_columns(kind=pl.lit("error"), code=pl.lit("E1"), model=pl.lit("A"))


@settings(max_examples=60)
@given(st.sampled_from(sorted(TABLES)), st.lists(st.one_of(FRAMES, st.just(GOOD)), max_size=4), st.randoms())
def test_every_row_of_any_garbage_ends_as_clean_or_duplicate_or_in_quarantine(table, frames, random) -> None:
    deliveries = [
        Delivered(MONDAY + timedelta(weeks=random.randrange(3)), 1 + number, frame.lazy)
        for number, frame in enumerate(frames)
    ]
    checked = check_table(table, "lyon", deliveries, TABLES[table], STRICTNESS, 7)
    rows_in = sum(frame.height for frame in frames)
    assert rows_in == checked.clean.height + sum(checked.duplicates.values()) + checked.quarantined.height
    assert checked.clean.schema == {name: column.dtype for name, column in TABLES[table].items()}
    assert all(json.loads(row) is not None for row in checked.quarantined["row"])
    identity = [name for name in ("machine", "time", "kind", "code") if name in TABLES[table]]
    assert not checked.clean.select(identity).is_duplicated().any()
    keys = [name for name, column in TABLES[table].items() if column.role == "key"]
    assert not checked.clean.select(pl.any_horizontal(pl.col(keys).is_null()).any()).item()


@settings(max_examples=60)
@given(st.sampled_from(sorted(TABLES)), st.lists(st.one_of(FRAMES, st.just(GOOD)), max_size=3))
def test_a_large_delivery_that_few_values_stand_for_is_judged_as_any_other(table, frames) -> None:
    usual = check(*frames, table=table, columns=TABLES[table])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upkeep.contract.reconcile.MANY", 0)
        large = check(*frames, table=table, columns=TABLES[table])
    assert_frame_equal(large.clean, usual.clean)
    assert_frame_equal(large.quarantined, usual.quarantined)


def test_rows_that_do_not_add_up_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_all(*arguments: Any) -> Deduplicated:
        sifted = drop_duplicates(*arguments)
        return sifted._replace(kept=sifted.kept.clear())

    monkeypatch.setattr("upkeep.contract.table_check.drop_duplicates", lose_all)
    with pytest.raises(UpkeepError, match="2 rows came in, 0 clean"):
        check(telemetry())
