"""Work mapped over plants: the same code on a laptop and on a cluster."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from upkeep.core import params
from upkeep.core.errors import UpkeepError

Result = TypeVar("Result")

QUIET_SECONDS = 2
"""A progress bar shows itself only once the work has lasted this long."""


def map_plants(
    function: Callable[..., Result], plants: Iterable[str], how: params.Parallel, *arguments: object
) -> dict[str, Result]:
    """Call ``function(plant, *arguments)`` for each plant, in parallel; return results in the order of `plants`.

    An UpkeepError names the plant that failed first, or says that the backend cannot be used.
    """
    names = list(plants)
    _require_backend(how.backend)
    with parallel_config(backend=how.backend, n_jobs=how.jobs):
        results = Parallel(return_as="generator")(delayed(_call_for_plant)(function, name, arguments) for name in names)
        return dict(zip(names, tqdm(results, total=len(names), delay=QUIET_SECONDS, unit="plant"), strict=True))


def _require_backend(backend: str) -> None:
    try:
        with parallel_config(backend=backend):
            pass
    except (ImportError, ValueError) as error:
        raise UpkeepError(
            f"the backend {backend!r} cannot be used: {str(error).splitlines()[0]}",
            expected="loky, threading or sequential, or a backend of yours that joblib knows",
            remedy="correct parallel.backend in params.yaml",
        ) from error


def _call_for_plant(function: Callable[..., Result], plant: str, arguments: tuple[object, ...]) -> Result:
    try:
        return function(plant, *arguments)
    except UpkeepError as error:
        raise error.at(plant=plant) from error
