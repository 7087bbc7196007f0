"""Files of which any line may be broken: every line but the header is a row that ends somewhere."""

import bz2
import gzip
import json
import lzma
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from parameters import LIMITS, opened

from upkeep.contract.dictionary import Column
from upkeep.contract.reconcile import Delivered
from upkeep.contract.validation import check_table
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Validate, load_params
from upkeep.sources.delimited import read_delimited
from upkeep.sources.excess import find_excess
from upkeep.stages import fetch, validate

UNTIL = date(2025, 1, 6)
STRICTNESS = Validate(
    dictionary=Path("dictionary.yaml"),
    max_quarantined_share=0.05,
    max_near_duplicate_share=1.0,
    near_duplicate_seconds=0,
    outage_hours=6,
    stuck_hours=24,
)
KEYS = {name: Column(meaning="", type="text", role="key") for name in ("plant", "machine")}
COLUMNS = {
    **KEYS,
    "time": Column(meaning="", type="time", role="key"),
    "load": Column(meaning="", role="sensor"),
    "note": Column(meaning="", type="text", role="attribute", required=False),
}
HEADER = "plant,machine,time,load,note"
PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda plain: pa.compress(plain, codec="zstd", asbytes=True),
}


def check(tmp_path, **reading):
    """Bring the folder's files through reading and validation, as {plant: what became of its telemetry}."""
    options = {"telemetry": {"path": str(tmp_path), **reading}}
    plants = {}
    for delivery in opened("files", options).deliveries(UNTIL):
        mine = plants.setdefault(delivery.plant, [])
        mine.append(Delivered(delivery.batch, len(mine) + 1, delivery.read().lazy))
    return {plant: check_table("telemetry", plant, mine, COLUMNS, STRICTNESS, 7) for plant, mine in plants.items()}


def test_numbers_beside_text_with_a_decimal_comma_stay_what_they_are(tmp_path):
    (tmp_path / "a.csv").write_text("plant;machine;time;load\nlyon;7;2025-01-06T01:00:00Z;1,5\n")
    rows = pl.DataFrame({"plant": "lyon", "machine": ["7"], "time": "2025-01-06T02:00:00Z", "load": [2.5]})
    rows.write_parquet(tmp_path / "b.parquet")
    found = check(tmp_path, separator=";", decimal=",")["lyon"]
    assert found.clean["load"].to_list() == [1.5, 2.5]


def test_files_whose_machines_are_numbers_and_text_are_one_delivery_and_not_two_of_the_same_rows(tmp_path):
    rows = pl.DataFrame({"plant": "lyon", "machine": ["7", "8"], "time": "2025-01-06T01:00:00Z", "load": 1.0})
    rows.write_parquet(tmp_path / "a.parquet")
    rows.with_columns(pl.col("machine").cast(pl.Int64), load=pl.lit(2)).write_parquet(tmp_path / "b.parquet")
    found = check(tmp_path)["lyon"]
    assert (found.duplicates, found.rows_in) == ({"exact": 0, "near": 2, "repeated_batch": 0}, 4)
    assert found.crowding is None


def line(hour, load="1.5", note="ok"):
    return f"lyon,m1,2025-01-06T{hour:02d}:00:00Z,{load},{note}"


def check_lines(tmp_path, *lines, end="\n"):
    (tmp_path / "all.csv").write_bytes(end.join([HEADER, line(0), *lines, line(23), ""]).encode())
    return check(tmp_path)["lyon"]


@pytest.mark.parametrize(
    "broken",
    [
        line(1, '"1.5'),
        line(1, note='"ok'),
        line(1, note='"ok" or not'),
        line(1) + ",surplus",
        "lyon,m1,2025-01-06T01:00:00Z,1.5",
        HEADER,
        "\ufeff" + HEADER,
        "\x00" * 40,
        "\x1a",
        "# exported by hand",
    ],
)
def test_a_broken_line_is_one_quarantined_row_and_those_after_it_are_read(tmp_path, broken):
    checked = check_lines(tmp_path, broken, line(2))
    assert (checked.rows_in, checked.clean.height) == (4, 3)
    [row] = checked.quarantined.iter_rows(named=True)
    assert (row["reason"], row["value"]) == ("broken line", broken)
    assert json.loads(row["row"])["@broken_line"] == broken


