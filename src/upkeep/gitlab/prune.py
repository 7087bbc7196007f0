"""`upkeep prune`: list data that nothing needs any more and, if asked to, remove it."""

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch, Params
from upkeep.core.pieces import ENDING
from upkeep.core.text import align_columns
from upkeep.gitlab import dvc
from upkeep.scoring.prediction_log import list_before, remove_parts
from upkeep.sources.manifest import read_manifest
from upkeep.sources.store import drop_batches


class Waste(NamedTuple):
    """Files of one kind that may go: the bytes of each, how to remove all, and a note for whoever decides."""

    what: str
    sizes: Collection[int]
    remove: Callable[[], object]
    note: str = ""


def prune(params: Params, today: date, days: int | None, *, remove: bool) -> str:
    """Return a table of what may go, and remove it if `remove`.

    These are raw batches before ``fetch.since``, the cache's files that :func:`dvc.list_garbage` lists and, if `days`
    is given, pieces and predictions older than that.
    """
    found = [*_find_raw(params.fetch), _find_cached()]
    if days is not None:
        oldest = today - timedelta(days=days)
        found.append(_find_pieces(params.pieces.folder, oldest))
        parts = list_before(params.score.log, oldest)
        drop = partial(remove_parts, params.score.log, list(parts))
        found.append(Waste(f"predictions before {oldest}", parts.values(), drop))
    rows = [(waste.what, f"{len(waste.sizes):,}", f"{sum(waste.sizes) / 1e6:,.1f}") for waste in found]
    notes = [f"{waste.what}: {waste.note}" for waste in found if waste.note]
    for waste in found:
        if remove and waste.sizes:
            waste.remove()
    done = "all of it is removed" if remove else "nothing is removed yet: the same with --yes does"
    return "\n".join([align_columns(("what may go", "files", "MB"), rows), *notes, done])


def _find_raw(fetch: Fetch) -> list[Waste]:
    """Return the stored batches before ``fetch.since``, with a note of how many rows training loses."""
    if fetch.since is None or not paths.MANIFEST.exists():
        return []
    files = read_manifest().files
    left_out = [file for file in files if file.batch <= fetch.until and not fetch.covers(file.key)]
    if not left_out:
        return []
    stored = (paths.RAW / file.file for file in left_out)
    sizes = [file.stat().st_size if file.is_file() else 0 for file in stored]
    lost, rows = (sum(file.rows for file in some if file.table == "telemetry") for some in (left_out, files))
    loss = f"training loses {lost:,} of {rows:,} rows of telemetry, and each machine's healthy baseline may move"
    drop = partial(drop_batches, paths.RAW, {file.key for file in left_out})
    return [Waste(f"{paths.RAW} before {fetch.since}", sizes, drop, f"{loss}; `dvc repro` goes on from there")]


def _find_cached() -> Waste:
    try:
        sizes = [status.st_size for status in _stat_all(dvc.list_garbage()).values()]
    except UpkeepError as error:
        return Waste("DVC's cache", [], dvc.collect_garbage, f"left alone: {error.what}; {error.remedy}")
    return Waste("DVC's cache, in no branch, tag or lock here", sizes, dvc.collect_garbage)


def _find_pieces(folder: Path | None, oldest: date) -> Waste:
    """Return the pieces that no run has used since a day; a run that needs one makes it again."""
    before = datetime.combine(oldest, time(), UTC).timestamp()
    found = _stat_all(folder.glob(f"*{ENDING}") if folder and not folder.is_symlink() else ())
    old = {file: status for file, status in found.items() if S_ISREG(status.st_mode) and status.st_mtime < before}

    def remove() -> None:
        for file in old:
            file.unlink(missing_ok=True)

    return Waste(f"pieces not used since {oldest}", [status.st_size for status in old.values()], remove)


def _stat_all(files: Iterable[Path]) -> dict[Path, os.stat_result]:
    """Return the status of files, links not followed; files that vanish meanwhile are left out."""
    found = {}
    for file in files:
        with suppress(FileNotFoundError):
            found[file] = file.lstat()
    return found
