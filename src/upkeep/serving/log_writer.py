"""Writes the prediction log in the background: a queue, a spool on disk, and then the log's store.

`LogWriter.append` puts a row on a queue. A thread writes the queue to a new file of the spool four times a second.
Another ships these files each minute, the oldest first; what the store refuses stays. Requests wait for none of it.
Planners' findings take the same way, to a log of their own.
"""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import polars as pl
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from upkeep.core.addresses import findings_beside
from upkeep.core.errors import UpkeepError
from upkeep.core.files import locked
from upkeep.scoring.prediction_log import PREDICTION_LOG, VISIT_LOG, Log, as_log_rows
from upkeep.serving.spool import Spool

QUEUE_BYTES = 100_000_000
PREDICTION_BYTES, WARNING_BYTES = 2_000, 500
"""Memory of a prediction without its inputs, and of each of its warnings."""

BATCH_BYTES = 4_000_000
CLOSE_SECONDS = 10.0

Loss = Literal["unwritten", "malformed", "unreadable"]

logger = logging.getLogger(__name__)


class LogWriter(Collector):
    """Writes rows to the prediction log at `url` in the background.

    `spool` is a folder on a local disk, which processes may share. Rows that would make it larger than
    `max_spool_bytes` wait in memory; beyond :data:`QUEUE_BYTES` there, new ones are dropped.
    `ship_after_seconds` is how far the log is behind, `flush_seconds` what a kill can cost.

    `appended`, `written` and `shipped` count rows given to the writer, rows that reached the spool, and rows that
    reached the store, including those that other processes left in the spool. `dropped` counts lost rows: without room
    or still unwritten at the end (``unwritten``), against the schema (``malformed``), lost by the disk
    (``unreadable``). `write_error` and `ship_error` say, without credentials, why the spool or the store refuses rows
    at the moment.
    """

    def __init__(
        self,
        url: str,
        spool: Path,
        *,
        max_spool_bytes: int,
        ship_after_seconds: float = 60.0,
        flush_seconds: float = 0.25,
    ) -> None:
        self.appended = self.written = self.shipped = self.spool_bytes = 0
        self.dropped: dict[Loss, int] = {"unwritten": 0, "malformed": 0, "unreadable": 0}
        self.write_error = self.ship_error = ""
        self._folder, self._max_spool_bytes = spool, max_spool_bytes
        visits = Spool(spool / VISIT_LOG.what, VISIT_LOG, findings_beside(url))
        self._spools = {PREDICTION_LOG.what: Spool(spool, PREDICTION_LOG, url), VISIT_LOG.what: visits}
        self._ship_after_seconds, self._flush_seconds = ship_after_seconds, flush_seconds
        self._queue: deque[tuple[Spool, dict[str, Any]]] = deque()
        # Two sums, each changed by one thread only, so that the event loop needs no lock.
        self._bytes_in = self._bytes_out = 0
        self._counting = threading.Lock()  # of `spool_bytes`, which both threads change
        self._taken: tuple[Spool, pl.DataFrame] | None = None
        self._closing, self._all_written = threading.Event(), threading.Event()
        # Daemons: a store that never answers must not keep the process alive.
        works = self._write_until_closed, self._ship_until_closed
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    @property
    def last_error(self) -> str:
        """What is wrong at the moment, the spool before the store; empty if nothing is."""
        return self.write_error or self.ship_error

    def collect(self) -> Iterable[Metric]:
        """Return the writer's metrics for Prometheus."""
        rows = CounterMetricFamily("upkeep_prediction_log_rows", "Rows of the prediction log", labels=["state"])
        for state in ("appended", "written", "shipped"):
            rows.add_metric([state], getattr(self, state))
        dropped = CounterMetricFamily("upkeep_prediction_log_dropped", "Rows lost to the log", labels=["reason"])
        for reason, count in self.dropped.items():
            dropped.add_metric([reason], count)
        spooled = GaugeMetricFamily("upkeep_prediction_log_spool_bytes", "Waiting on disk", self.spool_bytes)
        failing = "1: the disk or the store refuses rows"
        refused = GaugeMetricFamily("upkeep_prediction_log_failing", failing, int(bool(self.last_error)))
        return rows, dropped, spooled, refused

    def start(self) -> None:
        """Start to write and ship; `last_error` says what is wrong with either."""
        for thread in self._threads:
            thread.start()

    def append(self, row: dict[str, Any], log: Log = PREDICTION_LOG) -> bool:
        """Queue a row, its times in microseconds, and return whether there was room; call it from one thread only."""
        self.appended += 1
        size = _size(row)
        if self._bytes_in - self._bytes_out + size > QUEUE_BYTES:
            self.dropped["unwritten"] += 1
            return False
        self._bytes_in += size
        self._queue.append((self._spools[log.what], row))
        return True

    def close(self) -> None:
        """Write the queue and ship once, within :data:`CLOSE_SECONDS`; what is not shipped stays in the spool."""
        until = time.monotonic() + CLOSE_SECONDS
        self._closing.set()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _write_until_closed(self) -> None:
        while not self._closing.wait(self._flush_seconds):
            self._flush()
        self._flush()
        if lost := len(self._queue) + (self._taken[1].height if self._taken else 0):
            self.dropped["unwritten"] += lost
            logger.error("prediction log: %s rows are lost: %s", lost, self.write_error)
        self._all_written.set()

    def _flush(self) -> None:
        """Write the queue to the spool; rows that it refuses are tried again next time."""
        error = ""
        try:
            while self._taken or self._queue:
                self._taken = spool, rows = self._taken or self._take_queued()
                with self._counting:
                    self.spool_bytes += spool.write(rows, self._max_spool_bytes - self.spool_bytes)
                self.written += rows.height
                self._taken = None
        except Exception as problem:  # the thread must go on and try again
            error = f"the spool {self._folder} cannot be written: {problem}"
        self._note("write_error", error)

    def _take_queued(self) -> tuple[Spool, pl.DataFrame]:
        """Take the oldest rows of one log off the queue; return them with their spool."""
        taken, size, spool = [], 0, self._queue[0][0]
        while self._queue and self._queue[0][0] is spool and size < BATCH_BYTES:
            taken.append(self._queue.popleft()[1])
            size += _size(taken[-1])
        self._bytes_out += size
        try:
            return spool, as_log_rows(taken) if spool.log is PREDICTION_LOG else pl.DataFrame(taken, spool.log.schema)
        except Exception as error:  # rows that break the schema must not hold up later ones
            logger.error("prediction log: %s rows do not fit the schema: %s", len(taken), error)
            self.dropped["malformed"] += len(taken)
            return spool, spool.log.schema.to_frame()

    def _ship_until_closed(self) -> None:
        self._ship()
        while not self._all_written.wait(self._ship_after_seconds):
            self._ship()
        self._ship()

    def _ship(self) -> None:
        error = ""
        try:
            # One of the processes that share the spool ships for all; one that is ending waits for its turn.
            with locked(self._folder / "shipping.lock", seconds=CLOSE_SECONDS * self._closing.is_set()) as is_mine:
                if is_mine:
                    with self._counting:
                        self.spool_bytes = sum(file.stat().st_size for file in self._folder.rglob("*.arrow"))
                    for rows, size in chain.from_iterable(spool.ship() for spool in self._spools.values()):
                        self.shipped += rows
                        with self._counting:
                            self.spool_bytes -= size
        except UpkeepError as problem:  # the store's
            error = str(problem).partition("\n")[0]
        except Exception as problem:  # the thread must go on and try again
            error = f"the spool {self._folder} cannot be shipped: {type(problem).__name__}: {problem}"
        self.dropped["unreadable"] = sum(spool.unreadable for spool in self._spools.values())
        self._note("ship_error", error)

    def _note(self, name: Literal["write_error", "ship_error"], error: str) -> None:
        before = getattr(self, name)
        setattr(self, name, error)
        if error and not before:
            logger.error("prediction log: %s", error)
        elif before and not error:
            logger.info("prediction log: works again after: %s", before)


def _size(row: dict[str, Any]) -> int:
    return PREDICTION_BYTES + sys.getsizeof(row.get("inputs", "")) + WARNING_BYTES * len(row.get("warnings", ()))
