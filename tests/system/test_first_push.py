"""A project's first push and merge request, before anybody has set a variable: green, or a reason in plain words."""

from pathlib import Path

import components
import pytest
from git_server import make_repository
from gitlab_project import IN_GITLAB, KEPT_TESTS, of_merge_request, run
from gitlab_runner import Pipeline, Runner, install_runner, ready_environment

ADDRESS = "https://gitlab.example.com/team/upkeep.git"
STORAGE = "there is no DVC remote yet"
STEP = "docs/gitlab.md, step 2; this job has nothing to do until then"


@pytest.fixture(scope="module")
def runner() -> Runner:
    return install_runner()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A clone as it is pushed, with few of its tests."""
    checkout: Path = tmp_path_factory.mktemp("first") / "upkeep"
    components.clone(checkout)
    for file in sorted((checkout / "tests").rglob("test_*.py")):
        if file.name not in KEPT_TESTS:
            file.unlink()
    run(checkout, "git", "remote", "set-url", "origin", ADDRESS)
    run(checkout, "git", "add", "--all")
    developer = ("-c", "user.name=Developer", "-c", "user.email=developer@example.com")
    run(checkout, "git", *developer, "commit", "--quiet", "--allow-empty", "--message", "Start")
    pushed = make_repository(checkout.parent / "origin.git")
    run(checkout, "git", "config", f"url.{pushed}.insteadOf", ADDRESS)
    run(checkout, "git", "push", "--quiet", "origin", "HEAD:main")
    return checkout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    return ready_environment(tmp_path_factory.mktemp("ready") / "environment")


def push(runner: Runner, checkout: Path, environment: Path, *jobs: str, **variables: str | None) -> Pipeline:
    """Run jobs with what GitLab sets, and an environment only so that this does not take an hour."""
    settings = {"UPKEEP_VENV": str(environment), "UV_CACHE_DIR": str(Path.home() / ".cache/uv")}
    builds = {"CI_BUILDS_DIR": str(checkout), "CI_REGISTRY_IMAGE": None, "CI_DEFAULT_BRANCH": "main"}
    return runner.run(checkout, *jobs, settings=settings, **{**IN_GITLAB, **builds, **variables})


def test_the_first_push_is_green_and_says_what_is_not_set_up_yet(runner, project, environment):
    waiting = ("reproduce", "publish", "pages")
    done = push(runner, project, environment, "fresh", *waiting, CI_COMMIT_BRANCH="main")
    assert done.passed, done.text
    assert {job: done.state(job) for job in done.logs} == {"fresh": "PASS", **dict.fromkeys(waiting, "WARN")}
    for job in waiting:
        assert STORAGE in done.logs[job]
        assert STEP in done.logs[job]


def test_the_first_merge_request_is_tested_and_the_rest_waits_for_a_remote(runner, project, environment):
    jobs = ("test: [3.11]", "reproduce", "report", "build")
    done = push(runner, project, environment, *jobs, **of_merge_request("first", 1))
    assert done.passed, done.text
    assert {job: done.state(job) for job in jobs} == dict.fromkeys(jobs, "WARN") | {jobs[0]: "PASS"}
    assert all(STORAGE in done.logs[job] for job in jobs[1:])


@pytest.mark.parametrize(
    ("variables", "left"),
    [
        ({"CI_COMMIT_BRANCH": "main"}, {"fresh", "reproduce", "pages"}),
        (of_merge_request("first", 1), {"lint", "test: [3.11]", "test: [3.12]", "test: [3.13]", "reproduce", "report"}),
        (
            {"CI_COMMIT_BRANCH": None, "CI_COMMIT_TAG": "v1.0.0"},
            {"fresh", "reproduce", "test: [3.11]", "test: [3.12]", "test: [3.13]", "release"},
        ),
    ],
)
def test_a_team_that_cannot_build_has_no_job_that_builds_or_deploys(runner, project, variables, left):
    jobs = runner.jobs(project, UPKEEP_BUILD="false", CI_DEFAULT_BRANCH="main", **variables)
    assert {job for job in jobs if not job.startswith("doctor")} == left
