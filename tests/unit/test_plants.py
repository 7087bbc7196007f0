"""Files of plants: one for each, wherever it is kept, and the plant's own name read back from it."""

import unicodedata
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upkeep.core.plants import list_plants, name_file, table_file, write_table

ALIKE = ["nord", "Nord", "NORD", "Süd", "Sud", "Säd", "北京", "上海", "Hall 1/a", "Hall 1 a", "Hall_1_a", "a.b", "a b"]
ODD = [
    "",
    " ",
    ".",
    "..",
    "../lyon",
    "-rf",
    "con",
    "NUL",
    "com1",
    "index",
    "lock",
    "a\x00b",
    "a\nb",
    "x" * 51,
    "é" * 300,
]
NAMES = st.sampled_from([*ALIKE, *ODD]) | st.text(alphabet="aA_-. é/", max_size=4) | st.text()


def as_a_disk_folds_it(name):
    """What is left of a name where case does not count and letters are taken apart, as on some disks."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


@given(st.lists(NAMES, unique=True))
def test_no_two_plants_share_a_file(names):
    assert len({as_a_disk_folds_it(name_file(name)) for name in names}) == len(names)


@given(NAMES)
def test_a_plants_file_lies_in_its_folder_and_can_be_made(name):
    called = name_file(name)
    assert Path(called).name == called
    assert called[0] not in ".- "
    assert called[-1] not in ". "
    assert called.isprintable()
    assert len(f".{called}.parquet.12345678.tmp".encode()) <= 255
    assert name_file(name) == called


@given(st.from_regex(r"[a-z0-9_][a-z0-9_-]{0,49}", fullmatch=True).filter(lambda name: name not in {*ODD}))
def test_a_plain_name_is_its_files_name(name):
    assert name_file(name) == name


@pytest.mark.parametrize(
    ("name", "letters"),
    [("Nord", "Nord"), ("Hall 1/a", "Hall_1_a"), ("北京", "北京"), ("Su\u0308d", "Süd"), ("..", "_"), ("con", "con")],
)
def test_any_other_name_keeps_its_letters(name, letters):
    assert name_file(name).rpartition(".")[0] == letters


@pytest.mark.parametrize("rows", [pl.DataFrame({"plant": ["x"]}), pl.DataFrame(schema={"machine": pl.String})])
@pytest.mark.parametrize("name", [*ALIKE, *ODD])
def test_a_tables_plant_is_known_again_even_if_the_table_is_empty(tmp_path, name, rows):
    write_table(rows, table_file(tmp_path, name), name)
    write_table(rows, tmp_path / "deep" / name_file(name) / "train.parquet", name)
    assert list_plants(tmp_path) == list_plants(tmp_path / "deep", "*/train.parquet") == [name]
    assert pl.read_parquet(table_file(tmp_path, name)).equals(rows)


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=5))
@settings(max_examples=5)
def test_equal_rows_are_equal_bytes_however_they_were_put_together(cuts):
    number = pl.int_range(300_000, eager=True)
    whole = pl.DataFrame({"load": number, "machine": (number // 10_000).cast(pl.String)})
    parts = [whole[start:stop] for start, stop in pairwise([0, *sorted(cuts), whole.height])]
    with TemporaryDirectory() as name:
        for file, table in {"whole": whole, "parts": pl.concat(parts, rechunk=False)}.items():
            write_table(table, Path(name) / file, "lyon")
        assert (Path(name) / "whole").read_bytes() == (Path(name) / "parts").read_bytes()


def test_a_table_from_elsewhere_is_of_the_plant_that_its_file_is_called_after(tmp_path):
    pl.DataFrame({"load": [1.0]}).write_parquet(tmp_path / "lyon.parquet")
    assert list_plants(tmp_path) == ["lyon"]


def test_a_table_that_is_written_in_part_only_leaves_the_old_one_and_a_file_that_no_stage_reads(tmp_path, monkeypatch):
    file, rows = table_file(tmp_path, "lyon"), pl.DataFrame({"load": [1.0]})
    write_table(rows, file, "lyon")

    def stop_half_way(_: pl.DataFrame, half: Path, **__: object) -> None:
        half.write_bytes(b"PAR1")
        raise InterruptedError

    monkeypatch.setattr(pl.DataFrame, "write_parquet", stop_half_way)
    with pytest.raises(InterruptedError):
        write_table(rows, file, "lyon")
    assert pl.read_parquet(file).equals(rows)
    assert list_plants(tmp_path) == ["lyon"]
    assert {left.suffix for left in tmp_path.iterdir()} == {".parquet", ".tmp"}
