"""A challenger beside the champion: the same requests, answered once more for the log and shown to nobody.

It works behind the answers, in a task and a thread of its own: what it does not keep up with is left out, and whatever
it raises costs its own rows only. Its models have answered in a process of their own before, as a champion's have.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread

from upkeep.core.errors import UpkeepError
from upkeep.scoring.prediction_log import Prediction
from upkeep.serving.counters import Counters
from upkeep.serving.service import Service
from upkeep.serving.table import RequestLimits

MOST_WAITING, MOST_BYTES = 100, 24_000_000
"""Requests that wait for the challenger, and bytes of their bodies: beyond either, new ones are left out."""

logger = logging.getLogger(__name__)


def load_challenger(models: Path, dictionary: Path, limits: RequestLimits) -> Service | None:
    """Return the challenger's service; None, with a warning, if its models are missing or damaged."""
    try:
        return Service(models, dictionary, limits, role="challenger")
    except UpkeepError as error:
        logger.warning("the challenger is not run: %s", error)
        return None


class Shadow:
    """Answers by the challenger, one after the other; `keep` takes each prediction, on the event loop."""

    def __init__(self, service: Service, keep: Callable[[Prediction], object], metrics: Counters) -> None:
        self._service, self._keep, self._metrics = service, keep, metrics
        self._waiting: asyncio.Queue[tuple[tuple[Any, ...], list[Prediction]]] = asyncio.Queue(MOST_WAITING)
        self._bytes = 0

    def offer(self, asked: tuple[Any, ...], answered: list[Prediction]) -> None:
        """Take a request that the champion has answered, if there is room for it."""
        size = len(asked[0])
        if self._waiting.full() or self._bytes + size > MOST_BYTES:
            self._metrics.count_shadow("left_out")
            return
        self._bytes += size
        self._waiting.put_nowait((asked, answered))

    async def run(self) -> None:
        """Answer what waits, until the task is cancelled."""
        lane = CapacityLimiter(1)
        while True:
            asked, answered = await self._waiting.get()
            try:
                work = partial(self._service.answer, *asked)
                # Whoever stops the service does not wait for a challenger.
                reply = await to_thread.run_sync(work, limiter=lane, abandon_on_cancel=True)
                for prediction in reply.predictions:
                    self._keep(prediction)
                self._metrics.count_shadow("answered", compare_alarms(answered, reply.predictions))
            except Exception as error:  # whatever a challenger raises, the next request has its turn
                self._metrics.count_shadow("failed")
                logger.warning("the challenger gave no answer: %s", error)
            finally:
                self._bytes -= len(asked[0])


def compare_alarms(champions: Sequence[Prediction], challengers: Sequence[Prediction]) -> list[tuple[str, bool]]:
    """Return plant, and whether the alarms differ, of each machine that both have answered."""
    alarms = {(one["plant"], one["machine"]): one["alarm"] for one in champions}
    keys = [((one["plant"], one["machine"]), one["alarm"]) for one in challengers]
    return [(key[0], alarm != alarms[key]) for key, alarm in keys if key in alarms]
