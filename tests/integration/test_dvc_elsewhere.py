"""DVC and make where others have the repository: in a temporary copy, in an archive, without the internet, killed."""

import os
import shutil
from pathlib import Path

import pytest
from dvc_projects import BIN, git, run

from upkeep.gitlab import dvc

ROOT = Path(__file__).parents[2]
STAGE = """
stages:
  one:
    cmd: {command}
    params: [number]
    outs: [one.csv]
plots:
  - Line:
      x: step
      y: {{one.csv: value}}
"""
WRITE = "printf 'step,value\\n1,2\\n2,3\\n' > one.csv"
RECORD = "from upkeep.stages.record import find_checkout; (find_checkout() / 'kept').touch()"


@pytest.fixture
def project(tmp_path):
    """The repository's own DVC and make, and one small stage."""
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".gitignore").write_text("/kept\n/one.csv\n")
    (tmp_path / "params.yaml").write_text("number: 1\n")
    (tmp_path / "dvc.yaml").write_text(STAGE.format(command=WRITE))
    return tmp_path


def test_an_experiment_in_a_temporary_copy_keeps_its_run_in_the_checkout(project):
    (project / "dvc.yaml").write_text(STAGE.format(command=f'{WRITE} && python -c "{RECORD}"'))
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    run(
        project,
        "dvc",
        "exp",
        "run",
        "--temp",
        "-S",
        "number=2",
        GIT_AUTHOR_NAME="Ada",
        GIT_AUTHOR_EMAIL="ada@example.com",
    )
    assert (project / "kept").exists()


def test_an_archive_without_git_is_reproduced_and_its_plots_need_no_other_host(project):
    run(project, "make", "--assume-old=.venv", "repro", GIT_CEILING_DIRECTORIES=str(project.parent))
    assert (project / "dvc.lock").exists()
    run(project, "dvc", "plots", "show")
    page = (project / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "vegaEmbed" in page
    assert "<script src" not in page


def test_what_a_killed_dvc_left_half_written_of_its_locks_stops_no_later_command(project, monkeypatch):
    git(project, "init", "-q")
    (project / ".dvc/tmp").mkdir()
    (project / ".dvc/tmp/rwlock").write_text('{"write": {"/')
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    assert dvc.stale() == ["one"]
    (project / ".dvc/tmp/rwlock").write_text("")
    assert dvc.repro() == ["one"]
