"""A project in a team's GitLab: this repository with a small fleet, deliveries and DVC remote on a real S3 server.

Only GitLab's REST API is a stand-in (gitlab_stand_in.py). The git server is git's own, and the jobs run for real.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import s3fs
import seaweed
import yaml
from components import clone
from git_server import GitServer
from gitlab_runner import Pipeline, Runner
from gitlab_stand_in import GitLab

from upkeep.gitlab.zones import PROTECTED, SHARED

PLANTS = ("hamburg", "porto")
MACHINES = 6
UNTIL = date(2025, 10, 27)
"""The batch that the project's first models know; with the next one, porto begins to run otherwise."""
WEEK = timedelta(days=7)
LAST = UNTIL + 6 * WEEK
BUCKET, PROPOSED = "plants", "proposed"
"""Of protected pipelines, and of merge requests."""
IN_GITLAB = {"GITLAB_CI": "true", "CI": "true", "CI_COMMIT_REF_PROTECTED": "true"}
TREES = 8
"""LightGBM's, so few that a merge request can improve the model as well as worsen it."""
KEPT_TESTS = ("test_ci_files.py", "test_gate.py", "test_readiness.py")
"""What all tests hold is not what is tested here, and takes minutes."""
SETTINGS = {
    "until": f'"{UNTIL}"',
    "bootstrap": "50",
    "compare": "[]",
    "n_estimators": str(TREES),
    "window_batches": "2",
    "max_drifted_share": "0.5",  # so that one plant drifts, and not two
    "max_quarantined_share": "0.02",
}