@pytest.mark.parametrize(
    ("written", "note"),
    [('"one, two"', "one, two"), ('"say ""no"""', 'say "no"'), ('a 12" pipe', 'a 12" pipe'), ('""', None)],
)
def test_quotes_that_close_on_their_line_are_read(tmp_path, written, note):
    assert check_lines(tmp_path, line(1, note=written)).clean["note"].to_list() == ["ok", note, "ok"]


@pytest.mark.parametrize("header", [HEADER, HEADER + ","])
def test_a_separator_may_end_each_line(tmp_path, header):
    (tmp_path / "all.csv").write_text(f"{header}\n{line(1)},\n{line(2)}\n")
    assert check(tmp_path)["lyon"].clean["note"].to_list() == ["ok", "ok"]


@pytest.mark.parametrize(
    "off", ["2095-01-06", "9999-12-31", "2025-01-06T24:00:00Z", "infinity", "1970-01-01T00:00:07Z"]
)
def test_a_clock_that_is_far_off_in_one_row_is_quarantined_and_takes_no_other_row_with_it(tmp_path, off):
    checked = check_lines(tmp_path, f"lyon,m1,{off},1,", '"', line(2))
    assert (checked.rows_in, checked.clean.height) == (5, 3)
    assert checked.quarantined["column"].to_list() == ["time", "@broken_line"]
    assert checked.quarantined["batch"].unique().to_list() == ["2025-01-06"]


def test_a_clock_that_goes_on_from_1970_stretches_no_record(tmp_path):
    reset = [f"lyon,m1,1970-01-01T{hour:02d}:00:07Z,1,reset" for hour in range(12)]
    checked = check_lines(tmp_path, *reset, line(2))
    assert (checked.rows_in, checked.clean.height) == (15, 3)
    assert checked.quarantined["reason"].to_list() == ["clock was reset"] * 12
    assert checked.quarantined["batch"].unique().to_list() == ["2025-01-06"]


def test_a_clock_that_goes_on_from_2000_stretches_no_record(tmp_path):
    reset = [f"lyon,m1,2000-01-01T{hour:02d}:00:07Z,1,reset" for hour in range(2)]
    rows = [f"lyon,m1,2025-01-{day:02d}T{hour:02d}:00:00Z,1.5,ok" for day in (8, 9) for hour in range(20)]
    for place in (0, 20, 40):
        checked = check_lines(tmp_path, *rows[:place], *reset, *rows[place:])
        assert (checked.rows_in, checked.clean.height) == (44, 42)
        assert checked.quarantined["reason"].to_list() == ["clock was reset"] * 2
        assert checked.quarantined["batch"].unique().to_list() == ["2025-01-06"]


def test_a_record_that_goes_on_after_years_is_whole(tmp_path):
    rows = [f"lyon,m1,{year}-01-0{day},1.5,ok" for year in (2010, 2025) for day in (6, 7, 8)]
    (tmp_path / "all.csv").write_text("\n".join([HEADER, *rows]))
    assert check(tmp_path)["lyon"].clean.height == 6


@pytest.mark.parametrize(
    "caption", ["text,text,UTC,bar,-", "-----,-------,----,----,----", "[-],[-],[s],m3/h,", "lyon,,,,"]
)
def test_units_or_a_ruled_line_below_a_header_name_no_plant(tmp_path, caption):
    (tmp_path / "all.csv").write_text("\n".join([HEADER, caption, line(1), HEADER, caption, line(2)]))
    [(plant, checked)] = check(tmp_path).items()
    assert (plant, checked.rows_in, checked.clean.height) == ("lyon", 5, 2)
    assert checked.quarantined["reason"].to_list().count("broken line") == 1


def test_a_plant_whose_times_cannot_be_read_stays_a_plant(tmp_path):
    (tmp_path / "all.csv").write_text("\n".join([HEADER, line(1), "nancy,m1,noon,1.5,ok", "lyon,m1,noon,,ok"]))
    assert {plant: checked.rows_in for plant, checked in check(tmp_path).items()} == {"lyon": 2, "nancy": 1}


