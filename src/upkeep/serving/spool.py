"""The spool: a SQLite file in which predictions wait until they are in the prediction log.

Processes may share it. What is committed survives the process, however it ends; SQLite's write-ahead log lets one
process write while others read.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import polars as pl

FILE = "predictions.sqlite"
WAIT_SECONDS = 10.0
"""For other processes that write at this moment."""

NO_ROOM = "SQLITE_IOERR_SHMSIZE"
"""The file that processes share beside the spool does not fit on the disk; SQLite calls it a disk I/O error only."""

SET_UP = """
PRAGMA auto_vacuum = incremental;
PRAGMA journal_mode = wal;
PRAGMA synchronous = normal;
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    written_at REAL NOT NULL,
    predictions INTEGER NOT NULL,
    memory INTEGER NOT NULL,
    content BLOB NOT NULL
);
"""

WRITE = "INSERT INTO batches (name, predictions, memory, content, written_at) VALUES (?, ?, ?, ?, ?)"
REMOVE = "DELETE FROM batches WHERE number <= (SELECT number FROM batches WHERE name = ?)"
READ = "SELECT name, predictions, memory, content FROM batches WHERE number <= ? ORDER BY number"


class Batch(NamedTuple):
    """Some predictions as an Arrow stream, named uniquely in all spools; `memory` is the bytes they take decoded."""

    name: str
    predictions: int
    memory: int
    content: bytes


def encode(predictions: pl.DataFrame) -> Batch:
    """Return predictions as a batch; LZ4 makes it a third of the size at little cost."""
    stream = BytesIO()
    predictions.write_ipc_stream(stream, compression="lz4")
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid4().hex[:12]}"
    return Batch(name, predictions.height, int(predictions.estimated_size()), stream.getvalue())


def decode(batch: Batch) -> pl.DataFrame:
    """Return a batch's predictions."""
    return pl.read_ipc_stream(BytesIO(batch.content))


class Spool:
    """The spool in a folder; whatever the disk does not do is an ``OSError`` or a ``sqlite3.Error``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, batch: Batch) -> None:
        """Write a batch: all of it, or nothing."""
        with self._open() as connection:
            connection.execute(WRITE, (*batch, time.time()))

    def measure(self) -> int:
        """Return the bytes that all batches take."""
        with self._open() as connection:
            return int(connection.execute("SELECT coalesce(sum(length(content)), 0) FROM batches").fetchone()[0])

    def read_oldest(self, most_memory: int, age_seconds: float) -> list[Batch]:
        """Return the oldest batches that fit into `most_memory`, at least one.

        There are none as long as the oldest is younger than `age_seconds`, unless there are more than fit.
        """
        with self._open() as connection:
            waiting = connection.execute("SELECT number, memory, written_at FROM batches ORDER BY number")
            last, total, ready = 0, 0, False
            for number, memory, written_at in waiting:
                if last and total + memory > most_memory:
                    ready = True
                    break
                last, total = number, total + memory
                ready = ready or abs(time.time() - written_at) >= age_seconds  # the clock may have been set back
            return [Batch(*found) for found in connection.execute(READ, (last if ready else 0,))]

    def remove(self, last: Batch) -> None:
        """Forget a batch and those before it, and give the disk back what they took."""
        with self._open() as connection:
            connection.execute(REMOVE, (last.name,))
            connection.commit()
            connection.execute("PRAGMA incremental_vacuum").fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give a connection of its own, as an earlier one may have failed; changes are committed at the end."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._folder / FILE, timeout=WAIT_SECONDS)) as connection, connection:
            try:
                connection.executescript(SET_UP)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname == NO_ROOM:
                    raise sqlite3.OperationalError("database or disk is full") from error
                raise
            yield connection
