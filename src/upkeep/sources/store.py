"""``data/raw``: each delivery stored once, beside a manifest of where it is from and of every file's checksum."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from io import BytesIO
from itertools import groupby, islice
from pathlib import Path
from typing import Literal, TypeVar

import polars as pl
from pydantic import ValidationError
from tqdm import tqdm

from upkeep.contract.dictionary import Table
from upkeep.contract.findings import Finding
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import TEMPORARY, read_regular, write_whole
from upkeep.core.parallel import QUIET_SECONDS
from upkeep.core.params import Fetch
from upkeep.core.plants import name_file
from upkeep.core.text import command_to_read_again
from upkeep.core.types import Frozen, describe_faults
from upkeep.sources import Delivery, Key

ROW_GROUP_ROWS = 250_000
"""Stated, because Polars' own choice may depend on the number of threads, and so would the bytes."""

SAVE_SECONDS = 1
"""How often the manifest is saved under way: a killed run fetches again what the manifest does not list yet."""

Fate = Literal["same", "changed", "vanished"]
"""Of a stored batch that was read again."""

AGAIN = ".again"
"""How the name of a file ends while the one that it replaces is still listed."""

logger = logging.getLogger(__name__)


class RawFile(Frozen):
    """One stored delivery; `file` is relative to ``data/raw``."""

    table: Table
    plant: str
    batch: date
    delivery: int
    file: str
    rows: int
    bytes: int
    sha256: str

    @property
    def key(self) -> Key:
        """Table, plant and batch."""
        return Key(self.table, self.plant, self.batch)


class Manifest(Frozen):
    """Where the raw data is from, its files sorted by table, plant, batch and delivery, and what was not read."""

    source: str
    options_sha256: str
    files: tuple[RawFile, ...] = ()
    findings: tuple[Finding, ...] = ()

    def with_files(self, files: Iterable[RawFile]) -> "Manifest":
        """Return a manifest of the same origin that lists these files."""
        ordered = sorted(files, key=lambda file: (*file.key, file.delivery))
        return self.model_copy(update={"files": tuple(ordered), "findings": self.findings if ordered else ()})


def empty_manifest(fetch: Fetch) -> Manifest:
    """Return the manifest of a source of which nothing is fetched yet.

    The options enter as a digest, before variables are filled in: no secret and no local path can land in the manifest.
    """
    origin = {"options": fetch.options, "batch_days": fetch.batch_days}
    if fetch.rows_every_hours:
        origin["rows_every_hours"] = fetch.rows_every_hours
    text = json.dumps(origin, sort_keys=True, default=str)
    return Manifest(source=fetch.source, options_sha256=hashlib.sha256(text.encode()).hexdigest())


def read_manifest(path: Path = paths.MANIFEST) -> Manifest:
    """Read ``data/raw/manifest.json``; raises UpkeepError if it is missing or damaged."""
    try:
        return Manifest.model_validate_json(read_regular(path))
    except (OSError, ValidationError) as error:
        missing = isinstance(error, FileNotFoundError)
        fault = describe_faults(error) if isinstance(error, ValidationError) else error.strerror
        what = "does not exist" if missing else f"cannot be used: {fault}"
        remedy = "run `dvc repro fetch`" if missing else f"delete the folder {path.parent} and run this again"
        raise UpkeepError(f"the manifest of the raw data {what}", remedy=remedy, file=path) from error


def write_manifest(manifest: Manifest, path: Path = paths.MANIFEST) -> None:
    """Write ``data/raw/manifest.json`` in one step."""
    write_whole(path, f"{manifest.model_dump_json(indent=1, exclude_defaults=True)}\n".encode())


def store_batches(
    listed: Mapping[Key, list[Delivery]], fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]
) -> Manifest:
    """Make the folder `raw` hold the wanted batches, each fetched once but for the newest, and no others.

    Raises UpkeepError if a delivery cannot be read, or a file fetched earlier is no longer what the manifest says.
    """
    listed = {key: deliveries for key, deliveries in listed.items() if wanted(key)}
    manifest = _resume(fetch, raw, wanted).model_copy(update={"findings": _collect_findings(listed)})
    stored = group_by_key(manifest.files)
    saved = time.monotonic()
    for key in tqdm(to_fetch(listed, stored, fetch.reread_batches), delay=QUIET_SECONDS, unit="batch"):
        stored[key] = _fetch_batch(raw, key, listed[key], stored.get(key, []))
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(raw, manifest, stored)
            saved = time.monotonic()
    return _save(raw, manifest, stored)


def _collect_findings(listed: Mapping[Key, list[Delivery]]) -> tuple[Finding, ...]:
    """Return what the deliveries tell of what the source could not read, each finding once."""
    found = (finding for deliveries in listed.values() for delivery in deliveries for finding in delivery.findings)
    return tuple({tuple(finding.items()): finding for finding in found}.values())


