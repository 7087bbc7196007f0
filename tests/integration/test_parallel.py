"""Work mapped over plants gives the same answer, and the same errors, wherever it runs."""

import os
import re
import signal
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
from distributed import Client, LocalCluster

from upkeep.core import parallel
from upkeep.core.cluster import _describe_environment
from upkeep.core.errors import UpkeepError
from upkeep.core.parallel import map_plants
from upkeep.core.params import Parallel
from upkeep.core.threads import start_beside

BACKENDS = ["sequential", "threads", "loky", "dask"]


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("upkeep.core.cluster.LOOK_SECONDS", 0.01)


@pytest.fixture
def on(cluster):
    """How work is mapped by each backend."""
    return lambda backend: Parallel(backend=backend, jobs=2, address=cluster if backend == "dask" else None)


@pytest.fixture
def shout(tmp_path):
    def shout(plant, mark):  # inside, so that workers get it by value: they cannot import a test module
        if plant.startswith("broken"):
            raise UpkeepError(f"no rows of {plant}", expected="some", remedy="send some", table="telemetry")
        (tmp_path / plant).touch()
        return plant.upper() + mark

    return shout


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_gives_the_same_results_in_the_order_of_plants(backend, on, shout):
    results = map_plants(shout, ["porto", "lyon", "gdansk"], on(backend), "!")
    assert list(results.items()) == [("porto", "PORTO!"), ("lyon", "LYON!"), ("gdansk", "GDANSK!")]


def test_without_an_address_dask_starts_workers_of_its_own_and_ends_them_without_a_word(monkeypatch, capfd):
    monkeypatch.setattr(parallel, "tqdm", lambda outcomes, **_: outcomes)
    [worker] = map_plants(lambda _: os.getpid(), ["lyon"], Parallel(backend="dask", jobs=1)).values()
    assert not Path(f"/proc/{worker}").exists()
    assert capfd.readouterr() == ("", "")


def test_a_worker_of_a_cluster_works_in_the_drivers_folder(on):
    assert map_plants(lambda _: Path.cwd(), ["lyon"], on("dask")) == {"lyon": Path.cwd()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plant_that_fails_does_not_stop_the_others_and_one_error_names_all_that_did(backend, on, shout):
    plants = ["lyon", "broken", "gdansk", "broken too", "porto"]
    with pytest.raises(UpkeepError) as raised:
        map_plants(shout, plants, on(backend), "!")
    assert raised.value.where == {"plant": "broken", "table": "telemetry"}
    assert raised.value.what == "no rows of broken; and 1 more of the plants failed: broken too: no rows of broken too"
    assert (raised.value.expected, raised.value.remedy) == ("some", "send some")
    assert {name for name in plants if Path(name).exists()} == {"lyon", "gdansk", "porto"}


@pytest.mark.parametrize("backend", ["sequential", "loky", "dask"])
def test_an_error_of_the_code_itself_comes_as_it_is(backend, on):
    with pytest.raises(ZeroDivisionError):
        map_plants(lambda plant: 1 / len(plant), ["lyon", ""], on(backend))


def test_the_plants_with_most_data_come_first():
    for plant, size in {"lyon": 10, "Nürnberg": 30, "porto": 20}.items():
        file = Path("data/raw/telemetry", parallel.name_file(plant), "2025-01-06.parquet")
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * size)
    pinned = Path("data/interim/telemetry/pinned.parquet")  # whose raw data stays where it is
    pinned.parent.mkdir(parents=True)
    pinned.write_bytes(b"x" * 15)
    order = []
    plants = ["lyon", "Nürnberg", "pinned", "porto", "unknown"]
    map_plants(order.append, plants, Parallel(backend="sequential", jobs=1))
    assert order == ["Nürnberg", "porto", "pinned", "lyon", "unknown"]


@pytest.fixture
def kill():
    def kill(plant, times):
        """End the worker, as often as said of this plant."""
        done = len(list(Path.cwd().glob(f"{plant}.*")))
        if done < times.get(plant, 0):
            Path(f"{plant}.{done}").touch()
            time.sleep(0.5)  # whoever watches over a worker does not replace it if it dies as it starts
            os.kill(os.getpid(), signal.SIGKILL)
        return plant

    return kill


def test_what_a_lost_worker_had_is_done_by_another_one(on, kill):
    plants = ["lyon", "porto", "gdansk", "hamburg", "brest"]
    assert map_plants(kill, plants, on("dask"), {"lyon": 1}) == {plant: plant for plant in plants}


