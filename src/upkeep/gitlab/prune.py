"""`upkeep prune`: what only takes room is listed, and removed if that is meant; what ``dvc.lock`` needs stays."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch, Params
from upkeep.core.pieces import ENDING
from upkeep.core.plants import list_plants, table_file
from upkeep.core.text import align_columns
from upkeep.gitlab import dvc
from upkeep.scoring.prediction_log import list_before, remove_parts
from upkeep.sources.manifest import RawFile, read_manifest
from upkeep.sources.store import drop_batches


class Waste(NamedTuple):
    """What of one kind may go: how many files and bytes, how it is removed, and what to know before."""

    what: str
    files: int
    size: int
    remove: Callable[[], object]
    note: str = ""


def prune(params: Params, today: date, days: int | None, *, remove: bool) -> str:
    """List what may go, and remove it if `remove`; return what was found.

    Of raw data that is what ``fetch.since`` leaves out, of DVC's cache what :func:`dvc.list_garbage` lists; pieces and
    predictions go if they are older than so many `days`.
    """
    found = [*_find_raw(params.fetch), _find_cached()]
    if days is not None:
        oldest = today - timedelta(days=days)
        found += [_find_pieces(params.pieces.folder, oldest), _find_predictions(params.score.log, oldest)]
    rows = [(waste.what, f"{waste.files:,}", f"{waste.size / 1e6:,.1f}") for waste in found]
    notes = [f"{waste.what}: {waste.note}" for waste in found if waste.note]
    for waste in found:
        if remove and waste.files:
            waste.remove()
    done = "all of it is removed" if remove else "nothing is removed yet: the same with --yes does"
    return "\n".join([align_columns(("what may go", "files", "MB"), rows), *notes, done])


def _find_raw(fetch: Fetch) -> list[Waste]:
    """Return the batches that are stored although ``fetch.since`` leaves them out, and what training loses."""
    if fetch.since is None or not paths.MANIFEST.exists():
        return []
    files = read_manifest().files
    left_out = [file for file in files if file.batch <= fetch.until and not fetch.covers(file.key)]
    sizes = [path.stat().st_size for file in left_out if (path := paths.RAW / file.file).is_file()]
    loss = _describe_loss(files, left_out, fetch.since) if left_out else ""
    drop = partial(drop_batches, paths.RAW, {file.key for file in left_out})
    return [Waste(f"{paths.RAW} before {fetch.since}", len(left_out), sum(sizes), drop, loss)]


def _describe_loss(files: Iterable[RawFile], left_out: Iterable[RawFile], since: date) -> str:
    rows, lost = (sum(file.rows for file in some if file.table == "telemetry") for some in (files, left_out))
    events = paths.INTERIM / "events"
    failures = [
        pl.read_parquet(table_file(events, plant)).filter(kind="failure")["time"] for plant in list_plants(events)
    ]
    gone = sum(int((times.dt.date() < since).sum()) for times in failures)
    return (
        f"training loses {lost:,} of {rows:,} rows of telemetry and {gone} of {sum(map(len, failures))} failures, and "
        "takes each machine's healthy baseline from the rows that are left; `dvc repro` goes on from there"
    )


def _find_cached() -> Waste:
    try:
        files = dvc.list_garbage()
    except UpkeepError as error:
        return Waste("DVC's cache", 0, 0, dvc.collect_garbage, f"left alone: {error.what}; {error.remedy}")
    sizes = [status.st_size for status in _look_at(files).values()]
    return Waste("DVC's cache, in no branch, tag or lock here", len(sizes), sum(sizes), dvc.collect_garbage)


def _find_pieces(folder: Path | None, oldest: date) -> Waste:
    """Return the pieces that no run has used since a day; a run that needs one again makes it again."""
    before = datetime.combine(oldest, time(), UTC).timestamp()
    found = _look_at(folder.glob(f"*{ENDING}") if folder and not folder.is_symlink() else ())
    old = {file: status for file, status in found.items() if S_ISREG(status.st_mode) and status.st_mtime < before}
    size = sum(status.st_size for status in old.values())
    return Waste(f"pieces not used since {oldest}", len(old), size, partial(_unlink, old))


def _find_predictions(log: str, oldest: date) -> Waste:
    parts = list_before(log, oldest)
    return Waste(
        f"predictions before {oldest}", len(parts), sum(parts.values()), partial(remove_parts, log, list(parts))
    )


def _look_at(files: Iterable[Path]) -> dict[Path, os.stat_result]:
    """Return what files are, links not followed; one that somebody else removes meanwhile is left out."""
    found = {}
    for file in files:
        with suppress(FileNotFoundError):
            found[file] = file.lstat()
    return found


def _unlink(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
