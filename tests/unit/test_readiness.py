"""What a new project has not got yet is told in plain words; what is set up is left to the job."""

import pytest

from upkeep.cli import main
from upkeep.core.errors import UpkeepError
from upkeep.gitlab import readiness
from upkeep.gitlab.readiness import NotReadyError, require


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of DVC's with no remote; no engine is on PATH."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def remote(folder, url):
    (folder / ".dvc/config").write_text(f"[core]\n    remote = there\n['remote \"there\"']\n    url = {url}\n")


def missing(part, **environment):
    with pytest.raises(NotReadyError) as caught:
        require([part], environment)
    assert caught.value.remedy.startswith("docs/gitlab.md, step ")
    return caught.value.what


def is_ready(part, **environment):
    """Tell that a part is taken for set up, whatever the job will find."""
    return require([part], environment) is None


def test_without_a_remote_there_is_none_yet():
    assert missing("storage") == "there is no DVC remote yet"


def test_a_folder_beside_a_jobs_checkout_is_no_remote_and_elsewhere_it_is(folder):
    remote(folder, "../../storage")
    assert "may go with the job" in missing("storage", CI_BUILDS_DIR=str(folder.parent))
    assert is_ready("storage", CI_BUILDS_DIR=str(folder / "builds"))
    assert is_ready("storage")


def test_a_bucket_is_a_remote_whether_or_not_it_answers(folder):
    remote(folder, "s3://nowhere/dvc")
    assert is_ready("storage", CI_BUILDS_DIR=str(folder.parent))


def test_one_remote_for_all_is_enough_and_what_it_costs_is_told(folder, caplog):
    remote(folder, "s3://nowhere/dvc")
    require(["storage"], {})
    assert "a merge request can plant raw data" in caplog.text
    caplog.clear()
    with (folder / ".dvc/config").open("a") as config:
        config.write("['remote \"merge_requests\"']\n    url = s3://elsewhere/dvc\n")
    require(["storage"], {})
    assert not caplog.text


def program(folder, does):
    (folder / "docker").write_text(f"#!/bin/sh\n{does}\n")
    (folder / "docker").chmod(0o755)


def test_an_engine_is_missing_if_no_program_reaches_one_and_a_named_one_is_for_the_job_to_try(folder):
    assert "neither docker nor podman is on PATH" in missing("engine")
    program(folder, "exit 1")
    assert "docker reaches none" in missing("engine")
    for name in ("UPKEEP_ENGINE", "DOCKER_HOST"):
        assert is_ready("engine", **{name: "tcp://nowhere:2375"})
    program(folder, "exit 0")
    assert is_ready("engine")


def test_an_engine_is_looked_for_in_the_environment_that_was_given(folder):
    program(folder, 'test "$DOCKER_CONTEXT" = runner')
    assert is_ready("engine", DOCKER_CONTEXT="runner")
    assert "docker reaches none" in missing("engine")


def test_an_engine_that_never_answers_is_an_error_of_the_job(folder, monkeypatch):
    monkeypatch.setattr(readiness, "SECONDS", 0.1)
    program(folder, "exec /bin/sleep 5")
    with pytest.raises(UpkeepError, match="docker had no answer in") as caught:
        require(["engine"], {})
    assert not isinstance(caught.value, NotReadyError)


@pytest.mark.parametrize("image", ["", "$CI_REGISTRY_IMAGE"])
def test_a_project_without_a_registry_has_nowhere_to_push_to(image):
    assert "there is no image registry" in missing("registry", UPKEEP_IMAGE=image)
    require(["registry"], {"CI_REGISTRY_IMAGE": "registry.example.com/team/upkeep"})


def test_the_first_part_that_is_missing_is_told():
    with pytest.raises(NotReadyError, match="image registry"):
        require(["registry", "storage"], {})


def test_a_part_that_jobs_do_not_know_is_an_error_of_another_kind():
    with pytest.raises(UpkeepError, match="called oven") as caught:
        require(["oven"], {})
    assert not isinstance(caught.value, NotReadyError)


def test_the_command_ends_with_the_code_that_jobs_allow(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["upkeep", "ready", "storage"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == NotReadyError.code
    assert "error: there is no DVC remote yet" in capsys.readouterr().err
