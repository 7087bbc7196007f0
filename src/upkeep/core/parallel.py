"""Work mapped over plants: the same code, and the same bytes, on a laptop and on a cluster."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from joblib import Parallel, delayed, effective_n_jobs
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from upkeep.core import params, paths
from upkeep.core.cluster import Done, Result, Work, run_on_cluster
from upkeep.core.errors import UpkeepError
from upkeep.core.plants import name_file
from upkeep.core.timing import QUIET_SECONDS


def map_plants(
    function: Callable[..., Result], plants: Iterable[str], how: params.Parallel, *arguments: object
) -> dict[str, Result]:
    """Call ``function(plant, *arguments)`` for each plant, in parallel; return results in the order of `plants`.

    Large plants come first. A plant that fails does not stop the others: once they are done, an UpkeepError names the
    first that failed and what is wrong with the rest. If the backend cannot be used, one is raised at once.
    """
    names = list(plants)
    run = run_on_cluster if how.backend == "dask" else _run_here
    work = partial(_call_for_plant, Path.cwd(), function, arguments)
    outcomes = run(work, sorted(names, key=_measure, reverse=True), how)
    done = dict(tqdm(outcomes, total=len(names), delay=QUIET_SECONDS, unit="plant"))
    results, failed = {}, {}
    for name in names:
        if isinstance(outcome := done[name], UpkeepError):
            failed[name] = outcome
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            results[name] = outcome
    if failed:
        (_, first), *rest = failed.items()
        others = "; ".join(f"{plant}: {error.what}" for plant, error in rest)
        what = f"{first.what}; and {len(rest)} more of the plants failed: {others}" if rest else first.what
        raise UpkeepError(what, expected=first.expected, remedy=first.remedy, **first.where)
    return results


def count_workers(how: params.Parallel) -> int:
    """Return how many of this machine's cores may be busy."""
    return 1 if how.backend == "sequential" else effective_n_jobs(how.jobs)


def _measure(plant: str) -> int:
    """Return how many bytes are stored of a plant: raw files, unless they stay in the source, and clean tables."""
    own = name_file(plant)
    files = [*paths.RAW.glob(f"*/{own}/*"), *paths.INTERIM.glob(f"*/{own}.parquet")]
    return sum(file.stat().st_size for file in files)


def _call_for_plant(
    folder: Path, function: Callable[..., Result], arguments: tuple[object, ...], plant: str
) -> Done[Result]:
    os.chdir(folder)  # a worker may have begun in another one, and the paths of stages are relative
    try:
        return plant, function(plant, *arguments)
    except UpkeepError as error:
        return plant, error.at(plant=plant)


def _run_here(work: Work[Result], plants: list[str], how: params.Parallel) -> Iterator[Done[Result]]:
    backend = "threading" if how.backend == "threads" else how.backend
    run = Parallel(how.jobs, backend, return_as="generator_unordered")
    try:
        yield from run(delayed(work)(plant) for plant in plants)
    except TerminatedWorkerError as error:
        raise UpkeepError(
            "a worker process was killed at work, as the system does where memory runs out",
            remedy="free memory or lower parallel.jobs in params.yaml, then do this again",
        ) from error
