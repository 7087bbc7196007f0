"""Files read within bounds, replaced atomically, and locked against other processes."""

import errno
import fcntl
import json
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from upkeep.core.errors import UpkeepError

TEMPORARY = ".tmp"  # ends the names of half-written files; those that a killed process left may be deleted
MOST_BYTES = 100_000_000  # of a text file that upkeep reads whole, such as a manifest of a hundred thousand batches
LOOK_SECONDS = 0.1  # how often a lock that is held is tried again
LONGEST_HOLDER = 200  # characters of what its file says of the process that holds it

logger = logging.getLogger(__name__)


def read_regular(file: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a file's content; raises OSError if it is larger, or not a regular file, since a pipe may never end."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")
    if status.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes:,} bytes")
    with file.open("rb") as stream:
        return stream.read(status.st_size)  # not `most_bytes`: Python allocates as much before it reads


def read_text(file: Path, most_bytes: int = MOST_BYTES) -> str:
    """Return a text file's content; raises OSError as :func:`read_regular` does, or if it is not UTF-8."""
    content = read_regular(file, most_bytes)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"it is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}"
        raise OSError(errno.EILSEQ, what) from error


def read_json(file: Path, *, remedy: str) -> Any:
    """Return a JSON file's content; raises UpkeepError with this remedy if it cannot be read or is not JSON."""
    try:
        return json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not JSON: {error}"
        raise UpkeepError(f"the file cannot be read: {reason}", remedy=remedy, file=file) from error


def write_json(file: Path, content: object) -> None:
    """Write content as indented JSON, for readable diffs; folders are made, NaN and infinities refused."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(file, f"{text}\n".encode())


def write_whole(file: Path, content: bytes) -> None:
    """Replace a file atomically: whoever reads it, even after a crash, finds the old content or the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=file.parent, prefix=f".{file.name}.", suffix=TEMPORARY, delete=False
    ) as stream:
        written = Path(stream.name)
        try:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            written.chmod(0o644)  # a temporary file is for its owner only
            written.replace(file)
        except BaseException:
            written.unlink(missing_ok=True)
            raise


@contextmanager
def locked(lock: Path, *, seconds: float = 300.0) -> Iterator[bool]:
    """Hold a lock that other processes on this machine respect; it is released even if this process is killed.

    Waits for `seconds` if another process holds it, then raises an UpkeepError that names that process; if `seconds` is
    0, yields False instead.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    until, is_told = time.monotonic() + seconds, False
    with lock.open("a+", encoding="utf-8", errors="replace") as stream:
        while not (is_mine := _try_lock(stream)) and time.monotonic() < until:
            if not is_told:
                logger.warning("waiting for %s, which holds %s", _read_holder(stream), lock)
            is_told = True
            time.sleep(LOOK_SECONDS)
        if not is_mine and seconds:
            raise UpkeepError(
                f"{_read_holder(stream)} has held the lock for more than {seconds:g} s",
                remedy="wait until that process ends, or end it if it hangs; then do this again",
                file=lock,
            )
        if is_mine:
            stream.truncate(0)
            stream.write(f"process {os.getpid()} (`{Path(sys.argv[0]).name} {' '.join(sys.argv[1:2])}`)")
            stream.flush()
        yield is_mine


def _try_lock(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(stream: IO[str]) -> str:
    stream.seek(0)
    found = stream.read(LONGEST_HOLDER)
    return found if found.isprintable() and found else "another process"
