"""Stages that keep pieces write the same bytes without them, with some of them lost or damaged, and a week later."""

import hashlib
import shutil
from contextlib import chdir
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT

from upkeep.cli.stages import run_stage
from upkeep.features import definition
from upkeep.model import training
from upkeep.stages import dataset

STAGES = ("dataset", "train")
WRITTEN = ("data/processed", "data/predictions", "models", "reports")
PIECES = Path(".upkeep/pieces")
SPLITS = {
    "date": {"by": "date", "validation_from": "2025-03-03", "test_from": "2025-03-17"},
    "window": {"by": "window", "window": {"validation_weeks": 2, "test_weeks": 2, "every_weeks": 2}},
    "time": {"by": "time"},
    "machine": {"by": "machine"},
}


UNTIL, WEEK_LATER = "2025-03-24", "2025-03-31"


@pytest.fixture(scope="module")
def weeks(tmp_path_factory):
    """Validated data of a small fleet, in a folder for each last batch."""
    folders = {until: tmp_path_factory.mktemp(until) for until in (UNTIL, WEEK_LATER)}
    for until, folder in folders.items():
        with chdir(folder):
            settle(until)
            for stage in ("fetch", "validate"):
                run_stage(stage)
    return folders


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def deliver(weeks):
    return lambda until: shutil.copytree(weeks[until], ".", dirs_exist_ok=True)


@pytest.fixture(scope="module")
def run_first(weeks, tmp_path_factory):
    """Copy what the stages make of the first delivery, run once for each split; return its checksums."""

    @cache
    def run_once(split: str) -> tuple[Path, dict[str, str]]:
        folder = shutil.copytree(weeks[UNTIL], tmp_path_factory.mktemp(split), dirs_exist_ok=True)
        with chdir(folder):
            return folder, run(UNTIL, split)

    def copy(split: str) -> dict[str, str]:
        folder, written = run_once(split)
        shutil.copytree(folder, ".", dirs_exist_ok=True)
        return written

    return copy


def settle(
    until: str, split: str = "date", *, kept: bool = True, gigabytes: float = 1, **dataset_params: object
) -> None:
    """Write params.yaml for a small fleet."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["fetch"] |= {"until": until, "options": params["fetch"]["options"] | {"plants": {"lyon": 3, "porto": 2}}}
    params["validate"]["dictionary"] = str(ROOT / "data/references/dictionary.yaml")
    params["dataset"] |= {"max_single_feature_auc": 1.0, "aggregates": ["mean"], "windows_hours": [8], **dataset_params}
    params["dataset"]["split"] |= SPLITS[split]
    params["model"]["lightgbm"]["n_estimators"] = 5
    params["parallel"]["backend"] = "sequential"
    params["pieces"] = {"folder": str(PIECES) if kept else None, "max_gb": gigabytes}
    Path("params.yaml").write_text(yaml.safe_dump(params))


def run(*args: str, **settings: object) -> dict[str, str]:
    """Run the stages; return the checksum of every file that they wrote."""
    settle(*args, **settings)
    for stage in STAGES:
        run_stage(stage)
    files = [file for folder in WRITTEN for file in Path(folder).rglob("*") if file.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def kept() -> set[Path]:
    return set(PIECES.iterdir())


@pytest.mark.parametrize("split", ["date", "machine"])
def test_the_bytes_are_the_same_with_pieces_without_and_with_some_lost_or_damaged(split, run_first, caplog):
    plain = run_first(split)
    everything, drawn = kept(), np.random.default_rng(7)
    assert run(UNTIL, split, kept=False) == plain
    assert kept() == everything
    assert run(UNTIL, split) == plain
    assert kept() == everything
    for piece in drawn.choice(sorted(everything), 3, replace=False):
        piece.unlink()
    damaged = drawn.choice(sorted(kept()))
    content = bytearray(damaged.read_bytes())
    content[drawn.integers(len(content))] ^= 1 << int(drawn.integers(8))
    damaged.write_bytes(content)
    caplog.clear()
    assert run(UNTIL, split) == plain
    assert [f"{damaged.name} is damaged, and is made again" in message for message in caplog.messages] == [True]
    assert kept() == everything


@pytest.mark.parametrize("rows", [1, 3_000])
def test_the_bytes_are_the_same_however_many_machines_are_built_at_once(rows, run_first, monkeypatch):
    plain = run_first("date")
    monkeypatch.setattr(dataset, "ROWS_AT_ONCE", rows)
    assert run(UNTIL, "date", kept=False) == plain


@pytest.mark.parametrize("split", ["date", "window"])
def test_a_week_later_only_what_the_week_touches_is_made_again(split, run_first, deliver, monkeypatch):
    run_first(split)
    built: list[pl.DataFrame] = []
    build = definition.build_features
    monkeypatch.setattr(dataset, "build_features", lambda *tables: built.append(tables[0]) or build(*tables))
    monkeypatch.delattr(training, "fit")  # no model is fitted
    before = kept()
    deliver(WEEK_LATER)
    run(WEEK_LATER, split)
    assert len(kept() - before) == len(built)  # nothing but the features of each plant's test rows
    assert [rows["plant"][0] for rows in built] == ["lyon", "porto"]
    assert min(rows["time"].min() for rows in built).isoformat() >= "2025-03-13"


@pytest.mark.parametrize("split", ["window", "time"])
def test_a_week_later_the_bytes_are_those_made_without_pieces(split, run_first, deliver):
    run_first(split)
    deliver(WEEK_LATER)
    assert run(WEEK_LATER, split) == run(WEEK_LATER, split, kept=False)


def mend(table: str, **columns: pl.Expr) -> None:
    """Change the first rows of a plant's table, which belong to the training period."""
    file = Path("data/interim") / table / "lyon.parquet"
    rows = pl.read_parquet(file)
    first = pl.int_range(pl.len()) < rows.height // 10 + 1
    rows.with_columns(
        pl.when(first).then(changed).otherwise(name).alias(name) for name, changed in columns.items()
    ).write_parquet(file)


@pytest.mark.parametrize(
    ("table", "changed"),
    [
        ("telemetry", {"current_a": pl.col("current_a") + 1}),
        ("events", {"time": pl.col("time") - pl.duration(hours=1)}),
        ("machines", {"installed": pl.col("installed") - pl.duration(days=1)}),
        ("machines", {"model": pl.lit("another")}),
    ],
)
def test_a_row_mended_in_the_past_is_no_longer_what_was_kept(table, changed, run_first):
    before = run_first("date")
    mend(table, **changed)
    after = run(UNTIL)
    assert after != before
    assert after == run(UNTIL, kept=False)


def test_another_setting_makes_other_pieces_and_no_room_keeps_none(run_first):
    run_first("date")
    first = kept()
    found = run(UNTIL, max_repair_hours=48)
    assert kept() > first
    assert run(UNTIL, max_repair_hours=48, gigabytes=0) == found
    assert kept() == set()
