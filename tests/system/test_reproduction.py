"""Reproduced means reproduced: a fresh clone ends with every hash as committed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A fresh clone of what is committed, with no data, no cache and no reports but those in git."""
    folder = tmp_path_factory.mktemp("fresh") / "upkeep"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


def run(clone: Path, *command: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(clone / "src")}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_fresh_clone_reproduces_every_committed_byte(clone):
    printed = run(clone, "dvc", "repro")
    assert "Running stage 'record'" in printed
    assert run(clone, "git", "status", "--porcelain") == ""


def test_a_second_run_does_nothing(clone):
    printed = run(clone, "dvc", "repro")
    assert "Running stage" not in printed
    assert "Data and pipelines are up to date" in printed


def test_the_committed_models_pass_their_golden_cases_and_floors(clone):
    assert "FAILED" not in run(clone, "upkeep", "check")


def test_one_thread_gives_the_same_bytes_as_two(clone):
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(clone / "src")}
    shutil.rmtree(clone / ".upkeep/pieces")  # of two threads, which would be read instead of made again
    for stage in ("validate", "dataset", "train", "evaluate", "card"):
        upkeep = Path(sys.executable).parent / "upkeep"
        subprocess.run([upkeep, stage], cwd=clone, env=environment, check=True, capture_output=True)
    assert run(clone, "dvc", "status").strip() == "Data and pipelines are up to date."
