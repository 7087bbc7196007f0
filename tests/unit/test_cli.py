"""The commands: each stage has one, and starting one does not import the others."""

import subprocess
import sys

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from upkeep import cli

FILES = sorted(file.stem for file in (ROOT / "src/upkeep/stages").glob("[!_]*.py"))


@pytest.mark.parametrize("stage", FILES)
def test_the_command_of_each_file_in_stages_runs_that_stage(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(cli, "run_stage", ran.append)
    monkeypatch.setattr(cli, "stage_times", lambda: {"fetch": 1.5, "train": 20.0})
    done = CliRunner().invoke(cli.app, [stage])
    assert ran == [stage]
    times = "stage  seconds\nfetch      1.5\ntrain     20.0\nall       21.5\n"
    assert done.output == (times if stage == "record" else "")


def test_the_command_line_starts_without_importing_stages_or_slow_libraries() -> None:
    script = "import sys, upkeep.cli; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not [name for name in loaded if name.startswith(("upkeep.stages.", "upkeep.gitlab.", "upkeep.serving."))]
    assert not loaded & {"polars", "lightgbm", "matplotlib", "jinja2", "mlflow"}
