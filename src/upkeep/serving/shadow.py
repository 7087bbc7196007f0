"""Shadow mode: a challenger answers the champion's requests again, for the log only.

It works after the answer, in tasks and a thread of its own. Requests that it cannot keep up with are left out, and its
errors cost its own rows only.
"""

import asyncio
import logging
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread

from upkeep.core.errors import UpkeepError
from upkeep.scoring.prediction_log import Prediction
from upkeep.serving.counters import Counters
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.service import Service
from upkeep.serving.settings import Settings

MOST_WAITING, MOST_BYTES = 100, 24_000_000
"""Waiting requests, and bytes of their bodies, beyond which new ones are left out."""

logger = logging.getLogger(__name__)


def load_shadow(settings: Settings, log: LogWriter | None, metrics: Counters) -> "Shadow | None":
    """Return the challenger that the settings name; None, with a warning, if it cannot be run."""
    if settings.shadow_models is None:
        return None
    try:
        if log is None:
            raise UpkeepError("it answers in the prediction log only", remedy="set UPKEEP_LOG_URL")
        service = Service(settings.shadow_models, settings.dictionary, role="challenger")
    except UpkeepError as error:
        logger.warning("the challenger is not run: %s", error)
        return None
    metrics.shadow_up.set(1)
    return Shadow(service, log, metrics)


class Shadow:
    """Answers requests by the challenger, one after the other, for the log."""

    def __init__(self, service: Service, log: LogWriter, metrics: Counters) -> None:
        self._service, self._log, self._metrics = service, log, metrics
        self._lane, self._bytes = CapacityLimiter(1), 0
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, asked: tuple[Any, ...], answered: list[Prediction]) -> None:
        """Queue a request that the champion has answered, if there is room for it."""
        if len(self._tasks) > MOST_WAITING or self._bytes + len(asked[0]) > MOST_BYTES:
            self._metrics.shadow_requests.labels("left_out").inc()
            return
        self._bytes += len(asked[0])
        task = asyncio.get_running_loop().create_task(self._answer(asked, answered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Drop waiting requests, so that the service stops without delay."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, asked: tuple[Any, ...], answered: list[Prediction]) -> None:
        alarms = {(one["plant"], one["machine"]): one["alarm"] for one in answered}
        try:
            work = partial(self._service.answer, *asked)
            reply = await to_thread.run_sync(work, limiter=self._lane, abandon_on_cancel=True)
            for prediction in reply.predictions:
                self._log.append(prediction)
                if (alarm := alarms.get((prediction["plant"], prediction["machine"]))) is not None:
                    same = "same" if alarm == prediction["alarm"] else "differs"
                    self._metrics.shadow_alarms.labels(prediction["plant"], same).inc()
            self._metrics.shadow_requests.labels("answered").inc()
        except Exception as error:  # no error of a challenger may stop the next request
            self._metrics.shadow_requests.labels("failed").inc()
            logger.warning("the challenger gave no answer: %s", error)
        finally:
            self._bytes -= len(asked[0])
