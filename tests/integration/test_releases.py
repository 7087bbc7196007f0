"""Releases on real git: clones of one bare repository, who promote, roll back and race each other."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import ROOT
from dvc_projects import git
from gitlab_stand_in import serving_gitlab

from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.gitlab.deployment import Order, promote, roll_back
from upkeep.gitlab.project_checks import push_tags
from upkeep.gitlab.readiness import NotReadyError
from upkeep.releases import tags
from upkeep.releases.git import push_tag
from upkeep.releases.git import run as run_git
from upkeep.releases.history import find_release, list_releases, tabulate_releases

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
PROTECTED = "GitLab: You are not allowed to create this tag as it is protected."
CI = {"GITLAB_USER_NAME": "Ada", "GITLAB_USER_EMAIL": "ada@example.com"}


def image(number: int) -> str:
    return f"registry.example.com/upkeep@sha256:{number:064x}"


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A project of two commits on main, and one that nobody has merged, in a bare repository."""
    folder = tmp_path_factory.mktemp("origin")
    work = folder / "work"
    (work / "reports").mkdir(parents=True)
    (work / "deploy").mkdir()
    shutil.copy(ROOT / "params.yaml", work)
    (work / "dvc.lock").touch()
    counts = dict.fromkeys(("rows", "machines", "positives", "failures"), 10)
    figures = {**counts, "average_precision": 0.61, "failures_caught": 0.85}
    (work / "reports/metrics.json").write_text(json.dumps({"overall": figures, "plants": {}}))
    (work / "reports/experiments.csv").write_text("run,model\nk1,upkeep\n")
    ship = work / "deploy/ship.sh"
    ship.write_text('#!/bin/sh\ntest -z "$SERVER_IS_DOWN" || exit 1\necho "$@" >>.git/shipped\n')
    ship.chmod(0o755)
    git(work, "init", "--quiet", "--initial-branch=main")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "--message", "Start")
    git(work, "commit", "--quiet", "--allow-empty", "--message", "Retrain up to 2025-12-22")
    git(work, "switch", "--quiet", "--create", "feature")
    git(work, "commit", "--quiet", "--allow-empty", "--message", "Try something")
    git(folder, "clone", "--quiet", "--bare", str(work), "bare.git")
    return folder / "bare.git"


@pytest.fixture
def remote(origin, tmp_path):
    return shutil.copytree(origin, tmp_path / "remote.git")


@pytest.fixture(autouse=True)
def checkout(remote, tmp_path, monkeypatch):
    """A clone at the second commit, which is the working directory."""
    folder = clone(remote, tmp_path / "checkout")
    monkeypatch.chdir(folder)
    return folder


def clone(remote: Path, folder: Path) -> Path:
    git(remote.parent, "clone", "--quiet", "--branch=main", str(remote), str(folder))
    return folder


def at(revision: str, checkout: Path) -> None:
    git(checkout, "checkout", "--quiet", "--detach", revision)


def take(stage: str, number: int, hour: int = 0, **asked: str) -> str:
    order = Order(stage, NOW + timedelta(hours=hour), asked.get("why", ""))
    return promote(order, image(number), "", load_params(), CI)


def back(stage: str, version: str = "", hour: int = 0) -> str:
    return roll_back(Order(stage, NOW + timedelta(hours=hour)), version, CI)


def shipped(checkout: Path) -> list[str]:
    log = checkout / ".git/shipped"
    return log.read_text().splitlines() if log.exists() else []


def remote_tags(remote: Path) -> list[str]:
    return git(remote, "tag", "--list", "fleet*").splitlines()


def test_a_promotion_ships_the_image_and_then_tells_everybody_who_and_why(checkout, remote):
    assert take("staging", 1) == "staging has v1.0.0, as fleet#staging#1"
    assert take("production", 1, hour=1) == "production has v1.0.0, as fleet#production#2"
    assert shipped(checkout) == [f"update {image(1)}"] * 2
    assert remote_tags(remote) == ["fleet#production#2", "fleet#staging#1", "fleet@v1.0.0"]
    live = find_release(list_releases(), "production")
    assert (live.version, live.commit, live.stage) == ("v1.0.0", git(checkout, "rev-parse", "HEAD"), "production")
    assert (live.at, live.image, live.until) == (NOW + timedelta(hours=1), image(1), "2025-12-22")
    assert (live.by, live.why, live.action) == ("Ada <ada@example.com>", "Retrain up to 2025-12-22", "promote")
    assert live.verdict == "average_precision 0.61, floor 0.5; failures_caught 0.85, floor 0.6"