def test_a_field_that_spans_lines_is_as_many_broken_lines(tmp_path):
    checked = check_lines(tmp_path, line(1, note='"first'), 'second"', line(2))
    assert (checked.rows_in, checked.clean.height) == (5, 3)
    assert checked.quarantined["value"].to_list() == [line(1, note='"first'), 'second"']


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n", "\r"])
def test_every_line_end_is_read(tmp_path, end):
    checked = check_lines(tmp_path, line(1), "", line(2, '"'), line(3), end=end)
    assert (checked.rows_in, checked.clean.height) == (6, 4)
    assert checked.quarantined["reason"].to_list() == ["empty line", "broken line"]


def test_annotations_of_influxdb_are_broken_lines_above_each_of_its_tables(tmp_path):
    annotations = ["#group,false,true,true,false,false", "#datatype,long,string,string,dateTime:RFC3339,double"]
    above = [*annotations, "#default,_result,,,,", f",table,{HEADER}".replace(",note", "")]
    tables = [[*above, f",{table},{line(table).removesuffix(',ok')}"] for table in range(3)]
    (tmp_path / "all.csv").write_text("\n\n".join("\n".join(table) for table in tables))
    [(plant, checked)] = check(tmp_path).items()
    assert (plant, checked.rows_in, checked.clean.height) == ("lyon", 16, 3)
    assert set(checked.quarantined["reason"]) == {"broken line", "empty line"}


def test_separators_at_the_end_of_all_lines_make_no_columns():
    rows = read_delimited(b"time,x,,,\n1,2,,,\n", ",", "utf-8", LIMITS)
    assert rows.columns == ["time", "x"]
    assert read_delimited(b"time,x,,,\n1,2,,3,\n", ",", "utf-8", LIMITS).columns == ["time", "x", " (again)"]


def test_rows_that_end_in_returns_among_others_are_rows(tmp_path):
    odd = [line(hour) for hour in range(2, 5)]
    checked = check_lines(
        tmp_path, line(1), "\r".join([*odd, line(5, note='"a, b"'), ""]), "lyon,m1\r,noon,1,", line(6)
    )
    assert (checked.rows_in, checked.clean.height) == (9, 8)
    assert "unprintable name" not in checked.quarantined["reason"]
    (tmp_path / "all.csv").write_bytes("\r".join([HEADER, *odd]).encode() + b"\n")
    assert check(tmp_path)["lyon"].clean.height == 3


@pytest.mark.parametrize("padded", [HEADER.replace(",", ", "), HEADER.replace(",", "\u00a0 ,"), f" {HEADER}\t"])
def test_blanks_around_the_names_of_columns_make_no_difference(tmp_path, padded):
    (tmp_path / "all.csv").write_text(f"{padded}\n{line(1)}\n")
    assert check(tmp_path)["lyon"].clean["note"].to_list() == ["ok"]


@pytest.mark.parametrize("empty", ["", "  ", ",,,,"])
def test_a_line_without_any_value_counts_but_is_no_reason_to_stop(tmp_path, empty):
    checked = check_lines(tmp_path, empty, empty, empty)
    assert (checked.rows_in, checked.quarantined["reason"].to_list()) == (5, ["empty line"] * 3)
    assert find_excess("lyon", {"telemetry": checked}, STRICTNESS, Path("quarantine")) == []


def test_a_last_line_without_an_end_and_a_byte_order_mark_are_read(tmp_path):
    for name, encoding in {"a": "utf-8-sig", "b": "utf-16"}.items():
        (tmp_path / f"{name}.csv").write_bytes(f"{HEADER}\n{line(1)}\n{line(2)}".encode(encoding))
    checked = check(tmp_path)["lyon"]
    assert (checked.rows_in, checked.clean.height, sum(checked.duplicates.values())) == (4, 2, 2)


def test_bytes_that_the_encoding_does_not_have_keep_names_apart(tmp_path):
    text = f"{HEADER}\nSüd,m1,2025-01-06,1,\nSäd,m1,2025-01-06,2,\n"
    (tmp_path / "all.csv").write_bytes(text.encode("latin-1"))
    assert {plant: checked.rows_in for plant, checked in check(tmp_path, encoding="latin-1").items()} != {}
    assert len(check(tmp_path)) == 2


