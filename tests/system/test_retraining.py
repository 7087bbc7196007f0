"""The scheduled job on real clones of a small project: real stages, real DVC, a real git remote."""

import shutil
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from dvc_projects import JOB, attempt, change, git, job_clone, make_project, run
from git_server import GitServer, make_repository

from upkeep.simulator.source import Simulator

ROOT = Path(__file__).parents[2]
STAGES = ("fetch", "validate", "dataset", "train", "evaluate")
START, TRAINED, NEWEST = date(2025, 1, 6), 21, 22
SENSORS = ("vibration_mm_s", "temperature_c", "pressure_bar", "current_a")
"""They read more from the last batch trained on."""


def week(number: int) -> date:
    return START + timedelta(weeks=number)


def deliver(folder: Path) -> None:
    """Write what a plant delivers, a file per table and week."""
    simulator = Simulator({"seed": 7, "start": START, "plants": {"lyon": 6}, "defects": False}, 7)
    for delivery in simulator.deliveries(week(NEWEST)):
        rows = delivery.read()
        if delivery.table == "telemetry" and delivery.batch >= week(TRAINED):
            rows = rows.with_columns(pl.col(SENSORS) * 1.4)
        if rows.height:
            file = folder / delivery.table / f"{delivery.batch}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(file)


def prepare(project: Path) -> None:
    """Write the shipped pipeline without its pages, for one small plant."""
    (project / "data/references").mkdir(parents=True)
    shutil.copy(ROOT / "data/references/dictionary.yaml", project / "data/references")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tables = {table: {"path": f"$PLANTS/{table}/*.parquet"} for table in ("telemetry", "events", "machines")}
    params["fetch"] |= {"source": "files", "until": str(week(TRAINED)), "options": tables}
    params["validate"]["max_quarantined_share"] = 0.01
    params["model"] |= {"compare": []}
    params["evaluate"] |= {"golden": None, "bootstrap": 5, "floors": {"average_precision": 0.0}}
    params["drift"] |= {"window_batches": 1, "sample_rows": 200, "max_drifted_share": 0.5}
    params["parallel"] = {"backend": "sequential", "jobs": 1}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    stages = {name: pipeline["stages"][name] for name in STAGES}
    for stage in stages.values():
        stage["deps"] = [path for path in stage["deps"] if not path.startswith("src/")]
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")


class Place:
    """A project's remotes, what its plant delivers, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = GitServer("", folder / "project.git")
        self.plants = folder / "plants"

    def schedule(self, today: date):
        """Run the scheduled job on this day, in a new clone."""
        clone = job_clone(self.server.repository, self.folder / "job")
        remotes = (("store", "store"), ("merge_requests", "proposed"))
        texts = (f"['remote \"{name}\"']\nurl = {self.folder / at}\nverify = true\n" for name, at in remotes)
        (clone / ".dvc/config.local").write_text("".join(texts))
        return attempt(clone, "upkeep", "retrain", **JOB, UPKEEP_TODAY=str(today), PLANTS=str(self.plants))

    def branches(self) -> list[str]:
        return self.server.git("for-each-ref", "--format=%(refname:short)").splitlines()

    def params(self, branch: str) -> dict:
        return yaml.safe_load(self.server.git("show", f"{branch}:params.yaml"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    project = folder / "project"
    project.mkdir()
    deliver(folder / "plants")
    prepare(project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANTS", str(folder / "plants"))
        make_project(project, folder / "store")
    git(project, "push", "--quiet", str(make_repository(folder / "project.git")), "main")
    return folder


def copy_place(built: Path, folder: Path) -> Place:
    for name in ("project.git", "store", "plants"):
        shutil.copytree(built / name, folder / name)
    return Place(folder)


@pytest.fixture
def place(built, tmp_path):
    return copy_place(built, tmp_path)


@pytest.fixture(scope="module")
def offered(built, tmp_path_factory):
    """A place whose new batch was trained on, and the job's log."""
    place = copy_place(built, tmp_path_factory.mktemp("offered"))
    return place, place.schedule(week(NEWEST + 1))


