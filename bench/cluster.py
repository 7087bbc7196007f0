"""Stages on a Dask cluster: two workers against one and against loky, killed workers, and what 64 would gain.

`validate` and `dataset`, whose work is a plant's alone, run in a process of their own, as `dvc repro` runs them, on
workers of one thread. A first pass, which starts loky's workers and imports all that they need, does not count.
"""

import hashlib
import heapq
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, chdir
from datetime import date
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from distributed import Client, LocalCluster, get_task_stream

from bench.checkout import set_fleet
from bench.measuring import ROOT, Row, take_seconds
from upkeep.core.parallel import map_plants
from upkeep.core.params import Parallel, load_params
from upkeep.stages import dataset, fetch, validate

PLANTS = {f"plant{number}": machines for number, machines in enumerate((40, 30, 25, 20, 20, 15, 15, 10, 10, 10))}
UNTIL = date(2025, 6, 30)
ROUNDS = 3
KILLS = 20
MANY_PLANTS = 300
MANY_WORKERS = 64
EMPTY_TASKS = 500
OUTPUTS = ("data/interim", "data/processed", "reports")
ENVIRONMENT = {"POLARS_MAX_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}


def measure() -> list[Row]:
    """Return speed, bytes that differ, kills survived and the simulated speed of many workers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        start = partial(LocalCluster, threads_per_worker=1, dashboard_address=":0", silence_logs="ERROR")
        one, two = (stack.enter_context(start(n_workers=workers, env=ENVIRONMENT)) for workers in (1, 2))
        sides = {"loky": ("loky", ""), "one": ("dask", one.scheduler_address), "two": ("dask", two.scheduler_address)}
        stack.enter_context(chdir(folder))
        _fetch()
        runs = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, how in sides.items():
                runs[side].append(_read(_start(*how)))
        seconds = {side: statistics.median(run["seconds"] for run in found) for side, found in runs.items()}
        digests = {str(run["digest"]) for found in runs.values() for run in found}
        with Client(two) as client:
            survived = sum(_run_and_kill(client, seconds["two"], seed) in digests for seed in range(KILLS))
        tasks = _time_tasks(one)
        costs = _time_empty_tasks(sides["two"][1])
    share = _simulate(list(islice(cycle(tasks), MANY_PLANTS)), MANY_WORKERS, *costs)
    work = f"validate and dataset of {len(PLANTS)} plants, half a year of hourly rows; median of {ROUNDS}"
    simulated = (
        f"{MANY_PLANTS} plants, whose work was measured, {statistics.mean(tasks):.2f} s each in the mean; "
        f"a stage costs {costs[0]:.2f} s, a task {costs[1] * 1e3:.1f} ms of the scheduler"
    )
    return [
        Row("Dask, two workers against one", 1 / seconds["two"], "1/s", 1 / seconds["one"], "ratio >= 1.7", work),
        Row("Dask, two workers against loky", seconds["two"], "s", seconds["loky"], "ratio <= 1.15", work),
        Row("Dask against loky, other bytes", float(len(digests) - 1), "runs", target="ours <= 0"),
        Row("Dask, kill -9 of a worker, same bytes", float(survived), f"of {KILLS} runs", target=f"ours >= {KILLS}"),
        Row(f"Dask, {MANY_WORKERS} workers simulated", share, "of linear", target="ours >= 0.8", note=simulated),
    ]


def _fetch() -> None:
    """Fetch a fleet's raw data into the working folder."""
    # Pieces of the run before would be read instead of worked for.
    set_fleet(Path(), PLANTS, UNTIL, pieces={"folder": None})
    fetch.run(load_params())


def _start(backend: str, address: str, *, warm: bool = True) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.cluster", backend, address, "warm" if warm else ""]
    return subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True)


def _read(process: subprocess.Popen[str]) -> dict[str, float | str]:
    output, _ = process.communicate()
    found: dict[str, float | str] = json.loads(output) if process.returncode == 0 else {"digest": "failed"}
    return found


def _run_and_kill(client: Client, seconds: float, seed: int) -> str:
    """Return the digest of a run in which a random worker is killed at a random time."""
    chance = random.Random(seed)  # noqa: S311 - draws an instant, not a secret
    client.wait_for_workers(2, timeout=60)
    process = _start("dask", client.scheduler.address, warm=False)
    while not any(client.processing().values()):
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.8 * seconds))
    os.kill(chance.choice(sorted(client.run(os.getpid).values())), signal.SIGKILL)
    return str(_read(process)["digest"])


def _time_tasks(cluster: LocalCluster) -> list[float]:
    """Return the seconds that each plant took in both stages together, the largest first."""
    with Client(cluster) as client, get_task_stream(client) as stream:
        _read(_start("dask", cluster.scheduler_address, warm=False))
    seconds = [sum(part["stop"] - part["start"] for part in task["startstops"]) for task in stream.data]
    return [sum(stages) for stages in zip(seconds[: len(PLANTS)], seconds[len(PLANTS) :], strict=True)]


def _time_empty_tasks(address: str) -> tuple[float, float]:
    """Return the seconds that a stage costs without any work, and those that each task adds."""
    go = partial(map_plants, how=Parallel(backend="dask", jobs=1, address=address))
    few, many = (
        statistics.median(
            take_seconds(partial(go, _do_nothing, [str(name) for name in range(tasks)])) for _ in range(3)
        )
        for tasks in (1, EMPTY_TASKS)
    )
    return few, (many - few) / EMPTY_TASKS


def _do_nothing(_: str) -> None: ...


def _simulate(tasks: Sequence[float], workers: int, stage: float, task: float) -> float:
    """Return which share of `workers` times one worker's speed is reached, tasks taken in this order by who is free."""
    free = [0.0] * workers
    for number, seconds in enumerate(sorted(tasks, reverse=True)):
        begun = max(heapq.heappop(free), number * task)
        heapq.heappush(free, begun + seconds)
    return (sum(tasks) / workers) / (stage + max(free))


def _digest() -> str:
    files = sorted(
        file for name in OUTPUTS for file in Path(name).rglob("*") if file.is_file() and file.suffix != ".tmp"
    )
    parts = [f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _run_stages(how: Parallel) -> None:
    params = load_params().model_copy(update={"parallel": how})
    validate.run(params)
    dataset.run(params)


if __name__ == "__main__":
    backend, address, warm = sys.argv[1:]
    go = partial(_run_stages, Parallel(backend=backend, jobs=2, address=address or None))
    if warm:
        go()
    print(json.dumps({"seconds": take_seconds(go), "digest": _digest()}))