def _resume(fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]) -> Manifest:
    """Return what is stored and still wanted, checked; everything else is removed from `raw`."""
    fresh = empty_manifest(fetch)
    listing = raw / paths.MANIFEST.name
    known = read_manifest(listing) if listing.exists() else fresh
    if known.with_files(()) != fresh:
        logger.warning(f"fetch: source, options or batch_days changed, so {raw} starts afresh")
        known = fresh
    manifest = known.with_files(file for file in known.files if wanted(file.key))
    # The manifest goes first: a kill in between leaves files that nothing lists, which the next run removes.
    write_manifest(manifest, listing)
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
    stored = group_by_key(manifest.files)
    fates: dict[Key, Fate] = {}
    for key in tqdm(sorted(filter(chosen, stored)), delay=QUIET_SECONDS, unit="batch"):
        deliveries = [rows for rows in _read_batch(key, listed.get(key, [])) if not rows.is_empty()]
        if not deliveries:
            fates[key] = "vanished"
        elif _holds(raw, stored[key], deliveries):
            fates[key] = "same"
        else:
            fates[key] = "changed"
            stored[key] = [store(raw, key, number, rows, AGAIN) for number, rows in enumerate(deliveries, 1)]
    if drop_vanished:
        stored = {key: files for key, files in stored.items() if fates.get(key) != "vanished"}
    _settle(raw, _save(raw, manifest, stored))
    return fates


def _read_batch(key: Key, deliveries: Iterable[Delivery]) -> Iterator[pl.DataFrame]:
    for delivery in deliveries:
        try:
            yield delivery.read()
        except UpkeepError as error:
            raise error.at(**key._asdict()) from error


def _holds(raw: Path, files: Sequence[RawFile], deliveries: Sequence[pl.DataFrame]) -> bool:
    """Tell whether these deliveries, no more and no fewer, are stored, and their files whole."""
    try:
        stored = [read_delivery(raw, file) for file in files]
    except UpkeepError:  # a damaged file is read again to be replaced
        return False
    return len(stored) == len(deliveries) and all(map(same_rows, stored, deliveries))


def _settle(raw: Path, manifest: Manifest) -> Manifest:
    """Give the files that took the place of others the names of those, which the manifest lists no more."""
    files = []
    for file in manifest.files:
        name = _name(file.key, file.delivery)
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
    for rows in _read_batch(key, deliveries):
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
    """Write the delivery with this number (1, 2, ...) of a batch; equal rows give equal bytes."""
    buffer = BytesIO()
    rows.rechunk().write_parquet(buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    content = buffer.getvalue()
    file = _name(key, number) + ending
    write_whole(_locate(raw, file), content)
    return RawFile(
        **key._asdict(),
        delivery=number,
        file=file,
        rows=rows.height,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _name(key: Key, number: int) -> str:
    return f"{key.table}/{name_file(key.plant)}/{key.batch}{'' if number == 1 else f'.{number}'}.parquet"


def read_delivery(raw: Path, file: RawFile) -> pl.DataFrame:
    """Return a stored delivery's rows; raises UpkeepError if the file is missing, changed or no Parquet file."""
    check_file(raw, file)
    try:
        return pl.read_parquet(raw / file.file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged_raw_file(raw, file, f"a raw file cannot be read: {error}") from error


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
    again = command_to_read_again(file.plant, file.batch)
    remedy = f"type {again}" if raw == paths.RAW else f"delete the folder {raw} and run this again"
    return UpkeepError(what, remedy=remedy, **file.key._asdict(), file=raw / file.file)


def _remove_unlisted(raw: Path, files: Iterable[RawFile]) -> None:
    """Delete what a killed run left behind and what is no longer wanted: all that the manifest does not list."""
    listed = {raw / file.file for file in files}
    for path in [*raw.glob("*/*/*"), *raw.glob(f"*{TEMPORARY}")]:
        if path.is_file() and path not in listed:
            _locate(raw, str(path.relative_to(raw))).unlink()


def _save(raw: Path, manifest: Manifest, stored: Mapping[Key, list[RawFile]]) -> Manifest:
    manifest = manifest.with_files(file for files in stored.values() for file in files)
    write_manifest(manifest, raw / paths.MANIFEST.name)
    return manifest


Item = TypeVar("Item", Delivery, RawFile)


def group_by_key(items: Iterable[Item]) -> dict[Key, list[Item]]:
    """Collect deliveries or files by table, plant and batch, in the order they come."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(item.key, []).append(item)
    return groups


def raise_without_telemetry(found: Iterable[Delivery | RawFile], fetch: Fetch) -> None:
    """Raise an error if there is nothing of the table that all else is about."""
    if not any(each.table == "telemetry" for each in found):
        raise UpkeepError(
            f"the source {fetch.source} has no telemetry up to the batch of {fetch.until}",
            remedy="check fetch.until and fetch.options in params.yaml; if there are events only, set "
            "fetch.rows_every_hours",
        )
