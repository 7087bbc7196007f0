"""The commands: each stage has one, and starting one does not import the others."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from upkeep import cli
from upkeep.core.errors import UpkeepError

FILES = sorted(file.stem for file in (ROOT / "src/upkeep/stages").glob("[!_]*.py"))


@pytest.mark.parametrize("stage", FILES)
def test_the_command_of_each_file_in_stages_runs_that_stage(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(cli.stages, "run_stage", ran.append)
    monkeypatch.setattr(cli.stages, "stage_times", lambda: {"fetch": 1.5, "train": 20.0})
    done = CliRunner().invoke(cli.app, [stage])
    assert ran == [stage]
    times = "stage  seconds\nfetch      1.5\ntrain     20.0\nall       21.5\n"
    assert done.output == (times if stage == "record" else "")


@pytest.mark.parametrize(("typed", "meant"), [(["fetch", "--agian"], "--again"), (["fetc"], "fetch")])
def test_a_misspelt_option_or_command_is_told_which_one_was_meant(typed: list[str], meant: str) -> None:
    done = CliRunner().invoke(cli.app, typed)
    assert done.exit_code == 2
    assert meant in done.output


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
@pytest.mark.parametrize(
    "typed",
    [
        ["fetch", "--batch"],
        ["score", "--until"],
        ["outcomes", "--as-of"],
        ["monitor", "--as-of"],
        ["retrain", "--as-of"],
    ],
)
def test_a_day_at_the_end_of_the_calendar_is_refused(typed: list[str], day: str) -> None:
    done = CliRunner().invoke(cli.app, [*typed, day])
    assert done.exit_code == 2
    assert "1900" in done.output


def test_the_clock_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upkeep.gitlab.retraining.retrain", lambda today, _: f"today is {today}")
    done = CliRunner().invoke(cli.app, ["retrain"], env={"UPKEEP_TODAY": "2025-12-29"})
    assert done.output == "today is 2025-12-29\n"


@pytest.mark.parametrize("command", ["monitor", "retrain", "score"])
@pytest.mark.parametrize("text", ["tomorrow", "29.12.2025", "0001-01-01"])
def test_a_clock_that_says_nonsense_is_refused(command: str, text: str) -> None:
    done = CliRunner().invoke(cli.app, [command], env={"UPKEEP_TODAY": text})
    assert done.exit_code == 2
    assert "UPKEEP_TODAY" in done.output


def test_a_notebook_that_is_not_there_is_told_how_to_make_it(tmp_path: Path) -> None:
    from upkeep.reporting.notebooks import settings_of

    with pytest.raises(UpkeepError, match="there is no such notebook") as caught:
        settings_of(tmp_path / "03_x.ipynb")
    assert "upkeep notebook add" in caught.value.remedy


def test_the_command_line_starts_without_importing_stages_or_slow_libraries() -> None:
    script = "import sys, upkeep.cli; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not [name for name in loaded if name.startswith(("upkeep.stages.", "upkeep.gitlab.", "upkeep.serving."))]
    assert not loaded & {"numpy", "polars", "lightgbm", "matplotlib", "jinja2", "mlflow"}


def test_a_file_that_stands_in_the_way_of_a_folder_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", lambda: Path("data/raw").mkdir())
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert said.startswith("error: [Errno 20] Not a directory: 'data/raw'\n  remedy:")
    assert "Traceback" not in said
