"""How long each stage took when it last ran in this checkout."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from upkeep.core import paths
from upkeep.core.errors import UpkeepError

TIMES = paths.LOCAL / "stage_times.json"


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Note the seconds a stage took, for the table at the end; errors leave with the stage named in them."""
    started = time.perf_counter()
    try:
        yield
    except UpkeepError as error:
        raise error.at(stage=stage) from error
    # Read back only now: a notebook's kernel may have noted times of its own meanwhile.
    times = {**stage_times(), stage: round(time.perf_counter() - started, 1)}
    paths.LOCAL.mkdir(exist_ok=True)
    TIMES.write_text(json.dumps(times), encoding="utf-8")


def forget_times() -> None:
    """Let :func:`stage_times` know only of stages that run from now on."""
    TIMES.unlink(missing_ok=True)


def stage_times() -> dict[str, float]:
    """Return the seconds that each stage took when it last ran in this checkout, since :func:`forget_times`."""
    try:
        times: dict[str, float] = json.loads(TIMES.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return times
