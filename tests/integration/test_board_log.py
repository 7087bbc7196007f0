"""The page's board fed from the prediction log: other workers, batches, and what was before a restart."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from board_cases import HOUR, NOW, prediction

from upkeep.scoring.prediction_log import as_log_rows, write_part
from upkeep.serving.app import JsonLines
from upkeep.serving.board import Board


def log(folder, part, *predictions):
    write_part(str(folder), part, as_log_rows(predictions))


def refreshed(folder):
    board = Board(str(folder), 20_000)
    board.refresh()
    return board


def test_a_logged_prediction_arrives_as_it_was_made(tmp_path):
    warning = {"code": "gap", "message": "No readings for 9 h", "column": None}
    made = prediction(warnings=[warning], maintained_at=prediction()["time"] - HOUR, maintenance_code="bearing")
    log(tmp_path, "a", made)
    direct = Board("", 20_000)
    direct.add(made)
    read, expected = (board.get("lyon", "press") for board in (refreshed(tmp_path), direct))
    np.testing.assert_equal(read._asdict(), expected._asdict())
    assert read.newest["features"].dtype == np.float32


def test_what_an_earlier_version_logged_without_readings_is_shown_all_the_same(tmp_path):
    write_part(str(tmp_path), "a", as_log_rows([prediction(probability=0.7)]).drop("readings"))
    newest = refreshed(tmp_path).get("lyon", "press").newest
    assert (newest["probability"], newest["readings"].size) == (0.7, 0)


def test_a_refresh_adds_what_was_logged_since_the_last_one(tmp_path):
    log(tmp_path, "a", prediction(hours_ago=1), prediction("saw"))
    board = refreshed(tmp_path)
    log(tmp_path, "b", prediction(probability=0.9))
    board.refresh()
    assert [(each.newest["machine"], len(each.history)) for each in board.rank()] == [("press", 2), ("saw", 1)]


def test_of_one_reading_scored_twice_the_newest_prediction_counts_in_whatever_order_they_were_logged(tmp_path):
    log(tmp_path, "a", prediction(probability=0.6, scored_at=NOW), prediction(probability=0.1, scored_at=NOW - 1))
    assert refreshed(tmp_path).get("lyon", "press").newest["probability"] == 0.6


def test_a_machine_scored_weeks_ago_is_still_shown_after_a_restart(tmp_path):
    for day in (0, 20):
        log(tmp_path, f"day{day}", prediction(f"machine {day}", hours_ago=24 * day))
    assert len(refreshed(tmp_path).rank()) == 2


def test_a_day_of_golden_requests_only_hides_none_before_it(tmp_path):
    log(tmp_path, "deployed", prediction(source="smoke"))
    log(tmp_path, "before", prediction(probability=0.7, hours_ago=72))
    assert refreshed(tmp_path).get("lyon", "press").newest["probability"] == 0.7


def test_a_machine_not_scored_for_a_month_leaves_the_page(tmp_path):
    log(tmp_path, "a", prediction())
    board = Board(str(tmp_path), 20_000)
    board.add(prediction("saw", hours_ago=24 * 31))
    board.refresh()
    assert [each.newest["machine"] for each in board.rank()] == ["press"]


def test_days_before_one_that_told_nothing_new_are_not_read(tmp_path, caplog):
    for day in range(4):
        hours = 24 * day
        readings = (prediction(hours_ago=hours + each / 60, scored_at=NOW - hours * HOUR) for each in range(60))
        log(tmp_path, f"day{day}", *readings)
    (oldest,) = tmp_path.glob("*/*/day3.parquet")
    oldest.write_bytes(b"would be told if it were read")
    assert refreshed(tmp_path).as_of is not None
    assert caplog.text == ""


def test_a_log_that_does_not_exist_yet_is_an_empty_one(tmp_path):
    board = refreshed(tmp_path / "missing")
    assert board.rank() == []
    assert board.as_of is not None


def test_a_log_that_cannot_be_read_leaves_the_board_as_it_was_and_says_since_when(tmp_path, caplog):
    log(tmp_path / "log", "a", prediction())
    board = refreshed(tmp_path / "log")
    before = board.as_of
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "log").symlink_to("log")
    board.refresh()
    assert board.as_of == before
    assert len(board.rank()) == 1
    assert "the page cannot show what other processes predicted" in caplog.text


GOOD = as_log_rows([prediction("saw")])
TIME = pl.Datetime("us", "UTC")
FAR = pl.lit(2**62).cast(TIME)
NO_WARNING = pl.Series([[None]], dtype=GOOD.schema["warnings"])


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        pytest.param(GOOD.with_columns(time=pl.lit(None, TIME)), "1 row(s)", id="null time"),
        pytest.param(GOOD.with_columns(scored_at=FAR), "1 row(s)", id="a time that no calendar has"),
        pytest.param(GOOD.with_columns(maintained_at=FAR), "1 row(s)", id="maintained when no calendar has it"),
        pytest.param(GOOD.with_columns(probability=pl.lit(float("nan"))), "1 row(s)", id="NaN"),
        pytest.param(GOOD.with_columns(machine=pl.lit("x" * 201)), "1 row(s)", id="a name too long"),
        pytest.param(GOOD.with_columns(warnings=pl.lit(None)), "1 row(s)", id="null warnings"),
        pytest.param(GOOD.with_columns(warnings=NO_WARNING), "1 row(s)", id="a null among warnings"),
        pytest.param(GOOD.with_columns(role=pl.lit("usurper")), "1 row(s)", id="an unknown role"),
        pytest.param(GOOD.select("plant", "machine"), "1 row(s)", id="columns missing"),
        pytest.param(pl.DataFrame({"x": [1]}), "1 row(s)", id="other columns"),
        pytest.param(pl.concat([GOOD.with_columns(features=[0.0] * 20_000)] * 4000), "is damaged", id="far too large"),
        pytest.param(GOOD.with_columns(probability=pl.lit("high")), "is damaged", id="text for a number"),
        pytest.param(GOOD.with_columns(features=pl.lit("high")), "is damaged", id="text for a list"),
        pytest.param(GOOD.with_columns(warnings=pl.lit(3)), "is damaged", id="a number for a struct"),
    ],
)
def test_rows_that_are_no_predictions_are_told_and_the_others_shown(tmp_path, caplog, frame, told):
    log(tmp_path, "a", prediction())
    (good,) = tmp_path.glob("*/*/a.parquet")
    frame.write_parquet(good.with_name("b.parquet"))
    board = refreshed(tmp_path)
    assert [each.newest["machine"] for each in board.rank()] == ["press"]
    assert board.as_of is not None
    assert told in caplog.text
    assert "b.parquet" in caplog.text


def test_a_challengers_rows_hide_no_champions_and_those_without_a_role_are_a_champions(tmp_path):
    log(tmp_path, "a", prediction(probability=0.2))
    (file,) = tmp_path.glob("*/*/a.parquet")
    pl.read_parquet(file).drop("role").write_parquet(file)
    log(tmp_path, "b", prediction(probability=0.9, role="challenger"), prediction("saw", role="challenger"))
    (shown,) = refreshed(tmp_path).rank()
    assert shown.newest["probability"] == 0.2


def test_a_row_that_is_no_prediction_costs_no_other_row_of_its_file(tmp_path, caplog):
    rows = as_log_rows([prediction(), prediction("saw")])
    broken = rows.with_columns(time=pl.when(machine="saw").then("time"))
    write_part(str(tmp_path), "a", broken)
    assert [each.newest["machine"] for each in refreshed(tmp_path).rank()] == ["saw"]
    assert "1 row(s)" in caplog.text


PLACED = {
    "four bytes": lambda file: file.write_bytes(b"PAR1"),
    "nothing": lambda file: file.touch(),
    "a folder": lambda file: file.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda file: file.symlink_to("/dev/zero"),
    "a link to nothing": lambda file: file.symlink_to("nowhere"),
    "a link to itself": lambda file: file.symlink_to(file.name),
}


@pytest.mark.parametrize("placed", PLACED)
def test_whatever_lies_in_its_folder_the_page_shows_what_the_log_holds_and_tells_the_rest_once(
    tmp_path, caplog, placed
):
    log(tmp_path, "a", prediction())
    (good,) = tmp_path.glob("*/*/a.parquet")
    PLACED[placed](good.with_name("0.parquet"))
    PLACED[placed](tmp_path / "day=2999-01-01")
    board = refreshed(tmp_path)
    board.refresh()
    assert [each.newest["machine"] for each in board.rank()] == ["press"]
    assert board.as_of is not None
    assert caplog.text.count("0.parquet") >= (placed != "a folder")
    assert len(caplog.messages) == len(set(caplog.messages))


def test_what_the_board_cannot_take_of_a_file_costs_no_other_file(tmp_path, monkeypatch, caplog):
    log(tmp_path, "a", prediction())
    log(tmp_path, "b", prediction("saw"))
    add = Board.add
    monkeypatch.setattr(Board, "add", lambda board, row: {"press": add}[row["machine"]](board, row))
    board = refreshed(tmp_path)
    assert [each.newest["machine"] for each in board.rank()] == ["press"]
    assert board.as_of is not None
    assert "the page does not show all of" in caplog.text


def test_a_file_whose_name_is_no_text_is_told_in_a_line_of_the_services_log(tmp_path, caplog):
    log(tmp_path, "a", prediction())
    (good,) = tmp_path.glob("*/*/a.parquet")
    Path(os.fsdecode(os.fsencode(good.parent) + b"/\xff.parquet")).write_bytes(b"PAR1")
    assert len(refreshed(tmp_path).rank()) == 1
    (record,) = caplog.records
    assert "\\udcff.parquet is damaged" in json.loads(JsonLines().format(record))["event"]
    record.msg = "\udcff"
    assert json.loads(JsonLines().format(record))["event"] == "\udcff"


def test_a_file_that_could_not_be_read_is_read_as_soon_as_it_can_be(tmp_path):
    log(tmp_path, "a", prediction())
    (good,) = tmp_path.glob("*/*/a.parquet")
    hidden = good.rename(tmp_path / "hidden")
    good.symlink_to("nowhere")
    board = refreshed(tmp_path)
    assert board.rank() == []
    good.unlink()
    hidden.rename(good)
    board.refresh()
    assert len(board.rank()) == 1


def test_the_board_refreshes_by_itself_once_started(tmp_path):
    log(tmp_path, "a", prediction())
    board = Board(str(tmp_path), 20_000)
    board.start()
    board.close()
    board._refresher.join(timeout=30)
    assert len(board.rank()) == 1
