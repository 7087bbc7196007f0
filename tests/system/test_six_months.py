"""Half a year of continuous training in minutes: killed at random moments and run again, it ends as if undisturbed."""

import json
import os
import random
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import ROOT
from dvc_projects import JOB, attempt, git, job_environment, make_project, run
from git_server import serve_git

from upkeep.production.ledger import as_known, read_ledger
from upkeep.scoring.prediction_log import read_parts

STAGES = ("fetch", "validate", "dataset", "train", "evaluate")
START, TRAINED, MONTHS = date(2025, 1, 6), 19, 6
SEED = 13
KILLED, WITHIN = 0.5, {"retrain": 15.0}
"""The share of steps that are killed, and within how many seconds; all others within three."""


def week(number: int) -> date:
    return START + timedelta(weeks=number)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproduced project of one small plant, and its DVC remote."""
    folder = tmp_path_factory.mktemp("built")
    project = folder / "project"
    (project / "data/references").mkdir(parents=True)
    shutil.copy(ROOT / "data/references/dictionary.yaml", project / "data/references")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    fleet = {"seed": 7, "start": str(START), "plants": {"lyon": 5}, "defects": False}
    params["fetch"] |= {"until": str(week(TRAINED)), "options": fleet}
    params["dataset"] |= {"aggregates": ["mean", "slope"], "windows_hours": [8]}
    params["model"] |= {"compare": []}
    params["evaluate"] |= {"golden": None, "bootstrap": 5, "floors": {"average_precision": 0.0}}
    params["evaluate"]["costs"]["false_alarm"] = 100  # so that there are alarms
    params["retrain"] |= {"new_batches": 8, "max_age_days": 35}  # every other month
    params["drift"] |= {"window_batches": 1, "sample_rows": 200, "max_drifted_share": 0.5}
    params["parallel"] = {"backend": "sequential", "jobs": 1}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        stage["deps"] = [path for path in stage["deps"] if not path.startswith("src/")]
    pipeline = {"stages": {name: stages[name] for name in STAGES}}
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    make_project(project, folder / "store")
    return folder


class Checkout:
    """A checkout whose commands are killed now and then, at moments that `drawn` gives, and then run again."""

    def __init__(self, folder: Path, drawn: random.Random | None) -> None:
        self.folder, self.drawn = folder, drawn

    def step(self, *command: str, ends: tuple[int, ...] = (0,), **variables: str) -> None:
        if self.drawn and self.drawn.random() < KILLED:
            self._kill(self.drawn.uniform(0, WITHIN.get(command[1], 3.0)), command, job_environment(**JOB, **variables))
        done = attempt(self.folder, *command, **JOB, **variables)
        if command[0] == "dvc" and "RWLock-file" in done.stdout:  # docs/operations.md says what to do
            (self.folder / ".dvc/tmp/rwlock").unlink()
            done = attempt(self.folder, *command, **JOB, **variables)
        assert done.returncode in ends, done.stdout
        assert "Traceback" not in done.stdout

    def _kill(self, seconds: float, command: tuple[str, ...], environment: dict[str, str]) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True, **quiet)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        how = "killed" if process.poll() is None else "had ended"
        print(f"{' '.join(command)}: {how} after {seconds:.2f} s")  # noqa: T201  # so that it can be found again
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for lock in (self.folder / ".git").rglob("*.lock"):  # as GitLab's runner does before a job
            lock.unlink()

    def merge(self) -> None:
        """Take the retraining that is offered, as a person does, and go on from there."""
        git(self.folder, "fetch", "--quiet", "--prune", "origin")
        git(self.folder, "checkout", "--quiet", "--force", "main")
        if git(self.folder, "branch", "--remotes", "--list", "origin/retrain"):
            git(self.folder, "merge", "--quiet", "--ff-only", "origin/retrain")
            git(self.folder, "push", "--quiet", "origin", "main", ":retrain")


def require_whole(folder: Path) -> None:
    """Read all files: nothing that was killed while it wrote may have left a part of one under its name."""
    for file in (file for name in ("data", "models", "reports") for file in (folder / name).rglob("*.*")):
        read = {".json": lambda file: json.loads(file.read_text()), ".parquet": pl.read_parquet}.get(file.suffix)
        assert read is None or read(file) is not None


def live(built: Path, folder: Path, drawn: random.Random | None) -> dict[str, Any]:
    """Live through six months and return what is there in the end."""
    for name in ("project", "store"):
        shutil.copytree(built / name, folder / name, symlinks=True)
    checkout = Checkout(folder / "project", drawn)
    (checkout.folder / ".dvc/config.local").write_text(f"['remote \"store\"']\nurl = {folder / 'store'}\n")
    with serve_git(folder, lambda _: True) as server:
        git(checkout.folder, "remote", "add", "origin", server.url)
        git(checkout.folder, "push", "--quiet", "origin", "main")
        for number in range(TRAINED + 5, TRAINED + 5 + 4 * MONTHS, 4):
            checkout.step("upkeep", "retrain", UPKEEP_TODAY=str(week(number)))
            checkout.merge()
            checkout.step("dvc", "repro")
            checkout.step("upkeep", "score", UPKEEP_TODAY=str(week(number) - timedelta(days=1)))
            checkout.step("upkeep", "outcomes")
            checkout.step("upkeep", "monitor", "--as-of", str(week(number)), ends=(0, 1, 69))
            checkout.step("upkeep", "release", "promote", "production", "--tag-only")
        require_whole(checkout.folder)
        assert "up to date" in run(checkout.folder, "dvc", "status")
        assert "in sync" in run(checkout.folder, "dvc", "status", "--cloud")
        predictions = pl.concat(rows for _, rows in read_parts(f"{checkout.folder}/data/prediction_log", START, set()))
        ledger = as_known(read_ledger(f"{checkout.folder}/data/ledger"), datetime(2200, 1, 1, tzinfo=UTC))
        standings = json.loads((checkout.folder / "reports/monitoring/monitoring.json").read_text())["standings"]
        return {
            "commit": server.git("rev-parse", "main^{tree}"),
            "branches": server.git("branch", "--format=%(refname:short)"),
            "releases": server.git("for-each-ref", "refs/tags", "--format=%(refname:short) %(contents)"),
            "predictions": predictions.drop("scored_at", "id").sort("plant", "machine", "time").rows(),
            "ledger": ledger.drop("known_at").rows(named=True),
            "standings": {plant: standing["status"] for plant, standing in standings.items()},
            "failures": pl.read_parquet(checkout.folder / "data/interim/events/lyon.parquet").filter(kind="failure"),
        }


def test_six_months_of_steps_that_are_killed_at_random_end_as_if_they_were_not(built, tmp_path):
    with ThreadPoolExecutor() as both:
        draws = {"undisturbed": None, "killed": random.Random(SEED)}  # noqa: S311  # moments, no secrets
        undisturbed, killed = both.map(lambda name: live(built, tmp_path / name, draws[name]), draws)
    failures = killed.pop("failures").select("machine", "time").rows()
    assert failures == undisturbed.pop("failures").select("machine", "time").rows()
    assert killed == undisturbed
    assert killed["releases"].count("fleet#production#") == 1 + MONTHS // 2  # the first one was there before
    outcomes = [(row["machine"], row["at"]) for row in killed["ledger"] if row["kind"] == "failure"]
    assert sorted(outcomes) == sorted(failures)
    assert {row["kind"] for row in killed["ledger"]} == {"alarm", "failure"}
