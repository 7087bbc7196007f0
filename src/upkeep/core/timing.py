"""How long each stage took when it last ran in this checkout."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import FiniteFloat, TypeAdapter

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_regular, write_json

TIMES = paths.LOCAL / "stage_times.json"
NOTED = TypeAdapter(dict[str, FiniteFloat])


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Note the seconds a stage took, for the table at the end; errors leave with the stage named in them."""
    started = time.perf_counter()
    try:
        yield
    except UpkeepError as error:
        raise error.at(stage=stage) from error
    # Read back only now: a notebook's kernel may have noted times of its own meanwhile.
    write_json(TIMES, {**stage_times(), stage: round(time.perf_counter() - started, 1)})


def forget_times() -> None:
    """Let :func:`stage_times` know only of stages that run from now on."""
    TIMES.unlink(missing_ok=True)


def stage_times() -> dict[str, float]:
    """Return the seconds that each stage took when it last ran in this checkout, since :func:`forget_times`."""
    try:  # a branch may bring the file along
        return NOTED.validate_json(read_regular(TIMES))
    except (OSError, ValueError):
        return {}