def test_a_plant_that_kills_each_worker_is_named_and_those_that_waited_behind_it_are_not(on, kill):
    plants = ["lyon", "broken", "porto", "gdansk", "hamburg"]
    with pytest.raises(UpkeepError, match=r"^each worker that had this plant was killed \[plant=broken\]"):
        map_plants(kill, plants, on("dask"), {"broken": 1000})


def test_with_processes_of_this_machine_a_killed_worker_ends_in_one_sentence(on, kill):
    with pytest.raises(UpkeepError, match="a worker process was killed at work"):
        map_plants(kill, ["lyon", "porto"], on("loky"), {"lyon": 1000})


def test_an_address_where_nobody_answers_is_named(shout):
    nowhere = Parallel(backend="dask", jobs=1, address="tcp://127.0.0.1:1")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.5s"}),
        pytest.raises(UpkeepError, match=re.escape("cannot be used: Timed out trying to connect to tcp://127.0.0.1:1")),
    ):
        map_plants(shout, ["lyon"], nowhere, "!")


def test_a_cluster_that_has_no_worker_for_too_long_is_given_up(shout, monkeypatch):
    monkeypatch.setattr("upkeep.core.cluster.PATIENCE_SECONDS", 0.2)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        pytest.raises(UpkeepError, match="cannot be used: Only 0/1 workers arrived"),
    ):
        map_plants(shout, ["lyon"], Parallel(backend="dask", jobs=1, address=cluster.scheduler_address), "!")


def test_a_worker_with_other_packages_does_nothing_and_is_told_what_differs(on, shout, monkeypatch):
    own = _describe_environment()
    monkeypatch.setattr(
        "upkeep.core.cluster._describe_environment", lambda: own | {"polars": "0.1", "upkeep": "changed"}
    )
    other = (
        rf"the worker tcp://\S+ has polars {own['polars']} instead of 0.1, upkeep {own['upkeep']} instead of changed"
    )
    with pytest.raises(UpkeepError, match=other):
        map_plants(shout, ["lyon"], on("dask"), "!")
    assert not Path("lyon").exists()


def test_a_scheduler_with_other_packages_is_told_what_differs(on, shout, monkeypatch):
    def differ(_client, function, expected, place):
        return function(expected | {"python": "2.7"}, place)

    monkeypatch.setattr(Client, "run_on_scheduler", differ)
    with pytest.raises(UpkeepError, match=r"^the scheduler has python 3\.\S+ instead of 2\.7"):
        map_plants(shout, ["lyon"], on("dask"), "!")


def test_a_worker_that_does_not_see_the_drivers_folder_does_nothing(on, shout, monkeypatch, tmp_path):
    unseen = SimpleNamespace(name=tmp_path / "elsewhere")  # a mark that the driver has set in a folder of its own
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: nullcontext(unseen))
    with pytest.raises(UpkeepError, match=f"the worker tcp://.* does not see the driver's folder {tmp_path}"):
        map_plants(shout, ["lyon"], on("dask"), "!")


def test_a_worker_of_several_threads_is_refused_for_they_share_a_folder(shout):
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=":0"
        ) as cluster,
        pytest.raises(UpkeepError, match="has 2 threads"),
    ):
        map_plants(shout, ["lyon"], Parallel(backend="dask", jobs=1, address=cluster.scheduler_address), "!")


def test_work_that_a_killed_run_left_in_this_folder_ends_before_new_work_begins(cluster, on, monkeypatch, capsys):
    monkeypatch.setattr("upkeep.core.cluster.QUIET_SECONDS", 0.1)

    def write(folder, text, seconds):
        (folder / "begun").touch()
        time.sleep(seconds)
        (folder / "lyon").write_text(text)

    folder = Path.cwd()
    with Client(cluster, set_as_default=False) as killed:
        left = killed.submit(write, folder, "old", 1, key=("upkeep-old", str(folder), 0), pure=False)
        until = time.monotonic() + 60
        while not Path("begun").exists():
            assert time.monotonic() < until, "no worker of the cluster is left"
            time.sleep(0.01)
        left.release()
    map_plants(lambda plant: write(folder, f"new {plant}", 0), ["lyon"], on("dask"))
    time.sleep(1)
    assert Path("lyon").read_text() == "new lyon"
    assert "waiting for what an earlier run left at work" in capsys.readouterr().err


def fail(error):
    raise error


def test_what_is_called_beside_gives_its_result_or_its_exception():
    assert start_beside(max, 1, 2).result(60) == 2
    with pytest.raises(UpkeepError, match="no rows"):
        start_beside(fail, UpkeepError("no rows", remedy="fetch more")).result(60)


def test_an_interrupt_that_is_raised_beside_reaches_the_main_thread():
    def work():
        start_beside(fail, KeyboardInterrupt())
        time.sleep(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