def test_a_file_in_another_encoding_is_a_finding_that_names_what_to_set(tmp_path):
    (tmp_path / "all.csv").write_bytes(f"{HEADER}\nlyon,S\u00e4ge,2025-01-06,1,5 \u20ac\n".encode("cp1252"))
    [delivery] = opened("files", {"telemetry": {"path": str(tmp_path)}}).deliveries(UNTIL)
    [finding] = delivery.findings
    assert finding["kind"] == "wrong_encoding"
    assert finding["detail"] == r"all.csv is not in utf-8, so a name is read as S\xe4ge; set encoding, such as cp1252"
    [delivery] = opened("files", {"telemetry": {"path": str(tmp_path), "encoding": "cp1252"}}).deliveries(UNTIL)
    assert (delivery.findings, delivery.read()["machine"].to_list()) == ((), ["Säge"])


def test_a_header_with_a_quote_of_its_own_or_a_name_twice_is_read_as_it_stands():
    rows = read_delimited(b'plant,"load,note,note\nlyon,1,a,b\n', ",", "utf-8", LIMITS)
    assert rows.row(0, named=True) == {"plant": "lyon", '"load': "1", "note": "a", "note (again)": "b"}


@pytest.mark.parametrize("name", ["*", "^.*$", "^load$", "@row", "@decimal", "@broken_line", "", "load", "(sensor)"])
def test_a_column_may_be_called_anything(tmp_path, name):
    (tmp_path / "all.csv").write_text(
        f"plant,machine,time,load,{name}\nlyon,m1,2025-01-06,1,x\nlyon,m1,2025-01-07,q,x\n"
    )
    checked = check(tmp_path)["lyon"]
    assert (checked.clean["load"].to_list(), checked.quarantined["reason"].to_list()) == ([1.0], ["not a number"])
    assert json.loads(checked.quarantined["row"][0])["load"] == "q"


def test_a_file_of_broken_lines_only_goes_where_the_file_before_it_goes(tmp_path):
    (tmp_path / "a.csv").write_text(f"{HEADER}\n{line(1)}\n")
    (tmp_path / "b.csv").write_text(f'{HEADER}\n"\n')
    checked = check(tmp_path)["lyon"]
    assert (checked.rows_in, checked.clean.height, checked.quarantined.height) == (2, 1, 1)


def test_a_table_of_broken_lines_only_is_an_error_that_shows_one(tmp_path):
    (tmp_path / "all.csv").write_text(f"{HEADER}\nlyon;m1;2025-01-06;1;ok\n")
    with pytest.raises(UpkeepError, match="every line of the file is broken; the first is 'lyon;m1") as caught:
        check(tmp_path)
    assert "separator" in caught.value.remedy


@pytest.mark.parametrize("ending", [".csv", ".CSV", ".txt", ".csv.GZ", ".csv.bz2", ".tsv.xz", ".csv.zst"])
def test_every_ending_that_the_docs_list_is_read(tmp_path, ending):
    content = f"{HEADER}\n{line(1)}\n".replace(",", "\t" if "tsv" in ending else ",").encode()
    (tmp_path / f"all{ending}").write_bytes(PACK.get(ending.rpartition(".")[2].lower(), bytes)(content))
    assert check(tmp_path)["lyon"].clean.height == 1


@pytest.mark.parametrize("name", ["all.csv", "all.csv.zst", "all.txt"])
@pytest.mark.parametrize("packed", ["gz", "bz2", "xz", "zst"])
def test_what_a_file_begins_with_tells_how_it_is_packed_whatever_it_is_called(tmp_path, name, packed):
    (tmp_path / name).write_bytes(PACK[packed](f"{HEADER}\n{line(1)}\n".encode()))
    assert check(tmp_path)["lyon"].clean.height == 1


def test_parquet_is_read_and_a_spreadsheet_refused_whatever_they_are_called(tmp_path):
    rows = pl.DataFrame({"plant": ["lyon"], "machine": ["m1"], "time": ["2025-01-06"], "load": [1.0]})
    rows.write_parquet(tmp_path / "all.csv")
    assert check(tmp_path)["lyon"].clean.height == 1
    (tmp_path / "all.csv").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UpkeepError, match="a spreadsheet") as caught:
        check(tmp_path)
    assert "export the sheet as CSV" in caught.value.remedy


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
@pytest.mark.parametrize("broken", [False, True])
def test_a_packed_file_of_several_parts_is_read_whole_or_refused(tmp_path, ending, broken):
    first, second = (PACK[ending](text.encode()) for text in (f"{HEADER}\n{line(1)}\n", f"{line(2)}\n"))
    (tmp_path / f"all.csv.{ending}").write_bytes(first + (b"?" + second[1:] if broken else second))
    if broken:
        with pytest.raises(UpkeepError, match="the file is damaged"):
            check(tmp_path)
    else:
        assert check(tmp_path)["lyon"].clean.height == 2


