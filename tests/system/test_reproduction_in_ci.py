"""Merge-request and default-branch jobs on real clones, with real DVC and a real git remote."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from dvc_projects import JOB, attempt, change, git, job_clone, make_project, run
from git_server import make_repository

ROOT = Path(__file__).parents[2]
PIPELINE = """
stages:
  fetch:
    cmd: mkdir -p data/raw && cat incoming >> data/raw/all
    deps: [incoming]
    outs: [{data/raw: {persist: true}}]
  train:
    cmd: >-
      mkdir -p models reports/evaluation && sed s/^/learnt:/ data/raw/all > models/model &&
      cp quality.json reports/metrics.json && cp quality.json reports/evaluation/evaluation.json
    deps: [data/raw, quality.json]
    outs: [models/model, reports/evaluation]
    metrics: [{reports/metrics.json: {cache: false}}]
  card:
    cmd: cp models/model reports/card.md
    deps: [models/model]
    outs: [reports/card.md]
"""
OTHER_CARD = PIPELINE.replace("cp models/model reports", "cat models/model > reports")


def judged(average_precision: float) -> str:
    """Return a report on one group that ranks this well and beats chance."""
    metrics = {"rows": 9, "machines": 1, "positives": 1, "failures": 1, "average_precision": average_precision}
    costs = dict.fromkeys(("run_to_failure", "fixed_interval", "alarms", "oracle"), 0.0)
    sanity = {"base_rate": 0.1, "average_precision": {}, "faults": []}
    group = {"chosen": None, "metrics": metrics, "intervals": {}, "costs": costs, "candidates": {}}
    validation = {"overall": metrics, "plants": {}}
    report = {"overall": {**group, "sanity": sanity}, "plants": {}, "validation": validation}
    return json.dumps({**report, "notes": []}) + "\n"


GOOD, POOR = judged(0.9), judged(0.1)
MERGE_REQUEST = {**JOB, "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "idea"}
TOKEN = {"UPKEEP_GITLAB_TOKEN": "glpat-correct-horse"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A project whose pipeline is small, pushed to a bare repository, its data to a folder."""
    folder = tmp_path_factory.mktemp("built")
    project = folder / "project"
    project.mkdir()
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["evaluate"] |= {"golden": None, "floors": {"average_precision": 0.5}}
    files = {"params.yaml": yaml.safe_dump(params), "dvc.yaml": PIPELINE, "incoming": "1\n", "quality.json": GOOD}
    for name, text in files.items():
        (project / name).write_text(text, encoding="utf-8")
    make_project(project, folder / "store")
    git(project, "push", "--quiet", str(make_repository(folder / "project.git")), "main")
    return folder