def test_before_a_batch_is_complete_there_is_nothing_to_do(place):
    done = place.schedule(week(NEWEST + 1) - timedelta(days=1))
    assert done.returncode == 0
    assert done.stdout == f"nothing new: files has no complete batch after that of {week(TRAINED)}\n"
    assert place.branches() == ["main"]


def test_new_data_is_trained_on_and_offered_with_its_reasons(offered):
    place, done = offered
    assert done.returncode == 0, done.stdout
    assert place.branches() == ["main", "retrain"]
    assert place.params("retrain")["fetch"]["until"] == str(week(NEWEST))
    push = place.server.pushes[-1]
    assert push["refs"] == ["refs/heads/retrain"]
    assert {
        "merge_request.create",
        "merge_request.target=main",
        "merge_request.label=new data",
        "merge_request.label=drift",
        "merge_request.unlabel=age",
        "merge_request.remove_source_branch",
    } <= set(push["options"])
    assert "drift of lyon in 2 of its last 5 windows" in next(text for text in push["options"] if "description" in text)


def test_on_a_laptop_the_branch_that_was_checked_out_is_there_again_as_it_was(place):
    desk = place.folder / "desk"
    git(place.folder, "clone", "--quiet", str(place.server.repository), str(desk))
    run(desk, "dvc", "remote", "modify", "--local", "store", "url", str(place.folder / "store"))
    run(desk, "dvc", "pull")
    before = (desk / "models/plants/lyon/model.json").read_bytes()
    laptop = {"CI": "", "UPKEEP_TARGET_BRANCH": "main", "UPKEEP_TODAY": str(week(NEWEST + 1))}
    done = attempt(desk, "upkeep", "retrain", **laptop, PLANTS=str(place.plants))
    assert done.returncode == 0, done.stdout
    assert "The gate: it may not ship" in done.stdout
    assert place.branches() == ["main", "retrain"]
    assert git(desk, "status", "--short", "--branch").splitlines() == ["## main...origin/main"]
    assert (desk / "models/plants/lyon/model.json").read_bytes() == before
    assert run(desk, "dvc", "status").endswith("Data and pipelines are up to date.")


def test_a_retraining_waits_for_as_many_batches_as_must_lie_between_two(place):
    params = place.params("main")
    params["retrain"] |= {"batches_between": 2}
    change(place.server.repository, place.folder / "desk", "main", **{"params.yaml": yaml.safe_dump(params)})
    done = place.schedule(week(NEWEST + 1))
    assert done.returncode == 0, done.stdout
    assert "too early: 1 new batch" in done.stdout
    assert "the next retraining waits for 2 batches after the last, merged or offered" in done.stdout
    assert place.branches() == ["main"]


def test_a_target_that_is_not_there_is_told(place):
    clone = job_clone(place.server.repository, place.folder / "job")
    done = attempt(clone, "upkeep", "retrain", **JOB, UPKEEP_TARGET_BRANCH="nosuch")
    assert done.returncode == 1
    assert "the remote has no branch nosuch" in done.stdout


def test_one_commit_on_the_target_branch_holds_lock_parameters_and_figures(offered):
    place, _ = offered
    assert place.server.git("rev-parse", "retrain^") == place.server.git("rev-parse", "main")
    changed = place.server.git("diff", "--name-only", "main", "retrain").splitlines()
    assert changed == ["dvc.lock", "params.yaml", "reports/metrics.json"]


def test_a_model_that_the_gate_does_not_let_pass_is_a_draft_and_says_why(offered):
    place, _ = offered
    options = place.server.pushes[-1]["options"]
    assert f"merge_request.title=Draft: Retrain up to {week(NEWEST)}" in options
    assert "reports/drift/drift.json` is missing" in next(text for text in options if "description" in text)


