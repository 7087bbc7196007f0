"""Reproduced means reproduced: a fresh clone ends with every hash as committed."""

import shutil
from pathlib import Path

import pytest
from gitlab_project import run


@pytest.fixture
def clone(reproduced) -> Path:
    return reproduced[0]


def test_a_fresh_clone_reproduces_every_committed_byte(clone, reproduced):
    assert "Running stage 'record'" in reproduced[1]
    assert run(clone, "git", "status", "--porcelain") == ""


def test_a_second_run_does_nothing(clone):
    printed = run(clone, "dvc", "repro")
    assert "Running stage" not in printed
    assert "Data and pipelines are up to date" in printed


def test_the_committed_models_pass_their_golden_cases_and_floors(clone):
    assert "FAILED" not in run(clone, "upkeep", "check")


def test_one_thread_gives_the_same_bytes_as_two(clone):
    shutil.rmtree(clone / ".upkeep/pieces")  # of two threads, which would be read instead of made again
    for stage in ("validate", "dataset", "train", "evaluate", "card"):
        run(clone, "upkeep", stage, POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1")
    assert run(clone, "dvc", "status").strip() == "Data and pipelines are up to date."
