"""What `upkeep prune` takes away, and what it leaves."""

import os
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from upkeep.cli import app
from upkeep.core import paths
from upkeep.core.params import load_params
from upkeep.gitlab.prune import prune
from upkeep.scoring.prediction_log import SCHEMA, write_part
from upkeep.sources.manifest import read_manifest
from upkeep.stages import fetch, validate

ROOT = Path(__file__).parents[2]
PIECES = Path(".upkeep/pieces")
TODAY = date(2025, 3, 31)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def settings(since=None, until="2025-01-27"):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["fetch"] |= {"until": until, "since": since}
    params["fetch"]["options"]["plants"] = {"lyon": 2}
    params["parallel"] = {"backend": "sequential", "jobs": 1}
    params["validate"]["dictionary"] = str(ROOT / params["validate"]["dictionary"])
    paths.PARAMS.write_text(yaml.safe_dump(params), encoding="utf-8")
    return load_params()


def log(*days):
    for number, day in enumerate(days):
        row = (
            SCHEMA.to_frame(eager=True)
            .clear(1)
            .with_columns(
                id=pl.lit("x"), plant=pl.lit("lyon"), scored_at=datetime.combine(day, datetime.min.time(), UTC)
            )
        )
        write_part("data/prediction_log", f"part{number}", row.cast(SCHEMA))


def logged():
    return sorted(str(path.relative_to("data/prediction_log")) for path in Path("data/prediction_log").rglob("*"))


def test_old_predictions_and_pieces_are_listed_first_and_removed_only_if_that_is_meant():
    log(date(2025, 1, 1), date(2025, 3, 30))
    (PIECES / "folder.piece").mkdir(parents=True)
    for name, day in {"old.piece": 1, "new.piece": 89, "foreign.txt": 1, "folder.piece": 1}.items():
        if name != "folder.piece":
            (PIECES / name).write_text("12345")
        os.utime(PIECES / name, (day * 86_400 + 1_735_689_600,) * 2)
    listed = prune(settings(), TODAY, 30, remove=False)
    assert "nothing is removed yet" in listed
    assert "pieces not used since 2025-03-01" in listed
    assert [line.split()[-2:] for line in listed.splitlines()[2:4]] == [["1", "0.0"], ["1", "0.0"]]
    assert len([name for name in logged() if name.endswith(".parquet")]) == 2
    prune(settings(), TODAY, 30, remove=True)
    assert logged() == ["day=2025-03-30", "day=2025-03-30/plant=lyon", "day=2025-03-30/plant=lyon/part1.parquet"]
    assert sorted(file.name for file in PIECES.iterdir()) == ["folder.piece", "foreign.txt", "new.piece"]


def test_without_an_age_no_prediction_goes():
    log(date(2020, 1, 1))
    assert "predictions" not in prune(settings(), TODAY, None, remove=True)
    assert any(name.endswith(".parquet") for name in logged())


def test_a_copy_of_a_day_that_somebody_put_into_the_prediction_log_stays():
    log(date(2025, 1, 1))
    shutil.copytree("data/prediction_log/day=2025-01-01", "data/prediction_log/day=2025-01-01.bak")
    prune(settings(), TODAY, 30, remove=True)
    assert logged()[-1] == "day=2025-01-01.bak/plant=lyon/part0.parquet"
    assert "day=2025-01-01" not in logged()


def test_an_age_of_more_days_than_there_are_is_refused():
    assert CliRunner().invoke(app, ["prune", "--days", "1000000"]).exit_code == 2


def test_no_link_is_followed_to_what_lies_elsewhere(tmp_path):
    log(date(2025, 1, 1))
    elsewhere = tmp_path / "elsewhere"
    Path("data/prediction_log/day=2025-01-01/plant=lyon").rename(elsewhere)
    Path("data/prediction_log/day=2025-01-01/plant=lyon").symlink_to(elsewhere)
    (elsewhere / "old.piece").write_text("12345")
    os.utime(elsewhere / "old.piece", (0, 0))
    paths.LOCAL.mkdir()
    PIECES.symlink_to(elsewhere)
    prune(settings(), TODAY, 30, remove=True)
    assert sorted(file.name for file in elsewhere.iterdir()) == ["old.piece", "part0.parquet"]


def test_raw_batches_go_only_if_since_leaves_them_out_and_what_training_loses_is_said():
    params = settings()
    fetch.run(params)
    validate.run(params)
    rows = sum(file.rows for file in read_manifest().files if file.table == "telemetry")
    early = sum(file.rows for file in read_manifest().files if file.table == "telemetry" and file.batch.day < 20)
    assert "data/raw" not in prune(params, TODAY, None, remove=True)
    params = settings("2025-01-20")
    told = prune(params, TODAY, None, remove=False)
    assert f"training loses {early:,} of {rows:,} rows of telemetry, and" in told
    assert len({file.batch for file in read_manifest().files}) == 4
    prune(params, TODAY, None, remove=True)
    kept = {(file.table, file.batch.day) for file in read_manifest().files}
    assert {day for table, day in kept if table != "machines"} == {20, 27}
    assert ("machines", 6) in kept
    before = paths.MANIFEST.read_bytes()
    fetch.run(params)
    assert paths.MANIFEST.read_bytes() == before


def test_what_is_not_listed_stays_in_raw_data_be_it_after_until_or_nobody_s():
    fetch.run(settings())
    other = paths.RAW / "telemetry/lyon/notes.txt"
    other.write_text("of the plant")
    prune(settings("2025-01-20", until="2025-01-20"), TODAY, None, remove=True)
    assert {file.batch.day for file in read_manifest().files if file.table == "telemetry"} == {20, 27}
    assert sorted(file.name for file in other.parent.iterdir()) == [
        "2025-01-20.parquet",
        "2025-01-27.parquet",
        "notes.txt",
    ]
