"""What `upkeep prune` takes out of DVC's cache, and what it leaves, with real git and DVC."""

import re
import shutil
from datetime import date
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from dvc_projects import git, run

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.gitlab import dvc
from upkeep.gitlab.prune import prune

TODAY = date(2025, 3, 31)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A DVC project whose output had three versions: one that git knows, one that nobody needs, and today's."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / paths.PARAMS, paths.PARAMS)
    stage = {"cmd": "cp in out", "deps": ["in"], "outs": ["out"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"copy": stage}}), encoding="utf-8")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    run(tmp_path, "dvc", "init", "--quiet")
    for content in ("committed", "unneeded", "now"):
        Path("in").write_text(content)
        run(tmp_path, "dvc", "repro", "--quiet")
        if content == "committed":
            git(tmp_path, "add", ".")
            git(tmp_path, "commit", "--quiet", "--message", "Start")
    return tmp_path


def cached():
    return {path.read_text() for path in Path(".dvc/cache/files").rglob("*") if path.is_file()}


@pytest.mark.parametrize("kept", ["an experiment", "a commit without a branch"])
def test_the_cache_keeps_what_no_branch_needs_but_git_knows(project, kept):
    now, start = Path("dvc.lock").read_text(), git(project, "rev-parse", "HEAD")
    Path("in").write_text("tried")
    run(project, "dvc", "repro", "--quiet")
    git(project, "commit", "--quiet", "--all", "--message", "Try")
    if kept == "an experiment":
        git(project, "update-ref", f"refs/exps/{start[:2]}/{start[2:]}/try", "HEAD")
    else:
        git(project, "checkout", "--quiet", "--detach")
    git(project, "update-ref", "refs/heads/main", start)
    Path("dvc.lock").write_text(now)
    prune(load_params(), TODAY, None, remove=True)
    assert cached() == {"committed", "tried", "now"}


def test_a_cache_of_which_not_all_that_is_needed_is_known_is_left_alone(project):
    now = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(re.sub(r"(outs:\n    - path: out\n.*\n      md5: )\w+", rf"\g<1>{'0' * 32}.dir", now))
    assert "left alone: the cache lacks what dvc.lock says of out" in prune(load_params(), TODAY, None, remove=True)
    Path("dvc.lock").write_text(now)
    git(project, "stash", "--quiet")
    assert "left alone: DVC does not know what git's stash needs" in prune(load_params(), TODAY, None, remove=True)
    assert cached() == {"committed", "unneeded", "now"}


@pytest.mark.usefixtures("project")
def test_the_cache_keeps_what_the_lock_here_and_branches_need():
    params = load_params()
    assert "in no branch, tag or lock here  1" in prune(params, TODAY, None, remove=False)
    assert cached() == {"committed", "unneeded", "now"}
    prune(params, TODAY, None, remove=True)
    assert cached() == {"committed", "now"}


def test_a_cache_without_a_lock_or_of_other_checkouts_too_is_left_alone(project):
    Path("dvc.lock").rename("lock")
    assert "left alone: dvc.lock lists no output" in prune(load_params(), TODAY, None, remove=True)
    Path("lock").rename("dvc.lock")
    run(project, "dvc", "config", "cache.dir", str(project / "shared"))
    with pytest.raises(UpkeepError, match="not this checkout's own"):
        dvc.list_garbage()
    assert cached() == {"committed", "unneeded", "now"}
