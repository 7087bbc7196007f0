"""The service and its peer, ``mlflow models serve``: started, asked, weighed and stopped."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.measuring import ROOT

START_SECONDS = 120
STOP_SECONDS = 30
POLL_SECONDS = 0.005
HOST = "127.0.0.1"
CONNECTIONS = 8

Figures = dict[str, float]


class Server(NamedTuple):
    """How a server is started, where ``{port}`` stands for its port, and the body of a request to ``/invocations``."""

    command: Sequence[str]
    variables: dict[str, str]
    body: bytes


class Running(NamedTuple):
    """A server that has answered once, so many seconds after its start."""

    pid: int
    port: int
    seconds: float


def service(environment: Path, folder: Path, body: bytes, **settings: str) -> Server:
    """Return the service as its image starts it, with the prediction log in a folder."""
    variables = {
        "PYTHONPATH": str(ROOT / "src"),
        "UPKEEP_HOST": HOST,
        "UPKEEP_PORT": "{port}",
        "UPKEEP_LOG_URL": log_url(folder),
        "UPKEEP_SPOOL": str(folder / "spool"),
        **settings,
    }
    return Server([str(environment / "bin/python"), "-m", "upkeep", "serve"], variables, body)


def peer(environment: Path, model: Path, body: bytes) -> Server:
    """Return MLflow's scoring server with one worker."""
    command = [str(environment / "bin/mlflow"), "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    options = ["--host", HOST, "--port", "{port}", "--workers", "1"]
    # It calls uvicorn by its bare name.
    path = os.pathsep.join([str(environment / "bin"), os.environ["PATH"]])
    variables = {"PATH": path, "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return Server([*command, *options], variables, body)


def log_url(folder: Path) -> str:
    """Return where the service that works in a folder keeps its prediction log."""
    return str(folder / "predictions")


@contextmanager
def running(server: Server, folder: Path) -> Iterator[Running]:
    """Start a server, wait for its first answer, and stop it in the end; what it prints goes to a file in `folder`."""
    log = folder / "server.log"
    port = _free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UPKEEP_", "PYTHON"))}
    variables = {name: value.format(port=port) for name, value in server.variables.items()}
    command = [part.format(port=port) for part in server.command]
    with log.open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**kept, **variables},
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that all of it can be stopped: MLflow's server is a child of its command
        )
        try:
            while not ask(port, server.body):
                if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    sys.exit(f"error: {' '.join(command)} does not answer\n{log.read_text()[-2000:]}")
                time.sleep(POLL_SECONDS)
            yield Running(process.pid, port, time.perf_counter() - started)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(STOP_SECONDS)


def ask(port: int, body: bytes) -> bytes | None:
    """Return the answer to one request, None without one or if its status is not 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=START_SECONDS)
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        return content if response.status == http.client.OK else None
    except OSError:
        return None
    finally:
        connection.close()


def load(server: Server, process: Running, folder: Path, seconds: int) -> Figures:
    """Return what ``post.lua`` prints: requests a second, times to answer in ms, requests failed."""
    body = folder / "body.json"
    body.write_bytes(server.body)
    script = str(ROOT / "bench/post.lua")
    load = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
    url = f"http://{HOST}:{process.port}/invocations"
    done = subprocess.run([*load, url, "--", str(body)], check=True, capture_output=True, text=True)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def proportional_megabytes(pid: int) -> dict[int, float]:
    """Return the memory of each process in a server's session by its id; what some share is divided among them."""
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return {each: _read_rollup(each, "Pss") for each in pids if _session(each) == pid}


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process."""
    return _read_rollup(pid, "Rss")


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:  # it has just ended
        return None


def _read_rollup(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])
