import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import chdir
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner
from gitlab_mlflow import TOKEN, serving_gitlab
from kept_runs import FACTS, MODEL, PENDING, REPORT, client, keep, parents, runs, write_outputs

from upkeep.reporting import tracking
from upkeep.reporting.tracking import COMPLETE, KEY, RELEASE, mirror_release, send_pending


def waiting():
    return sorted(folder.name for folder in PENDING.iterdir())


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_outputs()
    return tmp_path


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """An MLflow database with its tables, made once."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file.read_bytes()


@pytest.fixture
def store(checkout, database):
    (checkout / "mlflow.db").write_bytes(database)
    return f"sqlite:///{checkout}/mlflow.db"


def test_a_run_arrives_with_figures_files_and_a_child_per_plant(store):
    keep()
    assert send_pending(PENDING, store) == []
    assert waiting() == []
    (parent,) = parents(store)
    assert parent.data.metrics == {"test_brier": 0.25, "validation_brier": 0.3}
    assert parent.data.params["model.seed"] == "7"
    assert len(parent.data.params) == 152
    assert parent.data.tags[COMPLETE] == "true"
    assert parent.info.status == "FINISHED"
    children = {run.info.run_name: run.data.metrics for run in runs(store) if run.info.run_id != parent.info.run_id}
    assert children == {"lyon": {"test_brier": 0.5}, "porto": {"test_brier": 0.1}}
    arrived = client(store).list_artifacts(parent.info.run_id, "models/plants/lyon")
    assert [file.path for file in arrived] == ["models/plants/lyon/model.json"]


def test_a_run_that_arrived_before_is_not_sent_again(store):
    for _ in range(2):
        keep()
        assert send_pending(PENDING, store) == []
    assert len(parents(store)) == 1


def test_a_half_sent_run_is_sent_anew(store, monkeypatch):
    from mlflow import MlflowClient

    keep()
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_artifacts", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        (warning,) = send_pending(PENDING, store)
    assert "disk full" in warning
    assert waiting() == ["k1"]
    assert send_pending(PENDING, store) == []
    (parent,) = parents(store)
    assert parent.data.tags[COMPLETE] == "true"
    assert len(runs(store)) == 3


@pytest.mark.parametrize("damage", [lambda run: json.dumps({**json.loads(run), "content": {}}), lambda run: run[:99]])
def test_one_run_that_cannot_be_read_does_not_hold_up_the_others(store, damage):
    keep("bad", date="2025-01-01T00:00:00+00:00")
    record = PENDING / "bad/run.json"
    record.write_text(damage(record.read_text()))
    keep("good")
    (warning,) = send_pending(PENDING, store)
    assert warning.startswith("run bad kept in .upkeep/pending, not sent: what is kept of it cannot be used")
    assert waiting() == ["bad"]
    assert [run.data.tags[KEY] for run in parents(store)] == ["good"]


@pytest.mark.usefixtures("checkout")
def test_a_kept_run_holds_the_files_as_they_were():
    keep()
    REPORT.write_text("second")
    assert (PENDING / "k1/artifacts/reports/metrics.json").read_text() == "first"


KILLED = f"""
import os, signal, sys
from pathlib import Path
from alembic import command
from mlflow import MlflowClient
from upkeep.reporting.tracking import send_pending
for step in sys.argv[1:]:  # each in a process of its own, after one import
    if not os.fork():
        os.chdir(step)
        called = command if step == "upgrade" else MlflowClient
        setattr(called, step, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        send_pending(Path({str(PENDING)!r}), "sqlite:///kept/mlflow.db")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_sender_killed_at_any_step_leaves_one_whole_run_in_the_end(checkout, database, monkeypatch):
    steps = ["upgrade", "create_run", "log_artifacts", "set_tag"]  # the first amid making a database that is not there
    for step in steps:
        shutil.copytree(REPORT.parent, checkout / step / REPORT.parent)
        shutil.copytree(MODEL.parent, checkout / step / MODEL.parent)
        if step != "upgrade":
            (checkout / step / "kept").mkdir()
            (checkout / step / "kept/mlflow.db").write_bytes(database)
        with chdir(step):
            keep()
    done = subprocess.run([sys.executable, "-c", KILLED, *steps], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-9"] * len(steps)
    for step in steps:
        monkeypatch.chdir(checkout / step)
        keep()
        uri = f"sqlite:///{checkout / step}/kept/mlflow.db"  # a whole path: MLflow keeps its connections by address
        assert send_pending(PENDING, uri) == []
        (parent,) = parents(uri)
        assert COMPLETE in parent.data.tags
        assert waiting() == []
        assert sorted(file.name for file in Path("kept").iterdir()) == ["mlartifacts", "mlflow.db"]


@pytest.mark.usefixtures("checkout")
def test_a_server_that_is_down_costs_a_warning_without_the_password(capfd, free_port):
    keep()
    start = time.monotonic()
    (warning,) = send_pending(PENDING, f"http://me:hidden@127.0.0.1:{free_port}")
    assert time.monotonic() - start < 5
    assert waiting() == ["k1"]
    assert "1 run(s) kept" in warning
    assert "hidden" not in warning + "".join(capfd.readouterr())


@pytest.mark.usefixtures("checkout")
def test_a_server_that_never_answers_is_given_up_soon(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)  # an earlier test's
    monkeypatch.setattr(tracking, "ANSWER_SECONDS", 1)
    keep()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        (warning,) = send_pending(PENDING, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - start < tracking.ANSWER_SECONDS + 2
    assert "timed out" in warning.lower()


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("uri", ["file:./mlruns", "nonsense://x"])
def test_an_address_that_mlflow_does_not_take_costs_a_warning(uri):
    keep()
    assert len(send_pending(PENDING, uri)) == 1
    assert waiting() == ["k1"]


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def in_registry(uri):
    aliases = client(uri).get_registered_model("fleet").aliases
    return {alias: client(uri).get_model_version("fleet", number).tags[RELEASE] for alias, number in aliases.items()}


def test_the_registry_follows_what_is_promoted_and_rolled_back_with_one_version_a_release(store):
    for version, stage in (("v1.0.0", "production"), ("v2.0.0", "staging"), ("v2.0.0", "production")):
        assert mirror_release(store, "fleet", version, stage, FACTS, "unknown") == ""
    assert in_registry(store) == {"production": "v2.0.0", "staging": "v2.0.0"}
    assert mirror_release(store, "fleet", "v1.0.0", "production", FACTS, "unknown") == ""
    assert in_registry(store) == {"production": "v1.0.0", "staging": "v2.0.0"}
    found = client(store).search_model_versions("name = 'fleet'")
    assert sorted((each.version, each.source) for each in found) == [(1, "git:abc"), (2, "git:abc")]


def test_a_registry_that_is_down_costs_a_warning_without_the_password_and_gitlabs_none(free_port):
    warning = mirror_release(f"http://me:hidden@127.0.0.1:{free_port}", "fleet", "v1.0.0", "production", FACTS, "k1")
    assert warning.startswith("v1.0.0 is not production in MLflow's registry: ")
    assert "hidden" not in warning
    assert mirror_release(f"http://127.0.0.1:{free_port}/api/v4/projects/7/ml/mlflow", "fleet", "", "", FACTS, "") == ""


def files_of(uri, name):
    run = next(run for run in parents(uri) if run.info.run_name == name)
    return [file.path for file in client(uri).list_artifacts(run.info.run_id, "reports")]


@pytest.mark.parametrize("original", ["moved", "copied"])
def test_a_database_that_moves_with_its_files_goes_on_beside_them(store, checkout, monkeypatch, original):
    keep("k1")
    assert send_pending(PENDING, store) == []
    elsewhere = checkout / "else where"
    elsewhere.mkdir()
    put = shutil.move if original == "moved" else lambda *where: shutil.copytree(*where, dirs_exist_ok=True)
    for name in ("mlartifacts", "reports", "models", PENDING.parent):
        put(checkout / name, elsewhere / name)
    shutil.move(checkout / "mlflow.db", elsewhere)
    monkeypatch.chdir(elsewhere)
    keep("k2")
    uri = f"sqlite:///{elsewhere}/mlflow.db"
    assert send_pending(PENDING, uri) == []
    for name in ("k1", "k2"):
        assert files_of(uri, name) == ["reports/metrics.json"]
    assert len(list(elsewhere.glob("mlartifacts/*"))) == 2
    assert len(list(checkout.glob("mlartifacts/*"))) == (0 if original == "moved" else 1)


def test_a_database_of_several_checkouts_keeps_its_files_where_they_are(store, checkout, monkeypatch):
    keep("k1")
    assert send_pending(PENDING, store) == []
    other = checkout / "other"
    shutil.copytree("reports", other / "reports")
    monkeypatch.chdir(other)
    keep("k2")
    assert send_pending(PENDING, store) == []
    assert [files_of(store, name) for name in ("k1", "k2")] == [["reports/metrics.json"]] * 2
    assert not (other / "mlartifacts").exists()


def test_a_deleted_experiment_keeps_runs_waiting_until_it_is_brought_back_as_told(store):
    keep("k1")
    assert send_pending(PENDING, store) == []
    client(store).delete_experiment(client(store).get_experiment_by_name("fleet").experiment_id)
    keep("k2")
    (warning,) = send_pending(PENDING, store)
    assert "the experiment fleet was deleted there" in warning
    assert waiting() == ["k2"]
    setting, program, *arguments = shlex.split(warning.split("`")[1])
    command, *_ = entry_points(group="console_scripts", name=program)
    CliRunner().invoke(command.load(), arguments, env=dict([setting.split("=")]), catch_exceptions=False)
    assert send_pending(PENDING, store) == []
    assert {run.info.run_name for run in parents(store)} == {"k1", "k2"}


@pytest.fixture
def gitlab(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    with serving_gitlab(page=4) as server:
        yield server


@pytest.mark.usefixtures("checkout")
def test_gitlabs_own_pages_get_each_run_once_with_figures_parameters_and_files(gitlab):
    for key in ("k1", "k2", "k1"):  # each is more than a page of runs
        keep(key)
        assert send_pending(PENDING, gitlab.uri) == []
    shown = [(run["name"], run["status"]) for run in gitlab.runs.values()]
    assert shown == [(name, "FINISHED") for key in ("k1", "k2") for name in (key, "lyon", "porto")]
    run = next(iter(gitlab.runs.values()))
    assert {metric["key"]: metric["value"] for metric in run["metrics"]} == {
        "test_brier": 0.25,
        "validation_brier": 0.3,
    }
    assert run["params"]["model.seed"] == "7"
    assert run["params"]["model.long"] == "x" * 250
    assert len(run["params"]) == 152
    assert gitlab.files[str(run["iid"])] == {
        "reports+metrics.json": b"first",
        "models+plants+lyon+model.json": b"first",
    }


@pytest.mark.usefixtures("checkout")
def test_what_gitlab_got_half_of_is_sent_anew(gitlab, monkeypatch):
    from mlflow import MlflowClient

    keep()
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_artifacts", lambda *_: (_ for _ in ()).throw(OSError("cut off")))
        (warning,) = send_pending(PENDING, gitlab.uri)
    assert "cut off" in warning
    assert send_pending(PENDING, gitlab.uri) == []
    assert [run["name"] for run in gitlab.runs.values()] == ["k1", "lyon", "porto"]


@pytest.mark.usefixtures("checkout")
def test_a_token_that_gitlab_refuses_keeps_the_run_waiting(gitlab, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "wrong")
    keep()
    (warning,) = send_pending(PENDING, gitlab.uri)
    assert "401 Unauthorized" in warning
    assert waiting() == ["k1"]
