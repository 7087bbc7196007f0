"""`upkeep rehearse` on a world of one small plant."""

import json
from pathlib import Path

import polars as pl
import pytest

from upkeep.core.params import load_params
from upkeep.rehearsal import rehearse
from upkeep.rehearsal.rehearse import World
from upkeep.rehearsal.run import run

ROOT = Path(__file__).parents[2]


def test_a_rehearsal_writes_what_each_week_cost_and_what_it_comes_to(tmp_path, monkeypatch):
    params = load_params(ROOT / "params.yaml")
    known = params.validate_.model_copy(update={"dictionary": ROOT / params.validate_.dictionary})
    one_core = params.parallel.model_copy(update={"jobs": 1})
    monkeypatch.chdir(tmp_path)
    params = params.model_copy(update={"validate_": known, "parallel": one_core})
    table = run(params, World(1, 6, 24, 3, "none"), 1, ["none"], ["loop"])
    assert table.count("\n") == 1
    weeks = pl.read_csv("reports/rehearsal/weeks.csv")
    assert weeks["week"].to_list() == list(range(1, 25))
    assert weeks.filter(pl.col("reason") != "")["reason"].head(2).to_list() == ["first", "drift"]
    costs = params.evaluate.costs
    worth = pl.col("failures") * costs.failure + pl.col("defects_found") * costs.planned_repair
    assert weeks.filter(worth + pl.col("false_alarms") * costs.false_alarm != pl.col("cost")).is_empty()
    summary = json.loads(Path("reports/rehearsal/summary.json").read_text(encoding="utf-8"))
    assert [row["policy"] for row in summary["policies"]] == ["loop"]
    assert Path("reports/rehearsal/cost.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.delattr(rehearse.Rehearsal, "run")  # what has been rehearsed is not done again
    assert run(params, World(1, 6, 24, 3, "none"), 1, ["none"], ["loop"]) == table
    with pytest.raises(AttributeError):
        run(params, World(1, 6, 24, 4, "none"), 1, ["none"], ["loop"])
