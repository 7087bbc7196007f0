"""The prediction log on a real disk: what it survives, and what it costs when it cannot."""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from log_cases import DAY, logged_numbers, prediction, read_log

from upkeep.scoring.prediction_log import read_parts, tabulate
from upkeep.serving import prediction_log
from upkeep.serving.prediction_log import PredictionLog
from upkeep.serving.spool import Segment, claim, list_segments

CASES = Path(__file__).parents[1] / "unit"
MANY = 1_000_000_000

# Each of these programs prints what it does, so that a test can kill it and compare.
APPEND_STEADILY = """
import itertools, sys, time
from pathlib import Path
from log_cases import prediction
from upkeep.serving.prediction_log import PredictionLog
log = PredictionLog(sys.argv[1], Path(sys.argv[2]), max_spool_bytes=10**9)
log.start()
for number in itertools.count(int(sys.argv[3])):
    log.append(prediction(number))
    print(number, time.monotonic(), flush=True)
    time.sleep(0.005)
"""
SHARE_THE_SPOOL = """
import sys, time
from pathlib import Path
from log_cases import prediction
from upkeep.serving.prediction_log import PredictionLog
log = PredictionLog(sys.argv[1], Path(sys.argv[2]), max_spool_bytes=10**9, seal_seconds=0.05, flush_seconds=0.01)
log.start()
for number in range(int(sys.argv[3]), int(sys.argv[3]) + 200):
    log.append(prediction(number))
    time.sleep(0.005)
log.close()
"""
REFUSED_BY_THE_DISK = """
import json, resource, sys, time
from pathlib import Path
from log_cases import prediction
from upkeep.serving.prediction_log import PredictionLog
log = PredictionLog(sys.argv[1], Path(sys.argv[2]), max_spool_bytes=10**9, flush_seconds=0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log.start()
log.append(prediction(1))
while not log.status.failing:
    time.sleep(0.01)
log.append(prediction(2))
print(json.dumps([log.status.written, log.status.last_error]))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.close()
print(json.dumps([log.status.written, log.status.last_error]))
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CASES)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "log")


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def new_log(url, spool, monkeypatch):
    """Return logs that are quick and share the spool, and close those that the test leaves open."""
    monkeypatch.setattr(prediction_log, "SHIP_SECONDS", 0.02)
    monkeypatch.setattr(prediction_log, "LONGEST_PAUSE_SECONDS", 0.05)
    logs: list[PredictionLog] = []

    def new(max_spool_bytes: int = MANY, **pauses: float) -> PredictionLog:
        logs.append(PredictionLog(url, spool, max_spool_bytes=max_spool_bytes, **{"flush_seconds": 0.01, **pauses}))
        logs[-1].start()
        return logs[-1]

    yield new
    for log in logs:
        log.close()


def spool_some(new_log, url, spool, numbers) -> Path:
    """Leave a segment behind, as a process does that ends while the store is down."""
    Path(url).write_text("in the way of the folder")
    before = list_segments(spool)
    log = new_log()
    for number in numbers:
        log.append(prediction(number))
    log.close()
    Path(url).unlink()
    [segment] = set(list_segments(spool)) - set(before)
    return segment


def test_what_is_appended_is_in_the_log_bit_for_bit(new_log, url, spool):
    features = np.array([0.1, np.nan, 1e-45, -0.0], dtype=np.float32)
    sent = [prediction(1), prediction(2, plant="porto", features=features)]
    log = new_log()
    for each in sent:
        log.append(each)
    log.close()
    assert read_log(url).sort("plant").equals(tabulate(sent))
    assert list_segments(spool) == []
    assert (log.status.appended, log.status.written, log.status.shipped) == (2, 2, 2)
    assert not log.status.failing


def test_a_segment_is_shipped_while_the_service_runs(new_log, url):
    log = new_log(seal_seconds=0.05)
    log.append(prediction(1))
    wait_until(lambda: log.status.shipped)
    assert logged_numbers(url) == [1]
    wait_until(lambda: log.status.spool_bytes == 0)


def test_a_kill_costs_the_last_second_at_most_and_the_next_start_ships_the_rest(new_log, url, spool):
    service = start(APPEND_STEADILY, url, spool, 0)
    appended = [service.stdout.readline().split() for _ in range(300)]
    service.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    appended += [line.split() for line in service.communicate()[0].splitlines() if line.count(" ") == 1]
    new_log().close()
    safe = [int(number) for number, at in appended if float(at) < killed - 1]
    assert len(safe) > 50
    found = logged_numbers(url)
    assert found == list(range(len(found)))
    assert set(safe) <= set(found)


def test_processes_share_a_spool_and_each_prediction_arrives_once(new_log, url, spool):
    services = [start(SHARE_THE_SPOOL, url, spool, first) for first in (0, 200)]
    log = new_log(seal_seconds=0.05)
    for number in range(400, 500):
        log.append(prediction(number))
        time.sleep(0.005)
    assert [service.wait(timeout=60) for service in services] == [0, 0]
    log.close()
    assert logged_numbers(url) == list(range(500))


def test_the_segment_that_another_process_appends_to_is_left_alone(new_log, url, spool):
    working = new_log()
    working.append(prediction(1))
    wait_until(lambda: working.status.written == 1)
    new_log().close()
    assert len(list_segments(spool)) == 1
    working.append(prediction(2))
    working.close()
    assert logged_numbers(url) == [1, 2]


def test_shipping_a_segment_twice_gives_no_duplicates(new_log, url, spool):
    segment = spool_some(new_log, url, spool, [1, 2])
    content = segment.read_bytes()
    new_log().close()
    assert logged_numbers(url) == [1, 2]
    # As if the process had been killed before it could remove the segment.
    segment.write_bytes(content)
    new_log().close()
    assert logged_numbers(url) == [1, 2]


def test_a_store_that_refuses_costs_nothing(new_log, url, caplog):
    caplog.set_level(logging.INFO)
    Path(url).write_text("in the way of the folder")
    log = new_log(seal_seconds=0.02)
    log.append(prediction(1))
    wait_until(lambda: log.status.failing)
    assert log.status.last_error.startswith("predictions cannot be written: ")
    assert f"[file={url}]" in log.status.last_error
    log.append(prediction(2))
    time.sleep(0.3)  # some more tries
    Path(url).unlink()
    wait_until(lambda: not log.status.failing)
    log.close()
    assert logged_numbers(url) == [1, 2]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "INFO"], "told when it begins and when it ends, not at every try"


@pytest.mark.parametrize("cut", [1, 4_000])
def test_a_block_that_was_cut_short_costs_only_itself(new_log, url, spool, cut):
    segment = spool_some(new_log, url, spool, [1, 2])
    one_block = segment.read_bytes()
    segment.write_bytes(one_block + one_block[: min(len(one_block) - 1, cut)])
    log = new_log()
    log.close()
    assert logged_numbers(url) == [1, 2]
    assert log.status.dropped["torn"] == (1 if cut == 1 else 2)
    assert list_segments(spool) == []


def test_a_segment_that_cannot_be_read_does_not_hold_back_the_others(new_log, url, spool):
    (spool / "20250101T000000-unreadable.segment").mkdir(parents=True)
    log = new_log(seal_seconds=0.02)
    log.append(prediction(1))
    wait_until(lambda: log.status.shipped)
    wait_until(lambda: log.status.failing)
    assert "20250101T000000-unreadable.segment cannot be shipped: IsADirectoryError" in log.status.last_error
    assert logged_numbers(url) == [1]


def test_a_full_spool_keeps_the_oldest(new_log, url, spool):
    Path(url).write_text("in the way of the folder")
    log = new_log(max_spool_bytes=20_000)
    for number in range(10):
        log.append(prediction(number))
        wait_until(lambda: log.status.written == log.status.appended or log.status.write_error)
    assert log.status.last_error == f"the spool {spool} has reached its 20000 bytes"
    log.close()
    kept = log.status.written
    assert 2 < kept < 10
    assert log.status.dropped["spool_full"] == 10 - kept
    assert sum(segment.stat().st_size for segment in list_segments(spool)) <= 20_000
    Path(url).unlink()
    new_log().close()
    assert logged_numbers(url) == list(range(kept))


def test_room_in_the_spool_is_used_again(new_log, url):
    Path(url).write_text("in the way of the folder")
    log = new_log(max_spool_bytes=20_000, seal_seconds=0.02)
    for number in range(40):
        log.append(prediction(number))
        time.sleep(0.02)
    wait_until(lambda: log.status.write_error)
    Path(url).unlink()
    wait_until(lambda: log.status.shipped == 40)
    assert logged_numbers(url) == list(range(40))


def test_what_the_disk_refuses_is_told_kept_and_written_when_it_can_be(url, spool):
    # A limit on the size of files gives the operating system's own error, after part of a block is on the disk.
    service = start(REFUSED_BY_THE_DISK, url, spool)
    refused, freed = map(json.loads, service.communicate(timeout=60)[0].splitlines())
    assert refused == [0, f"the spool {spool} cannot be written: [Errno 27] File too large"]
    assert freed == [2, ""]
    assert logged_numbers(url) == [1, 2]


def test_a_spool_that_cannot_be_made_is_told_and_costs_no_request(new_log, spool):
    spool.write_text("in the way of the folder")
    log = new_log()
    log.append(prediction(1))
    wait_until(lambda: log.status.failing)
    assert f"the spool {spool} cannot be written" in log.status.last_error
    log.close()
    assert log.status.dropped["disk_error"] == 1


def test_a_full_queue_drops_what_is_new_and_counts_it(new_log, url, monkeypatch):
    monkeypatch.setattr(prediction_log, "QUEUE_BYTES", 10_000)
    log = new_log(flush_seconds=60)
    for number in range(7):
        log.append(prediction(number))
    log.close()
    assert log.status.dropped["queue_full"] == 3
    assert read_log(url)["id"].to_list() == [f"request-{number}/0" for number in range(4)]


def test_a_prediction_that_breaks_the_schema_costs_only_itself(new_log, url):
    log = new_log(flush_seconds=60)
    for each in (prediction(1), prediction(2, probability="high"), prediction(3)):
        log.append(each)
    log.close()
    assert log.status.dropped["malformed"] == 1
    assert logged_numbers(url) == [1, 3]


@pytest.fixture
def removed_before_locked(monkeypatch, spool):
    """Another process takes the next segment between its opening and its locking; nothing else can time that."""
    lock = fcntl.flock

    def lock_too_late(file, operation):
        monkeypatch.undo()
        list_segments(spool)[0].unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_too_late)


@pytest.mark.usefixtures("removed_before_locked")
def test_a_segment_that_was_taken_before_it_was_locked_is_made_anew(spool):
    segment = Segment(spool)
    assert len(list_segments(spool)) == 1
    segment.close()


def test_a_segment_that_was_shipped_before_it_was_locked_is_not_claimed(spool, request):
    Segment(spool).close()
    [path] = list_segments(spool)
    request.getfixturevalue("removed_before_locked")
    assert claim(path) is None


def test_a_reader_does_not_see_a_file_that_is_being_written(new_log, url):
    log = new_log()
    log.append(prediction(1))
    log.close()
    [(name, _)] = read_parts(url, DAY, set())
    folder = (Path(url) / name).parent
    (folder / f".{Path(name).stem}.parquet.tmp").write_bytes(b"half")
    assert logged_numbers(url) == [1]


def test_without_a_remote_store_no_client_is_loaded():
    program = "import sys, upkeep.serving.prediction_log; print(*sys.modules)"
    loaded = start(program).communicate(timeout=60)[0].split()
    assert not {"fsspec", "s3fs", "pyarrow", "pandas", "mlflow"} & set(loaded)
