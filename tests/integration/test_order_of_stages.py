"""A stage that is run before those whose output it reads says which one to run."""

import shutil
from contextlib import chdir

import pytest
from conftest import ROOT
from parameters import SHIPPED

from upkeep.cli.stages import run_stage
from upkeep.core.errors import UpkeepError
from upkeep.stages import card

BEFORE = {
    "validate": "dvc repro fetch",
    "dataset": "upkeep validate",
    "train": "upkeep dataset",
    "evaluate": "upkeep train",
    "drift": "upkeep dataset",
    "card": "dvc repro",
    "record": "dvc repro",
}


@pytest.mark.parametrize(("stage", "remedy"), BEFORE.items())
def test_a_stage_without_its_input_names_the_command_that_makes_it(stage, remedy, tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data/references").mkdir(parents=True)
    shutil.copy(ROOT / "data/references/dictionary.yaml", tmp_path / "data/references")
    with chdir(tmp_path), pytest.raises(UpkeepError) as raised:
        run_stage(stage)
    assert remedy in raised.value.remedy


def test_a_card_without_the_interim_data_names_the_stage_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "read_report", lambda _: None)
    with chdir(tmp_path), pytest.raises(UpkeepError) as raised:
        card.run(SHIPPED)
    assert "upkeep validate" in raised.value.remedy
