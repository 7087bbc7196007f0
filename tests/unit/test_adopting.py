"""Looking at deliveries: what tiny tables are taken for, and what is drafted from them."""

from contextlib import nullcontext
from datetime import UTC, date, datetime, time, timedelta

import polars as pl
import pytest
import yaml
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml.comments import CommentedMap

from upkeep.adopt.columns import Part, find_roles
from upkeep.adopt.deliveries import Layout, join_files
from upkeep.adopt.describing import Described, choose_range, describe, describe_telemetry
from upkeep.adopt.drafting import annotate, draft_dictionary, draft_params, file_options
from upkeep.adopt.labels import events_from_label, find_flags, find_labels
from upkeep.adopt.settings import NEWEST_WEEKS, ROW_HOURS, Setting, suggest, suggest_rows
from upkeep.adopt.sniffing import find_gaps, sniff_text
from upkeep.adopt.tables import sort_tables
from upkeep.adopt.times import read_clock
from upkeep.adopt.words import WORDS, kind_of, names_one, tidy_names, unit_of, words_of
from upkeep.contract.dictionary import NEEDED, Dictionary
from upkeep.core.errors import UpkeepError
from upkeep.core.names import MAX_NAME
from upkeep.core.params import Limits
from upkeep.sources.delimited import find_header
from upkeep.sources.patterns import pattern_of

START = datetime(2025, 1, 6, tzinfo=UTC)
LIMITS = Limits(table_mb=1, columns=50, value_kb=1)
READINGS = [f"{row % 7}.5" for row in range(30)]


def hours(count: int, step: float = 1.0) -> list[str]:
    return [f"{START + timedelta(hours=step * hour):%Y-%m-%dT%H:%M:%SZ}" for hour in range(count)]


def layout(path: str = "deliveries/telemetry.csv", **columns: list[object]) -> Layout:
    return Layout([path], pl.DataFrame(columns))


# How text is written


@given(
    separator=st.sampled_from(";\t|"),
    decimal=st.sampled_from(".,"),
    values=st.lists(st.floats(-1e6, 1e6).map(lambda value: f"{value:.3f}"), min_size=3, max_size=20),
)
def test_separator_and_decimal_sign_are_seen(separator, decimal, values):
    lines = [separator.join(["time", "a", "b"])]
    lines += [separator.join(["2025-01-06", value.replace(".", decimal), "7"]) for value in values]
    seen = sniff_text("\n".join(lines).encode())
    assert (seen["separator"], seen.get("decimal", ".")) == (separator, decimal)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Zeit;Übel\n1;2\n", "cp1252"),
        ("Время;Давление;Машина\n1;2;3\n", "cp1251"),
        ("Zeit;Größe;Störung\n1;2;3\n", "utf-8"),
        ("Zeit;Größe;Störung der Anlage, Wärme\n1;2;3\n", "cp1252"),
    ],
)
def test_an_encoding_is_seen_by_its_letters(text, encoding):
    seen = sniff_text(text.encode(encoding))
    assert text.encode(encoding).decode(seen.get("encoding", "utf-8")) == text


@pytest.mark.parametrize(
    ("rows", "decimal"),
    [
        (['a,"1,234.5"', 'a,"234.5"'], "."),
        (['a,"1,234"', 'a,"234"', "a,0.5"], "."),
        (['a,"1,234"', 'a,"999"'], "."),
        (['a,"0,5"', 'a,"1,25"'], ","),
        (["a;1.234,5", "a;999"], ","),
        (["a;1,234", "a;2,345"], ","),
        (["a;1.234", "a;2.345"], None),
        (["a;1'234.5"], "."),
        (["a;12", "a;06.01.2025"], None),
    ],
)
def test_marks_that_group_thousands_are_told_from_the_decimal_sign(rows, decimal):
    assert sniff_text("\n".join([rows[0][1].join(["name", "value"]), *rows]).encode()).get("decimal") == decimal


@pytest.mark.parametrize("above", ["", "Export of 2025\n\n"])
@pytest.mark.parametrize("quoted", ["", ' "lost', ' "closed"'])
def test_neither_titles_nor_a_lone_quote_hide_the_separator(above, quoted):
    lines = ["machine;time", *[f"m{row};2025-01-06" for row in range(20)], f"m{quoted};2025-01-07"]
    assert sniff_text((above + "\n".join(lines)).encode()) == {"separator": ";"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_title_that_holds_separators_hides_neither_them_nor_the_header(separator):
    lines = ["machine,time,heat,load", *[f"m{row},2025-01-06,1,2" for row in range(20)]]
    text = "\n".join(["Report of May, hall 7", *lines]).replace(",", separator)
    assert sniff_text(text.encode()).get("separator", ",") == separator
    assert find_header(text.splitlines(), separator) == 1


@pytest.mark.parametrize("mark", ["-999", "-999.0", "9999", "65535", "32767.0", "-32768"])
def test_a_mark_for_a_missing_value_is_a_gap_where_it_is_far_from_all_others(mark):
    assert find_gaps(pl.DataFrame({"heat": [*READINGS, mark]}), None) == [mark]
    near = pl.DataFrame({"heat": [*READINGS, mark], "power": ["-40000", *map(str, range(0, 72_500, 2500)), mark]})
    assert find_gaps(near, None) == []
    assert find_gaps(pl.DataFrame({"heat": [*READINGS, mark], "broken_sensor": [mark] * 31}), None) == [mark]
    assert find_gaps(pl.DataFrame({"heat": [*READINGS, mark], "machine_id": ["7"] * 30 + [mark]}), None) == []


def test_a_number_that_alone_is_negative_in_several_columns_is_a_gap_unless_it_is_one_of_others():
    gas, ozone = ([*(f"{first + row}" for row in range(30)), *["-200"] * 3] for first in (5, 900))
    heat = [*(f"{row}" for row in range(-3, 27)), "-200.0", "1", "2"]
    assert find_gaps(pl.DataFrame({"gas": gas, "ozone": ozone, "heat": heat}), None) == ["-200"]
    assert find_gaps(pl.DataFrame({"gas": gas}), None) == []
    assert find_gaps(pl.DataFrame({"gas": gas, "ozone": ozone, "power": [*heat[:-1], "-300"]}), None) == []
    turns = ["-200", "0", "200"] * 11
    assert find_gaps(pl.DataFrame({"left": turns, "right": turns[::-1]}), None) == []


def test_a_word_that_recurs_among_numbers_is_a_gap_unless_another_column_says_it_too():
    heat = [*READINGS, *READINGS, *["Bad Input"] * 3, "NA", "typo"]
    assert find_gaps(pl.DataFrame({"heat": heat}), None) == ["Bad Input", "NA"]
    note = ["Bad Input", "NA"] + ["fine"] * (len(heat) - 2)
    assert find_gaps(pl.DataFrame({"heat": heat, "note": note}), None) == ["NA"]
    assert find_gaps(pl.DataFrame({"machine": [*["7", "8"] * 20, *["spare"] * 3]}), None) == []


def test_a_word_is_a_gap_among_as_many_numbers_unless_these_are_levels():
    assert find_gaps(pl.DataFrame({"speed": [*map(str, range(30)), *["Bad"] * 20]}), None) == ["Bad"]
    assert find_gaps(pl.DataFrame({"mode": [*READINGS, *["auto"] * 20]}), None) == []
    assert find_gaps(pl.DataFrame({"part": [*map(str, range(30)), *["spare"] * 40]}), None) == []
    assert find_gaps(pl.DataFrame({"machine": [*map(str, range(60)), *["spare"] * 30]}), None) == []


def test_a_mark_with_a_decimal_comma_is_a_gap():
    assert find_gaps(pl.DataFrame({"heat": [*(text.replace(".", ",") for text in READINGS), "-999,0"]}), ",") == [
        "-999,0"
    ]


@pytest.mark.parametrize("written", ["2025-01-06 07:00:00", "06.01.2025 07:00", '"1/6/2025 7:00 AM"'])
@pytest.mark.parametrize("header", ["time", "failure time"])
def test_a_list_of_times_has_one_column_though_they_hold_blanks(header, written):
    assert sniff_text("\n".join([header, *[written] * 5, ""]).encode()) == {}


def test_a_table_so_wide_that_few_lines_are_looked_at_is_read_as_others_are():
    header = ";".join(f"column_{place}" for place in range(3000))
    seen = sniff_text("\n".join([header, *[";".join(["1,5"] * 3000)] * 5]).encode())
    assert seen == {"separator": ";", "decimal": ","}


# Times


@given(
    times=st.lists(st.datetimes(datetime(1995, 1, 1), datetime(2090, 1, 1)), min_size=5, unique=True),
    form=st.sampled_from(
        [
            *("%d.%m.%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%Y%m%d%H%M%S", "%Y-%m-%d %H:%M:%S"),
            "%d %m %Y %H:%M:%S",
        ]
    ),
)
def test_times_in_any_format_are_read_as_they_were_written(times, form):
    times = [time.replace(microsecond=0) for time in sorted(times)]
    clock = read_clock(pl.Series("time", [time.strftime(form) for time in times]))
    assert clock is not None
    assert clock.times.dt.replace_time_zone(None).to_list() == times


def test_times_with_any_offset_are_on_no_local_clock():
    clock = read_clock(pl.Series("time", [f"20250106T{hour:02d}0000+01" for hour in range(24)]))
    assert clock is not None
    assert clock.options == {"time_format": "%Y%m%dT%H%M%S%#z"}
    assert not clock.is_local
    assert "taken for UTC" not in clock.reason


@pytest.mark.parametrize("days", [12, 300])
@pytest.mark.parametrize("form", ["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"])
def test_day_and_month_are_told_apart_by_what_makes_an_even_record(form, days):
    written = [f"{datetime(2025, 1, 1) + timedelta(days=day):{form}}" for day in range(days)]
    clock = read_clock(pl.Series("time", written))
    assert clock is not None
    assert clock.options == {"time_format": form}


def test_a_format_that_nothing_tells_from_another_is_named():
    clock = read_clock(pl.Series("time", ["05/05/2025", "06/06/2025"]))
    assert clock is not None
    assert "or else as %m/%d/%Y" in clock.reason


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("dtype", [pl.Int64, pl.String])
def test_numbers_since_1970_are_times_of_their_unit(unit, per_second, dtype):
    ticks = [int(START.timestamp() + 60 * minute) * per_second for minute in range(3)]
    clock = read_clock(pl.Series("ts", ticks).cast(dtype))
    assert clock is not None
    assert clock.options == {"epoch": unit}
    assert clock.times.to_list() == [START + timedelta(minutes=minute) for minute in range(3)]


@pytest.mark.parametrize("values", [[4_000_787_030_016] * 5, [1.5, 2.5, 3.5], [1, 2, 3], ["A", "B"], [None, None]])
def test_what_is_no_time_is_none(values):
    assert read_clock(pl.Series("capacity", values)) is None


@pytest.mark.parametrize("first", [2025010600, int(START.timestamp()) + 2_082_844_800])
@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64, pl.String])
def test_hours_of_days_and_seconds_since_1904_are_not_read_as_seconds_since_1970(first, dtype):
    assert read_clock(pl.Series("time", [first + hour for hour in range(3)]).cast(dtype)) is None


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_local_times_are_known_by_the_hour_that_their_clocks_skip(zone):
    utc = pl.datetime_range(datetime(2025, 3, 1), datetime(2025, 4, 15), "1h", time_zone="UTC", eager=True)
    clock = read_clock(utc.dt.convert_time_zone(zone).dt.strftime("%Y-%m-%d %H:%M").alias("time"))
    assert clock is not None
    assert clock.options == {"time_zone": zone}
    assert clock.times.to_list() == utc.to_list()


