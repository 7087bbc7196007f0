"""The prediction log on a real disk: what it survives, and what it costs when it cannot."""

import contextlib
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from urllib.parse import quote, unquote

import numpy as np
import pytest
from log_cases import DAY, logged_numbers, prediction, read_log

from upkeep.core.errors import UpkeepError
from upkeep.core.files import locked
from upkeep.scoring.prediction_log import PREDICTION_LOG, as_log_rows, read_parts, write_part
from upkeep.serving import log_writer
from upkeep.serving import spool as spooling
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.spool import Spool

CASES = Path(__file__).parents[1] / "unit"
MANY = 1_000_000_000

# Each of these programs prints what it does, so that a test can kill it and compare.
APPEND_STEADILY = """
import itertools, sys, time
from pathlib import Path
from log_cases import prediction
from upkeep.serving.log_writer import LogWriter
log = LogWriter(sys.argv[1], Path(sys.argv[2]), max_spool_bytes=10**9)
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
from upkeep.serving.log_writer import LogWriter
log = LogWriter(sys.argv[1], Path(sys.argv[2]), max_spool_bytes=10**9, ship_after_seconds=0.05, flush_seconds=0.01)
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
from upkeep.serving.log_writer import LogWriter
log = LogWriter(sys.argv[1], Path(sys.argv[2]), max_spool_bytes=10**9, flush_seconds=0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log.start()
log.append(prediction(1))
while not log.last_error:
    time.sleep(0.01)
log.append(prediction(2))
print(json.dumps([log.written, log.last_error]))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.close()
print(json.dumps([log.written, log.last_error]))
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
def new_log(url, spool):
    """Return logs that are quick and share the spool, and close those that the test leaves open."""
    logs: list[LogWriter] = []

    def new(max_spool_bytes: int = MANY, **pauses: float) -> LogWriter:
        logs.append(LogWriter(url, spool, max_spool_bytes=max_spool_bytes, **{"flush_seconds": 0.01, **pauses}))
        logs[-1].start()
        return logs[-1]

    yield new
    for log in logs:
        log.close()


def spool_some(new_log, url, numbers) -> None:
    """Leave predictions in the spool, as a process does that ends while the store is down."""
    Path(url).write_text("in the way of the folder")
    log = new_log()
    for number in numbers:
        log.append(prediction(number))
    log.close()
    Path(url).unlink()


def spooled_bytes(spool) -> int:
    return sum(file.stat().st_size for file in spool.glob("**/*.arrow"))


def test_what_is_appended_is_in_the_log_bit_for_bit(new_log, url, spool):
    features = np.array([0.1, np.nan, 1e-45, -0.0], dtype=np.float32)
    sent = [prediction(1), prediction(2, plant="porto", features=features)]
    log = new_log()
    for each in sent:
        log.append(each)
    log.close()
    assert read_log(url).sort("plant").equals(as_log_rows(sent))
    assert spooled_bytes(spool) == 0
    assert (log.appended, log.written, log.shipped) == (2, 2, 2)
    assert not log.last_error


@pytest.mark.parametrize("plant", ["Nord", "北京", "a/b", "..", "x" * 199, "é" * 99])
def test_plants_have_folders_of_their_own_that_tell_their_names_also_where_case_does_not_count(url, plant):
    sent = as_log_rows([prediction(1, plant=plant), prediction(2, plant=plant.lower() + "-")])
    folders = [name.split("/")[1].removeprefix("plant=") for name in write_part(url, "part", sent)]
    assert folders[0].casefold() != folders[1].casefold()
    assert unquote(folders[0]) == plant or len(quote(plant)) > 200
    assert read_log(url).sort("id").equals(sent.sort("id"))


def test_what_is_spooled_is_shipped_while_the_service_runs(new_log, url):
    log = new_log(ship_after_seconds=0.05)
    log.append(prediction(1))
    wait_until(lambda: log.shipped)
    assert logged_numbers(url) == [1]
    wait_until(lambda: log.spool_bytes == 0)


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
    log = new_log(ship_after_seconds=0.05)
    for number in range(400, 500):
        log.append(prediction(number))
        time.sleep(0.005)
    assert [service.wait(timeout=60) for service in services] == [0, 0]
    log.close()
    assert logged_numbers(url) == list(range(500))


def test_what_another_process_spooled_is_shipped_once(new_log, url):
    working = new_log()
    working.append(prediction(1))
    wait_until(lambda: working.written == 1)
    new_log().close()
    assert logged_numbers(url) == [1]
    working.append(prediction(2))
    working.close()
    assert logged_numbers(url) == [1, 2]


def test_while_one_process_ships_the_others_do_not(new_log, spool):
    log = new_log(ship_after_seconds=0.02)
    with locked(spool / "shipping.lock"):
        log.append(prediction(1))
        wait_until(lambda: log.written)
        time.sleep(0.2)
        assert log.shipped == 0
    wait_until(lambda: log.shipped)


def test_what_was_shipped_but_not_removed_before_a_kill_is_not_doubled(new_log, url, spool):
    spool_some(new_log, url, [1, 2])
    copytree(spool, spool.parent / "copy")
    new_log().close()
    assert logged_numbers(url) == [1, 2]
    copytree(spool.parent / "copy", spool, dirs_exist_ok=True)
    as_log_rows([prediction(0)]).write_ipc_stream(spool / "0-0-1.arrow")  # of a process whose clock is behind
    log = new_log()
    log.append(prediction(3))
    log.close()
    assert logged_numbers(url) == [0, 1, 2, 3]


def test_what_a_version_without_roles_spooled_is_shipped(new_log, url, spool):
    spool.mkdir()
    as_log_rows([prediction(1)]).drop("role").write_ipc_stream(spool / "0-0-1.arrow")
    new_log().close()
    assert logged_numbers(url) == [1]


def test_a_store_that_refuses_costs_nothing(new_log, url, caplog):
    caplog.set_level(logging.INFO)
    Path(url).write_text("in the way of the folder")
    log = new_log(ship_after_seconds=0.02)
    log.append(prediction(1))
    wait_until(lambda: log.last_error)
    assert log.last_error.startswith("predictions cannot be written: ")
    assert f"[file={url}]" in log.last_error
    log.append(prediction(2))
    time.sleep(0.3)  # some more tries
    Path(url).unlink()
    wait_until(lambda: not log.last_error)
    log.close()
    assert logged_numbers(url) == [1, 2]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "INFO"], "told when it begins and when it ends, not at every try"


def test_what_the_disk_damaged_does_not_hold_back_the_others(new_log, url, spool, caplog):
    for number in (1, 2):
        spool_some(new_log, url, [number])
    damaged = min(spool.rglob("*.arrow"), key=lambda file: file.name)
    damaged.write_bytes(damaged.read_bytes()[:300])
    log = new_log()
    log.close()
    assert logged_numbers(url) == [2]
    assert log.dropped["unreadable"] == 1
    assert f"{damaged.name} cannot be read back" in caplog.text
    assert spooled_bytes(spool) == 0


def test_a_spool_that_is_none_is_told_and_costs_no_request(new_log, spool, caplog):
    spool.write_text("in the way of the folder")
    log = new_log()
    log.append(prediction(1))
    wait_until(lambda: log.write_error and log.ship_error)
    assert log.last_error == f"the spool {spool} cannot be written: [Errno 17] File exists: {str(spool)!r}"
    log.close()
    assert log.dropped["unwritten"] == 1
    assert f"1 rows are lost: the spool {spool} cannot be written" in caplog.text


def test_a_full_spool_keeps_the_oldest(new_log, url, spool):
    Path(url).write_text("in the way of the folder")
    log = new_log(max_spool_bytes=20_000)
    for number in range(10):
        log.append(prediction(number))
        wait_until(lambda: log.written == log.appended or log.write_error)
    assert log.last_error.startswith(f"the spool {spool} cannot be written: it has room for ")
    log.close()
    kept = log.written
    assert 2 < kept < 10
    assert log.dropped["unwritten"] == 10 - kept
    following = new_log(max_spool_bytes=20_000)
    wait_until(lambda: following.spool_bytes)
    following.append(prediction(10))
    wait_until(lambda: following.write_error)
    following.close()
    assert spooled_bytes(spool) <= 20_000
    Path(url).unlink()
    new_log().close()
    assert logged_numbers(url) == list(range(kept))


def test_what_a_store_that_is_down_leaves_waiting_is_shipped_in_parts_that_stay_small(new_log, url, monkeypatch):
    monkeypatch.setattr(spooling, "PART_BYTES", 5_000)
    Path(url).write_text("in the way of the folder")
    log = new_log(ship_after_seconds=0.02)
    for number in range(20):
        log.append(prediction(number))
        time.sleep(0.02)
    wait_until(lambda: log.written == 20)
    Path(url).unlink()
    log.close()
    assert logged_numbers(url) == list(range(20))
    assert max(rows.height for _, rows in read_parts(url, DAY, set())) < 10


def test_a_store_that_is_down_for_long_leaves_few_files_waiting(new_log, url, spool):
    Path(url).write_text("in the way of the folder")
    log = new_log(ship_after_seconds=0.02)
    for number in range(60):
        log.append(prediction(number))
        wait_until(lambda: log.written == log.appended)
    wait_until(lambda: len(list(spool.glob("*.arrow"))) == 1)
    Path(url).unlink()
    log.close()
    assert logged_numbers(url) == list(range(60))
    assert spooled_bytes(spool) == 0


class Killed(BaseException):
    """What ends a process without asking."""


STEPS = [(spooling, "write_whole"), (spooling, "write_part"), (spooling, "rmtree"), (Path, "rename"), (Path, "unlink")]


def die_before(step, monkeypatch):
    """Have the process end before the step of this number that changes files."""
    steps = itertools.count()

    def counted(change):
        def work(*arguments, **options):
            if next(steps) == step:
                raise Killed
            return change(*arguments, **options)

        return work

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("is_down", [True, False])
@pytest.mark.parametrize("step", range(24))
def test_whenever_it_is_killed_each_prediction_is_logged_once(url, spool, monkeypatch, step, is_down):
    waiting = Spool(spool, PREDICTION_LOG, url)
    sizes = [waiting.write(as_log_rows([prediction(number)]), MANY) for number in range(6)]
    monkeypatch.setattr(spooling, "PART_BYTES", 2 * max(sizes))
    if is_down:
        Path(url).write_text("in the way of the folder")
    with monkeypatch.context() as dying, contextlib.suppress(Killed, UpkeepError):
        die_before(step, dying)
        list(waiting.ship())
    Path(url).unlink(missing_ok=True) if is_down else None
    assert sum(rows for rows, _ in waiting.ship()) <= 6
    assert logged_numbers(url) == list(range(6))
    assert spooled_bytes(spool) == 0


def test_a_file_of_somebody_elses_holds_up_no_prediction(new_log, url, spool, caplog):
    spool_some(new_log, url, [1])
    (spool / "0.arrow").write_text("something else")
    (spool / "1.arrow").mkdir()
    log = new_log()
    log.close()
    assert (logged_numbers(url), log.last_error) == ([1], "")
    assert "0.arrow cannot be read back" in caplog.text


def test_a_spool_that_is_removed_under_way_costs_no_more_than_what_was_in_it(new_log, url, spool):
    log = new_log(ship_after_seconds=0.02)
    log.append(prediction(1))
    wait_until(lambda: log.shipped == 1)
    spool.rename(spool.with_name("removed"))  # at once; rmtree would fail if the writer takes its lock meanwhile
    log.append(prediction(2))
    log.close()
    assert logged_numbers(url) == [1, 2]
    assert not log.last_error


def test_room_in_the_spool_is_used_again(new_log, url):
    Path(url).write_text("in the way of the folder")
    log = new_log(max_spool_bytes=20_000, ship_after_seconds=0.02)
    for number in range(40):
        log.append(prediction(number))
        time.sleep(0.02)
    wait_until(lambda: log.write_error)
    Path(url).unlink()
    wait_until(lambda: log.shipped == 40)
    assert logged_numbers(url) == list(range(40))


def test_what_is_shipped_during_a_write_is_not_counted_as_waiting(new_log, spool, monkeypatch):
    log = new_log(ship_after_seconds=60)
    log.append(prediction(1))
    wait_until(lambda: log.written)
    write = Spool.write

    def ship_meanwhile(*given):
        shipping = threading.Thread(target=log._ship)
        shipping.start()
        shipping.join(0.5)
        return write(*given)

    monkeypatch.setattr(Spool, "write", ship_meanwhile)
    log.append(prediction(2))
    wait_until(lambda: log.written == 2)
    wait_until(lambda: log.spool_bytes == spooled_bytes(spool), seconds=5)
    assert log.spool_bytes == spooled_bytes(spool)


def test_what_the_disk_refuses_is_told_kept_and_written_when_it_can_be(url, spool):
    # A limit on the size of files gives the operating system's own error.
    service = start(REFUSED_BY_THE_DISK, url, spool)
    refused, freed = map(json.loads, service.communicate(timeout=60)[0].splitlines())
    assert refused == [0, f"the spool {spool} cannot be written: [Errno 27] File too large"]
    assert freed == [2, ""]
    assert logged_numbers(url) == [1, 2]


def test_a_full_queue_drops_what_is_new_and_counts_it(new_log, url, monkeypatch):
    monkeypatch.setattr(log_writer, "QUEUE_BYTES", 10_000)
    log = new_log(flush_seconds=60)
    for number in range(7):
        log.append(prediction(number))
    log.close()
    assert log.dropped["unwritten"] == 3
    assert read_log(url)["id"].to_list() == [f"request-{number}/0" for number in range(4)]


def test_a_prediction_that_breaks_the_schema_is_counted_and_does_not_hold_up_the_next(new_log, url):
    log = new_log()
    log.append(prediction(1, probability="high"))
    wait_until(lambda: log.dropped["malformed"])
    log.append(prediction(2))
    log.close()
    assert log.dropped["malformed"] == 1
    assert logged_numbers(url) == [2]


def test_a_reader_does_not_see_a_file_that_is_being_written(new_log, url):
    log = new_log()
    log.append(prediction(1))
    log.close()
    [(name, _)] = read_parts(url, DAY, set())
    folder = (Path(url) / name).parent
    (folder / f".{Path(name).stem}.parquet.tmp").write_bytes(b"half")
    assert logged_numbers(url) == [1]


def test_without_a_remote_store_no_client_is_loaded():
    program = "import sys, upkeep.serving.log_writer; print(*sys.modules)"
    loaded = start(program).communicate(timeout=60)[0].split()
    assert not {"fsspec", "s3fs", "pyarrow", "pandas", "mlflow"} & set(loaded)
