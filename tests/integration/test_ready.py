"""A branch that loses the DVC remote is no new project."""

import pytest
from dvc_projects import git
from git_server import make_repository

from upkeep.core.errors import UpkeepError
from upkeep.gitlab.readiness import NotReadyError, require

JOB = {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
REMOTE = "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://plants/dvc\n"


@pytest.fixture
def config(tmp_path, monkeypatch):
    """DVC's settings in a checkout whose branch main is pushed with a remote."""
    checkout = tmp_path / "checkout"
    (checkout / ".dvc").mkdir(parents=True)
    (checkout / ".dvc/config").write_text(REMOTE)
    monkeypatch.chdir(checkout)
    git(checkout, "init", "--quiet", "--initial-branch=main")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "Start")
    git(checkout, "remote", "add", "origin", str(make_repository(tmp_path / "origin.git")))
    git(checkout, "push", "--quiet", "origin", "main")
    return checkout / ".dvc/config"


def test_a_branch_that_takes_the_remote_away_is_an_error_that_no_job_allows(config):
    require(["storage"], JOB)
    config.write_text("")
    with pytest.raises(UpkeepError, match=r"this branch changes \.dvc/config, and there is no DVC remote") as caught:
        require(["storage"], JOB)
    assert not isinstance(caught.value, NotReadyError)


def test_a_branch_of_a_project_that_never_had_one_is_only_not_ready(config):
    config.write_text("")
    git(config.parent, "commit", "--quiet", "--all", "--message", "No remote")
    git(config.parent, "push", "--quiet", "origin", "main")
    with pytest.raises(NotReadyError):
        require(["storage"], JOB)