def test_the_lock_that_is_offered_has_its_data_on_the_remote(offered):
    place, _ = offered
    clone = job_clone(place.server.repository, place.folder / "reader", "retrain")
    run(clone, "dvc", "remote", "modify", "--local", "store", "url", str(place.folder / "store"))
    run(clone, "dvc", "pull")
    assert run(clone, "dvc", "status").endswith("Data and pipelines are up to date.")


def test_what_is_offered_already_is_not_made_again(offered):
    place, _ = offered
    before = place.server.git("rev-parse", "retrain")
    done = place.schedule(week(NEWEST + 1))
    assert done.returncode == 0
    assert (
        done.stdout
        == f"nothing to add: the retraining up to the batch of {week(NEWEST)} stands on the branch retrain\n"
    )
    assert place.server.git("rev-parse", "retrain") == before


def test_when_the_target_branch_moves_on_the_same_branch_is_made_anew_on_top_of_it(offered, tmp_path):
    place = copy_place(offered[0].folder, tmp_path)
    change(place.server.repository, tmp_path / "desk", "main", **{"README.md": "Hello\n"})
    done = place.schedule(week(NEWEST + 1))
    assert done.returncode == 0, done.stdout
    assert place.branches() == ["main", "retrain"]
    assert place.server.git("rev-parse", "retrain^") == place.server.git("rev-parse", "main")
    assert "merge_request.create" in place.server.pushes[-1]["options"]


def test_a_job_that_was_stopped_between_its_two_pushes_is_run_again_without_training_again(offered, tmp_path):
    place = copy_place(offered[0].folder, tmp_path)
    lost = place.server.git("rev-parse", "retrain^{tree}")
    place.server.git("branch", "-D", "retrain")
    done = place.schedule(week(NEWEST + 1))
    assert done.returncode == 0, done.stdout
    assert "Stage 'train' is cached - skipping run" in done.stdout
    assert place.server.git("rev-parse", "retrain^{tree}") == lost


def test_commits_of_others_on_the_branch_are_not_overwritten(place):
    change(place.server.repository, place.folder / "desk", "retrain", **{"README.md": "Mine\n"})
    done = place.schedule(week(NEWEST + 1))
    assert done.returncode == 1
    assert "the branch retrain holds commits that are not upkeep's" in done.stdout
    assert place.server.git("log", "-1", "--format=%an", "retrain") == "Ada"


def test_broken_data_stops_the_job_with_plant_batch_column_and_remedy_as_its_last_words(place):
    file = place.plants / "telemetry" / f"{week(NEWEST)}.parquet"
    pl.read_parquet(file).with_columns(temperature_c=pl.lit("E42")).write_parquet(file)
    done = place.schedule(week(NEWEST + 1))
    assert done.returncode == 1
    last = done.stdout.splitlines()[-3:]
    for fact in ("stage=validate", "plant=lyon", f"batch={week(NEWEST)}", "column=temperature_c"):
        assert fact in last[0]
    assert last[2].startswith("  remedy:   look at data/interim/quarantine/lyon.parquet")
    assert place.branches() == ["main"]


def test_deliveries_that_stopped_are_an_error_once_the_models_are_old(place):
    (place.plants / "telemetry" / f"{week(NEWEST)}.parquet").unlink()
    done = place.schedule(week(TRAINED + 1) + timedelta(days=36))
    assert done.returncode == 1
    assert "no telemetry has arrived for 36 days, so there is nothing to train on" in done.stdout
    assert place.schedule(week(TRAINED + 1) + timedelta(days=35)).returncode == 0


def test_outside_of_ci_work_that_is_not_committed_is_never_touched(place):
    clone = job_clone(place.server.repository, place.folder / "laptop")
    (clone / "params.yaml").write_text("mine\n")
    done = attempt(clone, "upkeep", "retrain", UPKEEP_TARGET_BRANCH="main", UPKEEP_TODAY=str(week(NEWEST + 1)))
    assert done.returncode == 1
    assert "files differ from the newest commit" in done.stdout
    assert (clone / "params.yaml").read_text() == "mine\n"
