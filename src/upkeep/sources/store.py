"""``data/raw``: each delivery stored once, beside the manifest of their origin and checksums."""

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Literal

import polars as pl
from tqdm import tqdm

from upkeep.contract.findings import Finding
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import TEMPORARY, write_whole
from upkeep.core.params import Fetch
from upkeep.core.text import command_to_read_again
from upkeep.core.timing import QUIET_SECONDS
from upkeep.sources import Delivery, Key, Reference
from upkeep.sources.manifest import (
    Manifest,
    RawFile,
    empty_manifest,
    group_by_key,
    how_to_read_again,
    not_as_pinned,
    pack_delivery,
    read_batch,
    read_manifest,
    write_manifest,
)
from upkeep.sources.withdrawn import find_withdrawn, list_events

SAVE_SECONDS = 1
"""How often the manifest is saved meanwhile: after a killed run, what it does not list is fetched again."""

Fate = Literal["same", "changed", "vanished"]  # of a stored batch that was read again

AGAIN = ".again"  # ends the name of a file until the one that it replaces is deleted

logger = logging.getLogger(__name__)


def store_batches(
    listed: Mapping[Key, list[Delivery]], fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]
) -> Manifest:
    """Make the folder `raw` hold the wanted batches and no others; only the newest are fetched more than once.

    With ``fetch.mode: reference`` it holds only their manifest. Raises UpkeepError if a delivery cannot be read, or a
    file fetched earlier differs from the manifest.
    """
    listed = {key: deliveries for key, deliveries in listed.items() if wanted(key)}
    found = (finding for delivery in chain(*listed.values()) for finding in delivery.findings)
    findings = tuple({tuple(finding.items()): finding for finding in found}.values())  # each once
    manifest = _resume(fetch, raw, wanted).model_copy(update={"findings": findings})
    stored = group_by_key(manifest.files)
    chosen, saved = to_fetch(listed, stored, fetch.reread_batches), time.monotonic()
    if fetch.mode == "reference":
        _pin_batches(raw, stored, listed, chosen)
        return _save(raw, manifest, stored)
    withdrawn = _find_vanished_events(raw, listed, stored, fetch.reread_batches)
    for key in tqdm(chosen, delay=QUIET_SECONDS, unit="batch"):
        stored[key], gone = _fetch_batch(raw, key, listed[key], stored.get(key, []))
        withdrawn += gone
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(raw, manifest, stored)
            saved = time.monotonic()
    for finding in withdrawn:
        logger.warning("events, %s: %s", finding["batch"], finding["detail"])
    return _save(raw, manifest.model_copy(update={"findings": (*findings, *withdrawn)}), stored)


def _resume(fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]) -> Manifest:
    """Return the manifest of what is stored, wanted and undamaged; everything else is removed from `raw`."""
    fresh, is_pinned = empty_manifest(fetch), fetch.mode == "reference"
    listing = raw / paths.MANIFEST.name
    known = read_manifest(listing) if listing.exists() else fresh
    if known.with_files(()) != fresh or any(bool(file.references) != is_pinned for file in known.files):
        logger.warning("source, mode, options, findings or batch_days changed, so %s starts afresh", raw)
        known = fresh
    manifest = known.with_files(file for file in known.files if wanted(file.key))
    # The manifest is written first: files that a killed run leaves unlisted are removed by the next one.
    write_manifest(manifest, listing)
    manifest = _finish_replacing(raw, manifest)
    if not is_pinned:
        for file in tqdm(manifest.files, delay=QUIET_SECONDS, unit="checksum"):
            check_file(raw, file)
    return manifest


def to_fetch(
    listed: Mapping[Key, list[Delivery]], stored: Mapping[Key, list[RawFile]], reread_batches: int
) -> list[Key]:
    """Choose the batches to read: those not stored yet, and again the newest stored ones of each plant and table."""
    newest = _list_newest(stored, reread_batches)
    return sorted(key for key in listed if key not in stored or key in newest)


def _list_newest(stored: Iterable[Key], reread_batches: int) -> set[Key]:
    newest_first = groupby(sorted(stored, reverse=True), key=lambda key: (key.table, key.plant))
    return {key for _, keys in newest_first for key in islice(keys, reread_batches)}


