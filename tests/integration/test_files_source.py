import gzip
import re
from datetime import UTC, date, datetime, time, timedelta

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parameters import opened

from upkeep.contract.casting import cast_column
from upkeep.core.errors import UpkeepError
from upkeep.sources import files

UNTIL = date(2025, 1, 13)

CSV = """plant,machine,time,load
lyon,m1,2025-01-06T00:00:00Z,1.0
lyon,m1,2025-01-13T00:00:00Z,2.0
porto,m2,2025-01-06T00:00:00Z,3.0
lyon,m1,2025-01-20T00:00:00Z,4.0
"""


def deliveries(tmp_path, telemetry=None, until=UNTIL, **tables):
    """Read all that the source offers, as {(table, plant, batch): rows}."""
    options = {"telemetry": {"path": f"{tmp_path}/*.csv", **(telemetry or {})}, **tables}
    return {
        (found.table, found.plant, str(found.batch)): found.read()
        for found in opened("files", options).deliveries(until)
    }


def test_rows_of_one_file_go_to_their_plant_and_batch_up_to_until(tmp_path):
    (tmp_path / "all.csv").write_text(CSV)
    found = deliveries(tmp_path)
    assert {place: rows["load"].to_list() for place, rows in found.items()} == {
        ("telemetry", "lyon", "2025-01-06"): ["1.0"],
        ("telemetry", "lyon", "2025-01-13"): ["2.0"],
        ("telemetry", "porto", "2025-01-06"): ["3.0"],
    }


def test_rows_of_several_files_come_together_in_one_batch(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.csv").write_text("plant,machine,time,load,extra\nlyon,m9,2025-01-07,7.0,x\n")
    rows = deliveries(tmp_path)["telemetry", "lyon", "2025-01-06"]
    assert rows["machine"].to_list() == ["m1", "m9"]
    assert rows["extra"].to_list() == [None, "x"]


def test_the_file_that_went_away_meanwhile_is_named_and_not_the_first_one_of_its_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FILES_IN_MEMORY", 1)
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / name).write_text(CSV)
    found = opened("files", {"telemetry": {"path": f"{tmp_path}/*.csv"}}).deliveries(UNTIL)
    (tmp_path / "b.csv").unlink()
    with pytest.raises(UpkeepError) as caught:
        found[0].read()
    assert (caught.value.where["file"], caught.value.what) == ("b.csv", "b.csv is gone")


