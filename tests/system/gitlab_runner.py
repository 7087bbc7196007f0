"""GitLab's jobs on this machine: gitlab-ci-local, which reads .gitlab-ci.yml and runs its jobs as a runner does."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

PACKAGES = ("node@22.23.3", "gitlab-ci-local@4.75.1")
PREDEFINED = (
    *("CI_PIPELINE_SOURCE", "CI_COMMIT_BRANCH", "CI_COMMIT_TAG", "CI_DEFAULT_BRANCH", "CI_SERVER_URL", "CI_PROJECT_ID"),
    *("CI_BUILDS_DIR", "CI_COMMIT_REF_PROTECTED"),
    *("CI_MERGE_REQUEST_IID", "CI_JOB_URL", "GITLAB_CI", "CI"),
)
"""Variables of GitLab's that the tests set in its place; the runner would warn of each."""


class Pipeline(NamedTuple):
    """A pipeline that has run.

    Attributes
    ----------
    passed
        Whether no job failed that may not.
    text
        What the runner printed.
    logs
        What each job printed, by its name.
    """

    passed: bool
    text: str
    logs: dict[str, str]

    def state(self, job: str) -> str:
        """Return PASS, FAIL, WARN, or an empty text if the job did not run."""
        found = re.search(rf"^ (PASS|FAIL|WARN) +{re.escape(job)}(?: .*)?$", self.text, re.MULTILINE)
        return found[1] if found else ""


class Runner(NamedTuple):
    """The programs node, npm's kind of it and gitlab-ci-local, in a folder of their own."""

    folder: Path

    def command(self, checkout: Path, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        """Run gitlab-ci-local in a checkout; a variable that is None is not set at all."""
        given = [f"--unset-variable={name}" for name, value in variables.items() if value is None]
        given += [f"--variable={name}={value}" for name, value in variables.items() if value is not None]
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "UPKEEP_FORBID_SKIPS")}
        path = os.pathsep.join([str(self.folder / "node_modules/.bin"), os.environ["PATH"]])
        environment = {**kept, "PATH": path, "NO_COLOR": "1", "GCL_IGNORE_PREDEFINED_VARS": ",".join(PREDEFINED)}
        command = ["gitlab-ci-local", *arguments, *given]
        return subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=900
        )

    def jobs(self, checkout: Path, **variables: str | None) -> dict[str, str]:
        """Return when each job of a pipeline runs, by its name."""
        listed = self.command(checkout, "--list-csv", **variables)
        assert listed.returncode == 0, listed.stderr
        rows = [line.split(";") for line in listed.stdout.splitlines() if ";" in line]
        titles, *rows = rows
        return {row[titles.index("name")]: row[titles.index("when")] for row in rows}

    def run(
        self,
        checkout: Path,
        *jobs: str,
        settings: Mapping[str, Any],
        manual: tuple[str, ...] = (),
        isolated: bool = True,
        **variables: str | None,
    ) -> Pipeline:
        """Run a pipeline, or only some of its jobs with what they need.

        Parameters
        ----------
        settings
            The project's CI variables: texts, or what gitlab-ci-local describes, for files and environments.
        manual
            Jobs whose button is pressed.
        isolated
            Each job in a folder of its own. Between a job's script and its after_script, the runner clears such a
            folder of all that git does not track; GitLab does not. A pipeline of one job may use the checkout itself.
        """
        file = checkout / ".git/ci-variables.yml"  # not in the tree, where it would look like a change
        # A plain text that is a path would become a variable of type file.
        typed = {
            name: {"type": "variable", "values": {"*": value}} if isinstance(value, str) else value
            for name, value in settings.items()
        }
        file.write_text(yaml.safe_dump(typed), encoding="utf-8")
        options = ["--force-shell-executor", "--no-artifacts-to-source", "--variables-file=.git/ci-variables.yml"]
        options += ["--shell-isolation"] * isolated
        options += [part for job in manual for part in ("--manual", job)]
        done = self.command(checkout, *jobs, *(["--needs"] if jobs else []), *options, **variables)
        logs = {name: _read_log(checkout, name) for name in re.findall(r"^(.+?) +starting shell", done.stdout, re.M)}
        # Its exit code is 0 if a job that may end with some codes ends with another; its summary knows better.
        failed = done.returncode or re.search(r"^ FAIL ", done.stdout, re.MULTILINE)
        return Pipeline(not failed, done.stdout + done.stderr, logs)


def _read_log(checkout: Path, job: str) -> str:
    """Return a job's log, whose file's name has everything but letters, digits and dashes encoded."""
    encoded = re.sub(r"[^\w-]+", lambda part: urlsafe_b64encode(part[0].encode()).decode().rstrip("="), job)
    return (checkout / f".gitlab-ci-local/output/{encoded}.log").read_text(encoding="utf-8")


def install_runner() -> Runner:
    """Return the runner, installed from npm's registry once a machine; skip where that cannot be."""
    if missing := [program for program in ("npm", "rsync") if not shutil.which(program)]:
        pytest.skip(f"needs {' and '.join(missing)}: gitlab-ci-local comes from npm and copies with rsync")
    versions = "-".join(package.rpartition("@")[2] for package in PACKAGES)
    folder = Path(tempfile.gettempdir()) / f"upkeep-gitlab-ci-local-{versions}"
    if not (folder / "node_modules/.bin/gitlab-ci-local").exists():
        part = Path(tempfile.mkdtemp(prefix="upkeep-npm-"))
        install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", part, *PACKAGES]
        done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            pytest.skip(f"needs npm's registry, for {' and '.join(PACKAGES)}: {done.stderr.strip().splitlines()[-1]}")
        try:
            part.rename(folder)
        except OSError:  # another run's is there by now
            shutil.rmtree(part)
    assert folder.stat().st_uid == os.geteuid(), f"{folder} belongs to someone else"
    return Runner(folder)


def ready_environment(folder: Path) -> Path:
    """Return the environment that runs the tests as one that jobs may link, newer than the locks made before it."""
    folder.mkdir()
    for part in Path(sys.prefix).glob("[!.]*"):
        (folder / part.name).symlink_to(part)
    return folder
