"""``data/raw``: each delivery stored once, beside a manifest of where it is from and of every file's checksum."""

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
from upkeep.core.parallel import QUIET_SECONDS
from upkeep.core.params import Fetch
from upkeep.core.text import command_to_read_again
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

SAVE_SECONDS = 1
"""How often the manifest is saved under way: a killed run fetches again what the manifest does not list yet."""

Fate = Literal["same", "changed", "vanished"]  # of a stored batch that was read again

AGAIN = ".again"  # how the name of a file ends while the one that it replaces is still listed

logger = logging.getLogger(__name__)


def store_batches(
    listed: Mapping[Key, list[Delivery]], fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]
) -> Manifest:
    """Make the folder `raw` hold the wanted batches, each fetched once but for the newest, and no others.

    With ``fetch.mode: reference`` it holds their manifest only. Raises UpkeepError if a delivery cannot be read, or a
    file fetched earlier is no longer what the manifest says.
    """
    listed = {key: deliveries for key, deliveries in listed.items() if wanted(key)}
    manifest = _resume(fetch, raw, wanted).model_copy(update={"findings": _collect_findings(listed)})
    stored = group_by_key(manifest.files)
    chosen, saved = to_fetch(listed, stored, fetch.reread_batches), time.monotonic()
    if fetch.mode == "reference":
        _pin_batches(raw, stored, listed, chosen)
        return _save(raw, manifest, stored)
    for key in tqdm(chosen, delay=QUIET_SECONDS, unit="batch"):
        stored[key] = _fetch_batch(raw, key, listed[key], stored.get(key, []))
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(raw, manifest, stored)
            saved = time.monotonic()
    return _save(raw, manifest, stored)


def _resume(fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]) -> Manifest:
    """Return what is stored and still wanted, checked; everything else is removed from `raw`."""
    fresh, is_pinned = empty_manifest(fetch), fetch.mode == "reference"
    listing = raw / paths.MANIFEST.name
    known = read_manifest(listing) if listing.exists() else fresh
    if known.with_files(()) != fresh or any(bool(file.references) != is_pinned for file in known.files):
        logger.warning(f"fetch: source, mode, options, findings or batch_days changed, so {raw} starts afresh")
        known = fresh
    manifest = known.with_files(file for file in known.files if wanted(file.key))
    # The manifest goes first: a kill in between leaves files that nothing lists, which the next run removes.
    write_manifest(manifest, listing)
    manifest = _settle(raw, manifest)
    if not is_pinned:
        for file in tqdm(manifest.files, delay=QUIET_SECONDS, unit="checksum"):
            check_file(raw, file)
    return manifest


def _collect_findings(listed: Mapping[Key, list[Delivery]]) -> tuple[Finding, ...]:
    """Return what the deliveries tell of what the source could not read, each finding once."""
    found = (finding for deliveries in listed.values() for delivery in deliveries for finding in delivery.findings)
    return tuple({tuple(finding.items()): finding for finding in found}.values())


def to_fetch(
    listed: Mapping[Key, list[Delivery]], stored: Mapping[Key, list[RawFile]], reread_batches: int
) -> list[Key]:
    """Choose what to read: the batches not stored yet, and of each plant's table the newest stored ones again."""
    newest_first = groupby(sorted(stored, reverse=True), key=lambda key: (key.table, key.plant))
    newest = {key for _, keys in newest_first for key in islice(keys, reread_batches)}
    return sorted(key for key in listed if key not in stored or key in newest)


def _fetch_batch(raw: Path, key: Key, deliveries: list[Delivery], stored: list[RawFile]) -> list[RawFile]:
    """Store what one plant delivered of one batch; of a batch read again, only what holds other rows than before."""
    files = list(stored)
    for rows in read_batch(key, deliveries):
        known = stored and any(same_rows(rows, pl.read_parquet(_locate(raw, file.file))) for file in files)
        if not known and not rows.is_empty():
            files.append(store(raw, key, len(files) + 1, rows))
    return files


