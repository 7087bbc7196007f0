"""`upkeep outcomes`: the prediction log and the newest tables in; the ledger's files and two tables out."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import ROOT
from fleet_cases import at
from outcome_cases import EVENTS, TIME, event, said
from typer.testing import CliRunner

from upkeep.cli import app
from upkeep.core import files
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params, load_params
from upkeep.core.plants import table_file, write_table
from upkeep.production.ledger import as_known, read_ledger, record_outcomes
from upkeep.scoring.prediction_log import SCHEMA, write_part

INTERIM = Path("data/interim")


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Settings of a plant whose machine raised the alarm at hour 0, and whose readings go on until hour 20."""
    monkeypatch.chdir(tmp_path)
    given = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    given["validate"]["dictionary"] = str(ROOT / given["validate"]["dictionary"])
    Path("params.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    log(said(0))
    deliver(INTERIM, 20)
    return load_params()


def log(*rows: dict[str, object]) -> None:
    frame = pl.DataFrame(rows).with_columns(pl.col("time", "scored_at").cast(TIME), warnings=pl.lit([]))
    frame = pl.concat(
        [SCHEMA.to_frame(), frame.select(name for name in frame.columns if name in SCHEMA)], how="diagonal"
    )
    write_part("data/prediction_log", "part", frame)


def deliver(folder: Path, until: float, *happened: dict[str, object]) -> None:
    """Write what a plant's tables hold once readings go on until this hour."""
    readings = pl.DataFrame({"plant": "lyon", "machine": "m1", "time": [at(0), at(until)]})
    write_table(readings.cast({"time": TIME}), table_file(folder / "telemetry", "lyon"), "lyon")
    write_table(pl.DataFrame(happened, schema=EVENTS), table_file(folder / "events", "lyon"), "lyon")


def outcomes(ledger: pl.DataFrame, hour: float = 10_000) -> list[str]:
    return as_known(ledger, at(hour))["outcome"].to_list()


def test_what_is_new_is_added_in_one_file_and_what_was_known_before_can_be_asked_for(params: Params) -> None:
    record_outcomes(params, at(20))
    record_outcomes(params, at(30))
    assert len(list(Path("data/ledger").rglob("*.parquet"))) == 1
    deliver(INTERIM, 40, event(10, "maintenance", finding="defect"), event(30, "failure"))
    record_outcomes(params, at(40))
    ledger = read_ledger("data/ledger")
    assert outcomes(ledger) == ["failed", "caught"]
    assert outcomes(ledger, 39) == ["pending"]


def test_tables_that_scoring_read_later_than_the_pipeline_tell_more(params: Params) -> None:
    deliver(Path(".upkeep/score/lyon/interim"), 60)
    assert record_outcomes(params, at(60))["outcome"].to_list() == ["survived"]
    deliver(INTERIM, 61, event(30, "failure"))
    assert record_outcomes(params, at(61))["outcome"].to_list() == ["failed", "caught"]


def test_a_writer_that_is_killed_leaves_all_of_it_or_nothing_and_the_next_one_catches_up(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(files.Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            record_outcomes(params, at(20))
    assert read_ledger("data/ledger").is_empty()
    record_outcomes(params, at(21))
    assert outcomes(read_ledger("data/ledger")) == ["pending"]


def test_two_writers_at_once_add_each_row_once(params: Params) -> None:
    writers = [threading.Thread(target=record_outcomes, args=(params, at(20))) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert read_ledger("data/ledger").height == 1


def test_a_clock_that_was_put_back_does_not_hide_what_is_new(params: Params) -> None:
    record_outcomes(params, at(1000))
    deliver(INTERIM, 60)
    assert record_outcomes(params, at(60))["outcome"].to_list() == ["survived"]


def test_files_that_are_damaged_and_rows_that_are_no_outcomes_are_passed_over(params: Params, caplog) -> None:
    record_outcomes(params, at(20))
    [file] = Path("data/ledger").rglob("*.parquet")
    strange = pl.read_parquet(file).with_columns(outcome=pl.lit("fine"))
    strange.write_parquet(file.with_name("strange.parquet"))
    file.write_bytes(b"no Parquet")
    assert record_outcomes(params, at(30))["outcome"].to_list() == ["pending"]
    assert "is damaged" in caplog.text
    assert "outcomes: 1 row(s)" in caplog.text


@pytest.mark.usefixtures("params")
def test_the_command_prints_classes_and_live_figures_now_and_as_of_a_day() -> None:
    deliver(INTERIM, 40, event(10, "maintenance", finding="defect"))
    done = CliRunner().invoke(app, ["outcomes"])
    assert done.exit_code == 0
    assert done.output.splitlines()[0].split()[:4] == ["plant", "role", "pending", "failed"]
    assert "lyon   champion  100%       100%   100%    4,000" in done.output
    past = CliRunner().invoke(app, ["outcomes", "--as-of", "2025-01-06", "--by", "week"])
    assert "lyon" not in past.output
    today = CliRunner().invoke(app, ["outcomes", "--as-of", f"{datetime.now(UTC):%Y-%m-%d}", "--by", "week"])
    assert "lyon   champion  2025-01-06  100%" in today.output


def test_without_tables_one_is_told_what_to_run(params: Params) -> None:
    table_file(INTERIM / "telemetry", "lyon").unlink()
    with pytest.raises(UpkeepError, match="holds no plant") as caught:
        record_outcomes(params, at(20))
    assert "upkeep validate" in caught.value.remedy