class Place:
    """One test's own copy of the remotes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repository, self.store = folder, folder / "project.git", folder / "store"

    def propose(self, **files: str) -> Path:
        """Push a change to the branch `idea` and return the clone of its job."""
        change(
            self.repository,
            self.folder / "desk",
            "idea",
            **{name.replace("_", "."): text for name, text in files.items()},
        )
        return self.clone("idea")

    def clone(self, branch: str) -> Path:
        clone = job_clone(self.repository, self.folder / "job", branch)
        run(clone, "dvc", "remote", "modify", "--local", "store", "url", str(self.store))
        return clone

    def lock(self, branch: str) -> str:
        return git(self.repository, "show", f"{branch}:dvc.lock")


@pytest.fixture
def place(built, tmp_path):
    for name in ("project.git", "store"):
        shutil.copytree(built / name, tmp_path / name)
    return Place(tmp_path)


def test_a_change_of_the_docs_trains_nothing_and_has_models_and_reports_in_place(place):
    job = place.propose(README_md="Hello\n")
    log = run(job, "upkeep", "reproduce", **MERGE_REQUEST)
    assert "Running stage" not in log
    assert "dvc.lock is as committed; stages that ran: none" in log
    assert (job / "models/model").exists()
    assert (job / "reports/card.md").exists()
    assert not (job / "data/raw").exists(), "data that no stage needs was downloaded"


def test_only_stages_that_a_change_affects_run(place):
    job = place.propose(dvc_yaml=OTHER_CARD)
    log = attempt(job, "upkeep", "reproduce", **MERGE_REQUEST).stdout
    assert "Running stage 'card'" in log
    assert "Running stage 'train'" not in log


def test_a_stale_lock_is_renewed_on_the_branch_and_its_data_is_on_the_remote_before(place):
    job = place.propose(incoming="2\n")
    log = run(job, "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)
    assert "went to idea, whose new pipeline is the one that counts" in log
    assert git(place.repository, "log", "-1", "--format=%an: %s", "idea") == "upkeep: Reproduce"
    proof = place.clone("idea")
    assert "nothing to do" in run(proof, "upkeep", "fresh")
    assert "stages that ran: none" in run(proof, "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)
    assert (proof / "reports/card.md").read_text() == "learnt:1\nlearnt:2\n"


def test_batches_fetched_earlier_come_from_the_remote_and_not_again_from_the_source(place):
    job = place.propose(incoming="2\n")
    run(job, "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)
    assert (job / "data/raw/all").read_text() == "1\n2\n"


def test_without_a_token_a_stale_lock_fails_with_the_two_commands_that_renew_it(place):
    job = place.propose(dvc_yaml=OTHER_CARD)
    before = place.lock("idea")
    done = attempt(job, "upkeep", "reproduce", **MERGE_REQUEST)
    assert done.returncode == 1
    commands = [line.strip() for line in done.stdout.splitlines()[-2:]]
    assert commands[0] == "dvc repro --pull"
    assert commands[1].startswith("git add dvc.lock")
    assert place.lock("idea") == before
    assert "diff --git a/dvc.lock" in (job / ".upkeep/reproduced.patch").read_text()


def test_what_was_damaged_on_the_remote_is_made_again_and_not_trained_on(place):
    job = place.propose(**{"README.md": "Told anew\n"})
    before = place.lock("idea")
    for file in (place.store / "files/md5").rglob("*"):
        if file.is_file() and file.suffix != ".dir":
            file.chmod(0o644)
            file.write_text("corrupt!")
    run(job, "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)
    assert place.lock("idea") == before
    assert (job / "models/model").read_text() != "corrupt!"


def test_a_file_whose_name_has_a_space_goes_with_the_lock(place):
    job = place.propose(incoming="2\n")
    (job / "reports").mkdir(exist_ok=True)
    (job / "reports/my läufe.txt").write_text("mine\n")
    assert "my läufe.txt" in run(job, "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)


@pytest.mark.parametrize("command", ["reproduce", "fresh"])
def test_a_lock_with_a_merge_conflict_is_named(place, command):
    job = place.propose(**{"README.md": "Told anew\n"})
    lock = job / "dvc.lock"
    lock.write_text("<<<<<<< HEAD\n" + lock.read_text() + "=======\n>>>>>>> main\n")
    told = attempt(job, "upkeep", command, **MERGE_REQUEST).stdout
    assert "dvc.lock holds a merge conflict [file=dvc.lock]" in told
    assert "Traceback" not in told


def test_a_fork_gets_the_commands_rather_than_a_commit(place):
    job = place.propose(incoming="2\n")
    fork = {"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "8", "CI_MERGE_REQUEST_PROJECT_ID": "7"}
    assert "dvc repro --pull" in attempt(job, "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN, **fork).stdout


@pytest.mark.parametrize("kind", ["merged_result", "merge_train"])
def test_a_commit_that_is_on_no_branch_is_not_pushed_to_one(place, kind):
    job = place.propose(incoming="2\n")
    before = place.lock("idea")
    done = attempt(job, "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN, CI_MERGE_REQUEST_EVENT_TYPE=kind)
    assert "dvc repro --pull" in done.stdout
    assert place.lock("idea") == before


def test_a_branch_that_moved_on_meanwhile_is_not_overwritten(place):
    job = place.propose(incoming="2\n")
    desk = place.folder / "desk"
    git(desk, "commit", "--quiet", "--allow-empty", "--message", "Later")
    git(desk, "push", "--quiet", "origin", "idea")
    done = attempt(job, "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)
    assert done.returncode == 1
    assert "the branch idea was changed by someone else meanwhile" in done.stdout
    assert git(place.repository, "log", "-1", "--format=%s", "idea") == "Later"


def test_a_stage_that_never_comes_out_the_same_does_not_renew_the_lock_for_ever(place):
    unsteady = PIPELINE.replace(
        "cmd: cp models/model reports/card.md", "cmd: date +%N > reports/card.md\n    always_changed: true"
    )
    run(place.propose(dvc_yaml=unsteady), "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)
    done = attempt(place.clone("idea"), "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)
    assert done.returncode == 1
    assert "the newest commit is upkeep's own, and yet dvc.lock came out otherwise again [stage=card]" in done.stdout


def test_what_the_remote_has_lost_is_made_again_and_sent(place):
    shutil.rmtree(place.store)
    job = place.propose(README_md="Hello\n")
    log = run(job, "upkeep", "reproduce", **MERGE_REQUEST)
    assert "dvc.lock is as committed; stages that ran: fetch, train" in log
    again = run(place.clone("idea"), "upkeep", "reproduce", **MERGE_REQUEST)
    assert "stages that ran: none" in again


def test_a_model_below_a_floor_fails_the_job_after_its_lock_is_on_the_branch(place):
    done = attempt(place.propose(quality_json=POOR), "upkeep", "reproduce", **MERGE_REQUEST, **TOKEN)
    assert done.returncode == 1
    assert "average_precision" in "\n".join(done.stdout.splitlines()[-4:])
    assert git(place.repository, "log", "-1", "--format=%an", "idea") == "upkeep"


def test_the_last_words_of_a_failed_job_are_the_stages_own(place):
    job = place.propose(dvc_yaml=PIPELINE.replace("cmd: cp models/model", "cmd: upkeep validate && cp models/model"))
    done = attempt(job, "upkeep", "reproduce", **MERGE_REQUEST)
    assert done.returncode == 1
    assert "failed to reproduce 'card'" in done.stdout
    what, remedy = done.stdout.splitlines()[-2:]
    assert what.startswith("error: the data dictionary cannot be used")
    assert "stage=validate" in what
    assert remedy.startswith("  remedy:   correct the file")


def test_a_program_that_fails_without_an_error_of_ours_is_named_with_its_stage(place):
    job = place.propose(dvc_yaml=PIPELINE.replace("cmd: cp models/model", "cmd: kill -9 $$ && cp models/model"))
    done = attempt(job, "upkeep", "reproduce", **MERGE_REQUEST)
    assert done.returncode == 1
    what, remedy = done.stdout.splitlines()[-2:]
    assert "[stage=card]" in what
    assert "dvc repro card" in remedy


def test_a_remote_that_cannot_be_reached_is_told(place):
    job = place.propose(incoming="2\n")
    run(job, "dvc", "remote", "modify", "--local", "store", "url", "http://127.0.0.1:9/nothing")
    done = attempt(job, "upkeep", "reproduce", **MERGE_REQUEST)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1] == "  remedy:   run `upkeep doctor`"


def test_a_fresh_lock_needs_no_data_to_be_recognised(place):
    job = place.clone("main")
    assert run(job, "upkeep", "fresh").startswith("nothing to do: dvc.lock belongs to this code")
    assert not (job / "data/raw").exists()


def test_a_stale_lock_on_the_default_branch_is_told_with_its_stages_and_a_command(place):
    done = attempt(place.propose(quality_json=POOR), "upkeep", "fresh")
    assert done.returncode == 1
    assert "dvc.lock is stale: train, and what depends on it, would run again [stage=train]" in done.stdout
    assert "dvc repro && dvc push && git commit" in done.stdout