def test_gto_and_dvc_read_the_same_out_of_the_tags(checkout):
    from dvc.repo import Repo
    from gto.api import show

    for number, revision in ((1, "main~1"), (2, "main")):
        at(revision, checkout)
        take("staging", number, hour=number)
        take("production", number, hour=number)
    back("production", hour=3)
    versions = {each["version"]: [stage["stage"] for stage in each["stages"]] for each in show(".", "fleet")}
    assert versions == {"v1.0.0": ["production"], "v2.0.0": ["staging"]}
    assert show(".", "fleet@latest")[0]["version"] == "v2.0.0"
    artifacts = Repo.init(".", no_scm=False).artifacts
    assert artifacts.get_rev("fleet", stage="production") == git(checkout, "rev-parse", "main~1")
    assert artifacts.get_rev("fleet", stage="staging") == git(checkout, "rev-parse", "main")


def test_rollbacks_go_back_one_by_one_and_ship_what_the_history_says(checkout):
    for number, revision in ((1, "main~1"), (2, "main")):
        at(revision, checkout)
        take("production", number, hour=number)
    assert back("production", hour=3) == "production has v1.0.0, as fleet#production#3"
    assert shipped(checkout)[-1] == f"update {image(1)}"
    with pytest.raises(UpkeepError, match="production has had no release before the live one"):
        back("production", hour=4)
    assert back("production", "v2.0.0", hour=5) == "production has v2.0.0, as fleet#production#4"
    rows = [line.split()[:7] for line in tabulate_releases(list_releases()).splitlines()]
    assert rows[1:] == [
        ["production", "2026-01-05", "14:00", "now", "v2.0.0", "2025-12-22", "0" * 12],
        ["production", "2026-01-05", "12:00", "2026-01-05", "14:00", "v1.0.0", "2025-12-22"],
        ["production", "2026-01-05", "11:00", "2026-01-05", "12:00", "v2.0.0", "2025-12-22"],
        ["production", "2026-01-05", "10:00", "2026-01-05", "11:00", "v1.0.0", "2025-12-22"],
    ]


@pytest.mark.parametrize("version", ["v1.0.0", "v9.0.0"])
def test_a_rollback_to_what_is_live_or_never_was_ships_nothing(checkout, version):
    take("production", 1)
    take("staging", 1)
    with pytest.raises(UpkeepError, match=r"v1.0.0 is live in production|there is no release called v9.0.0"):
        back("production", version)
    assert len(shipped(checkout)) == 2


def test_a_job_that_is_run_again_notes_nothing_twice(remote):
    assert take("production", 1) == take("production", 1, hour=1)
    assert remote_tags(remote) == ["fleet#production#1", "fleet@v1.0.0"]


def test_what_the_server_refuses_is_not_noted(remote, monkeypatch):
    monkeypatch.setenv("SERVER_IS_DOWN", "1")
    with pytest.raises(UpkeepError, match=r"was not shipped: v1\.0\.0 is not noted as production's"):
        take("production", 1)
    assert remote_tags(remote) == ["fleet@v1.0.0"]


@pytest.mark.parametrize(
    ("number", "revision", "what"), [(1, "origin/feature", "is not on the branch main"), (-1, "main", "the image is")]
)
def test_what_may_not_be_promoted_is_neither_shipped_nor_noted(checkout, remote, number, revision, what):
    at(revision, checkout)
    with pytest.raises(UpkeepError, match=what):
        take("production", number)
    assert (shipped(checkout), remote_tags(remote)) == ([], [])


def test_what_differs_from_the_commit_is_not_promoted(checkout, remote):
    (checkout / "dvc.lock").write_text("other models\n")
    with pytest.raises(UpkeepError, match=r"dvc\.lock differ from the newest commit"):
        take("production", 1)
    assert (shipped(checkout), remote_tags(remote)) == ([], [])


def test_a_token_that_may_make_no_protected_tags_is_found_out_before_anything_is_shipped(checkout, remote):
    hook = remote / "hooks/pre-receive"
    hook.write_text(f"#!/bin/sh\necho '{PROTECTED}' >&2; exit 1\n")
    hook.chmod(0o755)
    with pytest.raises(
        UpkeepError, match=r"tag fleet@v1\.0\.0 cannot be pushed: remote: GitLab: You are not"
    ) as caught:
        take("production", 1)
    assert "UPKEEP_RELEASE_TOKEN" in caught.value.remedy
    assert (shipped(checkout), list_releases()) == ([], [])


def test_a_history_that_cannot_be_written_after_shipping_says_what_runs_and_takes_the_note_later(remote):
    take("staging", 1)
    hook = remote / "hooks/update"
    hook.write_text(f"#!/bin/sh\necho '{PROTECTED}' >&2; exit 1\n")
    hook.chmod(0o755)
    with pytest.raises(UpkeepError, match="was shipped to production, but that is not noted"):
        take("production", 1)
    hook.unlink()
    assert take("production", 1) == "production has v1.0.0, as fleet#production#2"


