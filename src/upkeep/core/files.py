"""Files that are read or named as broken, written whole or not at all, and kept from other processes meanwhile."""

import errno
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upkeep.core.errors import UpkeepError

TEMPORARY = ".tmp"
"""How the names of half-written files end; what a killed process leaves of them may be deleted."""
MOST_BYTES = 100_000_000
"""Of a text file that upkeep reads whole, such as a manifest of a hundred thousand batches."""


def read_regular(file: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a file's content; raises OSError if it is no regular file, which may never end, or a larger one."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")
    with file.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes:,} bytes")
    return content


def read_text(file: Path, most_bytes: int = MOST_BYTES) -> str:
    """Return a text file's content; raises OSError if it is no regular file, a larger one, or not UTF-8."""
    content = read_regular(file, most_bytes)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"it is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}"
        raise OSError(errno.EILSEQ, what) from error


def read_json(file: Path, *, remedy: str) -> Any:
    """Return a JSON file's content; raise an UpkeepError with this remedy if it is missing or is not JSON."""
    try:
        return json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not JSON: {error}"
        raise UpkeepError(f"the file cannot be read: {reason}", remedy=remedy, file=file) from error


def write_json(file: Path, content: object) -> None:
    """Write content as indented JSON that git shows line by line; folders are made, NaN and infinities refused."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(file, f"{text}\n".encode())


def write_whole(file: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it, even after a crash, finds the old content or the new."""
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
def locked(lock: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that other processes of this machine respect; it is let go even if this process is killed.

    Yields
    ------
    bool
        False if `wait` is False and somebody else holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
