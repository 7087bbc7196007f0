"""The pipeline works with each kind of model that params.yaml offers."""

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import get_args

import pytest
import yaml

from upkeep.cli import run_stage
from upkeep.core.params import Kind

STAGES = ("train", "golden", "evaluate", "drift", "card")


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_is_judged_and_stages_pass_over_what_is_not_saved(kind, trained_fleet, tmp_path, caplog):
    folder = tmp_path / "fleet"
    shutil.copytree(trained_fleet, folder)
    with chdir(folder):
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["model"] |= {"kind": kind, "gaussian_process_rows": 100}
        Path("params.yaml").write_text(yaml.safe_dump(params))
        for stage in STAGES:
            run_stage(stage)
        evaluation = json.loads(Path("reports/evaluation/evaluation.json").read_text())
        saved = sorted(file.parent.name for file in Path("models/plants").glob("*/model.json"))
        requests = sorted(file.stem for file in Path("models/golden").glob("*.json"))
        card = Path("reports/model_card.md").read_text()
    assert evaluation["overall"]["metrics"]["average_precision"] > 0.2
    assert saved == requests == (["lyon", "porto"] if kind == "lightgbm" else [])
    assert (f"models of kind {kind} are judged, but not saved" in caplog.text) == (kind != "lightgbm")
    assert "lyon" in card