@pytest.mark.parametrize("mark", ["#", "# "])
def test_names_of_columns_may_begin_with_the_mark_of_a_remark(mark):
    rows = read_delimited(f"# by hand, in May\n{mark}time,x\n1,2\n3,4\n".encode(), ",", "utf-8", LIMITS)
    assert rows[f"{mark}time"].to_list() == [None, "1", "3"]


@pytest.mark.parametrize("again", [HEADER.upper(), f'"{HEADER.replace(",", chr(34) + "," + chr(34))}"', f"{HEADER} "])
def test_a_header_repeated_in_other_letters_or_quotes_is_a_broken_line_and_no_plant(tmp_path, again):
    checked = check_lines(tmp_path, line(1), again, line(2))
    assert checked.quarantined["reason"].to_list() == ["broken line"]
    assert checked.clean.height == 4


def test_below_a_line_that_names_other_columns_these_names_count():
    parts = [
        "plant,machine,time,load,heat\n" + "lyon,m1,2025-01-06,1,2\n" * 3,
        '"Machine",PLANT,heat,load,time\nm1,lyon,2,1,2025-01-06\n',
        "plant,machine,time,load,turns\nlyon,m1,2025-01-06,1,9\n",
        "plant,machine,time,load,heat\nlyon,m1,2025-01-06,1,2\n",
    ]
    rows = read_delimited("".join(parts).encode(), ",", "utf-8", LIMITS)
    assert rows["@broken_line"].drop_nulls().to_list() == [part.split("\n")[0] for part in parts[1:]]
    good = rows.filter(pl.col("@broken_line").is_null())
    assert good.select("plant", "machine", "load").rows() == [("lyon", "m1", "1")] * 6
    assert good.select("heat", "turns").rows() == [("2", None)] * 4 + [(None, "9"), ("2", None)]


@pytest.mark.parametrize("below", ["Plant,Machine,Time,Force", ",,,kN\nplant id,machine,time,kilo"])
def test_units_and_meanings_below_the_header_name_no_columns(below):
    text = f"plant,machine,time,load\n{below}\nlyon,m1,2025-01-06,1\n"
    assert read_delimited(text.encode(), ",", "utf-8", LIMITS).columns == ["plant", "machine", "time", "load"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_letters_of_two_and_four_bytes_are_read_with_and_without_a_mark(tmp_path, encoding):
    (tmp_path / "all.csv").write_bytes(f"{HEADER}\n{line(1).replace('lyon', 'Łódź')}\n".encode(encoding))
    assert check(tmp_path)["Łódź"].clean.height == 1


@pytest.mark.parametrize(
    "above",
    [
        "Export of 2025\nHall 7\n\n",
        "sep=,\n",
        "# by hand\n",
        "# Historian, version 2\n# north, hall 7, line 2\n",
        "#1,2,3,4,5\n",
        "Report of May, hall 7\nPrinted, by hand,\n",
    ],
)
def test_what_stands_above_the_header_is_set_aside_and_the_rows_are_read(tmp_path, above):
    (tmp_path / "all.csv").write_text(f"{above}{HEADER}\n{line(1)}\n{line(2)}\n")
    found = check(tmp_path)["lyon"]
    assert found.clean.height == 2
    assert found.rows_in == 2 + above.count("\n")
    assert set(found.quarantined["reason"]) <= {"broken line", "empty line"}


@pytest.mark.parametrize("below", ["1,2,3,4,5\n3,4,5,6,7\n6,7,8,9,0\n", ",,,,\n" * 3, "a,a,b,c,d\n" * 3])
def test_a_header_of_few_names_above_longer_lines_without_names_is_the_header_all_the_same(below):
    rows = read_delimited(f"time,x\n{below}".encode(), ",", "utf-8", LIMITS)
    assert rows.columns == ["time", "x", "@broken_line"]


NEEDED = {
    "telemetry": {"plant": "text", "machine": "text", "time": "time"},
    "events": {"plant": "text", "machine": "text", "time": "time", "kind": "text", "code": "text"},
    "machines": {"plant": "text", "machine": "text", "model": "text", "installed": "time"},
}
ROLES = dict.fromkeys(("plant", "machine", "time"), "key")
DICTIONARY = {
    table: {name: {"meaning": "", "type": kind, "role": ROLES.get(name, "attribute")} for name, kind in columns.items()}
    for table, columns in NEEDED.items()
}
DICTIONARY["telemetry"] |= {"load": {"meaning": "", "role": "sensor"}}


def test_what_was_not_read_stands_in_the_manifest_and_the_report_and_a_second_fetch_changes_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "all.csv").write_text(f"{HEADER}\n{line(1)}\n{line(2)}\n")
    (tmp_path / "in" / "april.xlsx").write_bytes(b"PK")
    (tmp_path / "dictionary.yaml").write_text(json.dumps({"tables": DICTIONARY}))
    shipped = load_params(Path(__file__).parents[2] / "params.yaml")
    source = {"source": "files", "until": UNTIL, "options": {"telemetry": {"path": str(tmp_path / "in")}}}
    params = shipped.model_copy(
        update={
            "fetch": shipped.fetch.model_copy(update=source),
            "validate_": shipped.validate_.model_copy(update={"dictionary": tmp_path / "dictionary.yaml"}),
            "parallel": shipped.parallel.model_copy(update={"backend": "sequential"}),  # workers keep their old folder
        }
    )
    fetch.run(params)
    before = paths.MANIFEST.read_bytes()
    fetch.run(params)
    assert paths.MANIFEST.read_bytes() == before
    validate.run(params)
    findings = json.loads(paths.DATA_QUALITY.read_text())["plants"]["lyon"]["findings"]
    assert ("unread_file", "telemetry") in {(finding["kind"], finding["table"]) for finding in findings}
    assert any("april.xlsx" in str(finding["detail"]) for finding in findings)