def _find_vanished_events(
    raw: Path, listed: Collection[Key], stored: Mapping[Key, list[RawFile]], reread_batches: int
) -> list[Finding]:
    """Report events of the newest batches that the source no longer lists, of plants that it still has."""
    plants = {key.plant for key in listed}
    newest = (key for key in sorted(_list_newest(stored, reread_batches)) if key.table == "events")
    gone = (key for key in newest if key not in listed and key.plant in plants)
    return [found for key in gone for found in find_withdrawn(key, _list_stored_events(raw, stored[key]), [])]


def _list_stored_events(raw: Path, files: Iterable[RawFile]) -> Iterable[pl.DataFrame]:
    return (list_events(pl.read_parquet(_locate(raw, file.file))) for file in files)


def _fetch_batch(
    raw: Path, key: Key, deliveries: list[Delivery], stored: list[RawFile]
) -> tuple[list[RawFile], list[Finding]]:
    """Store one plant's deliveries of a batch; of one read again, only those whose rows differ from all before.

    Return its files, and what is to say of events that did not come again.
    """
    files, events = list(stored), list[pl.DataFrame]()
    for rows in read_batch(key, deliveries):
        if key.table == "events":
            events.append(list_events(rows))
        known = stored and any(same_rows(rows, pl.read_parquet(_locate(raw, file.file))) for file in files)
        if not known and not rows.is_empty():
            files.append(store(raw, key, len(files) + 1, rows))
    is_again = stored and key.table == "events"
    return files, find_withdrawn(key, _list_stored_events(raw, stored), events) if is_again else []


