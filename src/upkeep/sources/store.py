"""The manifest of the raw data: what was fetched, from where, and the checksum of every file."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch
from upkeep.core.types import Frozen
from upkeep.sources import Delivery, Table

TEMPORARY = ".tmp"
ROW_GROUP_ROWS = 250_000
"""Stated, because Polars' own choice may depend on the number of threads, and so would the bytes."""

Key = tuple[Table, str, date]
"""What a file is about: table, plant and batch."""


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
        return self.table, self.plant, self.batch


class Manifest(Frozen):
    """Where the raw data is from, and its files sorted by table, plant, batch and delivery."""

    source: str
    options_sha256: str
    files: tuple[RawFile, ...] = ()

    def same_origin(self, other: "Manifest") -> bool:
        """Tell whether both list files of the same source with the same options."""
        return (self.source, self.options_sha256) == (other.source, other.options_sha256)

    def with_files(self, files: Iterable[RawFile]) -> "Manifest":
        """Return a manifest of the same origin that lists these files."""
        ordered = sorted(files, key=lambda file: (*file.key, file.delivery))
        return self.model_copy(update={"files": tuple(ordered)})


def empty_manifest(fetch: Fetch) -> Manifest:
    """Return the manifest of a source of which nothing is fetched yet.

    The options enter as a digest, before variables are filled in: no secret and no local path can land in the manifest.
    """
    origin = {"options": fetch.options, "batch_days": fetch.batch_days}
    text = json.dumps(origin, sort_keys=True, default=str)
    return Manifest(source=fetch.source, options_sha256=hashlib.sha256(text.encode()).hexdigest())


def read_manifest(path: Path = paths.MANIFEST) -> Manifest:
    """Read ``data/raw/manifest.json``.

    Raises
    ------
    UpkeepError
        If it is missing or damaged.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise UpkeepError(
            f"the manifest of the raw data {'does not exist' if missing else f'cannot be used: {error}'}",
            expected="the file that `upkeep fetch` writes",
            remedy="run `dvc repro fetch`"
            if missing
            else f"run `dvc checkout`, or delete {path.parent} and fetch again",
            file=path,
        ) from error


def write_manifest(manifest: Manifest, path: Path = paths.MANIFEST) -> None:
    """Write ``data/raw/manifest.json`` in one step."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n"
    write_at_once(path, text.encode())


def write_at_once(path: Path, content: bytes) -> None:
    """Write a file such that a kill at any moment leaves the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def store(raw: Path, key: Key, number: int, rows: pl.DataFrame) -> RawFile:
    """Write the delivery with this number (1, 2, ...) of a batch; equal rows give equal bytes."""
    table, plant, batch = key
    buffer = BytesIO()
    rows.rechunk().write_parquet(buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    content = buffer.getvalue()
    file = f"{table}/{plant}/{batch}{'' if number == 1 else f'.{number}'}.parquet"
    write_at_once(raw / file, content)
    return RawFile(
        table=table,
        plant=plant,
        batch=batch,
        delivery=number,
        file=file,
        rows=rows.height,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def check_file(raw: Path, file: RawFile) -> None:
    """Compare a stored file with the manifest.

    Raises
    ------
    UpkeepError
        If it is missing, cut short or changed.
    """
    path = raw / file.file
    if not path.is_file():
        fault = "a raw file is missing"
    elif (found := path.stat().st_size) != file.bytes:
        fault = f"a raw file has {found} bytes"
    elif (checksum := _checksum(path)) != file.sha256:
        fault = f"a raw file was changed after it was fetched: its SHA-256 is {checksum}"
    else:
        return
    raise UpkeepError(
        fault,
        expected=f"{file.bytes} bytes with SHA-256 {file.sha256}, as the manifest says",
        remedy=f"run `dvc checkout` to restore it, or delete {raw} and fetch again",
        stage="fetch",
        table=file.table,
        plant=file.plant,
        batch=file.batch,
        file=path,
    )


def remove_unlisted(raw: Path, files: Iterable[RawFile]) -> None:
    """Delete what a killed run left behind and what is no longer wanted: all that the manifest does not list."""
    listed = {raw / file.file for file in files}
    for path in [*raw.glob("*/*/*"), *raw.glob(f"*{TEMPORARY}")]:
        if path.is_file() and path not in listed:
            path.unlink()


def to_fetch(
    listed: Mapping[Key, list[Delivery]], stored: Mapping[Key, list[RawFile]], reread_batches: int
) -> list[Key]:
    """Choose what to read: the batches not stored yet, and of each plant's table the newest stored ones again."""
    newest: set[Key] = set()
    for table, plant in {(table, plant) for table, plant, _ in stored}:
        batches = sorted(batch for its_table, its_plant, batch in stored if (its_table, its_plant) == (table, plant))
        newest |= {(table, plant, batch) for batch in batches[max(0, len(batches) - reread_batches) :]}
    return sorted(key for key in listed if key not in stored or key in newest)


def group_by_key(items: Iterable[Any], key: Callable[[Any], Key]) -> dict[Key, list[Any]]:
    """Collect deliveries or files under their table, plant and batch, in the order they come."""
    groups: dict[Key, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def same_rows(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Tell whether two deliveries hold the same rows, in whatever order."""
    if one.schema != other.schema or one.height != other.height:
        return False
    return one.hash_rows().sort().equals(other.hash_rows().sort())


def _checksum(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
