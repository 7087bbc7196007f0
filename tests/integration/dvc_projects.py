"""What tests of git and DVC jobs share: commands run as a job runs them, and clones as GitLab's runner makes them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

import upkeep

BIN = Path(sys.executable).parent
USER = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
JOB = {"CI": "true", "CI_DEFAULT_BRANCH": "main"}


def job_environment(**variables: str) -> dict[str, str]:
    """Return what a command finds in its environment: nothing of the caller's own GitLab variables."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "GIT_", "UPKEEP_"))}
    return {**own, "PATH": f"{BIN}:{own['PATH']}", "PYTHONPATH": str(Path(upkeep.__file__).parents[1]), **variables}


def attempt(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command; both streams end in `stdout`, as in a log."""
    return subprocess.run(
        command,
        cwd=folder,
        env=job_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def run(folder: Path, *command: str, **variables: str) -> str:
    """Run a command that must end well and return its log."""
    done = attempt(folder, *command, **variables)
    assert done.returncode == 0, done.stdout
    return done.stdout.rstrip("\n")


def git(folder: Path, *arguments: str) -> str:
    """Run git as a person who works on the project."""
    return run(folder, "git", *USER, *arguments)


def make_project(folder: Path, remote: Path) -> None:
    """Commit what is in `folder` as a DVC project, reproduced, with the folder `remote` as DVC's remote."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    run(folder, "dvc", "remote", "add", "--quiet", "-d", "store", str(remote))
    run(folder, "dvc", "remote", "modify", "store", "verify", "true")
    shutil.copy(ROOT / ".gitignore", folder)
    run(folder, "dvc", "repro")
    run(folder, "dvc", "push", "--run-cache")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "Start")


def job_clone(repository: Path, folder: Path, branch: str = "main") -> Path:
    """Clone as GitLab's runner does: shallow, at a commit rather than on a branch, and without any data."""
    shutil.rmtree(folder, ignore_errors=True)
    git(repository, "clone", "--quiet", "--depth=1", "--branch", branch, repository.as_uri(), str(folder))
    git(folder, "checkout", "--quiet", "--detach")
    return folder


def change(repository: Path, scratch: Path, branch: str, **files: str) -> None:
    """Push a commit to a branch, made on the newest commit of main, as a person would."""
    shutil.rmtree(scratch, ignore_errors=True)
    git(repository, "clone", "--quiet", "--branch=main", repository.as_uri(), str(scratch))
    git(scratch, "checkout", "--quiet", "-B", branch)
    for name, text in files.items():
        (scratch / name).write_text(text, encoding="utf-8")
    git(scratch, "add", ".")
    git(scratch, "commit", "--quiet", "--message", "Change")
    git(scratch, "push", "--quiet", "origin", branch)