def same_rows(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Tell whether two deliveries hold the same rows, in whatever order."""
    return one.schema == other.schema and one.hash_rows().sort().equals(other.hash_rows().sort())


def _pin_batches(
    raw: Path, stored: dict[Key, list[RawFile]], listed: Mapping[Key, list[Delivery]], chosen: Collection[Key]
) -> None:
    """Pin the chosen batches anew, and those of which a file is another one that holds the same rows of them.

    So a file may grow by rows of other batches. Raises UpkeepError if rows that were pinned before have changed, or
    their file is gone.
    """
    lost = list[tuple[Key, Reference]]()
    for key in tqdm(sorted({*stored, *chosen}), delay=QUIET_SECONDS, unit="batch"):
        held, offered = stored.get(key, []), listed.get(key, [])
        known, there = [file.references for file in held], [delivery.references for delivery in offered]
        found_again = set(chain(*there))
        missing = [reference for reference in chain(*known) if reference not in found_again]
        if missing or (key in chosen and known != there):
            stored[key] = _pin(key, offered)
            if missing and key not in chosen and not _are_same(held, stored[key]):
                lost.append((key, missing[0]))
    if lost:
        what = "has changed since it was fetched, or is gone"
        raise not_as_pinned(lost, what, raw, vanished=any(key not in listed for key, _ in lost))


def _pin(key: Key, deliveries: Sequence[Delivery]) -> list[RawFile]:
    """Read a batch and return what it holds, and where."""
    files = [pack_delivery(key, number, rows)[0] for number, rows in enumerate(read_batch(key, deliveries), 1)]
    there = zip(files, deliveries, strict=True)
    return [file.model_copy(update={"references": delivery.references}) for file, delivery in there]


def _are_same(held: Iterable[RawFile], files: Iterable[RawFile]) -> bool:
    return [file.sha256 for file in held] == [file.sha256 for file in files]


def replace_batches(
    listed: Mapping[Key, list[Delivery]], raw: Path, chosen: Callable[[Key], bool], *, drop_vanished: bool
) -> dict[Key, Fate]:
    """Read the chosen ones of the stored batches again; what the source has now takes the place of what it had.

    All of it at once, when the last one is read: until then `raw` holds what it held. A batch that the source no
    longer has stays, unless `drop_vanished`. Returns what became of each chosen batch.

    Raises UpkeepError if a delivery cannot be read.
    """
    manifest = read_manifest(raw / paths.MANIFEST.name)
    stored = group_by_key(manifest.files)
    is_pinned = any(file.references for file in manifest.files)
    fates: dict[Key, Fate] = {}
    for key in tqdm(sorted(filter(chosen, stored)), delay=QUIET_SECONDS, unit="batch"):
        held, offered = stored[key], listed.get(key, [])
        if is_pinned:
            files = _pin(key, offered)
            is_same = _are_same(held, files)
        else:
            deliveries = [rows for rows in read_batch(key, offered) if not rows.is_empty()]
            packed = [pack_delivery(key, number, rows) for number, rows in enumerate(deliveries, 1)]
            is_same = _are_same(held, [file for file, _ in packed]) and not any(
                _find_damage(raw, file) for file in held
            )
            files = held if is_same else [_write_file(raw, file, content, AGAIN) for file, content in packed]
        fates[key] = "same" if is_same else "changed" if files else "vanished"
        stored[key] = files or held
    if drop_vanished:
        stored = {key: files for key, files in stored.items() if fates.get(key) != "vanished"}
    _settle(raw, _save(raw, manifest, stored))
    return fates


def _settle(raw: Path, manifest: Manifest) -> Manifest:
    """Give files that took the place of others the names of those, and delete all that the manifest does not list.

    That is what a killed run left behind, and what is no longer wanted.
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
    """Return a stored delivery's rows; raises UpkeepError if the file is missing, changed or no Parquet file."""
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
    """Return where a file of `raw` is; raises UpkeepError if its name or a link leads to a folder outside."""
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
    """Drop these of the stored batches; whatever else lies in `raw` stays."""
    manifest = read_manifest(raw / paths.MANIFEST.name)
    stored = group_by_key(manifest.files)
    _save(raw, manifest, {key: files for key, files in stored.items() if key not in dropped})
    for file in chain.from_iterable(stored.get(key, []) for key in dropped):
        _locate(raw, file.file).unlink(missing_ok=True)


def _save(raw: Path, manifest: Manifest, stored: Mapping[Key, list[RawFile]]) -> Manifest:
    manifest = manifest.with_files(file for files in stored.values() for file in files)
    write_manifest(manifest, raw / paths.MANIFEST.name)
    return manifest