@pytest.mark.parametrize("machines", [1, 5])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_local_times_are_known_by_the_hour_that_their_clocks_repeat(zone, machines):
    utc = pl.datetime_range(datetime(2025, 10, 1), datetime(2025, 11, 15), "1h", time_zone="UTC", eager=True)
    written = utc.dt.convert_time_zone(zone).dt.strftime("%Y-%m-%d %H:%M").alias("time")
    clock = read_clock(pl.concat([written] * machines))
    assert clock is not None
    assert clock.options == {"time_zone": zone}
    assert "repeat in autumn" in clock.reason


def test_two_events_in_the_hour_that_clocks_repeat_tell_no_zone():
    times = ["2025-10-25 09:00", "2025-10-26 01:10", "2025-10-26 02:00", "2025-10-26 02:30", "2025-10-26 03:40"]
    clock = read_clock(pl.Series("time", times))
    assert clock is not None
    assert clock.options == {}


# Names


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        *(
            ("temp_degC", "°C"),
            ("pressure [bar]", "bar"),
            ("Speed (RPM)", "rpm"),
            ("vibration_mm_s", "mm/s"),
            ("load_pct", "%"),
        ),
        *(
            ("temperature_c", "°C"),
            ("sensor_c", None),
            ("current_a", "A"),
            ("phase_a", None),
            ("bar", None),
            ("p1", None),
        ),
        *(("Öltemperatur [°C]", "°C"), ("Zustand (1)", None), ("x (again)", None), ("p [bar] (again)", "bar")),
    ],
)
def test_a_unit_is_read_from_a_name_only_if_it_says_one(name, unit):
    assert unit_of(name) == unit


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(
            ("bearing failure", "failure"),
            ("Ausfall Lager", "failure"),
            ("Wartung", "maintenance"),
            ("Störung", "error"),
        ),
        *(("PdM_maint.csv", "maintenance"), ("E101", None), ("ALARM", "error"), ("machine broken", "failure")),
        *(("motor_fault", "error"), ("MotorFault", "error"), ("default_speed", None), ("trip_start", None)),
    ],
)
def test_the_kind_of_an_event_is_read_from_its_words(text, kind):
    assert kind_of(text) == kind


@pytest.mark.parametrize("text", ["No_Machine_Failure", "No failure", "kein Ausfall", "not broken"])
def test_what_did_not_happen_is_no_event(text):
    assert kind_of(text) is None


@pytest.mark.parametrize("text", ["No. 5 failed", "failure no 5", "Nozzle failure"])
def test_a_number_or_a_part_denies_no_failure(text):
    assert kind_of(text) == "failure"


@given(st.lists(st.text(min_size=1), unique=True))
@example(["*", "^a$", "@x", "@y", "x y", "x-y", "plant", "model", "kind", "installed", "温\n度", "%" * 200])
def test_each_column_gets_a_name_of_its_own_that_a_dictionary_may_have(names):
    tidied = tidy_names(names)
    columns = {
        table: {name: {"type": kind, "role": "key", "meaning": name} for name, kind in needed.items()}
        for table, needed in NEEDED.items()
    }
    columns["telemetry"] |= {
        ours: {"role": "sensor", "meaning": "x"} for ours in tidied.values() if len(ours) <= MAX_NAME
    }
    assert len(set(tidied.values())) == len(names)
    Dictionary.model_validate({"tables": columns})


@pytest.mark.parametrize(
    ("name", "words", "tidy"),
    [
        ("水温1", {"水温", "1"}, "水温1"),
        ("Давление масла", {"давление", "масла"}, "давление_масла"),
        ("Ciśnienie tłoczenia", {"cisnienie", "tloczenia"}, "cisnienie_tloczenia"),
        ("Sto\u0308rung 2", {"stoerung", "2"}, "stoerung_2"),
    ],
)
def test_names_in_any_script_keep_their_words(name, words, tidy):
    assert words_of(name) == words
    assert tidy_names([name]) == {name: tidy}


