"""How long each stage took when it last ran in this checkout."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import FiniteFloat, TypeAdapter

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_regular, write_json

QUIET_SECONDS = 2  # a progress bar shows itself only once the work has lasted this long

TIMES = paths.LOCAL / "stage_times.json"
NOTED = TypeAdapter(dict[str, FiniteFloat])


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Record the seconds that a stage takes, and name the stage in errors that it raises."""
    started = time.perf_counter()
    try:
        yield
    except UpkeepError as error:
        raise error.at(stage=stage) from error
    # Read only now: a notebook's kernel may have recorded its own meanwhile.
    write_json(TIMES, {**stage_times(), stage: round(time.perf_counter() - started, 1)})


def forget_times() -> None:
    """Delete the recorded times of all stages."""
    TIMES.unlink(missing_ok=True)


def stage_times() -> dict[str, float]:
    """Return the seconds that each stage took when it last ran in this checkout, since :func:`forget_times`."""
    try:  # a branch may bring a file of its own
        return NOTED.validate_json(read_regular(TIMES))
    except (OSError, ValueError):
        return {}
