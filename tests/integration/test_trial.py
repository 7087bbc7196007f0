"""Models are asked for an answer in a process of their own before a service or a run relies on them."""

import json
import shutil
import signal

import pytest

from upkeep.core.errors import UpkeepError
from upkeep.model import trial
from upkeep.model.trial import find_faults, load_scorers


@pytest.fixture
def models(trained_fleet, tmp_path):
    return shutil.copytree(trained_fleet / "models/plants", tmp_path / "plants")


def narrow(folder):
    """Take the levels of all sensors but two out of a model: numbers in range that do not fit together."""
    metadata = json.loads((folder / "model.json").read_text())
    conditions = metadata["preparation"]["conditions"]
    conditions["levels"] = [levels[:2] for levels in conditions["levels"]]
    (folder / "model.json").write_text(json.dumps(metadata))


def test_a_model_that_cannot_answer_is_named_and_the_others_are_not(models, monkeypatch):
    narrow(models / "lyon")
    faults = find_faults([models / "lyon", models / "porto"])
    assert list(faults) == [models / "lyon"]
    assert "the model gives no answer: the process ended with 1: ValueError" in str(faults[models / "lyon"])
    monkeypatch.setattr(trial, "find_faults", lambda _: faults)
    with pytest.raises(UpkeepError, match=r"lyon/model\.json"):
        load_scorers(models)


def test_a_model_that_takes_for_ever_is_named(models, monkeypatch):
    monkeypatch.setattr(trial, "START_SECONDS", 0.05)
    monkeypatch.setattr(trial, "MODEL_SECONDS", 0)
    faults = find_faults([models / "lyon"])
    assert "none within 0.05 s" in str(faults[models / "lyon"])


@pytest.mark.parametrize(
    ("ending", "unanswered"),
    [("os._exit(3)", []), ("os._exit(0)", []), ("print('it answers', flush=True); os._exit(3)", ["porto"])],
)
def test_only_a_model_that_gave_no_answer_is_blamed_for_how_the_process_ends(models, monkeypatch, ending, unanswered):
    asked = "answer(int(sys.argv[1]), sys.argv[2:])"
    code = ending if unanswered else f"{asked}; {ending}"
    monkeypatch.setattr(trial, "CODE", trial.CODE.replace(asked, f"import os; {code}"))
    assert list(find_faults([models / "lyon", models / "porto"])) == [models / name for name in unanswered]


def test_a_process_that_ends_well_before_all_have_answered_leaves_nobody_out(models, monkeypatch):
    monkeypatch.setattr(trial, "CODE", "pass")
    assert list(find_faults([models / "lyon", models / "porto"])) == [models / "lyon", models / "porto"]


def test_what_is_damaged_is_told_by_whoever_loads_it_and_asked_again_once_it_is_mended(models, monkeypatch):
    booster = (models / "porto/model.txt").read_bytes()
    (models / "porto/model.txt").unlink()
    assert find_faults([models / "lyon", models / "porto"]) == {}
    with pytest.raises(UpkeepError, match="the booster cannot be read"):
        load_scorers(models)
    (models / "porto/model.txt").write_bytes(booster)
    monkeypatch.setattr(trial, "CODE", "pass")
    assert list(find_faults([models / "porto"])) == [models / "porto"]


def test_models_that_were_asked_early_are_waited_for_and_not_asked_again(models, monkeypatch):
    trial.begin(models)
    monkeypatch.setattr(trial, "_start", None)
    assert list(load_scorers(models)) == ["lyon", "porto"]


def test_a_process_that_nobody_waits_for_ends_by_itself(models, monkeypatch):
    monkeypatch.setattr(trial, "START_SECONDS", -1)
    monkeypatch.setattr(trial, "MODEL_SECONDS", 0.5)
    monkeypatch.setattr(trial, "CODE", trial.CODE + "; import time; time.sleep(60)")
    trial.begin(models)
    (process,) = trial._begun.values()
    assert process.wait(timeout=30) == -signal.SIGALRM