def test_every_listed_word_is_a_text_though_yaml_may_read_it_otherwise():
    groups = [WORDS, WORDS["kinds"], WORDS["units"], WORDS["letters"]]
    words = [word for group in groups for listed in group.values() if isinstance(listed, list) for word in listed]
    assert [word for word in words if not isinstance(word, str)] == []
    assert names_one("Machine No", "machine")


def test_names_are_kept_where_a_tidy_one_would_be_another_columns():
    assert tidy_names(["a", "a_std", "a.std"]) == {"a": "a", "a_std": "a_std", "a.std": "(a.std)"}
    assert tidy_names(["Druck [bar]", "Druck (bar)", "T1", "Öl °C", "time?", "code"]) == {
        "Druck [bar]": "Druck [bar]",
        "Druck (bar)": "Druck (bar)",
        "T1": "T1",
        "Öl °C": "oel_deg_c",
        "time?": "time?",
        "code": "(code)",
    }


# Columns


def test_machine_and_plant_are_found_by_their_names_in_any_spelling():
    roles = find_roles(layout(Werk=["a"] * 4, **{"Maschinen-Nr": ["1", "2"] * 2}, Zeit=hours(4), Druck=["1.5"] * 4))
    assert (roles.columns, roles.measured) == ({"plant": "Werk", "machine": "Maschinen-Nr"}, ["Druck"])
    assert roles.clock is not None
    assert roles.clock.column == "Zeit"


@pytest.mark.parametrize("other", ["closed_date", "created_at", "Ende (Datum)"])
def test_an_event_is_of_the_time_when_it_happened_not_of_when_it_was_over_or_told(other):
    roles = find_roles(layout(**{other: hours(4, 2.0)}, machine=["1"] * 4, start=hours(4)))
    assert roles.clock is not None
    assert roles.clock.column == "start"
    assert roles.clock.reason.endswith(f"; not {other}")


def test_a_machine_without_a_telling_name_is_what_tells_rows_of_one_instant_apart():
    times = [time for time in hours(20) for _ in range(2)]
    roles = find_roles(layout(t=times, x=["A7", "B3"] * 20, y=[f"{row}.5" for row in range(40)]))
    assert roles.columns == {"machine": "x"}


def test_a_column_of_units_names_no_machine():
    found = find_roles(layout(time=hours(4), unit=["bar", "°C"] * 2, value=["1.5", "20.5"] * 2))
    assert found.columns == {}


def test_a_row_per_sensor_and_instant_is_seen():
    times = [time for time in hours(20) for _ in range(2)]
    found = find_roles(layout(time=times, tag=["p", "t"] * 20, value=[f"{row}.5" for row in range(40)]))
    assert found.pivot == ("tag", "value")
    tables, _ = sort_tables([found.layout], LIMITS)
    assert set(tables["telemetry"][0].kept) == {"p", "t"}


@pytest.mark.parametrize("sensor", [["ROOM_1", "ROOM_2"], ["1", "2"]])
def test_a_sensor_of_which_each_row_holds_several_values_is_a_machine(sensor):
    values = {"heat": READINGS * 2, "humidity": READINGS * 2}
    found = find_roles(layout(time=hours(60), sensor_id=sensor * 30, **values))
    assert (found.columns, found.measured) == ({"machine": "sensor_id"}, [*values])
    assert find_roles(layout(time=hours(60), press=["a"] * 60, sensor_id=sensor * 30, **values)).columns == {
        "machine": "press"
    }
    times = [time for time in hours(30) for _ in range(2)]
    long = find_roles(layout(time=times, sensor_id=["heat", "load"] * 30, value=READINGS * 2, quality=["192"] * 60))
    assert (long.columns, long.pivot) == ({}, ("sensor_id", "value"))


def test_a_log_of_visits_is_not_in_long_format():
    log = {
        "time": [time for time in hours(15) for _ in range(4)],
        "machine": ["a"] * 60,
        "type": ["v", "x", "y", "z"] * 15,
    }
    assert find_roles(layout(**log, repair_id=[f"{row}" for row in range(60)])).pivot is None
    readings = layout(time=hours(300), machine=["a"] * 300, x=READINGS * 10, y=READINGS * 10)
    repairs = layout("repairs.csv", **log, hours=READINGS * 2)
    assert find_roles(repairs).pivot == ("type", "hours")
    assert sort_tables([readings, repairs], LIMITS)[0]["events"][0].layout.name == "repairs.csv"


def test_a_label_beside_values_in_long_format_is_kept():
    long = {"time": [time for time in hours(30) for _ in range(2)], "machine": ["a"] * 60, "tag": ["heat", "load"] * 30}
    failed = ["1" if row in (20, 21, 40, 41) else "0" for row in range(60)]
    tables, _ = sort_tables([layout(**long, value=READINGS * 2, failure=failed)], LIMITS)
    (readings,) = (part.rows for part in tables["telemetry"])
    assert readings.height == 30
    assert find_labels(readings.drop("plant", "machine", "time")) == ["failure"]
    assert events_from_label(readings, "failure")["kind"].to_list() == ["failure", "maintenance"] * 2


