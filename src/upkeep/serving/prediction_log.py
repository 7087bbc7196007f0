"""The prediction log as the service writes it: queue, spool on disk, and from there to wherever the log is kept.

`PredictionLog.append` puts a prediction on a queue. A thread writes what is queued to the spool four times a second,
where it survives the process. Another ships the spool's finished segments, oldest first, and deletes them; what the
store does not take stays. None of this reaches a request.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from upkeep.core.errors import UpkeepError
from upkeep.scoring.prediction_log import Prediction, tabulate, write_part
from upkeep.serving.spool import Block, Segment, claim, encode_block, list_segments, measure, read_segment

LOG = logging.getLogger(__name__)

QUEUE_BYTES = 100_000_000
PREDICTION_BYTES = 2_000
"""What a prediction takes in memory beside its inputs."""

WARNING_BYTES = 500
BLOCK_BYTES = 4_000_000
SEGMENT_BYTES = 16_000_000
"""In memory, where shipping holds a whole segment; on disk it takes about a third."""

MEASURE_SECONDS = 1.0
SHIP_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0

Loss = Literal["queue_full", "spool_full", "disk_error", "malformed", "torn"]


@dataclass
class LogStatus:
    """How the log is doing; updated in place.

    Attributes
    ----------
    appended, written, shipped
        Predictions given to the log, those that reached the spool, and those that reached the store. The last counts
        what an earlier or a neighbouring process left in the spool too.
    dropped
        Predictions lost, by reason: the queue was full because writing is too slow (``queue_full``), the spool has
        reached its bound (``spool_full``) or the disk refuses (``disk_error``); one was not as the schema wants it
        (``malformed``); a process was killed while it wrote (``torn``).
    spool_bytes
        Size of the spool, that of other processes that share it included.
    write_error, ship_error
        Why the spool, or the store, does not take predictions at the moment; empty if it does. No credentials.
    """

    appended: int = 0
    written: int = 0
    shipped: int = 0
    dropped: dict[Loss, int] = field(
        default_factory=lambda: {"queue_full": 0, "spool_full": 0, "disk_error": 0, "malformed": 0, "torn": 0}
    )
    spool_bytes: int = 0
    write_error: str = ""
    ship_error: str = ""

    @property
    def failing(self) -> bool:
        """Whether somebody should look."""
        return bool(self.last_error)

    @property
    def last_error(self) -> str:
        """What is wrong at the moment, the more urgent first; empty if nothing is."""
        return self.write_error or self.ship_error


class PredictionLog:
    """Write predictions to the log without the requests noticing.

    Parameters
    ----------
    url
        Where the log is kept: a folder, or an address that fsspec opens.
    spool
        Folder on a local disk; processes may share it.
    max_spool_bytes
        Bound of the spool. Beyond it the oldest predictions are kept and new ones dropped.
    seal_seconds
        After this time at the latest a segment is shipped: how far the log is behind.
    flush_seconds
        Pause between writes to the spool: what a kill can cost.
    """

    def __init__(
        self, url: str, spool: Path, *, max_spool_bytes: int, seal_seconds: float = 60.0, flush_seconds: float = 0.25
    ) -> None:
        self.status = LogStatus()
        self._url, self._spool, self._max_spool_bytes = url, spool, max_spool_bytes
        self._seal_seconds, self._flush_seconds = seal_seconds, flush_seconds
        self._queue: deque[Prediction] = deque()
        # Two sums, each changed by one thread only, in place of a lock on the event loop.
        self._bytes_in = self._bytes_out = 0
        self._full: Loss = "queue_full"
        self._block: Block | None = None
        self._segment: Segment | None = None
        self._measured = float("-inf")
        self._closing, self._all_written = threading.Event(), threading.Event()
        # Daemons, for a store that never answers must not keep the process from ending.
        self._threads = [
            threading.Thread(target=work, name=f"prediction-log-{name}", daemon=True)
            for name, work in (("write", self._write_until_closed), ("ship", self._ship_until_closed))
        ]

    def start(self) -> None:
        """Begin to write, and to ship what the spool holds; whatever is wrong with either is in `status`."""
        for thread in self._threads:
            thread.start()

    def append(self, prediction: Prediction) -> None:
        """Take a prediction, within microseconds and whatever state the disk and the store are in; from one thread."""
        self.status.appended += 1
        size = _size(prediction)
        if self._bytes_in - self._bytes_out + size > QUEUE_BYTES:
            self.status.dropped[self._full] += 1
            return
        self._bytes_in += size
        self._queue.append(prediction)

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued and try once to ship; what cannot be shipped in this many seconds waits in the spool."""
        until = time.monotonic() + timeout
        self._closing.set()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _write_until_closed(self) -> None:
        while not self._closing.wait(self._flush_seconds):
            self._flush()
            if self._segment is not None and time.monotonic() - self._segment.opened >= self._seal_seconds:
                self._seal()
        self._flush()
        self._seal()
        self.status.dropped[self._full] += len(self._queue) + (self._block.rows if self._block else 0)
        self._all_written.set()

    def _flush(self) -> None:
        """Write what is queued, oldest first; what the spool does not take is kept for the next time."""
        try:
            self._measure()
            while self._block is not None or self._queue:
                self._block = self._block or self._next_block()
                self._write(self._block)
                self._block = None
        except _SpoolFullError as error:
            self._full = "spool_full"
            self._tell("write_error", str(error))
        except Exception as error:  # whatever it is, the thread must live on to try again
            self._full = "disk_error"
            self._tell("write_error", f"the spool {self._spool} cannot be written: {error}")
        else:
            self._full = "queue_full"
            self._tell("write_error", "")

    def _measure(self) -> None:
        if time.monotonic() - self._measured >= MEASURE_SECONDS:
            self.status.spool_bytes = measure(self._spool)
            self._measured = time.monotonic()

    def _next_block(self) -> Block:
        batch, size = [], 0
        while self._queue and size < BLOCK_BYTES:
            batch.append(self._queue.popleft())
            size += _size(batch[-1])
        self._bytes_out += size
        try:
            return encode_block(tabulate(batch))
        except Exception as error:  # one that breaks the schema must not cost the others
            fitting = [prediction for prediction in batch if _fits(prediction)]
            broken = len(batch) - len(fitting)
            LOG.error("prediction log: %s predictions do not fit the schema (%s)", broken, type(error).__name__)
            self.status.dropped["malformed"] += broken
            return encode_block(tabulate(fitting))

    def _write(self, block: Block) -> None:
        if self.status.spool_bytes + len(block.content) > self._max_spool_bytes:
            raise _SpoolFullError(f"the spool {self._spool} has reached its {self._max_spool_bytes} bytes")
        if self._segment is None:
            self._segment = Segment(self._spool)
        self._segment.append(block)
        self.status.spool_bytes += len(block.content)
        self.status.written += block.rows
        if self._segment.memory >= SEGMENT_BYTES:
            self._seal()

    def _seal(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _ship_until_closed(self) -> None:
        pause = SHIP_SECONDS
        while not self._all_written.wait(pause):
            self._ship_all()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS) if self.status.ship_error else SHIP_SECONDS
        self._ship_all()

    def _ship_all(self) -> None:
        found = ""
        try:
            paths = list_segments(self._spool)
        except OSError as error:  # the thread must live on to try again
            self._tell("ship_error", f"the spool {self._spool} cannot be read: {error}")
            return
        for path in paths:
            try:
                self._ship(path)
            except UpkeepError as error:  # the store's: the next segment would fare no better
                found = str(error).partition("\n")[0]
                break
            except Exception as error:  # this segment's own: the others must not wait for it
                found = f"{path} cannot be shipped: {type(error).__name__}: {error}"
        self._tell("ship_error", found)

    def _ship(self, path: Path) -> None:
        file = claim(path)
        if file is None:
            return
        with file:
            predictions, torn_rows = read_segment(file)
            if predictions is not None:
                # Named after the segment: if this process is killed before it removes the segment, the next one's
                # files take the place of these.
                write_part(self._url, path.stem, predictions)
                self.status.shipped += predictions.height
            path.unlink()
        self.status.dropped["torn"] += torn_rows

    def _tell(self, name: Literal["write_error", "ship_error"], error: str) -> None:
        """Set the status, and log when it turns bad or good."""
        before = getattr(self.status, name)
        setattr(self.status, name, error)
        if error and not before:
            LOG.error("prediction log: %s", error)
        elif before and not error:
            LOG.info("prediction log: works again after: %s", before)


class _SpoolFullError(Exception):
    pass


def _size(prediction: Prediction) -> int:
    return PREDICTION_BYTES + len(prediction["inputs"]) + WARNING_BYTES * len(prediction["warnings"])


def _fits(prediction: Prediction) -> bool:
    try:
        encode_block(tabulate([prediction]))
    except Exception:  # each kind of fault has its own
        return False
    return True