def test_broken_values_stay_as_they_were_delivered(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time,load\nlyon,m1,2025-01-06,n/a\nlyon,,2025-01-07,\n")
    rows = deliveries(tmp_path)["telemetry", "lyon", "2025-01-06"]
    assert rows["load"].to_list() == ["n/a", None]
    assert rows["machine"].to_list() == ["m1", None]


def test_a_row_without_a_time_or_plant_goes_where_the_row_before_it_goes(tmp_path):
    (tmp_path / "all.csv").write_text(
        "plant,machine,time,load\n,m0,2025-01-06,0\nlyon,m1,2025-01-06,1\nlyon,m1,yesterday,2\n ,m1,,3\n"
        "porto,m2,2025-01-13,4\nporto,m2,,5\n"
    )
    found = deliveries(tmp_path)
    assert found["telemetry", "lyon", "2025-01-06"]["load"].to_list() == ["0", "1", "2", "3"]
    assert found["telemetry", "lyon", "2025-01-06"]["time"].to_list()[2] == "yesterday"
    assert found["telemetry", "lyon", "2025-01-06"]["plant"].to_list() == [None, "lyon", "lyon", " "]
    assert found["telemetry", "porto", "2025-01-13"]["load"].to_list() == ["4", "5"]


@pytest.mark.parametrize("plant", ["x" * 201, "por\x1bto", " " * 300])
def test_a_row_whose_plant_is_no_name_goes_where_the_row_before_it_goes(tmp_path, plant):
    (tmp_path / "all.csv").write_text(f"plant,machine,time\nlyon,m1,2025-01-06\n{plant},m1,2025-01-07\n")
    [rows] = deliveries(tmp_path).values()
    assert rows["plant"].to_list() == ["lyon", plant]


def test_a_file_that_names_no_plant_goes_to_the_plant_unknown(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time\n,m0,2025-01-06\n")
    assert list(deliveries(tmp_path)) == [("telemetry", "unknown", "2025-01-06")]


def test_columns_are_renamed_to_ours(tmp_path):
    (tmp_path / "all.csv").write_text("werk,asset,ts,load\nlyon,m1,2025-01-06,1\n")
    rows = deliveries(tmp_path, {"columns": {"plant": "werk", "machine": "asset", "time": "ts"}})
    assert rows["telemetry", "lyon", "2025-01-06"].columns == ["plant", "machine", "time", "load"]


def test_columns_may_swap_names_and_a_column_in_the_way_is_set_aside(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time,ts,a,b\nlyon,m1,shift 1,2025-01-06,1,2\n")
    rows = deliveries(tmp_path, {"columns": {"time": "ts", "a": "b", "b": "a"}})["telemetry", "lyon", "2025-01-06"]
    assert rows.row(0, named=True) == {
        "plant": "lyon", "machine": "m1", "time (delivered)": "shift 1", "time": "2025-01-06", "a": "2", "b": "1"
    }  # fmt: skip


def test_a_mapped_column_that_no_file_has_is_named_with_the_closest_there_is(tmp_path):
    (tmp_path / "all.csv").write_text(CSV.replace("load", "load_pct"))
    with pytest.raises(UpkeepError, match="no column 'load_pt'; did you mean 'load_pct'") as caught:
        deliveries(tmp_path, {"columns": {"load": "load_pt"}})
    assert "machine, time, load_pct" in caught.value.expected


@pytest.mark.parametrize("theirs", ["PLANT", "Plant [-]", "\uff50lant"])
def test_a_column_in_other_letters_is_the_one_that_was_meant(tmp_path, theirs):
    (tmp_path / "all.csv").write_text(f"{theirs},machine,time\nlyon,m1,2025-01-06\n")
    with pytest.raises(UpkeepError, match=re.escape(f"did you mean {theirs!r}?")):
        deliveries(tmp_path)


def test_a_sensor_that_one_file_lacks_is_no_error(tmp_path):
    (tmp_path / "a.csv").write_text("plant,machine,time,l\nlyon,m1,2025-01-06,1\n")
    (tmp_path / "b.csv").write_text("plant,machine,time\nlyon,m1,2025-01-13\n")
    found = deliveries(tmp_path, {"columns": {"load": "l"}})
    assert found["telemetry", "lyon", "2025-01-13"].columns == ["plant", "machine", "time"]


@pytest.mark.parametrize(("column", "header"), [("time", "plant,machine,tim"), ("plant", "plnt,machine,time")])
def test_a_file_without_a_time_or_plant_is_named(tmp_path, column, header):
    (tmp_path / "all.csv").write_text(f"{header}\nx,m1,2025-01-06\n")
    with pytest.raises(UpkeepError, match=f"no column '{column}'; did you mean") as caught:
        deliveries(tmp_path)
    assert str(caught.value.where["file"]).endswith("all.csv")


def test_times_that_nobody_can_read_are_shown(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time\nlyon,m1,06.01.2025 14:00\n")
    with pytest.raises(UpkeepError, match=r"the first is '06\.01\.2025 14:00'"):
        deliveries(tmp_path)


WRONG_TIMES = {
    "seconds": ([1736121600, 1736125200], {"epoch": "s"}),
    "fractions of milliseconds": ([1736121600000.5, 1736125200000.0], {"epoch": "ms"}),
    "nanoseconds in text": (["1736121600000000000", "1736125200000000001"], {"epoch": "ns"}),
    "days in whole numbers": ([20250106, 20250107], {"time_format": "%Y%m%d"}),
    "German": (["06.01.2025 00:00", "31.12.2024 23:00"], {"time_format": "%d.%m.%Y %H:%M"}),
    "American": (["01/06/2025 00:00", "12/31/2024 23:00"], {"time_format": "%m/%d/%Y %H:%M"}),
    "Japanese": (["2025年1月6日 0時00分", "2024年12月31日 23時00分"], {"time_format": "%Y年%m月%d日 %H時%M分"}),
    "Oracle's": (["06-JAN-25 12.00.00.000 AM"], {"time_format": "%d-%b-%y %I.%M.%S%.f %p"}),
    "a comma before fractions": (["2025-01-06T00:00:00,123Z"], {"time_format": "%Y-%m-%dT%H:%M:%S,%3f%#z"}),
    "seconds with a comma": (["1736121600,5", "1736125200,0"], {"epoch": "s", "decimal": ","}),
    "names of zones": (
        ["2025-01-06 01:00:00 CET"],
        {"time_format": "%Y-%m-%d %H:%M:%S %Z", "time_zone": "Europe/Paris"},
    ),
}


@pytest.mark.parametrize(("times", "remedy"), WRONG_TIMES.values(), ids=WRONG_TIMES)
def test_the_remedy_for_times_that_nobody_can_read_works(tmp_path, times, remedy):
    pl.DataFrame({"plant": "lyon", "machine": "m1", "time": times}, strict=False).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UpkeepError, match="no time in the file can be read") as caught:
        deliveries(tmp_path, {"path": str(tmp_path)})
    option, value = next(iter(remedy.items()))
    assert f"set {option}: {value}" in caught.value.remedy.replace("'", "")
    assert all(name in caught.value.remedy for name in remedy)
    found = deliveries(tmp_path, {"path": str(tmp_path), **remedy})
    read = pl.concat(
        rows.select(cast_column("time", rows.schema["time"], "time").value.alias("time")) for rows in found.values()
    )
    assert datetime(2025, 1, 6) in read["time"].dt.replace_time_zone(None).dt.truncate("1s").to_list()
    assert not read["time"].has_nulls()


@pytest.mark.parametrize("number", ["638717184000000000", "133806240000000000", "739623.25", "3818966400"])
def test_for_numbers_that_no_option_reads_no_option_is_the_remedy(tmp_path, number):
    (tmp_path / "all.csv").write_text(f"plant,machine,time\nlyon,m1,{number}\n")
    with pytest.raises(UpkeepError) as caught:
        deliveries(tmp_path)
    assert caught.value.remedy.endswith(": deliver ISO 8601")


def test_a_spreadsheets_days_are_refused_with_what_to_do_there(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time\nlyon,m1,45663.5\n")
    with pytest.raises(UpkeepError) as caught:
        deliveries(tmp_path)
    assert "yyyy-mm-dd hh:mm:ss" in caught.value.remedy
    (tmp_path / "all.csv").write_text("plant,machine,time\nlyon,m1,2025-01-06 12:00:00\n")
    assert len(deliveries(tmp_path)) == 1


def test_an_empty_column_of_times_and_a_wrong_separator_have_remedies_that_work(tmp_path):
    (tmp_path / "all.csv").write_text("plant;machine;time;ts\nlyon;m1;;2025-01-06\n")
    with pytest.raises(UpkeepError) as caught:
        deliveries(tmp_path)
    assert caught.value.remedy == 'set separator: ";"'
    with pytest.raises(UpkeepError, match="column time is empty") as caught:
        deliveries(tmp_path, {"separator": ";"})
    assert "time: THEIR_NAME" in caught.value.remedy
    assert len(deliveries(tmp_path, {"separator": ";", "columns": {"time": "ts"}})) == 1


def test_a_file_that_is_no_table_has_a_remedy_that_works(tmp_path):
    whole = "\n".join(f'"{line}"' for line in ("plant,machine,time", "lyon,m1,2025-01-06"))
    for text, remedy in {whole: "in quotes as a whole", "<html>\n<p>login</p>\n</html>\n": "as a table"}.items():
        (tmp_path / "all.csv").write_text(text)
        with pytest.raises(UpkeepError, match="no column 'plant'") as caught:
            deliveries(tmp_path)
        assert remedy in caught.value.remedy
    (tmp_path / "all.csv").write_text(whole.replace('"', ""))
    assert len(deliveries(tmp_path)) == 1


@pytest.mark.parametrize("content", [b"PK\x03\x04...", gzip.compress(gzip.compress(CSV.encode()))])
def test_an_archive_or_a_file_that_is_packed_twice_is_no_damaged_file(tmp_path, content):
    (tmp_path / "all.csv.gz").write_bytes(content)
    with pytest.raises(UpkeepError, match=r"archive|packed twice") as caught:
        deliveries(tmp_path, {"path": str(tmp_path)})
    assert caught.value.remedy.startswith("unpack it")


def test_rows_of_years_in_no_order_are_in_the_batches_of_their_times_and_a_clock_that_leaps_is_not(tmp_path):
    days = [date(2022, 1, 3) + timedelta(days=row * 389 % 1000) for row in range(1000)]
    lines = [f"lyon,m1,{day},1" for day in [*days[:500], date(2095, 1, 3), *days[500:]]]
    (tmp_path / "all.csv").write_text("\n".join(["plant,machine,time,load", *lines]))
    found = deliveries(tmp_path)
    misplaced = [
        time
        for (_, _, batch), rows in found.items()
        for time in rows["time"]
        if not timedelta() <= date.fromisoformat(time) - date.fromisoformat(batch) < timedelta(days=7)
    ]
    assert misplaced == ["2095-01-03"]
    assert sum(rows.height for rows in found.values()) == 1001


def test_readings_of_a_clock_that_leaps_now_and_then_stay_with_those_before_them(tmp_path):
    lines = [f"lyon,m1,{year}-01-0{day},1" for day, year in enumerate((2025, 2095, 2025, 2095, 2025), 1)]
    (tmp_path / "all.csv").write_text("\n".join(["plant,machine,time,load", *lines]))
    assert {batch for _, _, batch in deliveries(tmp_path)} == {"2024-12-30"}


def test_a_clock_that_is_a_year_ahead_for_a_reading_is_found_in_a_record_of_months_too(tmp_path):
    days = [date(2025, 1, 6) + timedelta(weeks=week) for week in range(45)]
    days[5] += timedelta(days=400)
    (tmp_path / "all.csv").write_text("\n".join(["plant,machine,time", *(f"lyon,m1,{day}" for day in days)]))
    found = deliveries(tmp_path, until=date(2027, 1, 4))
    assert len(found) == 44
    assert found["telemetry", "lyon", "2025-02-03"].height == 2


def test_what_is_beyond_all_clocks_stays_as_it_was_delivered(tmp_path):
    times = pa.array([1736121600, 2**60, None], pa.int64())
    pq.write_table(pa.table({"plant": ["lyon"] * 3, "machine": ["m1"] * 3, "time": times}), tmp_path / "a.parquet")
    rows = deliveries(tmp_path, {"path": str(tmp_path), "epoch": "s"})["telemetry", "lyon", "2025-01-06"]
    assert rows["time"].to_list() == ["2025-01-06T00:00:00.000000Z", str(2**60), None]


def test_units_below_the_header_of_machines_name_no_plant(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "m.txt").write_text(
        "plant,machine,model,installed\ntext,text,-,date\nlyon,press,A,\nvigo,saw,B,2020-01-01\n"
    )
    found = deliveries(tmp_path, {"path": f"{tmp_path}/t.csv"}, machines={"path": f"{tmp_path}/m.txt"})
    machines = {plant: rows.height for (table, plant, _), rows in found.items() if table == "machines"}
    assert machines == {"lyon": 2, "vigo": 1}


def test_when_machines_were_installed_is_read_as_their_times_are(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "m.txt").write_text("plant,machine,model,installed\nlyon,m1,A,31.12.2020\n")
    machines = {"path": f"{tmp_path}/m.txt", "time_format": "%d.%m.%Y"}
    rows = deliveries(tmp_path, machines=machines)["machines", "lyon", "2025-01-06"]
    assert rows["installed"].to_list() == ["2020-12-31T00:00:00.000000Z"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"path": "{site}/*.csv"}, r"path knows {plant} and {machine}, not {site}"),
        ({"path": "{plant}/{plant}.csv"}, "placeholder twice"),
        ({"separator": ";;"}, "one character"),
        ({"encoding": "klingon"}, "encoding is one"),
        ({"time_format": "%S"}, "time_format: Invalid format string"),
        ({"time_format": "%Y-%m-%d %H:%M:%S.%f"}, "as %.f"),
        ({"time_format": "%Y-%m-%d %Z"}, "give time_zone"),
        ({"time_format": "%s", "epoch": "s"}, "not both"),
        ({"time_of_day": "clock", "epoch": "s"}, "not both"),
        ({"kinds": {"x": "error"}}, "telemetry cannot have kinds"),
    ],
)
def test_an_option_that_cannot_work_is_refused_before_anything_is_read(tmp_path, options, fault):
    with pytest.raises(UpkeepError, match=fault):
        deliveries(tmp_path, options)


def test_a_time_format_is_read_and_a_time_that_breaks_it_stays(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time\nlyon,m1,06.01.2025 14:00\nlyon,m1,noon\n")
    rows = deliveries(tmp_path, {"time_format": "%d.%m.%Y %H:%M"})["telemetry", "lyon", "2025-01-06"]
    assert rows["time"].to_list() == ["2025-01-06T14:00:00.000000Z", "noon"]


@pytest.mark.parametrize(
    ("days", "clocks", "form"),
    [
        (["20250106", "20250106"], ["143000", "000500"], "%Y%m%d %H:%M:%S"),  # as SAP writes them
        (["20250106", "20250106"], ["1430", "5"], "%Y%m%d %H:%M:%S"),
        (["06.01.2025", "06.01.2025"], ["14.30.00", "0.05.00"], "%d.%m.%Y %H:%M:%S"),
        (["06.01.2025", "06.01.2025"], ["2:30 PM", "12:05 am"], "%d.%m.%Y %I:%M %p"),
        (["2025-01-06 00:00:00", "2025-01-06"], ["14:30", "0:05"], None),
        ([date(2025, 1, 6), date(2025, 1, 6)], [time(14, 30), time(0, 5)], None),
        ([datetime(2025, 1, 6), datetime(2025, 1, 6)], [143000, 500], None),
        ([20250106.0, 20250106.0], [1430.0, 5.0], "%Y%m%d %H:%M:%S"),
    ],
)
def test_day_and_time_of_day_in_two_columns_are_one_time(tmp_path, days, clocks, form):
    rows = pl.DataFrame({"plant": "lyon", "machine": "m1", "day": days, "clock": clocks, "load": [1.0, 2.0]})
    write = rows.write_csv if isinstance(days[0], str) else rows.write_parquet
    write(file := tmp_path / f"t{'.csv' if isinstance(days[0], str) else '.parquet'}")
    options = {"path": str(file), "columns": {"time": "day"}, "time_of_day": "clock", "time_zone": "Europe/Paris"}
    read = deliveries(tmp_path, options | ({"time_format": form} if form else {}))
    found = pl.concat([read["telemetry", "lyon", batch] for batch in ("2024-12-30", "2025-01-06")])
    assert "clock" not in found.columns
    assert {*found["time"]} == {"2025-01-06T13:30:00.000000Z", "2025-01-05T23:05:00.000000Z"}


def test_where_day_or_time_of_day_is_missing_the_time_is(tmp_path):
    lines = ["2025-01-06,10:00,1", "2025-01-06,,2", ",11:00,3", "2025-01-06,later,4"]
    (tmp_path / "t.csv").write_text("\n".join(["day,clock,load", *lines]))
    options = {"columns": {"time": "day"}, "time_of_day": "clock", "plant": "lyon", "machine": "m1"}
    rows = deliveries(tmp_path, options)["telemetry", "lyon", "2025-01-06"]
    assert rows["time"].to_list() == ["2025-01-06 10:00", None, None, "2025-01-06 later"]


@pytest.mark.parametrize("absent", ["day", "clock"])
def test_a_column_of_days_or_times_of_day_that_is_not_there_is_named(tmp_path, absent):
    (tmp_path / "t.csv").write_text("plant,machine,day,clock\nlyon,m1,2025-01-06,10:00\n".replace(absent, "other"))
    with pytest.raises(UpkeepError, match=f"there is no column '{absent}'"):
        deliveries(tmp_path, {"columns": {"time": "day"}, "time_of_day": "clock"})


@pytest.mark.parametrize("form", ["%+", "%Y-%m-%dT%H:%M:%S%#z"])
def test_a_time_with_its_offset_is_in_no_time_zone(tmp_path, form):
    (tmp_path / "all.csv").write_text("plant,machine,time\nlyon,m1,2025-01-06T14:00:00+01:00\n")
    options = {"time_format": form, "time_zone": "America/New_York"}
    rows = deliveries(tmp_path, options)["telemetry", "lyon", "2025-01-06"]
    assert rows["time"].to_list() == ["2025-01-06T13:00:00.000000Z"]


@pytest.mark.parametrize(
    ("time", "remedy"),
    [
        ("last week", "set time_format, or deliver ISO 8601"),
        ("06.01.2025 14:00:00 +0100", "set time_format: '%d.%m.%Y %H:%M:%S %z'"),
        ("2025010614", "deliver ISO 8601"),
    ],
)
def test_times_that_nobody_can_read_are_told_with_what_to_set(tmp_path, time, remedy):
    (tmp_path / "all.csv").write_text(f"plant,machine,time\nlyon,m1,{time}\nlyon,m2,{time}\n")
    with pytest.raises(UpkeepError) as caught:
        deliveries(tmp_path, {})
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("time", "epoch", "remedy"),
    [("1736150400", "ms", "correct epoch, which is ms"), ("1736150400000", "s", "set epoch: ms")],
)
def test_numbers_of_another_unit_than_the_epochs_are_no_times_of_1970(tmp_path, time, epoch, remedy):
    (tmp_path / "all.csv").write_text(f"plant,machine,time\nlyon,m1,{time}\n")
    with pytest.raises(UpkeepError) as caught:
        deliveries(tmp_path, {"epoch": epoch})
    assert remedy in caught.value.remedy


def test_the_plants_own_clock_is_brought_to_utc_and_decides_the_batch(tmp_path):
    (tmp_path / "all.csv").write_text(
        "plant,machine,time\nlyon,m1,2025-01-13 00:30\nlyon,m1,2025-01-13T00:30:00Z\nlyon,m1,2025-01-13T00:30+02:00\n"
    )
    found = deliveries(tmp_path, {"time_zone": "Europe/Berlin"})
    assert found["telemetry", "lyon", "2025-01-06"]["time"].to_list() == [
        "2025-01-12T23:30:00.000000Z",
        "2025-01-12T22:30:00.000000Z",
    ]
    assert found["telemetry", "lyon", "2025-01-13"]["time"].to_list() == ["2025-01-13T00:30:00.000000Z"]


def test_an_hour_that_the_clocks_skip_is_no_time(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time\nlyon,m1,2025-03-30 01:30\nlyon,m1,2025-03-30 02:30\n")
    found = deliveries(tmp_path, {"time_zone": "Europe/Berlin"}, until=date(2025, 4, 7))
    assert found["telemetry", "lyon", "2025-03-24"]["time"].to_list() == [
        "2025-03-30T00:30:00.000000Z",
        "2025-03-30 02:30 (Europe/Berlin)",
    ]


def test_parquet_keeps_its_types_and_local_times_become_utc(tmp_path):
    naive = pl.DataFrame({"machine": [1], "time": [datetime(2025, 1, 6, 1)], "load": [1.5]})
    naive.write_parquet(tmp_path / "a.parquet")
    found = deliveries(tmp_path, {"path": str(tmp_path), "plant": "lyon", "time_zone": "Europe/Berlin"})
    rows = found["telemetry", "lyon", "2025-01-06"]
    assert rows.schema["load"] == pl.Float64
    assert rows["time"].to_list() == [datetime(2025, 1, 6, tzinfo=UTC)]


def test_semicolons_decimal_commas_and_latin_letters_are_read(tmp_path):
    (tmp_path / "all.csv").write_bytes(
        "plant;machine;time;load;note\nlyon;m1;2025-01-06;1,5;süß, 2\n".encode("latin-1")
    )
    rows = deliveries(tmp_path, {"separator": ";", "decimal": ",", "encoding": "latin-1"})
    assert rows["telemetry", "lyon", "2025-01-06"].select("load", "note").row(0) == ("1,5", "süß, 2")


def test_a_path_can_tell_plant_and_machine(tmp_path):
    (tmp_path / "plant=lyon").mkdir()
    (tmp_path / "plant=lyon" / "m7.csv.gz").write_bytes(gzip.compress(b"time,load\n2025-01-06,1\n"))
    found = deliveries(tmp_path, {"path": f"{tmp_path}/plant={{plant}}/{{machine}}.csv.gz"})
    assert found["telemetry", "lyon", "2025-01-06"].row(0, named=True) == {
        "time": "2025-01-06", "load": "1", "plant": "lyon", "machine": "m7"
    }  # fmt: skip


@pytest.mark.parametrize("names", [("Werk 1/Süd", "Werk 1 Süd"), ("北京", "上海"), ("Nord", "nord"), ("..", "../..")])
def test_plants_are_called_as_delivered_however_alike_they_look(tmp_path, names):
    (tmp_path / "all.csv").write_text("plant,machine,time\n" + "".join(f"{name},m1,2025-01-06\n" for name in names))
    found = deliveries(tmp_path)
    assert {found["telemetry", name, "2025-01-06"]["plant"].item() for name in names} == set(names)


def test_the_alarm_that_a_visit_answers_is_in_the_files_clock_or_in_utc_with_an_offset(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    visits = "lyon,m1,07.01.2025 12:00,07.01.2025 09:30\nlyon,m1,08.01.2025 12:00,2025-01-08T08:30:00Z\n"
    (tmp_path / "visits.txt").write_text(f"plant,machine,time,alarm_at\n{visits}")
    clock = {"time_zone": "Europe/Berlin", "time_format": "%d.%m.%Y %H:%M", "kind": "maintenance"}
    events = deliveries(tmp_path, events={"path": f"{tmp_path}/visits.txt", **clock})["events", "lyon", "2025-01-06"]
    alarms = events.select(alarm_at=cast_column("alarm_at", pl.String(), "time").value)["alarm_at"]
    assert alarms.to_list() == [datetime(2025, 1, day, 8, 30, tzinfo=UTC) for day in (7, 8)]


def test_several_files_of_one_table_are_each_read_in_their_own_way(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "failures.csv").write_text("asset;day;part\nm1;06.01.2025;spindle\n")
    (tmp_path / "work.csv").write_text("asset,ts,what\nm1,2025-01-07,Oil\nm1,2025-01-08,Bearing\nm1,2025-01-09,?\n")
    constant = {"plant": 7, "columns": {"machine": "asset", "time": "day", "code": "part"}, "kind": "failure"}
    events = [
        {"path": f"{tmp_path}/failures.csv", "separator": ";", "time_format": "%d.%m.%Y", **constant},
        {
            "path": f"{tmp_path}/work.csv",
            "plant": 7,
            "columns": {"machine": "asset", "time": "ts", "kind": "what"},
            "kinds": {"Oil": "maintenance", "Bearing": "failure"},
        },
    ]
    rows = deliveries(tmp_path, {"path": f"{tmp_path}/t.csv"}, events=events)["events", "7", "2025-01-06"]
    assert rows.select("machine", "kind", "code").rows() == [
        ("m1", "failure", "spindle"),
        ("m1", "maintenance", "Oil"),
        ("m1", "failure", "Bearing"),
        ("m1", "?", "?"),
    ]


@pytest.mark.parametrize(
    ("delivered", "kinds"),
    [([1, 0], {1: "failure", 0: "maintenance"}), ([True, False], {True: "failure", False: "maintenance"})],
)
def test_kinds_that_are_numbers_or_true_and_false_are_translated(tmp_path, delivered, kinds):
    (tmp_path / "t.csv").write_text(CSV)
    frame = pl.DataFrame({"plant": "lyon", "machine": "m1", "time": "2025-01-06", "broke": delivered})
    frame.write_parquet(tmp_path / "e.parquet")
    events = {"path": f"{tmp_path}/e.parquet", "columns": {"kind": "broke"}, "kinds": kinds}
    rows = deliveries(tmp_path, events=events)["events", "lyon", "2025-01-06"]
    assert rows["kind"].to_list() == ["failure", "maintenance"]


def test_one_column_may_be_two_of_ours(tmp_path):
    (tmp_path / "all.csv").write_text("id,time\na,2025-01-06\n")
    assert deliveries(tmp_path, {"columns": {"plant": "id", "machine": "id"}})["telemetry", "a", "2025-01-06"].row(
        0, named=True
    ) == {"plant": "a", "machine": "a", "time": "2025-01-06"}


LONG = """asset,ts,tag,val
m1,2025-01-06T00:00:00Z,VIB,1
m1,2025-01-06T00:00:00Z,TEMP,40
m2,2025-01-06T00:00:00Z,VIB,5
m1,2025-01-06T00:00:00Z,VIB,2
m1,2025-01-06T01:00:00Z,TEMP
m1,2025-01-06T01:00:00Z,TEMP,41
m1,2025-01-06T01:00:00Z,,42
"""
PIVOT = {"name": "tag", "value": "val"}
LONG_COLUMNS = {"machine": "asset", "time": "ts", "vibration": "VIB", "temperature": "TEMP"}


def test_a_row_per_sensor_becomes_a_row_per_instant_and_no_value_vanishes(tmp_path):
    (tmp_path / "all.csv").write_text(LONG)
    found = deliveries(tmp_path, {"plant": "lyon", "columns": LONG_COLUMNS, "pivot": PIVOT})
    rows = found["telemetry", "lyon", "2025-01-06"]
    assert rows.select("machine", "vibration", "temperature", "(no name)", "@broken_line").rows() == [
        ("m1", "1", "40", None, None),
        ("m2", "5", None, None, None),
        ("m1", "2", None, None, None),
        (None, None, None, None, "m1,2025-01-06T01:00:00Z,TEMP"),
        ("m1", None, "41", "42", None),
    ]


def test_a_wrong_name_in_pivot_and_a_sensor_that_is_not_there_are_named_with_the_closest(tmp_path):
    (tmp_path / "all.csv").write_text(LONG)
    for options, meant in {
        ("tags", "VIB"): "'tags'; did you mean 'tag'",
        ("tag", "VIBR"): "'VIBR'; did you mean 'VIB'",
    }.items():
        reading = {"columns": {**LONG_COLUMNS, "vibration": options[1]}, "pivot": {**PIVOT, "name": options[0]}}
        with pytest.raises(UpkeepError, match=meant):
            deliveries(tmp_path, {"plant": "lyon", **reading})


def test_the_readings_of_parquet_keep_their_type_when_they_are_turned(tmp_path):
    frame = pl.DataFrame({"machine": 1, "time": datetime(2025, 1, 6), "tag": ["a", "b"], "val": [1.5, None]})
    frame.write_parquet(tmp_path / "a.parquet")
    rows = deliveries(tmp_path, {"path": str(tmp_path), "plant": "lyon", "pivot": PIVOT})
    assert rows["telemetry", "lyon", "2025-01-06"].row(0, named=True) == {
        "machine": 1, "time": datetime(2025, 1, 6), "a": 1.5, "b": None, "plant": "lyon"
    }  # fmt: skip


INSTANT = datetime(2025, 1, 6)
ODD_TYPES = {
    "a zone in one file": {"time": [INSTANT.replace(tzinfo=UTC)]},
    "text": {"time": ["2025-01-06"]},
    "dates": {"time": [INSTANT.date()]},
    "numbers for names": {"machine": [1]},
    "floats for names": {"machine": [1.0]},
    "lists": {"load": [[1.0]]},
    "bytes": {"load": [b"1"]},
    "categories": {"load": pl.Series(["1"], dtype=pl.Categorical)},
    "decimals": {"load": pl.Series(["1.5"]).cast(pl.Decimal(9, 2))},
    "nothing": {"load": [None]},
    "durations": {"load": [INSTANT - INSTANT]},
}


@pytest.mark.parametrize("name", ODD_TYPES)
def test_files_of_one_batch_may_differ_in_type(tmp_path, name):
    usual = {"plant": "lyon", "machine": ["1"], "time": [INSTANT], "load": [1.0]}
    pl.DataFrame(usual).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({**usual, **ODD_TYPES[name]}).write_parquet(tmp_path / "b.parquet")
    found = opened("files", {"telemetry": {"path": str(tmp_path)}}).deliveries(UNTIL)
    (delivery,) = found  # two would be the same rows delivered twice
    assert delivery.read().height == 2
    assert (delivery.plant, str(delivery.batch)) == ("lyon", "2025-01-06")


@pytest.mark.parametrize("kind", [pa.timestamp("us", "Mars/Base"), pa.decimal256(60, 0)])
def test_a_type_that_nobody_reads_is_an_error_that_names_the_file(tmp_path, kind):
    pq.write_table(pa.table({"time": pa.array([None], kind)}), tmp_path / "odd.parquet")
    with pytest.raises(UpkeepError, match="holds a type that cannot be read") as caught:
        deliveries(tmp_path, {"path": str(tmp_path)})
    assert str(caught.value.where["file"]).endswith("odd.parquet")


def test_an_extension_of_a_type_is_read_as_what_it_holds(tmp_path):
    table = {"plant": ["lyon"], "machine": pa.array(["m1"], pa.json_()), "time": [INSTANT]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    rows = deliveries(tmp_path, {"path": str(tmp_path)})["telemetry", "lyon", "2025-01-06"]
    assert rows.schema["machine"] == pl.String


def test_files_that_are_not_read_are_findings_that_name_them(tmp_path):
    (tmp_path / "north").mkdir()
    (tmp_path / "all.csv").write_text(CSV)
    (tmp_path / "north" / "april.xlsx").write_bytes(b"PK")
    (tmp_path / "READ.ME").write_text("hello")
    found = opened("files", {"telemetry": {"path": str(tmp_path)}}).deliveries(UNTIL)
    assert found
    for delivery in found:
        assert [finding["kind"] for finding in delivery.findings] == ["unread_file"] * 2
        assert [str(finding["detail"]).split(" is not")[0] for finding in delivery.findings] == [
            "READ.ME",
            "north/april.xlsx",
        ]


def test_what_is_not_read_of_a_table_without_any_row_is_found_as_well(tmp_path, caplog):
    (tmp_path / "all.csv").write_text(CSV)
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "none.csv").write_text("plant,machine,time,kind,code\n")
    (tmp_path / "events" / "april.xlsx").write_bytes(b"PK")
    tables = {"telemetry": {"path": f"{tmp_path}/*.csv"}, "events": {"path": f"{tmp_path}/events"}}
    found = opened("files", tables).deliveries(UNTIL)
    assert found
    for delivery in found:
        assert [finding["kind"] for finding in delivery.findings] == ["unread_file", "empty_file"]
    assert "files that hold no rows: 1, such as none.csv" in caplog.text


def test_a_folder_of_nothing_that_can_be_read_shows_what_there_is(tmp_path):
    (tmp_path / "april.xlsx").write_bytes(b"PK")
    with pytest.raises(UpkeepError, match=r"there is april\.xlsx") as caught:
        deliveries(tmp_path, {"path": str(tmp_path)})
    assert "export the files as CSV" in caught.value.remedy


@pytest.mark.parametrize("path", ["{plant}", "{plant}/*.csv", "{plant}/m?.csv", "*", "{plant}/{machine}.csv"])
def test_paths_match_endings_of_any_case_and_what_lies_below_folders(tmp_path, path):
    (tmp_path / "lyon").mkdir()
    (tmp_path / "lyon" / "M1.CSV").write_text("plant,machine,time\nlyon,M1,2025-01-06\n")
    (tmp_path / "lyon" / "m2.csv").write_text("plant,machine,time\nlyon,m2,2025-01-06\n")
    rows = deliveries(tmp_path, {"path": f"{tmp_path}/{path}"})["telemetry", "lyon", "2025-01-06"]
    assert rows["machine"].to_list() == (["m2"] if "m?" in path else ["M1", "m2"])


def test_a_folder_among_the_files_that_match_is_a_finding(tmp_path):
    (tmp_path / "all.csv").write_text(CSV)
    (tmp_path / "old.csv").mkdir()
    (tmp_path / "old.csv" / "part-0.csv").write_text(CSV)
    found = opened("files", {"telemetry": {"path": f"{tmp_path}/*.csv"}}).deliveries(UNTIL)
    assert found
    for delivery in found:
        assert [finding["detail"] for finding in delivery.findings] == [
            "old.csv is not read: it is a folder beside files; let path match what is in it"
        ]


@pytest.mark.parametrize("content", ["", "\ufeff", "\n\n", "plant,machine,time\n"])
def test_a_file_without_rows_beside_others_is_a_finding(tmp_path, content):
    (tmp_path / "all.csv").write_text(CSV)
    (tmp_path / "lost.csv").write_text(content, encoding="utf-8")
    found = opened("files", {"telemetry": {"path": str(tmp_path)}}).deliveries(UNTIL)
    assert found
    for delivery in found:
        assert [(finding["kind"], finding["detail"]) for finding in delivery.findings] == [
            ("empty_file", "lost.csv holds no rows")
        ]


@pytest.mark.parametrize("path", ["hall [7]/*.csv", "hall [7]", "hall [7]/{machine}.csv"])
def test_brackets_in_a_path_are_brackets(tmp_path, path):
    (tmp_path / "hall [7]").mkdir()
    (tmp_path / "hall [7]" / "m1.csv").write_text("plant,machine,time\nlyon,m1,2025-01-06\n")
    (tmp_path / "hall 7.csv").write_text(CSV)
    assert list(deliveries(tmp_path, {"path": f"{tmp_path}/{path}"})) == [("telemetry", "lyon", "2025-01-06")]


def test_a_row_of_numbers_without_a_time_stays_with_its_plant(tmp_path):
    times = [INSTANT, INSTANT, None]
    pl.DataFrame({"plant": [1, 1, 2], "machine": [1, 2, 3], "time": times}).write_parquet(tmp_path / "a.parquet")
    found = deliveries(tmp_path, {"path": str(tmp_path)})
    assert {plant: rows.height for (_, plant, _), rows in found.items()} == {"1": 2, "2": 1}


def test_a_line_below_the_rows_names_no_plant(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time\nlyon,m1,2025-01-06\n1 row exported,,\n")
    [rows] = deliveries(tmp_path).values()
    assert rows["plant"].to_list() == ["lyon", "1 row exported"]


def test_a_line_of_sums_names_a_plant_only_if_other_rows_name_it(tmp_path):
    sums = "porto,,,4\nTotal,,,9\n"
    (tmp_path / "all.csv").write_text(f"plant,machine,time,load\nlyon,m1,2025-01-06,5\nporto,m1,2025-01-06,4\n{sums}")
    (tmp_path / "more.csv").write_text(f"plant,machine,time,load\nporto,m1,2025-01-07,4\nlyon,m1,2025-01-07,5\n{sums}")
    found = {plant: rows["load"].to_list() for (_, plant, _), rows in deliveries(tmp_path).items()}
    assert found == {"lyon": ["5", "5"], "porto": ["4", "4", "9", "4", "4", "9"]}


def test_words_for_gaps_are_gaps_in_whatever_column(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time,load\nlyon,m1,2025-01-06, NA\nlyon,m1,2025-01-06,-9999\n")
    [rows] = deliveries(tmp_path, {"gaps": ["NA", -9999]}).values()
    assert rows["load"].to_list() == [None, None]
    assert rows["machine"].to_list() == ["m1", "m1"]


def test_a_number_for_gaps_is_one_however_it_is_written_and_whatever_type_its_column_has(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time,load\nlyon,m1,2025-01-06,-9999.0\nlyon,0999,2025-01-06,5\n")
    rows = {"plant": "lyon", "machine": "m2", "time": "2025-01-06", "load": [-9999.0, 1.5], "turns": [-9999, 999]}
    pl.DataFrame(rows).write_parquet(tmp_path / "all.parquet")
    readings = [{"path": str(tmp_path / name), "gaps": [-9999, 999]} for name in ("all.csv", "all.parquet")]
    [found] = opened("files", {"telemetry": readings}).deliveries(UNTIL)
    assert found.read().select("machine", "load", "turns").rows() == [
        ("m1", None, None), ("0999", "5", None), ("m2", None, None), ("m2", "1.5", None)
    ]  # fmt: skip


@pytest.mark.parametrize(("decimal", "grouped", "gap"), [(".", "5,000", "5.0"), (",", "5.000", "5,0")])
def test_a_thousand_times_a_gap_is_none(tmp_path, decimal, grouped, gap):
    (tmp_path / "all.csv").write_text(
        f"plant;machine;time;load\nlyon;m1;2025-01-06;{grouped}\nlyon;m1;2025-01-07;{gap}\n"
    )
    [rows] = deliveries(tmp_path, {"gaps": [5], "decimal": decimal, "separator": ";"}).values()
    assert rows["load"].to_list() == [grouped, None]


def test_the_path_tells_the_plant_where_a_files_column_of_it_is_empty(tmp_path):
    (tmp_path / "lyon.csv").write_text("plant,machine,time\n,m1,2025-01-06\n,m1,2025-01-07\n")
    (tmp_path / "porto.csv").write_text("plant,machine,time\nvigo,m1,2025-01-06\n")
    found = deliveries(tmp_path, {"path": f"{tmp_path}/{{plant}}.csv"})
    assert {plant for _, plant, _ in found} == {"lyon", "vigo"}
    assert found["telemetry", "lyon", "2025-01-06"]["plant"].to_list() == ["lyon", "lyon"]


def test_bytes_of_parquet_that_are_text_are_text(tmp_path):
    named = {"plant": [b"lyon"], "machine": ["M\u00fcller".encode()], "load": [b"\xff"]}
    pl.DataFrame({**named, "time": [INSTANT]}).write_parquet(tmp_path / "a.parquet")
    rows = deliveries(tmp_path, {"path": str(tmp_path)})["telemetry", "lyon", "2025-01-06"]
    assert rows.select("machine", "load").row(0) == ("M\u00fcller", b"\xff")


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.csv.xz", "a.csv.zst"])
def test_a_packed_file_that_is_cut_short_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(CSV.encode())[:-9] if "gz" in name else b"no such thing")
    with pytest.raises(UpkeepError, match="damaged") as caught:
        deliveries(tmp_path, {"path": str(tmp_path)})
    assert str(caught.value.where["file"]).endswith(name)


def test_a_file_without_any_readable_time_goes_where_the_one_before_it_goes_and_is_found(tmp_path):
    (tmp_path / "a.csv").write_text("plant,machine,time\nlyon,m1,2025-01-13\n")
    (tmp_path / "b.csv").write_text("plant,machine,time\nlyon,m2,13.01.2025 10:00\n")
    found = opened("files", {"telemetry": {"path": str(tmp_path)}}).deliveries(UNTIL)
    assert [delivery.read()["machine"].to_list() for delivery in found] == [["m1", "m2"]]
    (finding,) = found[0].findings
    assert (finding["kind"], "b.csv" in str(finding["detail"])) == ("unreadable_times", True)


def test_a_file_of_many_times_in_another_format_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.csv").write_text("plant,machine,time\n" + "lyon,m2,13.01.2025 10:00\n" * 10)
    with pytest.raises(UpkeepError, match="no time in the file can be read") as caught:
        deliveries(tmp_path)
    assert str(caught.value.where["file"]).endswith("b.csv")
    assert caught.value.remedy.startswith(
        "set time_format: '%d.%m.%Y %H:%M', if that is how they are meant; in an entry"
    )
    readings = [{"path": f"{tmp_path}/a.csv"}, {"path": f"{tmp_path}/b.csv", "time_format": "%d.%m.%Y %H:%M"}]
    assert len(list(opened("files", {"telemetry": readings}).deliveries(UNTIL))) > 1


def test_machines_go_to_the_first_batch_and_events_to_that_of_their_time(tmp_path):
    for name, text in {
        "telemetry": CSV,
        "events": "plant,machine,time,kind,code\nlyon,m1,2025-01-14,failure,spindle\n",
        "machines": "plant,machine,model\nlyon,m1,A\nporto,m2,B\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.csv").write_text(text)
    tables = {name: {"path": f"{tmp_path}/{name}/all.csv"} for name in ("telemetry", "events", "machines")}
    found = deliveries(tmp_path, **tables)
    assert {place for place in found if place[0] != "telemetry"} == {
        ("events", "lyon", "2025-01-13"),
        ("machines", "lyon", "2025-01-06"),
        ("machines", "porto", "2025-01-06"),
    }


def test_an_address_of_another_file_system_is_read(monkeypatch):
    with fsspec.open("memory://bucket/lyon/2025.csv", "w") as handle:
        handle.write("machine,time,load\nm1,2025-01-06,1\n")
    monkeypatch.setenv("BUCKET", "bucket")
    found = deliveries("", {"path": "memory://$BUCKET/{plant}/*.csv"})
    assert list(found) == [("telemetry", "lyon", "2025-01-06")]


def test_no_matching_file_is_an_error_that_shows_the_path(tmp_path):
    with pytest.raises(UpkeepError, match=r"no file matches .*\*\.csv"):
        deliveries(tmp_path)


def test_an_unknown_protocol_and_a_server_that_does_not_answer_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTP_PASSWORD", "tiger")
    for path, fault in {
        "floppy://a/*.csv": "floppy",
        "sftp://scott:${SFTP_PASSWORD}@127.0.0.1:1/*.csv": "cannot be read",
    }.items():
        with pytest.raises(UpkeepError, match=fault) as caught:
            deliveries(tmp_path, {"path": path})
        assert "tiger" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "all.csv").write_text(CSV)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem._open", refuse)
    with pytest.raises(UpkeepError, match="Permission denied"):
        deliveries(tmp_path)


def test_a_damaged_parquet_file_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UpkeepError, match="damaged") as caught:
        deliveries(tmp_path, {"path": f"{tmp_path}/*.parquet"})
    assert str(caught.value.where["file"]).endswith("a.parquet")


def test_an_empty_file_holds_no_rows(tmp_path):
    (tmp_path / "all.csv").write_text(CSV)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("plant,machine,time,load\n")
    assert len(deliveries(tmp_path)) == 3


def test_an_unknown_time_zone_is_an_option_that_does_not_fit(tmp_path):
    with pytest.raises(UpkeepError, match="time_zone: invalid timezone: Mars/Base"):
        deliveries(tmp_path, {"time_zone": "Mars/Base"})
