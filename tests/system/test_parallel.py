"""All stages write the same bytes wherever their work is done, even if a worker of a Dask cluster is killed in it."""

import hashlib
import importlib
import os
import shutil
import signal
import threading
import time

import pytest
from distributed import Client

from upkeep.core.params import Parallel, load_params

STAGES = ("validate", "dataset", "train", "golden")
OUTPUTS = ("data/interim", "data/processed", "data/predictions", "models", "reports")


def digests(folder):
    files = [file for name in OUTPUTS for file in (folder / name).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def run_stages(trained_fleet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_fleet / "data/raw", tmp_path / "data/raw")
    params = load_params(trained_fleet / "params.yaml")

    def run_stages(how):
        for stage in STAGES:
            importlib.import_module(f"upkeep.stages.{stage}").run(params.model_copy(update={"parallel": how}))
        return digests(tmp_path)

    return run_stages


@pytest.mark.parametrize("backend", ["threads", "dask"])
def test_all_stages_write_the_same_bytes_wherever_their_work_is_done(backend, cluster, run_stages, trained_fleet):
    found = run_stages(Parallel(backend=backend, jobs=2, address=cluster if backend == "dask" else None))
    assert len(found) > 20
    assert found == digests(trained_fleet)


def test_all_stages_write_the_same_bytes_when_a_worker_is_killed_in_mid_work(cluster, run_stages, trained_fleet):
    killed = threading.Event()

    def kill_one_that_works():
        with Client(cluster, set_as_default=False) as client:
            while not killed.is_set():
                for worker, keys in client.processing().items():
                    if keys and not killed.is_set():
                        os.kill(client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)
                        killed.set()
                time.sleep(0.01)

    threading.Thread(target=kill_one_that_works, daemon=True).start()
    assert run_stages(Parallel(backend="dask", jobs=2, address=cluster)) == digests(trained_fleet)
    assert killed.is_set()
