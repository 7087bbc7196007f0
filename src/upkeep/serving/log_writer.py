"""Predictions on their way to the prediction log: queue, spool on disk, and from there to wherever the log is kept.

`LogWriter.append` puts a prediction on a queue. A thread writes what is queued to the spool four times a second, each
time a file of its own, which survives the process. Another ships these files each minute, the oldest first; what the
store does not take stays. None of this reaches a request. What planners say of visits goes the same way, to a log of
its own beside the predictions.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal
from uuid import uuid4

import polars as pl
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from upkeep.contract.dictionary import FINDING
from upkeep.core.addresses import findings_beside
from upkeep.core.errors import UpkeepError
from upkeep.core.files import locked, write_whole
from upkeep.scoring.prediction_log import PREDICTION_LOG, VISIT_LOG, Log, as_log_rows, complete, write_part

QUEUE_BYTES = 100_000_000
PREDICTION_BYTES, WARNING_BYTES = 2_000, 500
"""What a prediction takes in memory beside its inputs, and what each of its warnings."""

BATCH_BYTES = 4_000_000
PART_BYTES = 5_000_000  # of the spool that are shipped at once; in memory they take about three times as many
SPOOLED, SHIPPED = ".arrow", "shipped"

Loss = Literal["unwritten", "malformed", "unreadable"]

logger = logging.getLogger(__name__)


class LogWriter(Collector):
    """Write predictions to the prediction log at `url` without the requests noticing.

    `spool` is a folder on a local disk, which processes may share; beyond `max_spool_bytes` the oldest predictions are
    kept and new ones dropped. `ship_after_seconds` is how far the log is behind, `flush_seconds` what a kill can cost.

    `appended`, `written` and `shipped` count rows given to the writer, those that reached the spool, and those that
    reached the store, what an earlier or a neighbouring process left in the spool included. `dropped` are those lost:
    the spool did not take them before the queue was full or the process ended (``unwritten``), one was not as the
    schema wants it (``malformed``), the disk gave back something else than was written (``unreadable``). The errors say
    why the spool, or the store, takes no rows at the moment; they hold no credentials.
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
        self._url, self._spool, self._max_spool_bytes = url, spool, max_spool_bytes
        self._ship_after_seconds, self._flush_seconds = ship_after_seconds, flush_seconds
        self._queue: deque[tuple[Log, dict[str, Any]]] = deque()
        # Two sums, each changed by one thread only, in place of a lock on the event loop.
        self._bytes_in = self._bytes_out = 0
        self._taken: pl.DataFrame | None = None
        self._closing, self._all_written = threading.Event(), threading.Event()
        # Daemons, for a store that never answers must not keep the process from ending.
        works = self._write_until_closed, self._ship_until_closed
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    @property
    def last_error(self) -> str:
        """What is wrong at the moment and needs somebody, the more urgent first; empty if nothing is."""
        return self.write_error or self.ship_error

    def collect(self) -> Iterable[Metric]:
        """Return how the writer is doing, for Prometheus."""
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
        """Begin to write, and to ship what the spool holds; whatever is wrong with either is in `last_error`."""
        for thread in self._threads:
            thread.start()

    def append(self, row: dict[str, Any], log: Log = PREDICTION_LOG) -> bool:
        """Take a row, within microseconds and whatever state the disk and the store are in; from one thread.

        Returns whether it was taken, and is lost only if the process is killed now, or the spool refuses it.
        """
        self.appended += 1
        size = _size(row)
        if self._bytes_in - self._bytes_out + size > QUEUE_BYTES:
            self.dropped["unwritten"] += 1
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
        self.dropped["unwritten"] += len(self._queue) + (0 if self._taken is None else self._taken.height)
        self._all_written.set()

    def _flush(self) -> None:
        """Write what is queued, oldest first; what the spool does not take is kept for the next time."""
        error = ""
        try:
            while self._taken is not None or self._queue:
                self._taken = self._take_queued() if self._taken is None else self._taken
                self._spool_rows(self._taken)
                self.written += self._taken.height
                self._taken = None
        except Exception as problem:  # whatever it is, the thread must live on to try again
            error = f"the spool {self._spool} cannot be written: {problem}"
        self._note("write_error", error)

    def _take_queued(self) -> pl.DataFrame:
        taken, size, log = [], 0, self._queue[0][0]
        while self._queue and self._queue[0][0] is log and size < BATCH_BYTES:
            taken.append(self._queue.popleft()[1])
            size += _size(taken[-1])
        self._bytes_out += size
        try:
            return as_log_rows(taken) if log is PREDICTION_LOG else pl.DataFrame(taken, log.schema)
        except Exception as error:  # one that breaks the schema must not hold up those to come
            logger.error("prediction log: %s rows do not fit the schema: %s", len(taken), error)
            self.dropped["malformed"] += len(taken)
            return log.schema.to_frame()

    def _spool_rows(self, rows: pl.DataFrame) -> None:
        stream = BytesIO()
        rows.write_ipc_stream(stream, compression="lz4")  # a third of the size at little cost
        content = stream.getvalue()
        if self.spool_bytes + len(content) > self._max_spool_bytes:
            raise OSError(f"it has reached its {self._max_spool_bytes} bytes")
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid4().hex[:12]}-{rows.height}{SPOOLED}"
        write_whole(self._spool / name, content)
        self.spool_bytes += len(content)

    def _ship_until_closed(self) -> None:
        self._ship()
        while not self._all_written.wait(self._ship_after_seconds):
            self._ship()
        self._ship()

    def _ship(self) -> None:
        error = ""
        try:
            # One process of those that share the spool ships for all; the one that ends waits for its turn.
            with locked(self._spool / "shipping.lock", seconds=10.0 * self._closing.is_set()) as is_mine:
                waiting = deque(sorted(self._spool.glob(f"*{SPOOLED}")))
                while is_mine and (files := self._take_part(waiting)):
                    parts = [self._read(file) for file in files]
                    # Named after its first file: a part that is shipped again, since the store took half of it or this
                    # process was killed before it had removed it, is the same one and takes the place of what is there.
                    for log, url in ((PREDICTION_LOG, self._url), (VISIT_LOG, findings_beside(self._url))):
                        if own := [rows for rows in parts if rows.schema == log.schema]:
                            write_part(url, files[0].stem, pl.concat(own), log)
                    files[0].parent.rename(self._spool / SHIPPED)
                    self.shipped += sum(rows.height for rows in parts)
        except UpkeepError as problem:  # the store's
            error = str(problem).partition("\n")[0]
        except Exception as problem:  # whatever it is, the thread must live on to try again
            error = f"the spool {self._spool} cannot be shipped: {type(problem).__name__}: {problem}"
        self._note("ship_error", error)

    def _take_part(self, waiting: deque[Path]) -> list[Path]:
        """Return the files to be shipped next, in a folder of their own, which can be removed at once or not at all."""
        rmtree(self._spool / SHIPPED, ignore_errors=True)
        self.spool_bytes = sum(file.stat().st_size for file in self._spool.rglob(f"*{SPOOLED}"))
        part = self._spool / "part"
        part.mkdir(exist_ok=True)
        is_begun, size = any(part.iterdir()), 0
        while waiting and not is_begun and (not size or size + waiting[0].stat().st_size <= PART_BYTES):
            size += waiting[0].stat().st_size
            waiting[0].rename(part / waiting.popleft().name)
        return sorted(part.iterdir())

    def _read(self, file: Path) -> pl.DataFrame:
        try:
            rows = pl.read_ipc_stream(BytesIO(file.read_bytes()))  # of a path it would keep the file in memory
            schema = (VISIT_LOG if FINDING in rows.columns else PREDICTION_LOG).schema
            return complete(rows.lazy(), schema).collect()  # an older version may have left it
        except (Exception, pl.exceptions.PanicException) as error:  # the others must not wait for it
            logger.error("prediction log: %s cannot be read back: %s", file, error)
            self.dropped["unreadable"] += int(file.stem.rpartition("-")[2])
            return PREDICTION_LOG.schema.to_frame()

    def _note(self, name: Literal["write_error", "ship_error"], error: str) -> None:
        """Keep an error, or that there is none, and log when it turns bad or good."""
        before = getattr(self, name)
        setattr(self, name, error)
        if error and not before:
            logger.error("prediction log: %s", error)
        elif before and not error:
            logger.info("prediction log: works again after: %s", before)


def _size(row: dict[str, Any]) -> int:
    return PREDICTION_BYTES + len(row.get("inputs", "")) + WARNING_BYTES * len(row.get("warnings", ()))