def same_rows(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Tell whether two deliveries hold the same rows, in any order."""
    return one.schema == other.schema and one.hash_rows().sort().equals(other.hash_rows().sort())


def _pin_batches(
    raw: Path, stored: dict[Key, list[RawFile]], listed: Mapping[Key, list[Delivery]], chosen: Collection[Key]
) -> None:
    """Pin the chosen batches anew, and those of which a file has changed but holds the same rows of the batch.

    A file may thus grow by rows of other batches. Raises UpkeepError if rows that were pinned before have changed, or
    their file is gone.
    """
    lost = list[tuple[Key, Reference]]()
    for key in tqdm(sorted({*stored, *chosen}), delay=QUIET_SECONDS, unit="batch"):
        held, offered = stored.get(key, []), listed.get(key, [])
        known, there = [file.references for file in held], [delivery.references for delivery in offered]
        found_again = set(chain(*there))
        missing = [reference for reference in chain(*known) if reference not in found_again]
        if missing or (key in chosen and known != there):
            stored[key] = [file for file, _ in _pack(key, offered, is_pinned=True)]
            if missing and key not in chosen and not _are_same(held, stored[key]):
                lost.append((key, missing[0]))
    if lost:
        what = "has changed since it was fetched, or is gone"
        raise not_as_pinned(lost, what, raw, vanished=any(key not in listed for key, _ in lost))


def _pack(key: Key, deliveries: Sequence[Delivery], *, is_pinned: bool) -> list[tuple[RawFile, bytes]]:
    """Return the deliveries of a batch that have rows, as the manifest lists them and as Parquet."""
    read = zip(read_batch(key, deliveries), deliveries, strict=True)
    there = [(rows, delivery.references if is_pinned else ()) for rows, delivery in read if not rows.is_empty()]
    return [pack_delivery(key, number, rows, pins) for number, (rows, pins) in enumerate(there, 1)]


def _are_same(held: Iterable[RawFile], files: Iterable[RawFile]) -> bool:
    return [file.sha256 for file in held] == [file.sha256 for file in files]


def replace_batches(
    listed: Mapping[Key, list[Delivery]], raw: Path, chosen: Callable[[Key], bool], *, drop_vanished: bool
) -> dict[Key, Fate]:
    """Read the chosen stored batches again, and replace them by what the source has now.

    They are replaced all at once, after the last one is read. A batch that the source no longer has stays, unless
    `drop_vanished`. Returns what became of each chosen batch.

    Raises UpkeepError if a delivery cannot be read.
    """
    manifest = read_manifest(raw / paths.MANIFEST.name)
    stored = group_by_key(manifest.files)
    is_pinned = any(file.references for file in manifest.files)
    fates: dict[Key, Fate] = {}
    for key in tqdm(sorted(filter(chosen, stored)), delay=QUIET_SECONDS, unit="batch"):
        held, offered = stored[key], listed.get(key, [])
        packed = _pack(key, offered, is_pinned=is_pinned)
        files = [file for file, _ in packed]
        is_same = _are_same(held, files) and (is_pinned or not any(_find_damage(raw, file) for file in held))
        if not is_pinned:
            files = held if is_same else [_write_file(raw, file, content, AGAIN) for file, content in packed]
        fates[key] = "same" if is_same else "changed" if files else "vanished"
        stored[key] = files or held
    if drop_vanished:
        stored = {key: files for key, files in stored.items() if fates.get(key) != "vanished"}
    _finish_replacing(raw, _save(raw, manifest, stored))
    return fates


def _finish_replacing(raw: Path, manifest: Manifest) -> Manifest:
    """Rename files that replace others, and delete those that the manifest does not list.

    The latter are what a killed run left behind, and what is no longer wanted.
    """
    files = []
    for file in manifest.files:
        name = file.file.removesuffix(AGAIN)
        if file.file != name:
            check_file(raw, file)
            write_whole(_locate(raw, name), (raw / file.file).read_bytes())
        files.append(file.model_copy(update={"file": name}))
    settled = manifest.with_files(files)
    if settled != manifest:
        write_manifest(settled, raw / paths.MANIFEST.name)
    listed = {raw / file.file for file in files}
    for path in [*raw.glob("*/*/*"), *raw.glob(f"*{TEMPORARY}")]:
        if path.is_file() and path not in listed:
            _locate(raw, str(path.relative_to(raw))).unlink()
    return settled


def store(raw: Path, key: Key, number: int, rows: pl.DataFrame) -> RawFile:
    """Write the delivery with this number (1, 2, ...) of a batch."""
    return _write_file(raw, *pack_delivery(key, number, rows))


def _write_file(raw: Path, file: RawFile, content: bytes, ending: str = "") -> RawFile:
    listed = file.model_copy(update={"file": file.file + ending})
    write_whole(_locate(raw, listed.file), content)
    return listed


def scan_delivery(raw: Path, file: RawFile) -> pl.LazyFrame:
    """Return a stored delivery's rows; raises UpkeepError if the file is missing, changed or not Parquet."""
    check_file(raw, file)
    try:
        rows = pl.scan_parquet(raw / file.file, glob=False)
        rows.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged_file(raw, file, f"a raw file cannot be read: {error}") from error
    return rows


def check_file(raw: Path, file: RawFile) -> None:
    """Compare a stored file with the manifest; raises UpkeepError if it is missing, cut short or changed."""
    if damage := _find_damage(raw, file):
        raise _damaged_file(raw, file, damage)


def _find_damage(raw: Path, file: RawFile) -> str | None:
    path = _locate(raw, file.file)
    if not path.is_file():
        return "a raw file is missing"
    with path.open("rb") as handle:
        checksum = hashlib.file_digest(handle, "sha256").hexdigest()
    changed = f"its SHA-256 is {checksum}, {file.sha256} by the manifest"
    return None if checksum == file.sha256 else f"a raw file was changed after it was fetched: {changed}"


def _damaged_file(raw: Path, file: RawFile, what: str) -> UpkeepError:
    remedy = how_to_read_again(raw, file.plant, file.batch)
    return UpkeepError(what, remedy=remedy, **file.key._asdict(), file=raw / file.file)


def _locate(raw: Path, file: str) -> Path:
    """Return the path of a file in `raw`; raises UpkeepError if its name or a link leads outside."""
    path = raw / file
    folder = path.parent.resolve()
    if not folder.is_relative_to(raw.resolve()):
        raise UpkeepError(
            f"{path} is not in {raw}: it leads to {folder}",
            expected=f"files, or links to files, in folders of {raw}; the folder itself may be a link",
            remedy=f"look at that link or manifest, remove it, and type {command_to_read_again()}",
            file=path,
        )
    return path


def drop_batches(raw: Path, dropped: Collection[Key]) -> None:
    """Delete these stored batches; everything else in `raw` stays."""
    manifest = read_manifest(raw / paths.MANIFEST.name)
    stored = group_by_key(manifest.files)
    _save(raw, manifest, {key: files for key, files in stored.items() if key not in dropped})
    for file in chain.from_iterable(stored.get(key, []) for key in dropped):
        _locate(raw, file.file).unlink(missing_ok=True)


def _save(raw: Path, manifest: Manifest, stored: Mapping[Key, list[RawFile]]) -> Manifest:
    manifest = manifest.with_files(file for files in stored.values() for file in files)
    write_manifest(manifest, raw / paths.MANIFEST.name)
    return manifest