@dataclass
class Project:
    """A developer's checkout, and what surrounds it.

    Attributes
    ----------
    settings
        The CI variables that the team has set.
    """

    checkout: Path
    origin: GitServer
    storage: seaweed.Server
    gitlab: GitLab
    runner: Runner
    token: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> s3fs.S3FileSystem:
        return self.storage.files()

    def run(self, *command: str | Path, **variables: str) -> str:
        """Run a command as the developer, who has the environment active."""
        return run(self.checkout, *command, **{**self.keys, **variables})

    @property
    def keys(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": seaweed.KEY, "AWS_SECRET_ACCESS_KEY": seaweed.SECRET}

    def branch(self, name: str, changes: Mapping[str, str], message: str = "Change") -> None:
        """Push a new branch off main with some files' texts changed."""
        self.run("git", "switch", "--quiet", "--discard-changes", "--create", name, "main")
        for file, text in changes.items():
            (self.checkout / file).write_text(text, encoding="utf-8")
        self.push(message)

    def push(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)
        self.run("git", "-c", "credential.helper=", "push", "--quiet", self.address, "HEAD")

    def take_over(self, message: str = "Reproduce") -> None:
        """Commit what the job `reproduce` has made of the branch that is checked out, and push it."""
        self.run("git", "apply", ".gitlab-ci-local/artifacts/reproduce/.upkeep/reproduced.patch")
        self.push(message)

    @property
    def address(self) -> str:
        return self.origin.url.replace("://", f"://developer:{self.token}@")

    def back_to_main(self) -> None:
        self.run("git", "switch", "--quiet", "--discard-changes", "main")

    def params(self, **settings: object) -> str:
        """Return params.yaml with some settings turned, each named by the last part of its name."""
        return turn((self.checkout / "params.yaml").read_text(encoding="utf-8"), settings)

    def deliver(self, batch: date, spoil: pl.Expr | None = None) -> None:
        """Put a week's files where the plants deliver them."""
        for file in sorted((self.checkout.parent / "deliveries").rglob(f"{batch}.parquet")):
            rows = pl.read_parquet(file)
            if spoil is not None and file.parts[-3] == "telemetry":
                rows = rows.with_columns(spoil)
            with self.files.open(f"{BUCKET}/{'/'.join(file.parts[-3:])}", "wb") as target:
                rows.write_parquet(target)

    def pipeline(self, *jobs: str, manual: tuple[str, ...] = (), **variables: str | None) -> Pipeline:
        hidden = PROTECTED - SHARED if "CI_MERGE_REQUEST_IID" in variables else ()  # as GitLab does with protected ones
        return self.runner.run(
            self.checkout,
            *jobs,
            settings={name: value for name, value in self.settings.items() if name not in hidden},
            manual=manual,
            **{**IN_GITLAB, **variables},
        )

    def merge_request(self, branch: str, *jobs: str, **variables: str | None) -> Pipeline:
        """Run the pipeline of a merge request from the branch that is checked out."""
        number = self.gitlab.add_merge_request(branch)
        return self.pipeline(*jobs, **of_merge_request(branch, number), **variables)

    def schedule(self, today: date, job: str = "retrain", **variables: str | None) -> Pipeline:
        """Run a job of the schedule's pipeline in a clone, as a runner does; jobs at once would share its checkout."""
        clone = Path(tempfile.mkdtemp(dir=self.checkout.parent)) / "upkeep"
        self.run("git", "clone", "--quiet", self.origin.url, clone)
        os.utime(self.settings["UPKEEP_VENV"])  # newer than the clone's lock, or the job would install it there
        variables = {"CI_PIPELINE_SOURCE": "schedule", "UPKEEP_TODAY": str(today), **IN_GITLAB, **variables}
        return self.runner.run(clone, job, settings=self.settings, isolated=False, **variables)


def of_merge_request(branch: str, number: int) -> dict[str, str | None]:
    """Return what GitLab sets in the jobs of a merge request, and nowhere else."""
    return {
        "CI_PIPELINE_SOURCE": "merge_request_event",
        "CI_COMMIT_BRANCH": None,
        "CI_COMMIT_REF_PROTECTED": "false",
        "CI_MERGE_REQUEST_IID": str(number),
        "CI_MERGE_REQUEST_EVENT_TYPE": "detached",
        "CI_MERGE_REQUEST_PROJECT_ID": "1",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "1",
        "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": branch,
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
    }


def run(folder: Path, *command: str | Path, **variables: str) -> str:
    """Run a command that must succeed, with this environment's programs and the folder's own code."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src"), **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def turn(text: str, settings: Mapping[str, object]) -> str:
    for setting, value in settings.items():
        text, found = re.subn(rf"^( +{setting}:).*$", rf"\1 {value}", text, count=1, flags=re.MULTILINE)
        assert found, f"params.yaml has no {setting}"
    return text


def make_project(folder: Path, origin: GitServer, storage: seaweed.Server, gitlab: GitLab, runner: Runner) -> Project:
    """Set a project up as docs/gitlab.md says, and push its first models."""
    checkout = folder / "upkeep"
    clone(checkout)
    token = gitlab.add_token("api", "write_repository")
    project = Project(checkout, origin, storage, gitlab, runner, token)
    _simulate(project, folder)
    _point_at_storage(project)
    for file in sorted((checkout / "tests").rglob("test_*.py")):
        if file.name not in KEPT_TESTS:
            file.unlink()
    for name, value in (("user.name", "Developer"), ("user.email", "developer@example.com")):
        project.run("git", "config", name, value)
    project.run("git", "remote", "set-url", "origin", origin.url)
    project.run("git", "switch", "--quiet", "--force-create", "main")
    project.run("dvc", "repro", "--quiet")
    project.run("dvc", "push", "--quiet", "--run-cache")
    project.push("Set the project up")
    project.run("git", "fetch", "--quiet")
    project.run("git", "remote", "set-head", "origin", "main")
    return project


def _simulate(project: Project, folder: Path) -> None:
    """Have the simulator write deliveries, of which the plants have made those up to UNTIL."""
    fleet = "\n".join(f"      {plant}: {MACHINES}" for plant in PLANTS)
    settings = turn(project.params(), {**SETTINGS, "until": f'"{LAST}"'})
    settings = re.sub(r"(?<=    plants:)(.*\n)(?:      \w+: \d+\n)+", rf"\1{fleet}\n", settings)
    scratch = folder / "scratch"
    shutil.copytree(project.checkout / "src", scratch / "src")
    (scratch / "params.yaml").write_text(settings, encoding="utf-8")
    run(scratch, "upkeep", "fetch")
    shutil.move(scratch / "data/raw", folder / "deliveries")
    if not project.files.exists(BUCKET):
        project.files.mkdir(BUCKET)
    for part in sorted({file.parent for file in (folder / "deliveries").rglob("*.parquet")}):
        known = [pl.read_parquet(file) for file in sorted(part.glob("*.parquet")) if file.stem <= str(UNTIL)]
        with project.files.open(f"{BUCKET}/{part.parts[-2]}/{part.name}/history.parquet", "wb") as target:
            pl.concat(known, how="diagonal_relaxed").write_parquet(target)


def _point_at_storage(project: Project) -> None:
    storage = {"key": "$AWS_ACCESS_KEY_ID", "secret": "$AWS_SECRET_ACCESS_KEY"}
    storage |= {"client_kwargs": {"endpoint_url": project.storage.url}}
    tables = ("telemetry", "events", "machines")
    options = {
        table: {"path": f"s3://{BUCKET}/{table}/{{plant}}/*.parquet", "storage_options": storage} for table in tables
    }
    settings = turn(project.params(), SETTINGS).replace("source: simulator", "source: files")
    block = yaml.safe_dump({"options": options}, default_flow_style=None, width=200)
    settings = re.sub(r"^  options:.*?\n\n", f"{_indented(block)}\n", settings, count=1, flags=re.MULTILINE | re.DOTALL)
    (project.checkout / "params.yaml").write_text(settings, encoding="utf-8")
    project.run("dvc", "remote", "add", "--default", "storage", f"s3://{BUCKET}/dvc")
    project.run("dvc", "remote", "add", "merge_requests", f"s3://{PROPOSED}/dvc")
    project.files.mkdir(PROPOSED)
    for remote in ("storage", "merge_requests"):
        project.run("dvc", "remote", "modify", remote, "endpointurl", project.storage.url)
        project.run("dvc", "remote", "modify", remote, "verify", "true")


def _indented(block: str) -> str:
    return "".join(f"  {line}\n" for line in block.splitlines())