def test_rows_of_which_each_names_another_sensor_are_no_table_without_bounds():
    few = [hours(200)[row // 2] for row in range(400)]
    rows = layout(time=few, tag=[f"tag{row % 60}" for row in range(400)], value=READINGS * 13 + READINGS[:10])
    with pytest.raises(UpkeepError, match=r"60 columns, more than the 50 of limits\.columns"):
        sort_tables([rows], LIMITS)


@pytest.mark.parametrize(
    ("name", "values", "role"),
    [
        ("vibration", [0.1 * (row * 7 % 23) for row in range(60)], "sensor"),
        ("speed", [(500.0, 800.0, 500.0)[row % 30 // 10] for row in range(60)], "setting"),
        ("size", [1.0] * 30 + [2.0] * 30, "attribute"),
        ("broken_sensor", [5.0] * 60, None),
        ("RUL", [float(row) for row in range(60)], None),
        ("hours_to_failure", [float(row) for row in range(60)], None),
        ("predicted_remaining_life", [float(row * 7 % 23) for row in range(60)], None),
        ("downtime_risk", [float(row * 7 % 2) for row in range(60)], None),
        ("predicted_load", [float(row * 7 % 23) for row in range(60)], "sensor"),
        ("target_temperature", [float(row * 7 % 23) for row in range(60)], "sensor"),
        ("Unnamed: 0", [float(row) for row in range(60)], None),
    ],
)
def test_a_column_is_what_it_behaves_as(name, values, role):
    entry, reason = describe(name, pl.DataFrame({"machine": ["a"] * 30 + ["b"] * 30, name: values}))
    assert (entry or {}).get("role") == role
    assert reason


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "index"])
def test_a_column_that_numbers_the_rows_of_each_file_is_left_out(name):
    rows = pl.DataFrame({"machine": ["a"] * 20 + ["b"] * 20, name: [*range(20)] * 2})
    assert describe(name, rows).reason == "numbers the rows"


@pytest.mark.parametrize(("name", "step", "is_left_out"), [("nr", 7, True), ("0", 0.7, False), ("水温", 7, False)])
def test_whole_numbers_of_a_name_that_counts_number_the_rows_in_whatever_order(name, step, is_left_out):
    rows = pl.DataFrame({"machine": ["a"] * 20 + ["b"] * 20, name: [row * 7 % 40 * step / 7 for row in range(40)]})
    assert (describe(name, rows).entry is None) == is_left_out
    twice = pl.concat([rows, rows.with_columns(machine=pl.lit("c"))])
    assert (describe(name, twice).entry is None) == is_left_out


@pytest.mark.parametrize(
    ("name", "step", "is_left_out"), [("operatorID", 1, True), ("Order No", 1, True), ("Id [A]", 0.5, False)]
)
def test_whole_numbers_that_stand_for_things_are_no_readings(name, step, is_left_out):
    entry, reason = describe(name, pl.DataFrame({"machine": ["a"] * 40, name: [row % 7 * step for row in range(40)]}))
    assert (entry is None) == (reason == "numbers things") == is_left_out


def test_a_class_of_failures_is_no_reading():
    rows = pl.DataFrame({"machine": ["a"] * 40, "failure": [0] * 37 + [1, 2, 3]})
    assert describe("failure", rows).reason == "its name says that it knows the outcome"


def test_a_column_that_is_left_out_as_text_shows_a_word_rather_than_one_of_its_numbers():
    rows = pl.DataFrame({"machine": ["a"] * 4, "heat": ["42.0", "hot", "41.5", "cold"]})
    assert describe("heat", rows).reason == "text, such as hot"


def test_a_counter_gets_no_range_since_it_grows_on():
    entry, _ = describe(
        "hours_run", pl.DataFrame({"machine": ["a"] * 60, "hours_run": [1.5 * row for row in range(60)]})
    )
    assert entry == {"role": "sensor"}


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, unique=True))
@example([0.0, 5e-324])
@example([1e6 - 1e-10, 1e6])
def test_a_range_leaves_room_for_all_that_is_usual(values):
    low, high = choose_range(pl.Series(values), "°C")
    assert low < min(values) <= max(values) < high


def test_a_range_leaves_out_what_no_sensor_measured():
    low, high = choose_range(pl.Series([20.0 + row % 10 for row in range(5000)] + [9999.0]), "°C")
    assert high < 100
    assert low < 20


@pytest.mark.parametrize("garbage", [float("inf"), float("-inf"), 1e308])
def test_a_range_is_that_of_the_numbers_that_a_feature_can_hold(garbage):
    values = [garbage if row % 50 == 0 else 20.0 + row % 10 for row in range(400)]
    entry, _ = describe("temperature", pl.DataFrame({"machine": ["m"] * 400, "temperature": values}))
    assert entry["range"][0] < 20 < 29 < entry["range"][1] < 100


def test_columns_that_are_all_settings_are_taken_for_sensors():
    rows = pl.DataFrame(
        {"plant": ["p"] * 40, "machine": ["m"] * 40, "time": range(40), "mode": [1.0] * 20 + [2.0] * 20}
    )
    described = describe_telemetry([rows], [])
    assert described["mode"].entry is not None
    assert described["mode"].entry["role"] == "sensor"
    assert "mode: {role: sensor" in draft_dictionary(
        {"telemetry": described}, {"telemetry": {"mode": "mode"}}, {"mode"}
    )


def test_a_table_whose_numbers_never_change_is_refused():
    rows = pl.DataFrame({"plant": ["p"] * 4, "machine": ["m"] * 4, "time": range(4), "x": [1.0] * 4})
    with pytest.raises(UpkeepError, match="nothing to learn from"):
        describe_telemetry([rows], [])


# Tables


@pytest.mark.parametrize(
    ("name", "clock", "last"),
    [
        ("Uhrzeit", ["10:00", "10:05", "10:10"], time(10, 10)),
        ("x", ["9:00 AM", "10:00 am", "1:10:30 PM"], None),
        ("hour", [0, 1, 23], time(23)),
        ("Start", ["10:00", None, None], None),
        ("time_of_day", ["0900", "1000", "2359"], time(23, 59)),
        ("x", [time(9), time(10), time(23)], time(23)),
    ],
)
def test_a_time_in_two_columns_is_joined_or_refused(name, clock, last):
    rows = layout(Datum=["01.02.2025"] * 3, **{name: clock}, Druck=["1", "2", "3"])
    if last is None:  # it is written in two ways, or missing
        with pytest.raises(UpkeepError, match=f"stands in two columns, Datum and {name}"):
            find_roles(rows)
    else:
        roles = find_roles(rows)
        assert (roles.clock.column, roles.clock.options["time_of_day"], roles.measured) == ("Datum", name, ["Druck"])
        assert roles.clock.times.to_list()[-1] == datetime.combine(date(2025, 2, 1), last, UTC)


def test_of_two_times_of_day_the_beginning_is_the_events_time():
    rows = layout(Datum=["01.02.2025", "02.02.2025"], until=["11:00", "12:00"], Start=["10:00", "9:30"])
    assert find_roles(rows).clock.options["time_of_day"] == "Start"


@pytest.mark.parametrize("name", ["hours", "running_hours", "day"])
def test_hours_that_a_machine_ran_on_a_day_are_no_time_of_day(name):
    roles = find_roles(layout(Datum=["01.02.2025", "02.02.2025", "03.02.2025"], **{name: ["8", "16", "24"]}))
    assert roles.measured == [name]


def test_a_table_without_times_is_refused_by_what_upkeep_is_for():
    with pytest.raises(UpkeepError, match="holds a date and time: upkeep learns from"):
        sort_tables([layout(machine=["a", "a"], torque=["1.5", "2.5"])], LIMITS)


def test_errors_without_readings_or_failures_are_refused():
    with pytest.raises(UpkeepError, match="looks like telemetry or like machines' failures"):
        sort_tables([layout("errors.csv", time=hours(2), machine=["a", "b"], part=["x", "y"])], LIMITS)


@pytest.mark.parametrize(
    ("file", "columns", "table"),
    [
        ("failures.csv", {"time": hours(2), "machine": ["a", "b"], "part": ["x", "y"]}, "events"),
        ("system_failure.csv", {"time": hours(30), "value": READINGS}, "telemetry"),
    ],
)
def test_failures_of_machines_are_enough_and_readings_may_have_failure_in_their_files_name(file, columns, table):
    tables, _ = sort_tables([layout(file, **columns)], LIMITS)
    assert {name: [part.layout.name for part in parts] for name, parts in tables.items() if parts} == {table: [file]}


@pytest.mark.parametrize(
    ("readings", "failures", "told"),
    [
        ({"plant": "north", "machine": "press"}, {}, {"events": {"plant": "north", "machine": "press"}}),
        ({"machine": "press"}, {"plant": "north", "machine": "press"}, {"telemetry": {"plant": "north"}}),
    ],
)
def test_rows_that_name_no_plant_or_machine_are_of_the_only_one_that_others_name(readings, failures, told):
    telemetry = layout(time=hours(30), x=READINGS, **{name: [value] * 30 for name, value in readings.items()})
    events = layout(
        "failures.csv", time=hours(1), part=["bearing"], **{name: [value] for name, value in failures.items()}
    )
    tables, _ = sort_tables([telemetry, events], LIMITS)
    for table, constants in told.items():
        assert tables[table][0].options.items() >= constants.items()


def test_machines_of_several_plants_may_have_the_same_numbers():
    readings = layout(time=hours(30), plant=["n", "s"] * 15, machine=["1"] * 30, x=READINGS)
    facts = layout("machines.csv", plant=["n", "n", "s", "s"], machine=["1", "2"] * 2, power=["5", "6", "7", "8"])
    tables, notes = sort_tables([readings, facts], LIMITS)
    assert tables["machines"][0].rows.height == 4
    assert not notes


def test_plants_that_only_the_machines_table_names_are_facts_about_machines():
    readings = layout(time=hours(30), machine=["1", "2"] * 15, x=READINGS)
    facts = layout("machines.csv", factory=["n", "s"], machine=["1", "2"], power=["5", "6"])
    tables, (note,) = sort_tables([readings, facts], LIMITS)
    assert {part.rows["plant"][0] for part in (*tables["telemetry"], *tables["machines"])} == {"plant-1"}
    assert "factory" in tables["machines"][0].kept
    assert note == "only machines.csv names plants, by factory: readings and events need it, too, to tell them apart"


@pytest.mark.parametrize("name", ["plant", "kind"])
def test_a_column_that_is_called_as_what_is_given_for_all_rows_is_set_aside(name):
    readings = layout(time=hours(30), machine=["1", "2"] * 15, x=READINGS)
    facts = layout("machines.csv", plant=["n", "s"], machine=["1", "2"], power=["5", "6"])
    visits = layout("repairs.csv", kind=["corrective"] * 2, machine=["1", "2"], time=hours(9)[::7])
    layouts = [readings, facts, visits]
    drafted = file_options(sort_tables(layouts, LIMITS)[0], layouts, None, {})
    reading = drafted[{"plant": "machines", "kind": "events"}[name]]
    assert reading[name] == {"plant": "plant-1", "kind": "maintenance"}[name]
    assert reading["columns"][f"({name})"] == name


def test_a_second_table_of_facts_about_the_same_machines_is_left_out_and_named():
    facts = {"machine": ["1", "2"], "power": ["5", "6"]}
    more = layout("machines.csv", **facts, built=["2020", "2021"])
    tables, notes = sort_tables(
        [layout(time=hours(30), machine=["1", "2"] * 15, x=READINGS), layout("costs.csv", **facts), more], LIMITS
    )
    assert [part.layout.name for part in tables["machines"]] == ["machines.csv"]
    assert notes == ["costs.csv is left out: rows of its machines are in machines.csv already; join the two"]


def test_a_list_of_orders_holds_no_readings():
    orders = layout(
        machine=["1", "2"] * 15, time=hours(30), order=[f"{4000 + row}" for row in range(30)], kind=["PM01"] * 30
    )
    with pytest.raises(UpkeepError, match="looks like telemetry or like machines' failures"):
        sort_tables([orders], LIMITS)


def test_the_number_of_a_work_order_does_not_tell_what_happened():
    parts = {"machine": ["1"] * 3, "work_order_id": ["WO-1", "WO-2", "WO-3"], "issue": ["seal", "oil", "seal"]}
    assert events("repairs.csv", **parts).columns["code"] == "issue"


def test_a_machine_stands_in_the_column_that_has_the_machines_of_other_tables():
    readings = layout(time=hours(60), equipment_id=["1", "2", "3"] * 20, x=READINGS * 2)
    facts = {"serial": ["SN7", "SN8", "SN9"], "type": ["mill"] * 3, "model": ["M1"] * 3}
    built = layout("machines.csv", id=["1", "2", "3"], **facts, purchased=["2020-01-06"] * 3)
    repairs = {"asset_id": ["A1", "A2", "A3"], "asset_no": ["3", "2", "1"], "part": ["seal"] * 3}
    failures = layout("failures.csv", id=["1", "2", "3"], time=[hours(60)[hour] for hour in (7, 9, 30)], **repairs)
    tables, notes = sort_tables([readings, built, failures], LIMITS)
    assert {name: tables[name][0].columns["machine"] for name in tables} == {
        "telemetry": "equipment_id",
        "events": "asset_no",
        "machines": "id",
    }
    assert tables["machines"][0].columns["model"] == "model"
    assert "serial" in tables["machines"][0].kept
    assert notes == []


def test_machines_are_what_a_table_of_facts_and_all_others_have_if_none_is_called_one():
    times = [time for time in hours(15) for _ in range(4)]
    visits = {"time": times, "technician_id": ["T1", "T2"] * 30, "cost": READINGS * 2, "hours": READINGS * 2}
    log = layout("maintenance.csv", building_id=["B1", "B2", "B1", "B1"] * 15, **visits)
    facts = layout("buildings.csv", building_id=["B1", "B2"], technician_id=["T1", "T1"], area=["5", "6"])
    failures = layout("failures.csv", building_id=["B1"], technician_id=["T2"], time=hours(1), part=["seal"])
    tables, _ = sort_tables([log, facts, failures], LIMITS)
    assert [part.columns["machine"] for parts in tables.values() for part in parts] == ["building_id"] * 3


def test_a_table_that_names_no_machine_beside_readings_of_several_is_left_out_and_named():
    readings = layout(time=hours(30), machine=["a", "b"] * 15, x=READINGS)
    weather = layout("weather.csv", time=hours(30, step=1.5), wind=READINGS, heat=READINGS)
    shifts = layout("production.csv", time=hours(6), shift=["day", "night"] * 3, tonnes=READINGS[:6])
    tables, notes = sort_tables([readings, weather, shifts], LIMITS)
    assert [part.layout.file_name for parts in tables.values() for part in parts] == ["telemetry.csv"]
    told = "is left out: it does not tell the machine, and the readings name 2: add a column that names it"
    assert notes == [f"{name} {told}" for name in ("weather.csv", "production.csv")]


def test_a_code_is_the_text_that_tells_what_happened_and_no_odd_number():
    times = [hours(50)[hour] for hour in (0, 1, 5, 6, 14, 20, 21, 33, 49)]
    told = {"time": times, "machine": ["1"] * 9, "hours": [f"{row % 4}" for row in range(9)]}
    named, text, number = (
        layout("repairs.csv", **told, **columns)
        for columns in ({"engineer": ["Ann", "Bo", "Cy"] * 3, "issue": ["seal"] * 9}, {"engineer": ["Ann"] * 9}, {})
    )
    failures = layout("failures.csv", time=hours(1), machine=["1"], part=["seal"])
    found = [sort_tables([failures, repairs], LIMITS)[0]["events"] for repairs in (named, text, number)]
    codes = [repairs.guesses["code"] for _, repairs in found]
    assert [code.column or code.value for code in codes] == ["issue", "engineer", "maintenance"]


def test_machines_are_called_alike_whatever_type_their_column_has():
    readings = layout("telemetry.parquet", time=hours(30), machine=[7.0] * 30, x=READINGS)
    tables, _ = sort_tables([readings, layout("failures.csv", time=hours(1), machine=["7"], part=["seal"])], LIMITS)
    assert {part.rows["machine"][0] for part in (*tables["telemetry"], *tables["events"])} == {"7"}


def test_a_table_that_is_left_out_since_its_times_cannot_be_read_shows_one():
    unread = layout(time=["03. Maerz 2025", "04. Maerz 2025"], x=["1.5", "2.5"])
    _, notes = sort_tables([unread, layout("failures.csv", time=hours(1), machine=["7"], part=["seal"])], LIMITS)
    assert notes == [
        "deliveries/telemetry.csv is left out: "
        "the column time holds no date and time that can be read, but 03. Maerz 2025"
    ]


def test_a_second_table_of_the_same_instants_is_left_out_and_named():
    columns = {"time": hours(30), "machine": ["a"] * 30}
    second = layout("second.csv", **columns, y=READINGS, z=["1.5"] * 30)
    tables, notes = sort_tables([second, layout(**columns, x=READINGS)], LIMITS)
    assert len(tables["telemetry"]) == 1
    assert notes == ["deliveries/telemetry.csv is left out: rows of its times are in second.csv already; join the two"]


def test_a_table_that_does_not_tell_the_plant_beside_those_that_do_is_named():
    read = layout(plant=["a", "b"] * 15, machine=["1", "2"] * 15, time=hours(30), x=READINGS)
    failures = layout("failures.csv", machine=["1"], time=["2025-01-06 10:00"], part=["seal"])
    told = "failures.csv does not tell the plant, and other tables name 2: add a column that names it"
    assert sort_tables([read, failures], LIMITS)[1] == [told]
    assert sort_tables([layout(plant=["a"] * 30, time=hours(30), x=READINGS), failures], LIMITS)[1] == []


def test_a_small_table_of_even_times_and_numbers_holds_slower_readings_and_no_events():
    daily = layout("days.csv", time=hours(13, step=24), life=READINGS[:13], run=READINGS[:13], due=READINGS[:13])
    hourly = layout(time=hours(12 * 24 + 1), x=[f"{row % 7}.5" for row in range(12 * 24 + 1)])
    tables, notes = sort_tables([hourly, daily], LIMITS)
    assert tables["events"] == []
    assert notes[0].startswith("days.csv is left out: rows of its times are in deliveries/telemetry.csv already")
    assert notes[0].endswith("or, if they are of two machines, add a column that names the machine to both")


def test_events_that_follow_the_clock_of_telemetry_are_not_said_to_be_in_utc():
    spring = pl.datetime_range(datetime(2025, 3, 25), datetime(2025, 4, 5), "1h", time_zone="UTC", eager=True)
    local = spring.dt.convert_time_zone("Europe/Berlin").dt.strftime("%Y-%m-%d %H:%M").to_list()
    failures = layout("failures.csv", time=["2025-03-27 10:00"], part=["seal"])
    telemetry = layout(time=local, x=[f"{row % 7}.5" for row in range(len(local))])
    tables, _ = sort_tables([telemetry, failures], LIMITS)
    assert tables["events"][0].guesses["time"].reason == "ISO 8601; local, as telemetry is"


def test_numbers_of_uneven_times_that_no_word_goes_with_are_no_errors():
    ids = {"fuel_id": [f"F{row}" for row in range(6)]}
    litres = {name: [f"{row * row + place}" for row in range(6)] for place, name in enumerate(("fuel", "km", "rate"))}
    few = layout("fuel.csv", time=[hours(200)[row * row * 7] for row in range(6)], **ids, **litres)
    tables, _ = sort_tables([layout(time=hours(150), x=READINGS * 5), few], LIMITS)
    assert tables["events"] == []


def in_folders(**files: pl.DataFrame) -> Layout:
    """Return the layout of several files, named by their place with : for / and = for -."""
    paths = {f"deliveries/{name.replace('__', '/').replace('_is_', '=')}.csv": rows for name, rows in files.items()}
    return join_files([Layout([path], rows) for path, rows in paths.items()])


def readings(first: int = 0, machine: str | None = "1", **columns: list[object]) -> pl.DataFrame:
    values = columns or {"x": [f"{first + row % 7}.5" for row in range(30)], "y": READINGS}
    return pl.DataFrame({"time": hours(30), **({"machine": [machine] * 30} if machine else {}), **values})


def test_a_folder_that_names_its_column_is_a_plant_or_a_machine():
    rows = {f"plant_is_n__machine_is_{machine}__part_0": readings(machine, machine=None) for machine in (1, 2)}
    roles = find_roles(in_folders(**rows))
    assert roles.columns == {"plant": "{1}", "machine": "{2}"}
    assert roles.layout.facts[1] == {"{1}": "n", "{2}": "2"}


def test_folders_in_which_one_machine_has_other_rows_at_the_same_times_are_plants():
    roles = find_roles(in_folders(north__readings=readings(1), south__readings=readings(2)))
    assert roles.columns == {"plant": "{1}", "machine": "machine"}
    long = pl.concat([readings(tag=[tag] * 30, value=READINGS) for tag in ("a", "b")])
    roles = find_roles(in_folders(north__log=long, south__log=long.with_columns(value=pl.lit("9.5"))))
    assert (roles.columns["plant"], roles.pivot) == ("{1}", ("tag", "value"))


@pytest.mark.parametrize("later", [0, 40])
def test_files_that_repeat_rows_or_go_on_in_time_are_no_plants(later):
    again = readings().with_columns(time=pl.Series(hours(70)[later : later + 30]))
    assert find_roles(in_folders(new__a=readings(), old__a=again)).columns == {"machine": "machine"}


def test_copies_of_one_file_are_not_two_machines():
    rows = readings(machine=None)
    assert find_roles(in_folders(readings=rows, readings_1=rows)).columns == {}
    assert find_roles(in_folders(readings=rows, readings_1=readings(3, machine=None))).columns == {"machine": "{1}"}


@pytest.mark.parametrize("minutes", [0, 30])
def test_a_file_per_sensor_is_refused_rather_than_read_as_one_sensor(minutes):
    other = [f"{time[:14]}{minutes:02}{time[16:]}" for time in hours(30)]
    second = readings(value=["90.5"] * 30).with_columns(time=pl.Series(other))
    with pytest.raises(UpkeepError, match="hold one value each of the same machines at the same times"):
        find_roles(in_folders(vibration=readings(value=READINGS), heat=second))


def test_files_and_folders_that_are_called_as_other_tables_call_plants_and_machines_are_these():
    later = readings(machine=None).with_columns(pl.col("time").str.replace("2025-01", "2025-02"))
    telemetry = in_folders(north__press_1=readings(machine=None), south__press_2=later)
    events = layout("failures.csv", time=hours(1), plant=["north"], machine=["press_1"], part=["seal"])
    tables, _ = sort_tables([telemetry, events], LIMITS)
    keys = tables["telemetry"][0].rows.select("plant", "machine").unique(maintain_order=True)
    assert keys.rows() == [("north", "press_1"), ("south", "press_2")]


@pytest.mark.parametrize("sensors", [["press-1", "press-2"], ["N.press-1.heat", "N.press-2.heat"]])
def test_sensors_that_are_named_after_machines_are_refused(sensors):
    wide = layout(time=hours(30), **dict.fromkeys(sensors, READINGS))
    times = [time for time in hours(30) for _ in sensors]
    long = layout("history.csv", time=times, tag=sensors * 30, value=[f"{row}.5" for row in range(60)])
    events = layout("failures.csv", time=hours(2), machine=["press-1", "press-2"], part=["seal"] * 2)
    for readings in (wide, long):
        with pytest.raises(UpkeepError, match=r"sensors of .*\.csv are named after machines: press-1, press-2"):
            sort_tables([readings, events], LIMITS)


@pytest.mark.parametrize(("units", "refused"), [(["°C", "°F"], True), (["°C", "°C"], False)])
def test_a_sensor_in_several_units_is_refused(units, refused):
    times = [time for time in hours(40) for _ in range(2)]
    rows = {"time": times, "tag": ["p", "t"] * 40, "value": [f"{row}.5" for row in range(80)]}
    long = layout(**rows, unit=[unit for unit in units for _ in range(40)])
    with pytest.raises(UpkeepError, match="values of several units") if refused else nullcontext():
        sort_tables([long], LIMITS)


def test_numbers_with_their_units_are_no_events():
    united = layout(time=hours(30), machine=["1"] * 30, load=[f"{row % 7}.5%" for row in range(30)])
    _, notes = sort_tables([united, layout("failures.csv", time=hours(1), machine=["1"], part=["seal"])], LIMITS)
    assert notes[0].startswith("deliveries/telemetry.csv is left out")


def test_a_file_in_which_day_and_month_are_exchanged_is_named():
    form = {"north": "%m/%d/%Y %H:%M", "south": "%d/%m/%Y %H:%M"}
    files = {
        f"{plant}__readings": readings_of(5 if plant == "south" else 20).with_columns(pl.col("time").dt.strftime(form))
        for plant, form in form.items()
    }
    with pytest.raises(
        UpkeepError, match=r"south/readings\.csv has its times as %d/%m/%Y %H:%M, files of its kind as %m"
    ):
        find_roles(in_folders(**files))
    north = files["north__readings"]
    assert find_roles(in_folders(north__readings=north, south__readings=north.with_columns(machine=pl.lit("2"))))


def readings_of(days: int) -> pl.DataFrame:
    times = pl.datetime_range(START, START + timedelta(days=days), "15m", closed="left", eager=True).alias("time")
    return pl.DataFrame([times]).with_columns(machine=pl.lit("1"), x=pl.int_range(pl.len()) % 7)


def test_files_whose_types_do_not_go_together_are_looked_at_as_one_table():
    rows = readings().with_columns(pl.col("time").str.to_datetime(time_zone="UTC"), pl.col("x", "y").cast(pl.Float64))
    berlin = rows.with_columns(pl.col("time").dt.convert_time_zone("Europe/Berlin"), pl.col("machine").cast(pl.Int64))
    naive = rows.with_columns(pl.col("time").dt.replace_time_zone(None), x=pl.lit(True))
    files = {"a": rows, "b": berlin, "c": naive, "d": naive.with_columns(pl.col("time").dt.date())}
    joined = find_roles(in_folders(**files))
    assert joined.clock is not None
    assert joined.clock.times[:90].to_list() == [START + timedelta(hours=row % 30) for row in range(90)]
    assert joined.layout.rows["machine"].unique().to_list() == ["1"]


# Events


def events(file: str, **columns: list[object]) -> Part:
    rows = pl.DataFrame(columns)
    happened = Layout([file], rows.with_columns(time=pl.Series(hours(rows.height))))
    tables, _ = sort_tables([layout(time=hours(30), x=READINGS), happened], LIMITS)
    return tables["events"][0]


def test_kinds_are_mapped_by_their_words_and_unclear_ones_are_named():
    found = events("ereignisse.csv", Art=["Ausfall", "Wartung", "X"], Teil=["Lager", "Filter", "Y"])
    assert (found.columns["kind"], found.columns["code"]) == ("Art", "Teil")
    assert found.options["kinds"] == {"Ausfall": "failure", "Wartung": "maintenance", "X": "error"}
    assert "nothing tells: X" in found.guesses["kinds"].reason


@pytest.mark.parametrize(
    ("file", "name", "other"),
    [("downtime.csv", "Reason", "error"), ("maintenance.csv", "maintenance_type", "maintenance")],
)
def test_one_word_among_many_tells_its_kind_and_the_others_are_what_the_file_is_called(file, name, other):
    found = events(file, **{name: ["Breakdown", "Weather", "Refuelling", "Preventive"]})
    assert found.options["kinds"] == {
        "Breakdown": "failure",
        "Preventive": other,
        "Refuelling": other,
        "Weather": other,
    }


def test_a_kind_that_nothing_tells_apart_is_its_own_code_too():
    found = events("log.csv", kind=["failure", "maintenance"])
    [reading] = file_options({"telemetry": [], "events": [found], "machines": []}, [found.layout], None, {}).values()
    assert reading["columns"] == {"kind": "kind", "code": "kind"}


def test_a_number_that_is_not_called_a_code_tells_of_no_event_which_it_was():
    columns = {"Days": ["3", "4"], "Cost": ["5.5", "6.5"]}
    for told, code in (
        ({"Parts": ["a", "b"], "Issue_Category": ["c", "d"]}, "Issue_Category"),
        ({"Error": ["7", "8"]}, "Error"),
    ):
        assert events("breakdowns.csv", **columns, **told).columns["code"] == code
    assert "code" not in events("breakdowns.csv", **columns).columns


def test_a_file_named_after_a_kind_holds_that_kind_whatever_its_remarks_say():
    found = events("failures-2016.csv", Remarks=["pump replaced", "high temperature error"])
    assert found.options["kind"] == "failure"


@pytest.mark.parametrize(
    ("values", "failed"),
    [
        (["0", "1", "1", "0"], [1, 3]),
        (["NORMAL", "BROKEN", "RECOVERING", "NORMAL"], [1, 3]),
        (["-1", "1", "-1", "-1"], [1, 2]),
        (["No", "Yes", "No", "No"], [1, 2]),
        (["nein", "ja", "ja", "nein"], [1, 3]),
        (["N", "Y", "Y", "N"], [1, 3]),
    ],
)
def test_a_label_beside_the_readings_becomes_a_failure_and_its_end(values, failed):
    rows = pl.DataFrame(
        {"plant": "p", "machine": "m", "time": [START + timedelta(hours=row) for row in range(4)], "failure": values}
    )
    assert find_labels(rows.select("failure")) == ["failure"]
    events = events_from_label(rows, "failure")
    assert events["kind"].to_list() == ["failure", "maintenance"]
    assert events["time"].to_list() == [START + timedelta(hours=row) for row in failed]


@pytest.mark.parametrize(("value", "failed"), [("1", 1), ("0", 0), (None, 0)])
def test_a_file_in_which_a_label_never_changes_tells_what_it_says(value, failed):
    rows = pl.DataFrame({"plant": "p", "machine": "m", "time": [START, START + timedelta(hours=1)], "failure": value})
    assert events_from_label(rows, "failure").height == failed


def test_a_flag_that_is_seldom_set_may_mark_failures_unless_its_name_says_otherwise():
    seldom, often = [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]
    flags = {"status": seldom, "running_state": often, "maintenance_flag": seldom, "pump_3": seldom}
    assert find_labels(pl.DataFrame(flags)) == []
    assert find_flags(pl.DataFrame(flags)) == ["status"]


def test_a_setting_of_two_levels_is_no_label():
    assert find_labels(pl.DataFrame({"valve": ["0", "1", "0"], "mode": ["auto", "manual", "auto"]})) == []


@pytest.mark.parametrize(
    ("values", "is_rare"),
    [(["0.0"] * 30 + ["1.0"], True), (["no"] * 30 + ["yes", None], True), (["0", "1"], False), (["0"] * 30, False)],
)
def test_a_flag_that_is_rarely_set_may_mark_failures_whatever_its_name(values, is_rare):
    rows = pl.DataFrame({"y": values, "speed": [*READINGS, "1", "0"][-len(values) :]})
    assert find_flags(rows) == ["y"] * is_rare


def test_a_signal_that_is_true_or_false_is_a_sensor():
    signal = ["True", "False", "True"] * 10
    tables, _ = sort_tables([layout(time=hours(30), x=READINGS, is_moving=signal)], LIMITS)
    entry, _ = describe("is_moving", tables["telemetry"][0].rows)
    assert entry["role"] == "sensor"


def test_a_flag_that_is_set_most_of_the_time_is_no_label_of_failures():
    assert find_labels(pl.DataFrame({"target": [1.0, 1.0, 0.0]})) == []


@pytest.mark.parametrize(("name", "is_label"), [("failure", True), ("anomaly", True), ("alarm", False)])
def test_where_failures_are_known_alarms_are_readings_and_labels_are_still_left_out(name, is_label):
    assert find_labels(pl.DataFrame({name: [0.0, 0.0, 1.0]}), failures_known=True) == ([name] if is_label else [])


# Addresses


@pytest.mark.parametrize(
    ("paths", "placeholders", "others", "pattern"),
    [
        (["d/a.csv"], {}, ["d/events.csv"], "d/a.csv"),
        (["d/2023-01-01.csv", "d/2023-02-01.csv"], {}, [], "d/*.csv"),
        (["d/log_2023.csv", "d/log_2024.csv"], {}, ["d/events.csv"], "d/log*.csv"),
        (["d/p=n/m1.csv", "d/p=s/m2.csv"], {"{1}": "{plant}", "{2}": "{machine}"}, [], "d/p={plant}/{machine}.csv"),
        (["d/plant=n/a.csv"], {"{1}": "{plant}"}, [], "d/plant={plant}/a.csv"),
        (["d/a_m1.csv", "d/a_m2.csv"], {"{1}": "a_{machine}"}, ["d/events.csv"], "d/a_{machine}.csv"),
        (["d/m1.csv", "d/m2.csv"], {"{1}": "{machine}"}, ["d/events.csv"], None),
        (["d/a.csv", "d/x/y/a.csv"], {}, [], "d/**/*.csv"),
    ],
)
def test_a_pattern_matches_the_files_of_a_table_and_no_others(paths, placeholders, others, pattern):
    assert pattern_of(paths, placeholders, others) == pattern


# Settings


def keys_of(step: timedelta, rows: int, machines: int = 4) -> pl.DataFrame:
    times = pl.select(time=pl.lit(START) + pl.int_range(rows) * pl.lit(step))
    names = pl.DataFrame({"plant": "p", "machine": [f"m{machine}" for machine in range(machines)]})
    return names.join(times, how="cross")


def settings_for(step: timedelta, rows: int, machines: int = 4, failures: int = 3) -> dict[str, object]:
    keys = keys_of(step, rows, machines)
    return {place: value for place, value, _ in suggest(keys, keys[:: rows // failures])}


@pytest.mark.parametrize(
    ("step", "rows", "length"),
    [
        (timedelta(hours=1), 3000, None),
        (timedelta(minutes=5), 30_000, None),
        (timedelta(minutes=1), 50_000, "1h"),
        (timedelta(seconds=10), 80_000, "10m"),
        (timedelta(seconds=1), 30_000, "1m"),
        (timedelta(seconds=1), 3000, None),
    ],
)
def test_readings_that_are_fast_beside_what_they_foretell_become_rows(step, rows, length):
    keys = keys_of(step, rows)
    found = suggest_rows(keys, keys[:: rows // 3])
    assert (found and found[0]) == length
    if found:
        settings = {place: value for place, value, _ in suggest(keys, keys[:: rows // 3], rows_every=found[0])}
        assert settings["dataset.horizon_hours"] >= 12 * ROW_HOURS[found[0]]


def test_hourly_readings_of_months_keep_the_shipped_settings():
    found = settings_for(timedelta(hours=1), 3000)
    assert found["dataset.horizon_hours"] == 48
    assert found["dataset.windows_hours"] == [8, 48]
    assert found["validate.near_duplicate_seconds"] == 60
    assert found["fetch.batch_days"] == 7
    assert found["fetch.until"] == "2025-05-05"


def test_readings_of_a_second_get_minutes_and_lose_none_as_near_duplicates():
    found = settings_for(timedelta(seconds=1), 3000)
    assert found["validate.near_duplicate_seconds"] == 0
    assert found["fetch.batch_days"] == 1
    assert 0 < found["dataset.horizon_hours"] < 0.2


def test_half_a_minute_of_readings_still_gets_settings_that_may_be_set():
    found = settings_for(timedelta(seconds=1), 30)
    assert found["dataset.horizon_hours"] == 0.001
    assert min(found["dataset.windows_hours"]) >= 0.001


def test_a_reason_counts_one_machine_as_one():
    keys = pl.DataFrame({"plant": "p", "machine": "m", "time": [START + timedelta(hours=row) for row in range(100)]})
    reasons = {place: reason for place, _, reason in suggest(keys, keys[:1])}
    assert ", 1 failure of 1 machine, " in reasons["dataset.horizon_hours"]


def test_rows_that_are_months_apart_are_spelt_in_days():
    keys = pl.DataFrame({"plant": "p", "machine": "m", "time": [START + timedelta(days=120 * row) for row in range(9)]})
    assert any("a row every 120 days in the median" in reason for _, _, reason in suggest(keys, keys[:1]))


@pytest.mark.parametrize(("days", "failures", "by"), [(700, 100, "window"), (700, 20, "time"), (300, 100, "time")])
def test_more_than_a_year_is_split_by_its_newest_weeks_if_failures_are_enough_there(days, failures, by):
    found = settings_for(timedelta(hours=8), 3 * days, machines=2, failures=failures)
    assert found["dataset.split.by"] == by
    assert ("dataset.split.window" in found) == (by == "window")


@pytest.mark.parametrize(("later", "until"), [(2, "2025-02-10"), (24 * 300, "2025-02-03")])
def test_a_failure_soon_after_the_newest_row_is_not_left_for_later(later, until):
    keys = pl.DataFrame(
        {"plant": "p", "machine": "m", "time": [START + timedelta(hours=row) for row in range(35 * 24)]}
    )
    failures = keys.tail(1).with_columns(pl.col("time") + timedelta(hours=later))
    assert {name: value for name, value, _ in suggest(keys, failures)}["fetch.until"] == until


def test_daily_readings_get_windows_of_several_rows():
    found = settings_for(timedelta(days=1), 700)
    assert min(found["dataset.windows_hours"]) >= 96
    assert found["dataset.horizon_hours"] >= 12 * 24
    assert found["validate.outage_hours"] == 144


def test_events_alone_get_scheduled_rows():
    keys = pl.DataFrame({"plant": "p", "machine": "m", "time": [START, START + timedelta(days=100)]})
    found = {place: value for place, value, _ in suggest(keys, keys, readings=False)}
    assert found["fetch.rows_every_hours"] == 12
    assert found["dataset.horizon_hours"] >= 24


# Drafts


def test_a_draft_keeps_other_sections_and_their_comments_and_is_the_same_when_drafted_again():
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    settings = suggest(
        pl.DataFrame({"plant": ["p"], "machine": ["m"], "time": [START]}),
        pl.DataFrame(schema={"plant": pl.String, "machine": pl.String, "time": pl.Datetime("us", "UTC")}),
    )
    settings += [Setting("dataset.split.window", NEWEST_WEEKS, "why")]
    options = CommentedMap(telemetry=annotate({"path": "d/*.csv"}, {"path": "why"}))
    drafted = draft_params(text, "files", options, settings)
    assert "    window: {validation_weeks: 8, test_weeks: 8, every_weeks: 4}\n" in drafted
    assert draft_params(drafted, "files", options, settings) == drafted
    assert "path: d/*.csv  # why" in drafted
    assert "# adopt: " in drafted
    assert drafted.split("\nmodel:")[1].split("\nevaluate:")[0] == text.split("\nmodel:")[1].split("\nevaluate:")[0]


OF_A_SOURCE = {"mode": "reference", "since": "2025-02-03"}


def draft_fetch(path: str, *settings: Setting, **changes: object) -> dict[str, object]:
    """Draft ``params.yaml`` for these files over an adoption of other ones, in which somebody made these changes."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["fetch"] |= {"source": "files", "options": {"telemetry": {"path": "old/*.csv"}}, **changes}
    options = CommentedMap(telemetry={"path": path})
    return yaml.safe_load(draft_params(yaml.safe_dump(params), "files", options, settings))["fetch"]


def test_what_was_set_for_another_source_does_not_stay_for_the_adopted_one():
    drafted = draft_fetch("new/*.csv", Setting("fetch.rows_every_hours", 12, "why"), **OF_A_SOURCE)
    assert (drafted["mode"], drafted["since"], drafted["findings"]) == ("copy", None, None)
    assert draft_fetch("new/*.csv", findings="${UPKEEP_LOG_URL}")["findings"] is None


def test_what_was_set_for_the_same_source_stays_when_it_is_adopted_again():
    assert OF_A_SOURCE.items() <= draft_fetch("old/*.csv", **OF_A_SOURCE).items()


def test_a_draft_that_kept_settings_forbid_is_refused_by_their_names():
    with pytest.raises(UpkeepError, match=r"fetch: .*reference cannot go with rows_every_hours"):
        draft_fetch("old/*.csv", Setting("fetch.rows_every_hours", 12, "why"), **OF_A_SOURCE)


def test_each_column_of_a_drafted_dictionary_has_its_reason_beside_it():
    rows = pl.DataFrame(
        {"plant": "p", "machine": "m", "time": range(9), "temp [°C]": [float(row * 7 % 9) for row in range(9)]}
    )
    described, names = {"telemetry": describe_telemetry([rows], [])}, {"telemetry": {"temp [°C]": "temp_deg_c"}}
    drafted = draft_dictionary(described, names, set())
    assert yaml.safe_load(drafted)["tables"]["telemetry"]["temp_deg_c"]["required"] is False
    line = next(line for line in drafted.splitlines() if "temp_deg_c" in line)
    assert "# by behaviour; 0 to 8 here" in line
    assert "delivered as" in line


def test_a_meaning_that_is_the_delivered_name_does_not_say_it_twice():
    described = {"telemetry": {"OIL PRESS": Described({"role": "sensor"}, "by its name")}}
    drafted = draft_dictionary(described, {"telemetry": {"OIL PRESS": "oil_press"}}, set())
    assert yaml.safe_load(drafted)["tables"]["telemetry"]["oil_press"]["meaning"] == "OIL PRESS"
