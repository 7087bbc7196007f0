"""The spool: files on disk in which predictions wait until they are in the prediction log.

A segment is a run of blocks; a block is a header and some predictions as an Arrow stream. A process locks the segment
that it appends to, and the kernel frees the lock when the process ends, however it ends: a segment that nobody has
locked is complete and may be taken by any process that shares the folder.
"""

import fcntl
import os
import struct
import time
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import uuid4

import polars as pl

SUFFIX = ".segment"
HEADER = struct.Struct("<III")
"""Rows, bytes after the header, and their CRC-32."""


class Block(NamedTuple):
    """Some predictions as they stand in a segment.

    Attributes
    ----------
    memory
        Bytes that they take when decoded.
    """

    rows: int
    memory: int
    content: bytes


class Contents(NamedTuple):
    """What a segment holds.

    Attributes
    ----------
    predictions
        None if no block is whole.
    torn_rows
        Predictions of a block that was not written to its end; 1 if not even its header was.
    """

    predictions: pl.DataFrame | None
    torn_rows: int


def encode_block(predictions: pl.DataFrame) -> Block:
    """Return predictions as a block; LZ4 makes it a third of the size at little cost."""
    stream = BytesIO()
    predictions.write_ipc_stream(stream, compression="lz4")
    body = stream.getvalue()
    header = HEADER.pack(predictions.height, len(body), zlib.crc32(body))
    return Block(predictions.height, int(predictions.estimated_size()), header + body)


class Segment:
    """A new file in the spool that this process appends to until it closes it.

    Its name begins with the time in UTC, so names sort by age, and is unique, so that it can name the log's files too.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, spool: Path) -> None:
        spool.mkdir(parents=True, exist_ok=True)
        self.size = self.memory = 0
        self.opened = time.monotonic()
        self._descriptor = _create_locked(spool)

    def append(self, block: Block) -> None:
        """Write a block; after an error, the next one takes its place.

        Raises
        ------
        OSError
            If it was not written as a whole.
        """
        rest, offset = memoryview(block.content), self.size
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[written:], offset + written
        self.size = offset
        self.memory += block.memory

    def close(self) -> None:
        """Leave the segment to whoever ships it."""
        with suppress(OSError):  # the system closes and unlocks it all the same
            os.close(self._descriptor)


def _create_locked(spool: Path) -> int:
    while True:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid4().hex[:12]}{SUFFIX}"
        descriptor = os.open(spool / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        # Before it was locked, another process took it for one that was left behind and removed it.
        os.close(descriptor)


def list_segments(spool: Path) -> list[Path]:
    """Return all segments, oldest first, those still appended to included."""
    return sorted(spool.glob(f"*{SUFFIX}"))


def measure(spool: Path) -> int:
    """Return the bytes that all segments take."""
    total = 0
    for path in list_segments(spool):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # shipped since it was listed
            continue
    return total


def claim(path: Path) -> BinaryIO | None:
    """Open and lock a segment that nobody else has locked; None if somebody has, or has removed it.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    if os.fstat(file.fileno()).st_nlink:
        return file
    file.close()
    return None


def read_segment(file: BinaryIO) -> Contents:
    """Return the predictions up to the end, or to the first block that is not whole."""
    frames, torn_rows = [], 0
    while header := file.read(HEADER.size):
        if len(header) < HEADER.size:
            torn_rows = 1
            break
        rows, length, checksum = HEADER.unpack(header)
        body = file.read(length)
        if not body or zlib.crc32(body) != checksum:
            torn_rows = max(1, rows)
            break
        frames.append(pl.read_ipc_stream(BytesIO(body)))
    return Contents(pl.concat(frames) if frames else None, torn_rows)
