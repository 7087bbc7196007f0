"""DVC's side of the pipeline in a clone: experiments, metrics, plots, and what happens when a stage breaks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import components
import nbformat
import pytest
import yaml

BIN = Path(sys.executable).parent
PLANTS = ("gdansk", "hamburg", "lyon", "porto")
WHO = {"NAME": "tester", "EMAIL": "tester@example.com"}


def environment(clone: Path) -> dict[str, str]:
    identity = {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in WHO.items()}
    return {**os.environ, **identity, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(clone / "src")}


def run(clone: Path, *command: str, status: int = 0) -> str:
    """Run a command in the clone and return all that it prints."""
    done = subprocess.run(command, cwd=clone, env=environment(clone), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def shrink(clone: Path) -> None:
    """Make the fleet and the models so small that all of it takes seconds."""
    params = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
    params["fetch"]["until"] = "2025-05-26"
    params["fetch"]["options"]["plants"] = dict.fromkeys(PLANTS, 3)
    params["model"]["lightgbm"]["n_estimators"] = 30
    params["evaluate"]["bootstrap"] = 5
    params["parallel"]["jobs"] = 1
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A committed clone whose stages have run up to the evaluation."""
    clone = tmp_path_factory.mktemp("clone") / "upkeep"
    components.clone(clone)
    shrink(clone)
    run(clone, "dvc", "repro", "--quiet", "evaluate")
    run(clone, "git", "add", ".")
    run(clone, "git", "commit", "--quiet", "--message", "base")
    return clone


@pytest.fixture
def unchanged(clone):
    """The clone, put back afterwards as it was committed."""
    yield clone
    run(clone, "git", "reset", "--quiet", "--hard")
    run(clone, "git", "clean", "--quiet", "-fd")
    run(clone, "dvc", "checkout", "--quiet", "--force", "evaluate", "--with-deps")


def outputs_of(clone: Path, stage: str) -> dict[str, str]:
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for out in lock["stages"][stage]["outs"]}


def test_the_graph_of_stages_is_valid(clone):
    assert "record" in run(clone, "dvc", "dag")


def test_a_second_repro_has_nothing_to_do(clone):
    assert "Running stage" not in run(clone, "dvc", "repro", "evaluate")
    assert run(clone, "git", "status", "--porcelain") == ""


def test_a_dry_run_names_what_a_changed_knob_touches_and_runs_nothing(unchanged):
    params = (unchanged / "params.yaml").read_text()
    (unchanged / "params.yaml").write_text(params.replace("n_estimators: 30", "n_estimators: 31"))
    told = run(unchanged, "dvc", "repro", "--dry", "evaluate")
    assert "Running stage 'train'" in told
    assert "Running stage 'dataset'" not in told
    assert run(unchanged, "git", "status", "--porcelain") == " M params.yaml\n"


def test_an_experiment_with_another_horizon_is_compared_with_the_commit(unchanged):
    run(unchanged, "dvc", "exp", "run", "-S", "dataset.horizon_hours=24", "evaluate")
    changes = json.loads(run(unchanged, "dvc", "metrics", "diff", "--json"))["reports/metrics.json"]
    assert "overall.average_precision" in changes
    assert {"plants", "overall"} == {name.split(".")[0] for name in changes}
    shown = run(unchanged, "dvc", "exp", "show", "--csv", "--param-deps")
    horizon = shown.splitlines()[0].split(",").index("dataset.horizon_hours")
    assert {line.split(",")[horizon] for line in shown.splitlines()[1:]} == {"24", "48"}


def test_the_plots_are_drawn(unchanged):
    run(unchanged, "dvc", "plots", "show")
    text = (unchanged / "dvc_plots/index.html").read_text()
    assert "Precision and recall on test rows" in text
    assert "Cost of following the alarms" in text


def test_a_failing_cell_is_named_and_what_ran_before_it_can_be_read(unchanged):
    notebook = nbformat.read(unchanged / "notebooks/01_eda.ipynb", as_version=4)
    notebook.cells.insert(4, nbformat.v4.new_code_cell("one = 1\none / 0", id="broken"))
    nbformat.write(notebook, unchanged / "notebooks/01_eda.ipynb")
    told = run(unchanged, "dvc", "repro", "eda", status=255)
    assert "failed at `one = 1`: ZeroDivisionError: division by zero" in told
    assert "notebooks/01_eda.ipynb" in told
    assert "reports/eda.html" in told
    assert "ZeroDivisionError" in (unchanged / "reports/eda.html").read_text()


def test_a_training_that_was_killed_is_made_good_by_the_next_repro(unchanged):
    params = (unchanged / "params.yaml").read_text()
    (unchanged / "params.yaml").write_text(params.replace("n_estimators: 30", "n_estimators: 29"))
    shutil.rmtree(unchanged / "data/predictions")
    training = subprocess.Popen(
        ["dvc", "repro", "train"], cwd=unchanged, env=environment(unchanged), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(unchanged.glob("data/predictions/*.parquet")):
        assert training.poll() is None
        time.sleep(0.002)
    os.killpg(training.pid, signal.SIGKILL)
    training.wait()
    assert len(list(unchanged.glob("models/plants/*/model.json"))) < len(PLANTS)
    assert "Running stage 'train'" in run(unchanged, "dvc", "repro", "train")
    recovered = outputs_of(unchanged, "train")
    run(unchanged, "dvc", "repro", "--force", "--single-item", "train")
    assert outputs_of(unchanged, "train") == recovered


@pytest.mark.parametrize(
    ("stage", "folder", "size"), [("fetch", "data/raw", "256k"), ("validate", "data/interim", "64k")]
)
def test_a_full_disk_is_told_without_a_traceback(clone, stage, folder, size):
    # The mount is seen by this command only and is gone with it.
    alone = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("needs the right to mount a small file system: unshare --map-root-user --mount")
    full = f"mount -t tmpfs -o size={size} tmpfs {folder} && exec upkeep {stage}"
    told = run(clone, *alone, "sh", "-c", full, status=1)
    assert "No space left on device" in told
    assert "remedy" in told
    assert "Traceback" not in told
