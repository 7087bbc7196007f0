"""Results kept for the next run: found again by what they were made from, and never worth more than making them."""

import errno
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from upkeep.core import pieces
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Pieces
from upkeep.core.pieces import Frames, drop_oldest, name_piece, recall

MADE = {"rows": pl.DataFrame({"machine": ["m1", None], "heat": [0.1, float("nan")]}), "none": pl.DataFrame()}


def keep(folder: Path | None, gigabytes: float = 1) -> Pieces:
    return Pieces(folder=folder, max_gb=gigabytes)


def file_of(folder: Path, part: str) -> Path:
    return folder / f"{name_piece([], [part])}.piece"


def unwanted() -> Frames:
    raise AssertionError("made again")


def same(found: Frames) -> None:
    assert list(found) == list(MADE)
    for name, frame in found.items():
        assert_frame_equal(frame, MADE[name], check_exact=True)


def test_what_was_made_once_is_not_made_again(tmp_path):
    same(recall(keep(tmp_path / "new"), [], ["a"], lambda: MADE))
    same(recall(keep(tmp_path / "new"), [], ["a"], unwanted))
    with pytest.raises(AssertionError, match="made again"):
        recall(keep(tmp_path / "new"), [], ["b"], unwanted)


def test_without_a_folder_all_is_made_and_nothing_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same(recall(keep(None), [], ["a"], lambda: MADE))
    drop_oldest(keep(None))
    assert list(tmp_path.iterdir()) == []


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def swap_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def turn_into_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def turn_into_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("damage", [cut, swap_a_bit, empty, turn_into_a_folder, turn_into_a_pipe])
def test_a_damaged_piece_is_made_again_with_a_word(tmp_path, caplog, damage: Callable[[Path], None]):
    recall(keep(tmp_path), [], ["a"], lambda: MADE)
    damage(file_of(tmp_path, "a"))
    same(recall(keep(tmp_path), [], ["a"], lambda: MADE))
    assert "made again" in caplog.messages[0]
    if damage is not turn_into_a_folder:
        caplog.clear()
        same(recall(keep(tmp_path), [], ["a"], unwanted))
        assert caplog.messages == []


