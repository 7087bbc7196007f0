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
    REFERENCES,
    Manifest,
    Pins,
    RawFile,
    empty_manifest,
    group_by_key,
    how_to_read_again,
    name_delivery,
    not_as_pinned,
    pack_delivery,
    read_batch,
    read_manifest,
    read_pins,
    write_manifest,
    write_pins,
)

SAVE_SECONDS = 1
"""How often the manifest is saved under way: a killed run fetches again what the manifest does not list yet."""

Fate = Literal["same", "changed", "vanished"]
"""Of a stored batch that was read again."""

AGAIN = ".again"
"""How the name of a file ends while the one that it replaces is still listed."""

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
        return _pin_batches(raw, manifest, stored, listed, chosen)
    for key in tqdm(chosen, delay=QUIET_SECONDS, unit="batch"):
        stored[key] = _fetch_batch(raw, key, listed[key], stored.get(key, []))
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(raw, manifest, stored)
            saved = time.monotonic()
    return _save(raw, manifest, stored)


def _pin_batches(
    raw: Path,
    manifest: Manifest,
    stored: dict[Key, list[RawFile]],
    listed: Mapping[Key, list[Delivery]],
    chosen: Collection[Key],
) -> Manifest:
    """Pin the chosen batches anew, and those of which a file is another one that holds the same rows of them.

    So a file may grow by rows of other batches. Raises UpkeepError if rows that were pinned before have changed, or
    their file is gone.
    """
    pins, lost = read_pins(raw), list[tuple[Key, Reference]]()
    for key in tqdm(sorted({*stored, *chosen}), delay=QUIET_SECONDS, unit="batch"):
        held, offered = stored.get(key, []), listed.get(key, [])
        known, there = [pins[file.file] for file in held], [delivery.references for delivery in offered]
        found_again = set(chain(*there))
        missing = [reference for reference in chain(*known) if reference not in found_again]
        if missing or (key in chosen and known != there):
            stored[key], own = _pin(key, offered)
            pins |= own
            if missing and key not in chosen and stored[key] != held:
                lost.append((key, missing[0]))
    if lost:
        what = "has changed since it was fetched, or is gone"
        raise not_as_pinned(lost, what, raw, vanished=any(key not in listed for key, _ in lost))
    return _save(raw, manifest, stored, pins)


def _pin(key: Key, deliveries: Sequence[Delivery]) -> tuple[list[RawFile], Pins]:
    """Read a batch and return what it holds, and where."""
    files = [pack_delivery(key, number, rows)[0] for number, rows in enumerate(read_batch(key, deliveries), 1)]
    return files, {file.file: delivery.references for file, delivery in zip(files, deliveries, strict=True)}


def _collect_findings(listed: Mapping[Key, list[Delivery]]) -> tuple[Finding, ...]:
    """Return what the deliveries tell of what the source could not read, each finding once."""
    found = (finding for deliveries in listed.values() for delivery in deliveries for finding in delivery.findings)
    return tuple({tuple(finding.items()): finding for finding in found}.values())


def _resume(fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]) -> Manifest:
    """Return what is stored and still wanted, checked; everything else is removed from `raw`."""
    fresh, pins = empty_manifest(fetch), read_pins(raw)
    listing = raw / paths.MANIFEST.name
    known = read_manifest(listing) if listing.exists() else fresh
    held = [file for file in known.files if (file.file in pins) == (fetch.mode == "reference")]
    if known.with_files(()) != fresh or (known.files and not held):
        logger.warning(f"fetch: source, mode, options, findings or batch_days changed, so {raw} starts afresh")
        known, held = fresh, []
    manifest = known.with_files(file for file in held if wanted(file.key))
    # The manifest goes first: a kill in between leaves files that nothing lists, which the next run removes.
    write_manifest(manifest, listing)
    if fetch.mode == "reference":
        _remove_unlisted(raw, ())
        return manifest
    (raw / REFERENCES).unlink(missing_ok=True)
    manifest = _settle(raw, manifest)
    for file in tqdm(manifest.files, delay=QUIET_SECONDS, unit="checksum"):
        check_file(raw, file)
    return manifest


def to_fetch(
    listed: Mapping[Key, list[Delivery]], stored: Mapping[Key, list[RawFile]], reread_batches: int
) -> list[Key]:
    """Choose what to read: the batches not stored yet, and of each plant's table the newest stored ones again."""
    newest_first = groupby(sorted(stored, reverse=True), key=lambda key: (key.table, key.plant))
    newest = {key for _, keys in newest_first for key in islice(keys, reread_batches)}
    return sorted(key for key in listed if key not in stored or key in newest)