MANGLED = st.one_of(
    st.just(""),
    # Parts with as many fields as a line are rows of their own.
    st.text(alphabet='",\n\r\x00;\t\ufeff\u2028 aé1.:', max_size=12).filter(lambda text: text.count(",") < 4),
    st.tuples(st.integers(0, 22), st.integers(0, 40), st.sampled_from(['"', ",", "\x00", '""', "\n", "x", "\\"])).map(
        lambda made: line(made[0])[: made[1]] + made[2] + line(made[0])[made[1] :]
    ),
    st.sampled_from([HEADER, line(3, note='"a,b"'), line(4, note='"a""b"'), line(5, note='12" x'), ",,,,"]),
)


def count_rows(content):
    """Count as ``wc -l`` does, a last line without an end too; the header is no row."""
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    return lines - 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(0, 23).map(line), MANGLED), max_size=12), st.booleans(), st.booleans())
@example([",\r,"], False, False)
def test_rows_counted_from_any_file_are_clean_duplicate_or_quarantined(tmp_path, lines, windows, ends):
    text = "\n".join([HEADER, *lines, line(23)]) + "\n" * ends
    content = text.replace("\n", "\r\n" if windows else "\n").encode()
    (tmp_path / "all.csv").write_bytes(content)
    plants = check(tmp_path).values()
    out = [part.clean.height + sum(part.duplicates.values()) + part.quarantined.height for part in plants]
    assert count_rows(content) == sum(part.rows_in for part in plants) == sum(out)


def names_other_columns(text: str) -> bool:
    """Tell whether a line is a header of other columns than ``a,b``, below which its names count."""
    fields = [field.strip(' "\x00') for field in text.split(",")]
    return {"a", "b"} <= {*fields} and fields != ["a", "b"]


FEW_FIELDS = st.text(alphabet='",;ab \x00', max_size=8).filter(
    lambda text: text.count(",") < 3 and not names_other_columns(text)
)  # with more fields `a,b` would be a title


@given(st.lists(FEW_FIELDS, min_size=1, max_size=8))
def test_a_line_is_read_alike_whatever_stands_around_it(lines):
    together = read_delimited("\n".join(["a,b", *lines, ""]).encode(), ",", "utf-8", LIMITS)
    alone = [read_delimited(f"a,b\n{one}\n".encode(), ",", "utf-8", LIMITS) for one in lines]
    expected = pl.concat([together.clear(), *alone], how="diagonal")
    blank = together.with_columns(pl.col("a", "b").replace("", None))
    assert blank.equals(expected.select(together.columns).with_columns(pl.col("a", "b").replace("", None)))
