"""Plants handed to the workers of a Dask cluster; ``distributed`` is imported only where there is one."""

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from joblib import effective_n_jobs
from tqdm import tqdm

from upkeep.core import params, paths
from upkeep.core.errors import UpkeepError
from upkeep.core.pieces import LOADED, name_versions
from upkeep.core.timing import QUIET_SECONDS

Result = TypeVar("Result")
Done = tuple[str, Result | Exception]  # a plant, and the result of its work or what it raised
Work = Callable[[str], Done[Result]]

LOOK_SECONDS = 0.1  # how often a cluster is asked what is done
PATIENCE_SECONDS = 300  # how long a cluster may be without any worker

SETUP = "start scheduler and workers with this environment and this folder at parallel.address, as docs/scaling.md says"

KILLED = "each worker that had this plant was killed"


def run_on_cluster(work: Work[Result], plants: list[str], how: params.Parallel) -> Iterator[Done[Result]]:
    """Yield each plant's outcome as it comes; another worker repeats what a lost one had begun."""
    try:
        from distributed import Client, KilledWorker

        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # it logs what it raises
        with _find_cluster(how) as cluster, Client(cluster) as client, _share_work(work, client) as given:
            client.run_on_scheduler(_require_environment, _describe_environment(), "the scheduler")
            # Tasks that a killed run left behind would overwrite this one's files.
            left = iter(lambda: any(client.run(_is_at_work, str(Path.cwd())).values()), False)
            for _ in tqdm(left, desc="waiting for what an earlier run left at work", delay=QUIET_SECONDS, unit="look"):
                time.sleep(LOOK_SECONDS)
            blamed = []
            for plant, outcome in _run_plants(client, given, plants):
                if isinstance(outcome, KilledWorker):
                    blamed.append(plant)
                else:
                    yield plant, outcome
            # A plant that kills its workers takes those queued behind it along: run alone, each shows whether it did.
            for plant in blamed:
                [(_, outcome)] = _run_plants(client, given, [plant])
                if isinstance(outcome, KilledWorker):
                    remedy = "give workers more memory; their logs may tell more"
                    outcome = UpkeepError(KILLED, remedy=remedy, plant=plant)
                yield plant, outcome
    except UpkeepError:
        raise
    except Exception as error:  # distributed raises many kinds; what the work itself raises is an outcome
        raise UpkeepError(f"the Dask cluster cannot be used: {error}", remedy=SETUP) from error


def _find_cluster(how: params.Parallel) -> Any:
    """Return a context manager that yields the scheduler's address, or a cluster on this machine."""
    from distributed import LocalCluster

    if how.address:
        return nullcontext(how.address)
    return LocalCluster(
        n_workers=effective_n_jobs(how.jobs),
        threads_per_worker=1,
        memory_limit=None,  # a worker that pauses for want of memory may never go on
        dashboard_address="127.0.0.1:0",  # a port that is free
        security=True,  # other users of this machine can reach its ports
        silence_logs="CRITICAL",  # of its own end it warns, and of heartbeats after it; what fails else is raised
    )


@contextmanager
def _share_work(work: Work[Result], client: Any) -> Iterator[Work[Result]]:
    """Send the work to each worker once, also to those that join late: sending large arguments per plant is slow."""
    from distributed import WorkerPlugin

    plugin, name = WorkerPlugin(), f"upkeep-{uuid4().hex}"
    plugin.work = work
    client.register_plugin(plugin, name)
    paths.LOCAL.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=paths.LOCAL, prefix="cluster-") as mark:
        yield partial(_call_on_worker, Path.cwd(), Path(mark.name).absolute(), name, _describe_environment())
    client.unregister_worker_plugin(name)


def _run_plants(client: Any, work: Work[Result], plants: list[str]) -> Iterator[Done[Result]]:
    """Yield outcomes as they come; that of a plant which lost several workers is a KilledWorker."""
    from distributed import as_completed

    run = f"upkeep-{uuid4().hex}"
    keys = [(run, str(Path.cwd()), place) for place in range(len(plants))]
    pending = as_completed(client.map(work, plants, key=keys, pure=False))
    while not pending.is_empty():
        if not (finished := pending.next_batch(block=False)):
            if client.cluster:  # a local one does not replace workers that die as they start
                client.cluster.scale(len(client.cluster.worker_spec))
            client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
            time.sleep(LOOK_SECONDS)
        for future in finished:
            if future.status != "error":
                yield future.result()
            elif isinstance(error := future.exception(), UpkeepError):
                raise error  # it is about the worker, not about the plant
            else:
                yield plants[future.key[-1]], error.with_traceback(future.traceback())
            future.release()  # or it is computed again if the worker that holds it is lost


def _is_at_work(folder: str, dask_worker: Any) -> bool:
    return any(task.key[1:2] == (folder,) for task in dask_worker.state.executing)


def _call_on_worker(folder: Path, mark: Path, name: str, environment: dict[str, str], plant: str) -> Any:
    from distributed import get_worker

    worker = get_worker()
    place = f"the worker {worker.address}"
    _require_environment(environment, place)
    if not mark.exists():
        raise UpkeepError(f"{place} does not see the driver's folder {folder}", remedy=SETUP)
    if worker.state.nthreads > 1:
        what = f"{place} has {worker.state.nthreads} threads, which share one working folder"
        raise UpkeepError(what, remedy="start it with --nthreads 1")
    return worker.plugins[name].work(plant)


def _require_environment(expected: dict[str, str], place: str) -> None:
    own = _describe_environment()
    differing = [f"{name} {own[name]} instead of {expected[name]}" for name in expected if own[name] != expected[name]]
    if differing:
        raise UpkeepError(f"{place} has {', '.join(differing)}, so results could differ", remedy=SETUP)


@cache
def _describe_environment() -> dict[str, str]:
    """Return what results depend on: versions, and a checksum of upkeep's code as this process loaded it."""
    code = hashlib.sha256(repr(LOADED).encode()).hexdigest()[:12]
    return {**name_versions(), "distributed": version("distributed"), "upkeep": code}
