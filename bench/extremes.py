"""Requests beyond every limit: whether the service fails, grows or keeps ``/ping`` waiting."""

import http.client
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from tests.extreme_requests import Extreme, extremes, write_request

from bench import environments, servers
from bench.measuring import ROOT, Row
from bench.servers import Running
from upkeep.core import paths

SHAPES = 500
LARGEST = 24_000_000
PING_SECONDS, SAMPLE_SECONDS = 0.02, 0.02
IDLE_SECONDS = 3


def measure() -> list[Row]:
    """Return answers of 5xx, the highest memory above idle, and the time to answer ``/ping`` meanwhile."""
    case = json.loads(next((ROOT / paths.GOLDEN).glob("*.json")).read_text("utf-8"))[0]
    with TemporaryDirectory() as name:
        folder = Path(name)
        server = servers.service(environments.install_service(), folder, json.dumps(case["request"]).encode())
        with servers.running(server, folder) as process:
            time.sleep(IDLE_SECONDS)
            return _rows(process)


def _rows(process: Running) -> list[Row]:
    idle = servers.resident_megabytes(process.pid)
    done, memory = Event(), [idle]
    sampler = Thread(target=_sample, args=(process.pid, memory, done))
    theirs, ours = multiprocessing.get_context("spawn").Pipe()
    # A process of its own, which what the shapes take to write does not slow down.
    pinging = multiprocessing.get_context("spawn").Process(target=_ping, args=(process.port, theirs), daemon=True)
    pinging.start()
    ours.recv()
    sampler.start()
    statuses: list[int] = []

    @settings(
        max_examples=SHAPES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(extremes(LARGEST))
    def send(extreme: Extreme) -> None:
        statuses.append(_send(process.port, *write_request(extreme, LARGEST)))

    send()
    ours.send("enough")
    pings = ours.recv()
    done.set()
    sampler.join()
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    note = f"{len(statuses)} shapes of up to {LARGEST / 1e6:.0f} MB; by status: {counts}; 0 is a connection closed"
    p50, p99 = (float(value) * 1000 for value in np.percentile(pings, [50, 99]))
    failed = sum(status >= http.client.INTERNAL_SERVER_ERROR for status in statuses)
    grown = f"idle {idle:.0f} MB, {memory[-1]:.0f} MB in the end"
    times = f"{len(pings)} pings, one each {PING_SECONDS * 1000:.0f} ms; p50 {p50:.1f} ms, longest {max(pings):.2f} s"
    return [
        Row("extreme requests, answers of 5xx", failed, "requests", target="ours <= 0", note=note),
        Row("extreme requests, memory above idle", max(memory) - idle, "MB", target="ours <= 500", note=grown),
        Row("extreme requests, /ping beside them, p99", p99, "ms", target="ours <= 100", note=times),
    ]


def _send(port: int, headers: dict[str, str], body: bytes) -> int:
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=servers.START_SECONDS)
    try:
        connection.request("POST", "/invocations", body, headers)
        response = connection.getresponse()
        response.read()
        return response.status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _ping(port: int, pipe: Connection) -> None:
    """Ask at even intervals until told to stop, then tell the seconds that each answer took from when it was due."""
    seconds = []
    due = time.perf_counter()
    pipe.send("ready")
    while not pipe.poll():
        time.sleep(max(0.0, due - time.perf_counter()))
        connection = http.client.HTTPConnection(servers.HOST, port, timeout=servers.START_SECONDS)
        connection.request("GET", "/ping")
        connection.getresponse().read()
        connection.close()
        seconds.append(time.perf_counter() - due)
        due = max(due + PING_SECONDS, time.perf_counter() - PING_SECONDS)
    pipe.send(seconds)


def _sample(pid: int, memory: list[float], done: Event) -> None:
    while not done.wait(SAMPLE_SECONDS):
        memory.append(servers.resident_megabytes(pid))