def test_a_piece_that_cannot_be_kept_costs_no_run(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    same(recall(keep(tmp_path / "file"), [], ["a"], lambda: MADE))
    assert caplog.record_tuples[-1][1] == logging.WARNING
    assert "cannot be kept" in caplog.messages[-1]


def test_what_fails_is_not_kept(tmp_path):
    def fail() -> Frames:
        raise UpkeepError("a leak", remedy="mend it")

    for _ in range(2):
        with pytest.raises(UpkeepError, match="a leak"):
            recall(keep(tmp_path), [], ["a"], fail)


ROWS = pl.DataFrame({"machine": ["a machine with a long name", "m2"], "heat": [1.0, None]})


def test_a_name_tells_what_a_piece_was_made_from():
    name = name_piece(["core"], [ROWS, keep(Path("x")), {"hours": [8, 48]}, b"x"])
    assert name == name_piece(["core"], [ROWS.clone(), keep(Path("x")), {"hours": [8, 48]}, b"x"])
    others = [
        name_piece(["core/pieces.py"], [ROWS, keep(Path("x")), {"hours": [8, 48]}, b"x"]),
        name_piece(["core"], [ROWS.reverse(), keep(Path("x")), {"hours": [8, 48]}, b"x"]),
        name_piece(["core"], [ROWS.rename({"heat": "cold"}), keep(Path("x")), {"hours": [8, 48]}, b"x"]),
        name_piece(["core"], [ROWS.cast({"heat": pl.Float32}), keep(Path("x")), {"hours": [8, 48]}, b"x"]),
        name_piece(["core"], [ROWS, keep(Path("y")), {"hours": [8, 48]}, b"x"]),
        name_piece(["core"], [ROWS, keep(Path("x")), {"hours": [8, 49]}, b"x"]),
        name_piece(["core"], [ROWS, keep(Path("x")), {"hours": [8, 48]}, b"y"]),
        name_piece(["core"], [ROWS, keep(Path("x")), {"hours": [8, 48]}]),
    ]
    assert len({name, *others}) == len(others) + 1


def test_parts_do_not_run_into_one_another():
    assert name_piece([], [b"ab", b"c"]) != name_piece([], [b"a", b"bc"])


def test_what_has_no_content_of_its_own_names_nothing():
    with pytest.raises(ValueError, match="serialize"):
        name_piece([], [object()])


def test_rows_cut_out_of_a_longer_table_have_the_name_of_their_own():
    longer = pl.concat([pl.DataFrame({"machine": ["another machine with a long name"], "heat": [9.0]}), ROWS])
    whole = name_piece([], [pl.DataFrame(ROWS.to_dict(as_series=False))])
    for rows in (longer.tail(2), longer.filter(pl.col("machine") != longer["machine"][0]), longer[1:]):
        assert name_piece([], [rows]) == whole


def test_what_a_null_hides_is_no_part_of_a_table():
    hours = pl.DataFrame({"hours": [10.0, 900.0, None]})
    near = hours.with_columns(pl.when(pl.col("hours") < 48).then("hours"))
    assert near["hours"].to_list() == [10.0, None, None]
    assert name_piece([], [near]) == name_piece([], [pl.DataFrame({"hours": [10.0, None, None]})])


def test_changed_code_another_release_of_a_library_or_of_python_makes_other_names(tmp_path, monkeypatch):
    package = tmp_path / "upkeep"
    shutil.copytree(Path(pieces.__file__).parent, package / "core")
    names = [name_piece(["core"], [])]
    for change in (
        lambda: (package / "core/paths.py").write_text("changed"),
        lambda: (package / "core/new.py").write_text(""),
        lambda: (package / "core/new.py").rename(package / "core/newer.py"),
        lambda: monkeypatch.setattr(pieces, "version", str.upper),
        lambda: monkeypatch.setattr(pieces.platform, "python_version", lambda: "3.12.0"),
    ):
        change()
        monkeypatch.setattr(pieces, "LOADED", pieces._read_code(package))
        pieces.name_versions.cache_clear()
        names.append(name_piece(["core"], []))
    monkeypatch.undo()
    pieces.name_versions.cache_clear()
    assert len(set(names)) == len(names)


EDIT_AND_NAME = """
from pathlib import Path
from upkeep.core.pieces import name_piece
Path("upkeep/core/rounding.py").write_text("MEASURED = 1")
print(name_piece(["core"], []))
"""


def test_what_a_process_makes_is_not_of_code_that_is_edited_while_it_works(tmp_path):
    shutil.copytree(Path(pieces.__file__).parent, tmp_path / "upkeep/core")
    (tmp_path / "upkeep/__init__.py").touch()
    begun_before, begun_after = (
        subprocess.run([sys.executable, "-c", EDIT_AND_NAME], cwd=tmp_path, capture_output=True, check=True).stdout
        for _ in range(2)
    )
    assert begun_before != begun_after


def test_a_bound_beyond_all_memory_keeps_pieces_nevertheless(tmp_path):
    same(recall(keep(tmp_path, 1e9), [], ["a"], lambda: MADE))
    assert len(list(tmp_path.rglob("*.piece"))) == 1
    same(recall(keep(tmp_path, 1e9), [], ["a"], unwanted))


def test_pieces_that_are_somebody_elses_are_used_and_stay_with_a_word(tmp_path, caplog, monkeypatch):
    for name in ("a", "b"):
        recall(keep(tmp_path), [], [name], lambda: MADE)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    same(recall(keep(tmp_path), [], ["a"], unwanted))
    assert caplog.messages == []
    drop_oldest(keep(tmp_path, 0))
    assert {message.split()[0] for message in caplog.messages} == {str(file_of(tmp_path, name)) for name in "ab"}
    assert "cannot be deleted: Operation not permitted" in caplog.messages[0]


def test_those_not_used_for_longest_go_first_and_nothing_else_in_the_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("x" * 1000)
    half = tmp_path / ".half.piece.x1.tmp"
    half.write_text("x" * 1000)
    os.utime(half, (0, 0))
    for age, name in enumerate(("used", "old", "new")):
        recall(keep(tmp_path), [], [name], lambda: MADE)
        os.utime(file_of(tmp_path, name), (100 + age, 100 + age))
    recall(keep(tmp_path), [], ["used"], unwanted)
    size = file_of(tmp_path, "new").stat().st_size
    drop_oldest(keep(tmp_path, 2 * size / 1e9))
    assert set(tmp_path.iterdir()) == {tmp_path / "mine.txt", file_of(tmp_path, "used"), file_of(tmp_path, "new")}
    drop_oldest(keep(tmp_path, 0))
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.txt"]
    drop_oldest(keep(tmp_path / "none", 0))
