"""Predictions on their way to the prediction log: queue, spool on disk, and from there to wherever the log is kept.

`LogWriter.append` puts a prediction on a queue. A thread writes what is queued to the spool four times a second, where
it survives the process. Another ships what the spool holds, oldest first; what the store does not take stays. None of
this reaches a request. What planners say of visits goes the same way, to a log of its own beside the predictions.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from upkeep.contract.dictionary import FINDING
from upkeep.core.addresses import findings_beside
from upkeep.core.errors import UpkeepError
from upkeep.core.files import locked
from upkeep.scoring.prediction_log import PREDICTION_LOG, SCHEMA, VISIT_LOG, Log, as_log_rows, complete, write_part
from upkeep.serving.spool import Batch, Spool, decode, encode

QUEUE_BYTES = 100_000_000
PREDICTION_BYTES = 2_000
"""What a prediction takes in memory beside its inputs."""

WARNING_BYTES = 500
BATCH_BYTES = 4_000_000
PART_BYTES = 16_000_000
"""In memory, where shipping holds a whole part; on disk it takes about a third."""

MEASURE_SECONDS = 1.0
SHIP_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0

Loss = Literal["queue_full", "spool_full", "disk_error", "malformed", "unreadable"]

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class WriterStatus(Collector):
    """How the writer is doing; updated in place, and read by Prometheus.

    `appended`, `written` and `shipped` are predictions given to the writer, those that reached the spool, and those
    that reached the store, what an earlier or a neighbouring process left in the spool included. `dropped` are those
    lost, by reason: the queue was full because writing is too slow (``queue_full``), the spool has reached its bound
    (``spool_full``) or the disk refuses (``disk_error``); one was not as the schema wants it (``malformed``); the disk
    gave back something else than was written (``unreadable``). The errors say why the spool, or the store, does not
    take predictions at the moment; they hold no credentials.
    """

    appended: int = 0
    written: int = 0
    shipped: int = 0
    dropped: dict[Loss, int] = field(default_factory=lambda: dict.fromkeys(get_args(Loss), 0))
    spool_bytes: int = 0
    write_error: str = ""
    ship_error: str = ""

    @property
    def last_error(self) -> str:
        """What is wrong at the moment and needs somebody, the more urgent first; empty if nothing is."""
        return self.write_error or self.ship_error

    def collect(self) -> Iterable[Metric]:
        """Return this as metrics."""
        rows = CounterMetricFamily("upkeep_prediction_log_rows", "Rows of the prediction log", labels=["state"])
        for state in ("appended", "written", "shipped"):
            rows.add_metric([state], getattr(self, state))
        dropped = CounterMetricFamily("upkeep_prediction_log_dropped", "Rows lost to the log", labels=["reason"])
        for reason, count in self.dropped.items():
            dropped.add_metric([reason], count)
        waiting, failing = "Rows waiting on disk for their store", "1: the disk or the store refuses rows"
        return (
            rows,
            dropped,
            GaugeMetricFamily("upkeep_prediction_log_spool_bytes", waiting, self.spool_bytes),
            GaugeMetricFamily("upkeep_prediction_log_failing", failing, int(bool(self.last_error))),
        )


class LogWriter:
    """Write predictions to the prediction log at `url` without the requests noticing.

    `spool` is a folder on a local disk, which processes may share; beyond `max_spool_bytes` the oldest predictions are
    kept and new ones dropped. `ship_after_seconds` is how far the log is behind, `flush_seconds` what a kill can cost.
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
        self.status = WriterStatus()
        self._url, self._folder, self._spool, self._max_spool_bytes = url, spool, Spool(spool), max_spool_bytes
        self._ship_after_seconds, self._flush_seconds = ship_after_seconds, flush_seconds
        self._queue: deque[tuple[Log, dict[str, Any]]] = deque()
        # Two sums, each changed by one thread only, in place of a lock on the event loop.
        self._bytes_in = self._bytes_out = 0
        self._full: Loss = "queue_full"
        self._batch: Batch | None = None
        self._measured = float("-inf")
        self._closing, self._all_written = threading.Event(), threading.Event()
        # Daemons, for a store that never answers must not keep the process from ending.
        works = self._write_until_closed, self._ship_until_closed
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    def start(self) -> None:
        """Begin to write, and to ship what the spool holds; whatever is wrong with either is in `status`."""
        for thread in self._threads:
            thread.start()

    def append(self, row: dict[str, Any], log: Log = PREDICTION_LOG) -> bool:
        """Take a row, within microseconds and whatever state the disk and the store are in; from one thread.

        Returns whether it was taken, and is lost only if the process is killed now, or the spool refuses it.
        """
        self.status.appended += 1
        size = _size(row)
        if self._bytes_in - self._bytes_out + size > QUEUE_BYTES:
            self.status.dropped[self._full] += 1
            return False
        self._bytes_in += size
        self._queue.append((log, row))
        return True

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued and try once to ship; what cannot be shipped in this many seconds waits in the spool."""
        until = time.monotonic() + timeout
        self._closing.set()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _write_until_closed(self) -> None:
        while not self._closing.wait(self._flush_seconds):
            self._flush()
        self._flush()
        self.status.dropped[self._full] += len(self._queue) + (self._batch.predictions if self._batch else 0)
        self._all_written.set()

    def _flush(self) -> None:
        """Write what is queued, oldest first; what the spool does not take is kept for the next time."""
        full: Loss = "queue_full"
        error = ""
        try:
            if time.monotonic() - self._measured >= MEASURE_SECONDS:
                self.status.spool_bytes, self._measured = self._spool.measure(), time.monotonic()
            while self._batch is not None or self._queue:
                self._batch = self._batch or self._next_batch()
                size = self.status.spool_bytes + len(self._batch.content)
                if size > self._max_spool_bytes:
                    full = "spool_full"
                    error = f"the spool {self._folder} has reached its {self._max_spool_bytes} bytes"
                    break
                self._spool.append(self._batch)
                self.status.spool_bytes = size
                self.status.written += self._batch.predictions
                self._batch = None
        except Exception as problem:  # whatever it is, the thread must live on to try again
            full, error = "disk_error", f"the spool {self._folder} cannot be written: {problem}"
        self._full = full
        self._note("write_error", error)

    def _next_batch(self) -> Batch:
        taken, size, log = [], 0, self._queue[0][0]
        while self._queue and self._queue[0][0] is log and size < BATCH_BYTES:
            taken.append(self._queue.popleft()[1])
            size += _size(taken[-1])
        self._bytes_out += size
        try:
            return encode(as_log_rows(taken) if log is PREDICTION_LOG else pl.DataFrame(taken, log.schema))
        except Exception as error:  # one that breaks the schema must not hold up those to come
            logger.error("prediction log: %s predictions do not fit the schema: %s", len(taken), error)
            self.status.dropped["malformed"] += len(taken)
            return encode(SCHEMA.to_frame())

    def _ship_until_closed(self) -> None:
        pause = SHIP_SECONDS
        while not self._all_written.wait(pause):
            self._ship(self._ship_after_seconds)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS) if self.status.ship_error else SHIP_SECONDS
        self._ship(0)

    def _ship(self, age_seconds: float) -> None:
        error = ""
        try:
            # One process of those that share the spool ships for all; the one that ends waits for its turn.
            with locked(self._folder / "shipping.lock", seconds=10.0 * self._closing.is_set()) as is_mine:
                while is_mine and (batches := self._spool.read_oldest(PART_BYTES, age_seconds)):
                    parts = [self._decode(batch) for batch in batches]
                    # Named after its first batch: if this process is killed before it removes them, what is shipped
                    # next begins with the same batch, holds at least the same ones and takes the place of these files.
                    for log, url in ((PREDICTION_LOG, self._url), (VISIT_LOG, findings_beside(self._url))):
                        if own := [rows for rows in parts if rows.schema == log.schema]:
                            write_part(url, batches[0].name, pl.concat(own), log)
                    self._spool.remove(batches[-1])
                    self.status.shipped += sum(rows.height for rows in parts)
        except UpkeepError as problem:  # the store's
            error = str(problem).partition("\n")[0]
        except Exception as problem:  # whatever it is, the thread must live on to try again
            error = f"the spool {self._folder} cannot be shipped: {type(problem).__name__}: {problem}"
        self._note("ship_error", error)

    def _decode(self, batch: Batch) -> pl.DataFrame:
        try:
            rows = decode(batch)
            schema = (VISIT_LOG if FINDING in rows.columns else PREDICTION_LOG).schema
            return complete(rows.lazy(), schema).collect()  # an older version may have left it
        except (Exception, pl.exceptions.PanicException) as error:  # the others must not wait for it
            logger.error("prediction log: %s predictions cannot be read back: %s", batch.predictions, error)
            self.status.dropped["unreadable"] += batch.predictions
            return SCHEMA.to_frame()

    def _note(self, name: Literal["write_error", "ship_error"], error: str) -> None:
        """Set the status, and log when it turns bad or good."""
        before = getattr(self.status, name)
        setattr(self.status, name, error)
        if error and not before:
            logger.error("prediction log: %s", error)
        elif before and not error:
            logger.info("prediction log: works again after: %s", before)


def _size(row: dict[str, Any]) -> int:
    return PREDICTION_BYTES + len(row.get("inputs", "")) + WARNING_BYTES * len(row.get("warnings", ()))
