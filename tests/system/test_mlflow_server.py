"""MLflow's own server, over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from kept_runs import FACTS, PENDING, client, keep, parents, write_outputs

from upkeep.reporting.tracking import RELEASE, mirror_release, send_pending


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a server at a port when called, and stop it at the end."""
    monkeypatch.chdir(tmp_path)
    started = []

    def start(port):
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", str(tmp_path / "held")]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, env=environment, start_new_session=True, **quiet))
        wait_until_healthy(port)

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def wait_until_healthy(port):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    pytest.fail("the MLflow server did not start")


def test_a_run_kept_while_the_server_was_down_is_sent_once_it_is_up(start):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    write_outputs()
    keep()
    assert len(send_pending(PENDING, uri)) == 1
    start(port)
    for _ in range(2):
        assert send_pending(PENDING, uri) == []
        keep()
    (parent,) = parents(uri)
    assert parent.data.metrics["test_brier"] == 0.25
    assert [file.path for file in client(uri).list_artifacts(parent.info.run_id, "reports")] == ["reports/metrics.json"]
    assert mirror_release(uri, "fleet", "v1.0.0", "staging", FACTS, "k1") == ""
    released = client(uri).get_model_version_by_alias("fleet", "staging")
    assert (released.run_id, released.tags[RELEASE]) == (parent.info.run_id, "v1.0.0")
