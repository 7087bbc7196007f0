import gzip
from datetime import UTC, date, datetime

import fsspec
import polars as pl
import pytest

from upkeep.core.errors import UpkeepError
from upkeep.sources.files import Files

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
    return {(found.table, found.plant, str(found.batch)): found.read() for found in Files(options, 7).deliveries(until)}


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
    assert found["telemetry", "lyon", "2025-01-06"]["plant"].to_list() == [None, "lyon", "lyon", None]
    assert found["telemetry", "porto", "2025-01-13"]["load"].to_list() == ["4", "5"]


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


def test_a_time_format_is_read_and_a_time_that_breaks_it_stays(tmp_path):
    (tmp_path / "all.csv").write_text("plant,machine,time\nlyon,m1,06.01.2025 14:00\nlyon,m1,noon\n")
    rows = deliveries(tmp_path, {"time_format": "%d.%m.%Y %H:%M"})["telemetry", "lyon", "2025-01-06"]
    assert rows["time"].to_list() == ["2025-01-06T14:00:00.000000Z", "noon"]


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
