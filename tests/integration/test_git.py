"""Pushes as jobs make them, over HTTP with a token, and to remotes that know nothing of GitLab."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from dvc_projects import git as as_person
from git_server import make_repository, serve_git

from upkeep.core.errors import UpkeepError
from upkeep.releases import git

SECRET = "glpat-correct-horse"
WRONG = "glpat-wrong-horse"


@pytest.fixture
def server(tmp_path):
    with serve_git(tmp_path / "server", SECRET.__eq__) as server:
        yield server


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one commit, which is the working directory."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    as_person(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "dvc.lock").write_text("1\n")
    as_person(folder, "add", ".")
    as_person(folder, "commit", "--quiet", "--message", "Start")
    monkeypatch.chdir(folder)
    return folder


def connect(checkout, server):
    """Set the checkout up as GitLab's runners do: address or helper hold the job's own token, which may not push."""
    as_person(checkout, "remote", "add", "origin", server.url.replace("://", "://gitlab-ci-token:job-token@"))
    as_person(checkout, "config", "credential.helper", "!echo username=gitlab-ci-token; echo password=job-token; :")


def test_the_token_pushes_though_the_checkout_offers_the_jobs_own(checkout, server, monkeypatch):
    connect(checkout, server)
    monkeypatch.setenv(git.TOKEN, SECRET)
    told = git.push("retrain", options=["merge_request.create"], replacing="")
    assert "retrain" in told
    assert SECRET not in told
    assert server.pushes == [{"refs": ["refs/heads/retrain"], "options": ["merge_request.create"]}]
    assert git.tip("retrain") == as_person(checkout, "rev-parse", "HEAD")


def test_the_token_pushes_though_git_rewrites_addresses_with_the_jobs_own(checkout, server, monkeypatch):
    # As GitLab's runner has it since 18.6.
    as_person(checkout, "remote", "add", "origin", server.url)
    host = server.url.rpartition("/")[0]
    as_person(checkout, "config", f"url.{host.replace('://', '://gitlab-ci-token:job-token@')}.insteadOf", host)
    monkeypatch.setenv(git.TOKEN, SECRET)
    git.push("retrain")
    assert server.pushes == [{"refs": ["refs/heads/retrain"], "options": []}]


def test_a_tag_is_pushed_with_the_token_for_tags(checkout, server, monkeypatch):
    connect(checkout, server)
    monkeypatch.setenv(git.TOKEN, WRONG)
    monkeypatch.setenv(git.RELEASE_TOKEN, SECRET)
    made = as_person(checkout, "rev-parse", "HEAD")
    assert git.push_tag("fleet@v1.0.0", made)
    assert git.push_tag("fleet@v1.0.0", made)  # what is there already is no other's
    assert not git.push_tag("fleet@v1.0.0", as_person(checkout, "rev-parse", "HEAD^{tree}"))
    assert server.git("rev-parse", "fleet@v1.0.0") == made


def test_a_private_project_is_read_with_the_jobs_own_token_and_pushed_to_with_ours(checkout, tmp_path, monkeypatch):
    with serve_git(tmp_path / "private", SECRET.__eq__, may_read={"job-token", SECRET}.__contains__) as private:
        connect(checkout, private)
        monkeypatch.setenv(git.TOKEN, SECRET)
        git.push("retrain")
        assert git.fetch("retrain") == git.tip("retrain") == as_person(checkout, "rev-parse", "HEAD")


def test_the_token_is_in_no_file_and_on_no_command_line(checkout, server, monkeypatch):
    connect(checkout, server)
    monkeypatch.setenv(git.TOKEN, SECRET)
    commands = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **how: commands.append(command) or run(command, **how))
    git.push("retrain")
    assert commands
    assert SECRET not in str(commands)
    assert not [file for file in checkout.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("token", "remedy"), [(WRONG, "the scope write_repository and a role"), (None, f"set {git.TOKEN}")]
)
def test_a_push_that_is_refused_names_the_variable_and_shows_no_token(checkout, server, monkeypatch, token, remedy):
    connect(checkout, server)
    if token:
        monkeypatch.setenv(git.TOKEN, token)
    with pytest.raises(
        UpkeepError, match="the branch retrain cannot be pushed: fatal: Authentication failed"
    ) as caught:
        git.push("retrain")
    assert remedy in caught.value.remedy
    assert WRONG not in str(caught.value)
    assert "job-token" not in str(caught.value)


def test_a_bare_repository_on_a_share_that_takes_no_push_options_gets_the_branch(checkout, tmp_path):
    share = make_repository(tmp_path / "share.git")
    as_person(share, "config", "receive.advertisePushOptions", "false")
    as_person(checkout, "remote", "add", "origin", str(share))
    git.push("retrain", options=["merge_request.create"], replacing="")
    assert git.tip("retrain") == as_person(checkout, "rev-parse", "HEAD")


def test_what_a_remote_says_is_shown_without_credentials(checkout, tmp_path):
    share = make_repository(tmp_path / "share.git")
    hook = share / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho error: see https://ada:hunter2@example.com >&2; exit 1\n")
    hook.chmod(0o755)
    as_person(checkout, "remote", "add", "origin", str(share))
    with pytest.raises(UpkeepError, match=r"see https://\*\*\*@example\.com") as caught:
        git.push("retrain")
    assert "hunter2" not in str(caught.value)


def answering(checkout, tmp_path, hook: str, words: str) -> None:
    """Give the checkout a remote whose hook says so."""
    share = make_repository(tmp_path / "share.git")
    (share / "hooks" / hook).write_text(words)
    (share / "hooks" / hook).chmod(0o755)
    as_person(checkout, "remote", "add", "origin", str(share))


def test_push_options_that_gitlab_could_not_follow_are_an_error_though_the_branch_was_taken(checkout, tmp_path):
    words = "Error encountered with push options 'merge_request.target=nowhere': Branch nowhere does not exist"
    answering(
        checkout, tmp_path, "post-receive", f'#!/bin/sh\ncat >/dev/null\necho "    WARNINGS:"\necho "    {words}"\n'
    )
    with pytest.raises(UpkeepError, match=r"retrain was pushed, but GitLab did not do what was asked.* Branch nowhere"):
        git.push("retrain", options=["merge_request.create", "merge_request.target=nowhere"], replacing="")
    assert git.tip("retrain") is not None


def test_a_protected_branch_is_told_in_gitlabs_own_words(checkout, tmp_path):
    words = "GitLab: You are not allowed to force push code to a protected branch on this project."
    answering(checkout, tmp_path, "pre-receive", f"#!/bin/sh\necho '{words}' >&2; exit 1\n")
    with pytest.raises(UpkeepError, match="cannot be pushed: remote: GitLab: You are not allowed to force push"):
        git.push("main")


def test_a_branch_is_replaced_only_if_it_is_what_was_seen(checkout, tmp_path):
    share = make_repository(tmp_path / "share.git")
    as_person(checkout, "remote", "add", "origin", str(share))
    git.push("retrain", replacing="")
    seen = git.tip("retrain")
    as_person(checkout, "commit", "--quiet", "--amend", "--message", "Another")
    with pytest.raises(UpkeepError, match="the branch retrain was changed by someone else meanwhile"):
        git.push("retrain", replacing="")
    git.push("retrain", replacing=seen)
    assert git.tip("retrain") == as_person(checkout, "rev-parse", "HEAD")


def test_what_a_runner_clears_a_merge_request_of_spares_packages_and_runs_that_wait_for_mlflow(checkout):
    kept = [".cache/uv/wheel", ".upkeep/pending/k1/run.json"]
    gone = [".upkeep/failure.json", ".upkeep/stage_times.json", ".venv/bin/python", "data/raw/x.parquet", "new.txt"]
    shutil.copy(ROOT / ".gitignore", checkout)
    for name in [*kept, *gone]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    flags = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())["workflow"]["rules"][0]["variables"][
        "GIT_CLEAN_FLAGS"
    ]
    as_person(checkout, "clean", *flags.split())
    assert [name for name in [*kept, *gone] if (checkout / name).exists()] == kept


def test_a_commit_is_upkeeps_own_and_holds_the_named_files_only(checkout):
    (checkout / "dvc.lock").write_text("2\n")
    (checkout / "notes.txt").write_text("mine\n")
    assert git.changed(["dvc.lock"]) == ["dvc.lock"]
    assert not git.only_ours("-1", "HEAD")
    git.commit("Reproduce", ["dvc.lock"])
    assert git.only_ours("-1", "HEAD")
    assert git.changed(["."]) == ["notes.txt"]


def test_a_file_of_a_commit_is_read_whatever_its_bytes_unless_it_is_too_large(checkout, monkeypatch):
    assert git.read_committed("HEAD", Path("dvc.lock")) == "1"
    (checkout / "dvc.lock").write_bytes(b"\xff\n")
    git.commit("Break it", ["dvc.lock"])
    assert git.read_committed("HEAD", Path("dvc.lock")) == os.fsdecode(b"\xff")
    monkeypatch.setattr(git, "MOST_BYTES", 1)
    with pytest.raises(UpkeepError, match=r"dvc\.lock of the commit HEAD is larger than 1 bytes"):
        git.read_committed("HEAD", Path("dvc.lock"))


def test_a_file_whose_name_is_no_text_is_committed_as_others_are(checkout):
    name = os.fsdecode(b"\xff.txt")
    (checkout / name).touch()
    assert git.changed(["."]) == [name]
    git.commit("Add it", [name])
    assert git.changed(["."]) == []


def test_a_remote_that_does_not_answer_is_told_without_credentials(checkout):
    as_person(checkout, "remote", "add", "origin", "http://ada:hunter2@127.0.0.1:9/upkeep.git")
    with pytest.raises(UpkeepError, match="`git ls-remote` failed: fatal: unable to access") as caught:
        git.tip("main")
    assert "hunter2" not in str(caught.value)
