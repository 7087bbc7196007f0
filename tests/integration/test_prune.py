"""What `upkeep prune` takes away, and what it leaves."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from dvc_projects import git, run

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.gitlab import dvc
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


def settings(since=None):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["fetch"] |= {"until": "2025-01-27", "since": since}
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
    PIECES.mkdir(parents=True)
    for name, day in {"old.piece": 1, "new.piece": 89, "foreign.txt": 1}.items():
        (PIECES / name).write_text("12345")
        os.utime(PIECES / name, (day * 86_400 + 1_735_689_600,) * 2)
    listed = prune(settings(), TODAY, 30, remove=False)
    assert "nothing is removed yet" in listed
    assert "pieces not used since 2025-03-01" in listed
    assert [line.split()[-2:] for line in listed.splitlines()[2:4]] == [["1", "0.0"], ["1", "0.0"]]
    assert len([name for name in logged() if name.endswith(".parquet")]) == 2
    prune(settings(), TODAY, 30, remove=True)
    assert logged() == ["day=2025-03-30", "day=2025-03-30/plant=lyon", "day=2025-03-30/plant=lyon/part1.parquet"]
    assert sorted(file.name for file in PIECES.iterdir()) == ["foreign.txt", "new.piece"]


def test_without_an_age_no_prediction_goes():
    log(date(2020, 1, 1))
    assert "predictions" not in prune(settings(), TODAY, None, remove=True)
    assert any(name.endswith(".parquet") for name in logged())


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
    assert f"training loses {early:,} of {rows:,} rows of telemetry and" in told
    assert len({file.batch for file in read_manifest().files}) == 4
    prune(params, TODAY, None, remove=True)
    kept = {(file.table, file.batch.day) for file in read_manifest().files}
    assert {day for table, day in kept if table != "machines"} == {20, 27}
    assert ("machines", 6) in kept
    before = paths.MANIFEST.read_bytes()
    fetch.run(params)
    assert paths.MANIFEST.read_bytes() == before


@pytest.fixture
def project(tmp_path):
    """A DVC project whose output had three versions: one that git knows, one that nobody needs, and today's."""
    settings()
    stage = {"cmd": "cp in out", "deps": ["in"], "outs": ["out"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"copy": stage}}), encoding="utf-8")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    run(tmp_path, "dvc", "init", "--quiet")
    for content in ("committed", "unneeded", "now"):
        Path("in").write_text(content)
        run(tmp_path, "dvc", "repro", "--quiet")
        if content == "committed":
            git(tmp_path, "add", ".")
            git(tmp_path, "commit", "--quiet", "--message", "Start")
    return tmp_path


def cached():
    return {path.read_text() for path in Path(".dvc/cache/files").rglob("*") if path.is_file()}


@pytest.mark.usefixtures("project")
def test_the_cache_keeps_what_the_lock_here_and_branches_need():
    params = load_params()
    assert "in no branch, tag or lock here  1" in prune(params, TODAY, None, remove=False)
    assert cached() == {"committed", "unneeded", "now"}
    prune(params, TODAY, None, remove=True)
    assert cached() == {"committed", "now"}


def test_a_cache_without_a_lock_or_of_other_checkouts_too_is_left_alone(project):
    Path("dvc.lock").rename("lock")
    assert "left alone: dvc.lock lists no output" in prune(load_params(), TODAY, None, remove=True)
    Path("lock").rename("dvc.lock")
    run(project, "dvc", "config", "cache.dir", str(project / "shared"))
    with pytest.raises(UpkeepError, match="not this checkout's own"):
        dvc.list_garbage()
    assert cached() == {"committed", "unneeded", "now"}
