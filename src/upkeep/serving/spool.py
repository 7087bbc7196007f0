"""A log's rows that wait on disk for its store, as a folder of Arrow files, which survive the process.

Files never change. Whoever ships them holds a lock, and may be killed at any moment.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.scoring.prediction_log import Log, complete, write_part

PART_BYTES = 5_000_000  # that are shipped at once; in memory they take about three times as many
PART, MERGING, DONE = "part", "merging", "shipped"
"""Folders of files that are being shipped, that are being merged, and that may be deleted."""

logger = logging.getLogger(__name__)


class Spool:
    """Rows in `folder` that wait for the log at `url`; `unreadable` counts rows that could not be read back."""

    def __init__(self, folder: Path, log: Log, url: str) -> None:
        self.log, self.unreadable = log, 0
        self._folder, self._url = folder, url

    def write(self, rows: pl.DataFrame, room: int) -> int:
        """Write rows to a new file and return its size; raises OSError if it is larger than `room`."""
        content = _pack(rows)
        if len(content) > room:
            raise OSError(f"it has room for {room} more bytes, by UPKEEP_SPOOL_BYTES")
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid4().hex[:12]}-{rows.height}.arrow"
        write_whole(self._folder / name, content)
        return len(content)

    def ship(self) -> Iterator[tuple[int, int]]:
        """Ship part by part, the oldest first, and yield how many rows and bytes each had.

        If the store refuses one, waiting files are merged, since a long outage would leave hundreds of thousands, and
        an UpkeepError is raised.
        """
        self._recover()
        waiting = deque(_list(self._folder))
        try:
            # A part is named after its first file, so one that is shipped again, after a kill or half a write, replaces
            # what is there.
            while files := _list(self._folder / PART) or _move(_take_group(waiting), self._folder / PART):
                rows, size = self._read(files), sum(file.stat().st_size for file in files)
                write_part(self._url, files[0].stem, rows, self.log)
                self._remove(PART)
                yield rows.height, size
        except UpkeepError:
            while group := _take_group(waiting):
                if len(group) > 1:
                    files = _move(group, self._folder / MERGING)
                    write_whole(self._folder / _name_merged(files), _pack(self._read(files)))
                    self._remove(MERGING)
            raise

    def _recover(self) -> None:
        """Finish deletions and undo merges that a killed process left half done."""
        rmtree(self._folder / DONE, ignore_errors=True)
        if files := _list(self._folder / MERGING):
            (self._folder / _name_merged(files)).unlink(missing_ok=True)
            _move(files, self._folder)

    def _remove(self, name: str) -> None:
        # Renamed first, so that it is gone at once or not at all.
        rmtree((self._folder / name).rename(self._folder / DONE), ignore_errors=True)

    def _read(self, files: Iterable[Path]) -> pl.DataFrame:
        parts = [self.log.schema.to_frame()]
        for file in files:
            try:
                rows = pl.read_ipc_stream(BytesIO(file.read_bytes()))  # from a path, Polars would map the file
                parts.append(complete(rows.lazy(), self.log.schema).collect())  # an older version may have left it
            except (Exception, pl.exceptions.PanicException) as error:  # no file may hold up the others
                logger.error("prediction log: %s cannot be read back: %s", file, error)
                self.unreadable += _count_rows(file)
        return pl.concat(parts)


def _pack(rows: pl.DataFrame) -> bytes:
    rows.write_ipc_stream(stream := BytesIO(), compression="lz4")  # a third of the size at little cost
    return stream.getvalue()


def _list(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.arrow"))


def _take_group(waiting: deque[Path]) -> list[Path]:
    group: list[Path] = []
    size = 0
    while waiting and (not group or size + waiting[0].stat().st_size <= PART_BYTES):
        size += waiting[0].stat().st_size
        group.append(waiting.popleft())
    return group


def _move(files: Iterable[Path], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [file.rename(folder / file.name) for file in files]


def _name_merged(files: Sequence[Path]) -> str:
    return f"{files[0].stem.rpartition('-')[0]}-{sum(map(_count_rows, files))}.arrow"


def _count_rows(file: Path) -> int:
    count = file.stem.rpartition("-")[2]
    return int(count) if count.isdecimal() else 0  # a stranger's
