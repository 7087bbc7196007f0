"""The pipeline works with each kind of model that params.yaml offers."""

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import get_args

import pytest
import yaml
from trained_fleet import train_small_fleet

from upkeep.cli.stages import run_stage
from upkeep.core.params import Kind


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet of few features, with all that does not depend on the kind of model."""
    stages = ("fetch", "validate", "dataset")
    folder = train_small_fleet(tmp_path_factory.mktemp("kinds"), stages, aggregates=["mean"], windows_hours=[8])
    with chdir(folder):
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["drift"]["sample_rows"] = 20  # in which no column drifts: the page of one takes seconds
        Path("params.yaml").write_text(yaml.safe_dump(params))
        run_stage("drift")
    return folder


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_is_judged_and_stages_pass_over_what_is_not_saved(kind, fleet, tmp_path, caplog):
    with chdir(shutil.copytree(fleet, tmp_path / "fleet")):
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["model"] |= {"kind": kind, "gaussian_process_rows": 100}
        params["evaluate"]["bootstrap"] = 10
        Path("params.yaml").write_text(yaml.safe_dump(params))
        for stage in ("train", "golden", "evaluate", "card"):
            run_stage(stage)
        evaluation = json.loads(Path("reports/evaluation/evaluation.json").read_text())
        saved = sorted(file.parent.name for file in Path("models/plants").glob("*/model.json"))
        requests = sorted(file.stem for file in Path("models/golden").glob("*.json"))
        card = Path("reports/model_card.md").read_text()
    assert evaluation["overall"]["metrics"]["average_precision"] > 0.2
    assert saved == requests == (["lyon", "porto"] if kind == "lightgbm" else [])
    assert (f"models of kind {kind} are judged, but not saved" in caplog.text) == (kind != "lightgbm")
    assert "lyon" in card
