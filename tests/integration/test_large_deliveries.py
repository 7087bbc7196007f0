"""Deliveries that are small on disk and large in memory, or never end: refused by name, or set aside by the row."""

import gzip
import os
import socket
import subprocess
import sys
from datetime import date, datetime
from itertools import chain
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy
from parameters import opened
from test_broken_files import PACK

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.sources.sql import fetch_rows

UNTIL = date(2025, 1, 6)
CSV = b"plant,machine,time,load\nlyon,m1,2025-01-06,1\n"
KEYS = {"plant": "lyon", "machine": "m1", "time": datetime(2025, 1, 6)}
FEW = {"table_mb": 1, "columns": 50, "value_kb": 1}


def read(path, limits=FEW, **reading):
    offered = opened("files", {"telemetry": {"path": str(path), **reading}}, **limits).deliveries(UNTIL)
    return pl.concat([delivery.read() for delivery in offered], how="diagonal_relaxed")


def refusal(path, **reading):
    with pytest.raises(UpkeepError) as caught:
        read(path, **reading)
    return caught.value


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path, compression="zstd")


PARQUET = {
    "many rows": lambda path: write_parquet(path, load=[1.0] * 100_000),
    "long lists": lambda path: write_parquet(path, load=[[1] * 100_000]),
    "one long text many times": lambda path: write_parquet(path, **dict.fromkeys(KEYS, [f"{'x' * 900}"] * 2000)),
    "one long text in many lists": lambda path: write_parquet(path, load=[["x" * 900]] * 2000),
    "one long text in many structs": lambda path: write_parquet(path, load=[{"deep": ["x" * 900]}] * 2000),
    "one long category many times": lambda path: write_parquet(
        path, load=pa.array(["x" * 900] * 2000).dictionary_encode()
    ),
    "many columns": lambda path: write_parquet(path, **{f"s{number}": [1] for number in range(51)}),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_is_judged_by_what_it_takes_in_memory(tmp_path, name):
    PARQUET[name](tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    error = refusal(tmp_path)
    assert str(error.where["file"]).endswith("t.parquet")
    assert f"limits.{'columns' if name == 'many columns' else 'table_mb'} in params.yaml" in error.what


def test_parquet_that_is_too_large_is_never_decoded(tmp_path, monkeypatch):
    PARQUET["many rows"](tmp_path / "t.parquet")
    monkeypatch.setattr(pl, "read_parquet", lambda *_, **__: pytest.fail("it was read"))
    assert "table_mb" in refusal(tmp_path).what


TEXT = {
    "spaces": CSV + b" " * 1_100_000,
    "line ends": CSV + b"\n" * 70_000,
    "short lines under a wide header": b"plant,machine,time" + b",s" * 40 + b"\nx" * 2000,
    "columns": b"plant,machine,time" + b",a" * 60 + b"\n",
    "a header without an end": b"plant,machine,time," + b"a" * 2000,
}


@pytest.mark.parametrize("ending", ["", *(f".{name}" for name in PACK)])
@pytest.mark.parametrize("name", TEXT)
def test_text_is_judged_by_what_it_takes_once_it_is_unpacked(tmp_path, name, ending):
    (tmp_path / f"t.csv{ending}").write_bytes(PACK.get(ending[1:], bytes)(TEXT[name]))
    error = refusal(tmp_path)
    assert str(error.where["file"]).endswith(f"t.csv{ending}")
    assert "limits." in error.what


def test_a_file_that_is_too_large_takes_no_other_one_along_once_it_is_moved_away(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(TEXT["spaces"]))
    assert refusal(tmp_path).where["file"].endswith("b.csv.gz")
    (tmp_path / "b.csv.gz").unlink()
    assert read(tmp_path).height == 1


def test_a_limit_that_is_raised_lets_the_file_pass(tmp_path):
    (tmp_path / "t.csv").write_bytes(TEXT["line ends"])
    assert read(tmp_path, {**FEW, "table_mb": 20}).height == 70_001


def test_files_of_one_batch_are_bounded_together(tmp_path):
    for number in range(3):
        names = ",".join(f"s{number}_{sensor}" for sensor in range(30))
        (tmp_path / f"{number}.csv").write_text(f"plant,machine,time,{names}\nlyon,m1,2025-01-06,{',' * 29}\n")
    assert "the table has 93 columns" in refusal(tmp_path).what


def test_texts_of_files_of_one_batch_are_bounded_together(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.csv").write_bytes(CSV.rstrip() + (b"7" * 900 + b"\nlyon,m1,2025-01-06,") * 500)
    assert "limits.table_mb" in refusal(tmp_path).what
    (tmp_path / "2.csv").unlink()
    assert read(tmp_path).height == 1002


def test_a_long_format_with_a_sensor_per_row_is_refused(tmp_path):
    rows = "".join(f"m1,2025-01-06T{n // 60:02d}:{n % 60:02d}Z,tag{n},1\n" for n in range(60))
    (tmp_path / "t.csv").write_text(f"machine,time,tag,val\n{rows}")
    pivot = {"pivot": {"name": "tag", "value": "val"}, "plant": "lyon"}
    assert "the table has 60 columns" in refusal(tmp_path, **pivot).what


def test_a_line_or_a_value_that_is_too_long_costs_its_row_only(tmp_path):
    long = b"lyon,m1,2025-01-06," + b"7" * 1100, b"\x00" * 5000, b"," * 70_000
    (tmp_path / "t.csv").write_bytes(CSV + b"\n".join(long))
    rows = read(tmp_path)
    assert rows["load"].to_list() == ["1", None, None, None]
    for line, length in zip(rows["@broken_line"][1:], ("1,119", "5,000", "70,000"), strict=True):
        assert line.endswith(f"… ({length} characters)")


@pytest.mark.parametrize("long", ["ü" * 600, b"\xff" * 1100])
def test_a_value_of_parquet_that_is_too_long_costs_its_row_only(tmp_path, long):
    pl.DataFrame({**KEYS, "note": [long, long[:10], None]}).write_parquet(tmp_path / "t.parquet")
    rows = read(tmp_path)
    assert rows["note"].to_list() == [None, long[:10], None]
    assert rows["@broken_line"].to_list() == ["note: a value of more than 1,000 bytes", None, None]


def test_a_category_that_is_too_long_costs_its_rows_only(tmp_path):
    notes = pl.Series(["x" * 1100, "short"], dtype=pl.Categorical)
    pl.DataFrame({"note": notes}).with_columns(pl.lit(value).alias(name) for name, value in KEYS.items()).write_parquet(
        tmp_path / "t.parquet"
    )
    rows = read(tmp_path)
    assert rows["note"].to_list() == [None, "short"]
    assert rows["@broken_line"].to_list() == ["note: a value of more than 1,000 bytes", None]


def database(tmp_path, load):
    url = f"sqlite:///{tmp_path}/plant.db"
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE telemetry (plant, machine, time, load)"))
        row = sqlalchemy.text("INSERT INTO telemetry VALUES ('lyon', 'm1', '2025-01-06', :load)")
        connection.execute(row, [{"load": value} for value in load])
    query = "SELECT * FROM telemetry WHERE plant = :plant AND time >= :since AND time < :until"
    return {"url": url, "since": "2025-01-06", "plants": ["lyon"], "telemetry": query}


def test_a_value_of_a_database_that_is_too_long_costs_its_row_only(tmp_path):
    (delivery,) = opened("sql", database(tmp_path, ["1", "7" * 1100]), **FEW).deliveries(UNTIL)
    assert delivery.read()["load"].to_list() == ["1", None]


@pytest.mark.parametrize("load", [["x" * 900] * 2000, [1.0] * 17_000])
def test_a_query_is_stopped_once_its_answer_is_too_large(tmp_path, load):
    (delivery,) = opened("sql", database(tmp_path, load), **FEW).deliveries(UNTIL)
    with pytest.raises(UpkeepError, match=r"limits\.table_mb"):
        delivery.read()


class Answer:
    """A query's rows, and how many of them were fetched."""

    def __init__(self, rows):
        self.rows, self.fetched = iter(rows), 0

    def __iter__(self):
        for row in self.rows:
            self.fetched += 1
            yield row


LARGE_LATE = {
    "texts": chain([(1,)] * 20_000, [("x" * 10_000,)] * 50_000),
    "arrays": chain([(1,)] * 20_000, [(["x" * 10_000],)] * 50_000),
}


@pytest.mark.parametrize("kind", LARGE_LATE)
def test_few_rows_of_a_query_that_grow_large_are_fetched_before_it_is_stopped(kind):
    answer = Answer(LARGE_LATE[kind])
    with pytest.raises(UpkeepError, match=r"limits\.table_mb"):
        list(fetch_rows(answer, Limits(**FEW)))
    assert 20_000 < answer.fetched <= 20_100


def bind(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


ODD = {
    "a pipe": os.mkfifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a link to a device": lambda path: (
        path.with_name("link").symlink_to("/dev/zero"),
        path.symlink_to("link"),
    ),
    "a socket": bind,
}


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)  # the address of a socket is a short one
    ODD[kind](Path(name))
    for path in (tmp_path, tmp_path / name, tmp_path / "*.*"):
        error = refusal(path)
        assert "leads to no file, but to a pipe, a socket or a device" in error.what
        assert error.where["file"].endswith(name)


def test_a_link_to_nothing_and_a_folder_that_is_called_like_a_file_are_told(tmp_path):
    (tmp_path / "t.csv").symlink_to("nowhere.csv")
    assert "No such file" in refusal(tmp_path).what
    (tmp_path / "t.csv").unlink()
    (tmp_path / "t.csv").mkdir()
    assert "no file matches" in refusal(tmp_path).what


def test_a_link_to_a_file_and_a_link_to_a_folder_are_read(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.csv").write_bytes(CSV)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.csv").symlink_to("../store/a.csv")
    (tmp_path / "in" / "more").symlink_to("../store")
    (tmp_path / "in" / "again").symlink_to(".")
    assert read(tmp_path / "in" / "*.csv").height == 1
    assert read(tmp_path / "in" / "more" / "*.csv").height == 1
    assert read(tmp_path / "in").height == 1


def test_an_address_of_another_file_system_is_bounded_too():
    with fsspec.open("memory://large/t.csv", "wb") as stream:
        stream.write(TEXT["spaces"])
    assert "table_mb" in refusal("memory://large/*.csv").what


def test_s3_without_its_package_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    error = refusal("s3://bucket/*.csv")
    assert "s3:// needs a package that is not installed" in error.what
    assert error.remedy == "pip install 'upkeep[s3]'"


def test_files_on_disk_are_read_without_the_clients_of_other_places():
    code = (
        "import sys; from upkeep.core.params import load_params; from upkeep.sources.registry import open_source;"
        "params = load_params(); fetch = params.fetch.model_copy(update={'source': 'files', 'options': "
        "{'telemetry': {'path': 'README.*'}}}); source = open_source(fetch, params.limits)\n"
        "try: source.deliveries(fetch.until)\n"
        "except Exception: pass\n"
        "print([name for name in ('s3fs', 'aiobotocore', 'botocore', 'paramiko', 'aiohttp') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    asked = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "[]"
