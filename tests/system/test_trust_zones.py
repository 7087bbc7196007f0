"""What a merge request plants gets into no protected pipeline: real clones, real DVC, two remotes or one, real jobs."""

import re
import shutil
import sys
from pathlib import Path

import components
import pytest
import yaml
from dvc_projects import JOB, attempt, change, git, job_clone, make_project, run
from git_server import make_repository
from gitlab_project import IN_GITLAB, of_merge_request
from gitlab_runner import install_runner
from test_reproduction_in_ci import GOOD

ROOT = Path(__file__).parents[2]
PIPELINE = """
stages:
  fetch:
    cmd: upkeep fetch
    params: [fetch]
    outs: [{data/raw: {persist: true}}]
  train:
    cmd: >-
      mkdir -p models reports/evaluation && learn data/raw/telemetry > models/model &&
      cp quality.json reports/metrics.json && cp quality.json reports/evaluation/evaluation.json
    deps: [data/raw, quality.json, learn]
    outs: [models/model, reports/evaluation]
    metrics: [{reports/metrics.json: {cache: false}}]
"""
LEARN = "#!/bin/sh\nfind $1 -type f | sort | xargs sha256sum\n"
READ_REPORT = "from upkeep.gitlab.snapshot import read_working_tree as r; print(r().evaluation is not None)"
MERGE_REQUEST = {**JOB, "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "idea"}
FIRST, SECOND = "2025-01-06", "2025-01-13"


def readings(*days: str) -> str:
    return "\n".join(["plant,machine,time,load", *(f"lyon,m1,{day}T08:00:00Z,1.5" for day in days)]) + "\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A project that a protected pipeline has proven once."""
    folder = tmp_path_factory.mktemp("built")
    project = folder / "project"
    (project / "data/references").mkdir(parents=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["evaluate"] |= {"golden": None, "floors": {"average_precision": 0.5}}
    params["fetch"] |= {"source": "files", "until": FIRST, "options": {"telemetry": {"path": "$DELIVERIES/*.csv"}}}
    files = {"params.yaml": yaml.safe_dump(params), "dvc.yaml": PIPELINE, "quality.json": GOOD, "learn": LEARN}
    for name, text in files.items():
        (project / name).write_text(text, encoding="utf-8")
    deliver(folder, FIRST)
    (project / "learn").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELIVERIES", str(folder / "deliveries"))
        patch.setenv("PATH", f"{project}:/usr/bin:/bin")
        make_project(project, folder / "store")
    git(project, "push", "--quiet", str(make_repository(folder / "project.git")), "main")
    return folder


def deliver(folder: Path, day: str) -> None:
    (folder / "deliveries").mkdir(exist_ok=True)
    (folder / "deliveries" / f"{day}.csv").write_text(readings(day))


class Place:
    """One test's own copy of the remotes; `apart` tells whether merge requests have one of their own."""

    def __init__(self, folder: Path, *, apart: bool) -> None:
        self.folder, self.repository, self.apart = folder, folder / "project.git", apart

    def clone(self, branch: str = "main") -> Path:
        clone = job_clone(self.repository, self.folder / "job", branch)
        remotes = {"store": "store", **({"merge_requests": "proposed"} if self.apart else {})}
        texts = [f"['remote \"{name}\"']\nurl = {self.folder / at}\nverify = true\n" for name, at in remotes.items()]
        (clone / ".dvc/config.local").write_text("".join(texts))
        return clone

    def job(self, clone: Path, *command: str, programs: Path | None = None, **variables: str):
        """Run a command with a program `learn`: that of the checkout, or a false one."""
        path = {"PATH": f"{programs or clone}:{Path(sys.executable).parent}:/usr/bin:/bin"}
        return attempt(clone, *command, **{**path, "DELIVERIES": str(self.folder / "deliveries"), **variables})

    def propose(self, **files: str) -> Path:
        change(self.repository, self.folder / "desk", "idea", **files)
        return self.clone("idea")

    def commit(self, clone: Path, branch: str) -> None:
        """Have all that a checkout has changed on a branch."""
        git(clone, "add", "--all")
        git(clone, "commit", "--quiet", "--allow-empty", "--message", "Change")
        git(clone, "push", "--quiet", "--force", str(self.repository), f"HEAD:{branch}")

    def reproduce(self, clone: Path | None = None, **variables: str):
        return self.job(clone or self.clone(), "upkeep", "reproduce", **{**JOB, **variables})

    def next_batch(self) -> dict[str, str]:
        """Have a second batch delivered, and return the change that asks for it."""
        deliver(self.folder, SECOND)
        return {"params.yaml": git(self.repository, "show", "main:params.yaml").replace(FIRST, SECOND) + "\n"}


@pytest.fixture(params=[True, False], ids=["two remotes", "one remote"])
def either(built, tmp_path, request):
    return make_place(built, tmp_path, apart=request.param)


@pytest.fixture
def place(built, tmp_path):
    return make_place(built, tmp_path, apart=True)


def make_place(built: Path, folder: Path, *, apart: bool) -> Place:
    for name in ("project.git", "store", "deliveries"):
        shutil.copytree(built / name, folder / name)
    return Place(folder, apart=apart)


def test_what_is_committed_honestly_is_proven_and_recorded_runs_are_taken_over_where_no_merge_request_writes(either):
    done = either.reproduce()
    assert done.returncode == 0, done.stdout
    assert "what is committed is what this pipeline makes of the raw data" in done.stdout
    again = either.reproduce()
    assert again.returncode == 0, again.stdout
    assert ("Stage 'train' is cached - skipping run" in again.stdout) is either.apart
    assert ("Running stage 'train'" in again.stdout) is not either.apart


def test_neither_a_planted_model_nor_the_record_of_a_false_run_gets_into_a_protected_pipeline(either):
    falsehood = either.folder / "false"
    falsehood.mkdir()
    (falsehood / "learn").write_text("#!/bin/sh\necho planted\n")
    (falsehood / "learn").chmod(0o755)
    job = either.propose(**{"quality.json": f"{GOOD}\n"})
    for command in ("repro", f"push --run-cache{' --remote merge_requests' if either.apart else ''}"):
        assert either.job(job, "dvc", *command.split(), programs=falsehood).returncode == 0
    planted = job / "models/model"
    assert planted.read_text() == "planted\n"
    at = run(job, "md5sum", str(planted)).split()[0]
    either.commit(job, "main")
    done = either.reproduce()
    assert done.returncode == 1
    assert "Running stage 'train'" in done.stdout
    assert "what is committed is not what this pipeline makes of the raw data from train" in done.stdout
    assert "planted" not in planted.read_text()
    assert (either.folder / "store/files/md5" / at[:2] / at[2:]).exists() is not either.apart


def test_a_merge_request_goes_on_with_what_its_last_job_has_sent_and_records_no_run(place):
    shutil.rmtree(place.folder / "store/runs", ignore_errors=True)
    job = place.propose(**{"quality.json": f"{GOOD}\n"})
    stale = place.reproduce(job, **MERGE_REQUEST)
    assert stale.returncode == 1
    assert "Running stage 'train'" in stale.stdout
    assert not list(place.folder.glob("*/runs"))
    desk = place.folder / "desk"
    git(desk, "apply", str(job / ".upkeep/reproduced.patch"))
    place.commit(desk, "idea")
    job = place.clone("idea")
    for zone, reports in ((MERGE_REQUEST, True), (JOB, False)):
        assert ("True" in place.job(job, sys.executable, "-c", READ_REPORT, **zone).stdout) is reports
    again = place.reproduce(job, **MERGE_REQUEST)
    assert again.returncode == 0, again.stdout
    assert "stages that ran: none" in again.stdout
    assert (job / "models/model").exists()


def test_a_batch_that_a_merge_request_brought_is_read_from_the_source_again_and_an_earlier_state_is_none(place):
    earlier = yaml.safe_load(git(place.repository, "show", "main:dvc.lock"))["stages"]
    job = place.propose(**place.next_batch())
    place.reproduce(job, **MERGE_REQUEST)
    place.commit(job, "main")
    done = place.reproduce()
    assert done.returncode == 0, done.stdout
    assert "Running stage 'fetch'" in done.stdout
    job = place.clone()
    lock = yaml.safe_load((job / "dvc.lock").read_text())
    lock["stages"]["fetch"]["outs"] = earlier["fetch"]["outs"]
    lock["stages"]["train"] = earlier["train"]
    (job / "dvc.lock").write_text(yaml.safe_dump(lock))
    place.commit(job, "main")
    assert "of the raw data from fetch, train" in place.reproduce().stdout


def test_raw_data_that_the_source_never_delivered_stops_the_pipeline(place):
    job = place.propose(**place.next_batch())
    forged = place.folder / "forged"
    shutil.copytree(place.folder / "deliveries", forged)
    (forged / f"{SECOND}.csv").write_text(readings(SECOND).replace("1.5", "9.9"))
    place.reproduce(job, **MERGE_REQUEST, DELIVERIES=str(forged))
    place.commit(job, "main")
    done = place.reproduce()
    assert done.returncode == 1
    assert "of the raw data from fetch, train" in done.stdout


def test_what_a_merge_request_leaves_in_the_cache_of_packages_is_in_no_protected_job(tmp_path):
    """Both zones run the job `test` with a runner; only its Makefile plays tricks."""
    runner, checkout = install_runner(), tmp_path / "upkeep"
    components.clone(checkout)
    git(checkout, "remote", "set-url", "origin", "https://gitlab.example.com/team/upkeep.git")
    file = (
        checkout / "ci/verify.yml"
    )  # this runner clears a job's folder before an after_script, which GitLab's does not
    file.write_text(re.sub(r"  after_script:\n.*\n", "", file.read_text()))

    def play(recipe: str, **variables: str | None) -> str:
        (checkout / "Makefile").write_text(f"test:\n\t{recipe}\n")
        git(checkout, "commit", "--quiet", "--all", "--allow-empty", "--message", "Play")
        done = runner.run(checkout, "test: [3.11]", settings={}, CI_DEFAULT_BRANCH="main", **{**IN_GITLAB, **variables})
        return done.logs["test: [3.11]"]

    look, merge_request = "find .cache -type f || true", of_merge_request("idea", 1)
    play("mkdir -p .cache/uv && touch .cache/uv/planted", **merge_request)
    assert "uv/planted" in play(look, **merge_request), "the runner keeps no cache"
    assert "uv/planted" not in play(look, CI_COMMIT_BRANCH=None, CI_COMMIT_TAG="v1.0.0")