def replace_batches(
    listed: Mapping[Key, list[Delivery]], raw: Path, chosen: Callable[[Key], bool], *, drop_vanished: bool
) -> dict[Key, Fate]:
    """Read the chosen ones of the stored batches again; what the source has now takes the place of what it had.

    All of it at once, when the last one is read: until then `raw` holds what it held. A batch that the source no
    longer has stays, unless `drop_vanished`. Returns what became of each chosen batch.

    Raises UpkeepError if a delivery cannot be read.
    """
    manifest = read_manifest(raw / paths.MANIFEST.name)
    stored, pins = group_by_key(manifest.files), read_pins(raw)
    fates: dict[Key, Fate] = {}
    for key in tqdm(sorted(filter(chosen, stored)), delay=QUIET_SECONDS, unit="batch"):
        held, offered = stored[key], listed.get(key, [])
        if pins:
            files, own = _pin(key, offered)
            pins |= own
            is_same = files == held
        else:
            deliveries = [rows for rows in read_batch(key, offered) if not rows.is_empty()]
            is_same = _holds(raw, held, deliveries)
            numbered = enumerate(deliveries, 1)
            files = held if is_same else [store(raw, key, number, rows, AGAIN) for number, rows in numbered]
        fates[key] = "same" if is_same else "changed" if files else "vanished"
        stored[key] = files or held
    if drop_vanished:
        stored = {key: files for key, files in stored.items() if fates.get(key) != "vanished"}
    manifest = _save(raw, manifest, stored, pins)
    if not pins:
        _settle(raw, manifest)
    return fates


def _holds(raw: Path, files: Sequence[RawFile], deliveries: Sequence[pl.DataFrame]) -> bool:
    """Tell whether these deliveries, no more and no fewer, are stored, and their files whole."""
    if len(files) != len(deliveries):
        return False
    try:
        return all(
            same_rows(scan_delivery(raw, file).collect(), rows) for file, rows in zip(files, deliveries, strict=True)
        )
    except UpkeepError:  # a damaged file is read again to be replaced
        return False


def _settle(raw: Path, manifest: Manifest) -> Manifest:
    """Give the files that took the place of others the names of those, which the manifest lists no more."""
    files = []
    for file in manifest.files:
        name = name_delivery(file.key, file.delivery)
        if file.file != name:
            check_file(raw, file)
            write_whole(_locate(raw, name), (raw / file.file).read_bytes())
        files.append(file.model_copy(update={"file": name}))
    settled = manifest.with_files(files)
    if settled != manifest:
        write_manifest(settled, raw / paths.MANIFEST.name)
    _remove_unlisted(raw, settled.files)
    return settled


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
    if one.schema != other.schema or one.height != other.height:
        return False
    return one.hash_rows().sort().equals(other.hash_rows().sort())


def store(raw: Path, key: Key, number: int, rows: pl.DataFrame, ending: str = "") -> RawFile:
    """Write the delivery with this number (1, 2, ...) of a batch."""
    listed, content = pack_delivery(key, number, rows, ending)
    write_whole(_locate(raw, listed.file), content)
    return listed


def scan_delivery(raw: Path, file: RawFile) -> pl.LazyFrame:
    """Return a stored delivery's rows; raises UpkeepError if the file is missing, changed or no Parquet file."""
    check_file(raw, file)
    try:
        rows = pl.scan_parquet(raw / file.file, glob=False)
        rows.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged_raw_file(raw, file, f"a raw file cannot be read: {error}") from error
    return rows


def check_file(raw: Path, file: RawFile) -> None:
    """Compare a stored file with the manifest; raises UpkeepError if it is missing, cut short or changed."""
    path = _locate(raw, file.file)
    if not path.is_file():
        raise _damaged_raw_file(raw, file, "a raw file is missing")
    if (found := path.stat().st_size) != file.bytes:
        raise _damaged_raw_file(raw, file, f"a raw file has {found} bytes, {file.bytes} by the manifest")
    with path.open("rb") as handle:
        checksum = hashlib.file_digest(handle, "sha256").hexdigest()
    if checksum != file.sha256:
        changed = f"its SHA-256 is {checksum}, {file.sha256} by the manifest"
        raise _damaged_raw_file(raw, file, f"a raw file was changed after it was fetched: {changed}")


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


def _damaged_raw_file(raw: Path, file: RawFile, what: str) -> UpkeepError:
    remedy = how_to_read_again(raw, file.plant, file.batch)
    return UpkeepError(what, remedy=remedy, **file.key._asdict(), file=raw / file.file)


def _remove_unlisted(raw: Path, files: Iterable[RawFile]) -> None:
    """Delete what a killed run left behind and what is no longer wanted: all that the manifest does not list."""
    listed = {raw / file.file for file in files}
    for path in [*raw.glob("*/*/*"), *raw.glob(f"*{TEMPORARY}")]:
        if path.is_file() and path not in listed:
            _locate(raw, str(path.relative_to(raw))).unlink()


def drop_batches(raw: Path, dropped: Collection[Key]) -> None:
    """Drop these of the stored batches; whatever else lies in `raw` stays."""
    manifest = read_manifest(raw / paths.MANIFEST.name)
    stored = group_by_key(manifest.files)
    _save(raw, manifest, {key: files for key, files in stored.items() if key not in dropped})
    for file in chain.from_iterable(stored.get(key, []) for key in dropped):
        _locate(raw, file.file).unlink(missing_ok=True)


def _save(raw: Path, manifest: Manifest, stored: Mapping[Key, list[RawFile]], pins: Pins | None = None) -> Manifest:
    manifest = manifest.with_files(file for files in stored.values() for file in files)
    write_manifest(manifest, raw / paths.MANIFEST.name)
    if pins:
        write_pins(raw, {file.file: pins[file.file] for file in manifest.files if file.file in pins})
    return manifest
