"""The prediction log against a real S3 server that goes away, and on a disk that is really full."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from log_cases import logged_numbers, prediction
from seaweed import KEY, SECRET, Server, require_seaweed

from upkeep.serving.log_writer import LogWriter

CASES = Path(__file__).parents[1] / "unit"
FILL_THE_DISK = """
import json, os, sys, time
from pathlib import Path
from log_cases import prediction
from upkeep.serving.log_writer import LogWriter
disk = Path(sys.argv[2])
log = LogWriter(sys.argv[1], disk / "spool", max_spool_bytes=10**9, flush_seconds=0.01)
log.start()
log.append(prediction(0))
while not log.written:
    time.sleep(0.01)
with (disk / "ballast").open("wb", buffering=0) as ballast:
    try:
        while True:
            ballast.write(bytes(1024))
    except OSError:
        pass
number = 0
while not log.last_error:
    number += 1
    log.append(prediction(number))
    time.sleep(0.02)
print(json.dumps([log.last_error, log.dropped["unwritten"]]))
(disk / "ballast").unlink()
log.close()
print(json.dumps([log.last_error, log.dropped["unwritten"], number]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    require_seaweed()
    server = Server(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    server.files().mkdir("predictions")
    yield server
    server.kill()


@pytest.fixture
def new_log(server, tmp_path, monkeypatch):
    """Return a log on the server, as a service with the usual variables has it."""
    variables = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # A client that an earlier test left behind would have that test's keys.
    type(server.files()).clear_instance_cache()

    def new(url: str) -> LogWriter:
        log = LogWriter(url, tmp_path / "spool", max_spool_bytes=10**9, ship_after_seconds=0.5)
        log.start()
        return log

    return new


def wait_until(condition) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_an_outage_of_s3_loses_and_doubles_nothing(server, new_log):
    log = new_log("s3://predictions/outage")
    appended, stop = [], threading.Event()

    def serve():
        for number in itertools.count():
            if stop.wait(0.005):
                return
            log.append(prediction(number))
            appended.append(number)

    service = threading.Thread(target=serve)
    service.start()
    try:
        wait_until(lambda: log.shipped)
        server.kill()
        wait_until(lambda: log.last_error and log.written > log.shipped + 300)
        assert "predictions cannot be written" in log.last_error
        server.start()
        wait_until(lambda: not log.last_error)
    finally:
        stop.set()
        service.join()
    wait_until(lambda: log.shipped == len(appended))
    log.close()
    assert sum(log.dropped.values()) == 0
    assert logged_numbers("s3://predictions/outage") == appended


def test_a_service_that_stops_during_an_outage_leaves_its_predictions_to_the_next_one(server, new_log):
    server.kill()
    log = new_log("s3://predictions/stopped")
    log.append(prediction(1))
    log.close()
    assert log.shipped == 0
    server.start()
    following = new_log("s3://predictions/stopped")
    wait_until(lambda: following.shipped == 1)
    following.close()
    assert logged_numbers("s3://predictions/stopped") == [1]


def test_a_wrong_key_is_told_without_the_key(new_log, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-horse-battery")
    log = new_log("s3://predictions/refused")
    log.append(prediction(1))
    wait_until(lambda: log.last_error)
    log.close()
    assert "[file=s3://predictions/refused]" in log.last_error
    assert "PermissionError" in log.last_error
    assert "wrong-horse-battery" not in log.last_error


def test_a_full_disk_is_told_and_costs_nothing_once_there_is_room(tmp_path):
    # The mount is seen by this command only and is gone with it.
    alone = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("needs the right to mount a small file system: unshare --map-root-user --mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=256k tmpfs "$1" && exec "$2" -c "$3" "$4" "$1"'
    command = [*alone, "sh", "-c", mount, "sh", disk, sys.executable, FILL_THE_DISK, tmp_path / "log"]
    environment = {**os.environ, "PYTHONPATH": str(CASES)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    full, freed = map(json.loads, done.stdout.splitlines())
    assert full == [f"the spool {disk / 'spool'} cannot be written: [Errno 28] No space left on device", 0]
    assert freed[:2] == ["", 0]
    assert logged_numbers(tmp_path / "log") == list(range(freed[2] + 1))