def test_of_two_clones_that_take_the_same_number_the_second_gets_the_next(remote, tmp_path, monkeypatch):
    other = clone(remote, tmp_path / "other")
    at("main~1", other)
    pushes = []

    def be_late(tag: str, made: str, **how: bool) -> bool:
        pushes.append(tag)
        monkeypatch.setattr(tags.git, "push_tag", push_tag)
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir(other)
            take("production", 2)
        return push_tag(tag, made, **how)

    monkeypatch.setattr(tags.git, "push_tag", be_late)
    assert take("production", 1) == "production has v2.0.0, as fleet#production#2"
    assert pushes == ["fleet@v1.0.0"]
    assert [(each.tag, each.image) for each in list_releases()] == [
        ("fleet@v1.0.0", image(2)),
        ("fleet#production#1", image(2)),
        ("fleet@v2.0.0", image(1)),
        ("fleet#production#2", image(1)),
    ]


def test_who_is_never_the_first_gives_up(monkeypatch):
    asked = []
    monkeypatch.setattr(tags.git, "push_tag", lambda tag, _: asked.append(tag) is not None)
    with pytest.raises(UpkeepError, match="5 times in a row somebody else was first"):
        take("production", 1)
    assert len(asked) == tags.ATTEMPTS


def test_a_clock_that_is_behind_puts_nothing_before_what_was(checkout):
    take("production", 1)
    at("main~1", checkout)
    take("production", 2, hour=-5)
    assert [each.version for each in list_releases() if each.stage] == ["v1.0.0", "v2.0.0"]
    assert find_release(list_releases(), "production").image == image(2)


def test_a_reason_of_several_lines_says_nothing_but_why():
    take("production", 1, why=f"Hotter summer\n\nImage: {image(9)}\nVerdict: fine")
    live = find_release(list_releases(), "production")
    assert live.image == image(1)
    assert live.why == f"Hotter summer Image: {image(9)} Verdict: fine"


def test_without_a_remote_the_tags_stay_on_the_laptop_and_count_on(checkout):
    git(checkout, "remote", "remove", "origin")
    assert take("staging", 1) == "staging has v1.0.0, as fleet#staging#1, in this repository only"
    assert take("production", 1) == "production has v1.0.0, as fleet#production#2, in this repository only"


def test_tags_that_say_something_else_are_passed_over(checkout):
    take("production", 1)
    for name in ("fleet@v7.0.0", "fleet-wide", "fleetwood@v1.0.0"):
        git(checkout, "tag", name)
    git(checkout, "tag", "--annotate", "--message", "gone", "fleet@deprecated")
    commit = list_releases()[0].commit
    far = f"object {commit}\ntype commit\ntag fleet#staging#2\ntagger A <a@example.com> {10**17} +0000\n\nfar off\n"
    made = run_git(["git", "hash-object", "-t", "tag", "-w", "--stdin"], text=far).stdout.strip()
    git(checkout, "update-ref", "refs/tags/fleet#staging#2", made)
    assert [each.tag for each in list_releases()] == ["fleet@v1.0.0", "fleet#production#1"]


def test_what_gto_itself_has_made_is_read_and_counted_on(checkout):
    for tag in ("fleet@v3.0.0", "fleet#production#8"):
        git(checkout, "tag", "--annotate", "--message", "by hand", tag)
        git(checkout, "push", "--quiet", "origin", f"refs/tags/{tag}")
    assert [(each.version, each.by) for each in list_releases()] == [("v3.0.0", "Ada <ada@example.com>")] * 2
    assert take("production", 1) == "production has v3.0.0, as fleet#production#9"


@pytest.mark.parametrize("protected", [True, False])
def test_the_doctor_says_whether_others_could_write_the_history(remote, protected):
    with serving_gitlab() as gitlab:
        gitlab.tags = [{"name": "v1.0.0", "protected": False}, {"name": "fleet@v1.0.0", "protected": protected}]
        if protected:
            assert push_tags(gitlab.environment()) == "a tag would be taken, and those there are are protected"
        else:
            with pytest.raises(UpkeepError, match=r"fleet@v1\.0\.0 is not protected"):
                push_tags(gitlab.environment())
    assert remote_tags(remote) == []


def test_the_doctor_passes_over_tags_where_none_can_be_made_yet():
    with pytest.raises(NotReadyError, match="UPKEEP_RELEASE_TOKEN is not set"):
        push_tags({"GITLAB_CI": "true"})
