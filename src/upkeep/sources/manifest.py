"""``data/raw/manifest.json``: the origin of the raw data, and each delivery's size and checksum.

With ``fetch.mode: reference`` deliveries stay in the source's files, to which the manifest pins them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import polars as pl

from upkeep.contract.dictionary import Table
from upkeep.contract.findings import Finding
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.objects import read_object
from upkeep.core.params import Fetch
from upkeep.core.plants import ROW_GROUP_ROWS, name_file
from upkeep.core.text import command_to_read_again, count_things
from upkeep.core.types import Frozen
from upkeep.sources import Delivery, Key, Reference


class RawFile(Frozen):
    """One delivery, as Parquet: copied to `file`, relative to ``data/raw``, or left in the files of `references`."""

    table: Table
    plant: str
    batch: date
    delivery: int
    file: str
    rows: int
    bytes: int
    sha256: str
    references: tuple[Reference, ...] = ()

    @property
    def key(self) -> Key:
        """Table, plant and batch."""
        return Key(self.table, self.plant, self.batch)


class Manifest(Frozen):
    """The origin of the raw data, its files by table, plant, batch and delivery, and findings about the source."""

    source: str
    options_sha256: str
    files: tuple[RawFile, ...] = ()
    findings: tuple[Finding, ...] = ()

    def with_files(self, files: Iterable[RawFile]) -> "Manifest":
        """Return a manifest of the same origin that lists these files."""
        ordered = sorted(files, key=lambda file: (*file.key, file.delivery))
        return self.model_copy(update={"files": tuple(ordered), "findings": self.findings if ordered else ()})


def empty_manifest(fetch: Fetch) -> Manifest:
    """Return the manifest of a source from which nothing is fetched yet.

    It has a digest of the options before variables are filled in, so that it holds no secret and no local path.
    """
    origin = {"options": fetch.options, "batch_days": fetch.batch_days}
    added = {"rows_every_hours": fetch.rows_every_hours, "findings": fetch.findings}
    origin |= {name: value for name, value in added.items() if value}
    text = json.dumps(origin, sort_keys=True, default=str)
    return Manifest(source=fetch.source, options_sha256=hashlib.sha256(text.encode()).hexdigest())


def read_manifest(path: Path = paths.MANIFEST) -> Manifest:
    """Read ``data/raw/manifest.json``; raises UpkeepError if it is missing or damaged."""
    if not path.exists():
        raise UpkeepError("the manifest of the raw data does not exist", remedy="run `dvc repro fetch`", file=path)
    remedy = f"delete the folder {path.parent} and run this again"
    return read_object(Manifest, path, what="the manifest of the raw data", remedy=remedy)


def write_manifest(manifest: Manifest, path: Path = paths.MANIFEST) -> None:
    """Write ``data/raw/manifest.json`` atomically."""
    write_whole(path, f"{manifest.model_dump_json(indent=1, exclude_defaults=True)}\n".encode())


def read_batch(key: Key, deliveries: Iterable[Delivery]) -> Iterator[pl.DataFrame]:
    """Read the deliveries of a batch; an UpkeepError about one of them names the batch."""
    for delivery in deliveries:
        try:
            yield delivery.read()
        except UpkeepError as error:
            raise error.at(**key._asdict()) from error


def pack_delivery(
    key: Key, number: int, rows: pl.DataFrame, references: tuple[Reference, ...] = ()
) -> tuple[RawFile, bytes]:
    """Return the delivery with this number (1, 2, ...) of a batch as the manifest's entry, and as Parquet.

    Equal rows give equal bytes.
    """
    buffer = BytesIO()
    rows.write_parquet(buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    content = buffer.getvalue()
    listed = RawFile(
        **key._asdict(),
        delivery=number,
        file=f"{key.table}/{name_file(key.plant)}/{key.batch}{'' if number == 1 else f'.{number}'}.parquet",
        rows=rows.height,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        references=references,
    )
    return listed, content


Item = TypeVar("Item", Delivery, RawFile)


def group_by_key(items: Iterable[Item]) -> dict[Key, list[Item]]:
    """Group deliveries or files by table, plant and batch, in their order."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(item.key, []).append(item)
    return groups


def raise_without_telemetry(found: Iterable[Delivery | RawFile], fetch: Fetch) -> None:
    """Raise an UpkeepError if nothing of the table telemetry was found."""
    if not any(each.table == "telemetry" for each in found):
        since, names = (f" from {fetch.since}", "fetch.since, fetch.until") if fetch.since else ("", "fetch.until")
        raise UpkeepError(
            f"the source {fetch.source} has no telemetry{since} up to the batch of {fetch.until}",
            remedy=f"check {names} and fetch.options in params.yaml; if there are events only, set "
            "fetch.rows_every_hours",
        )


def how_to_read_again(raw: Path, plant: str | None = None, batch: object = None, *, drop_vanished: bool = False) -> str:
    """Return the remedy for batches of a folder whose source was mended, or that differ from its manifest."""
    if raw != paths.RAW:
        return f"type `rm -r {raw}`, then run this again"
    return f"type {command_to_read_again(plant, batch, drop_vanished=drop_vanished)}"


def not_as_pinned(
    lost: Sequence[tuple[Key, Reference]], what: str, raw: Path = paths.RAW, *, vanished: bool = False
) -> UpkeepError:
    """Return the error about batches whose files have changed since they were fetched."""
    (key, reference), *others = lost
    plants = {other.plant for other, _ in lost}
    plant, batch = key.plant if len(plants) == 1 else None, None if others else key.batch
    again = how_to_read_again(raw, plant, batch, drop_vanished=vanished)
    more = f", and so are files of {count_things(len(others), 'other batch')}" if others else ""
    return UpkeepError(
        f"{reference.address} {what}{more}",
        expected=f"{reference.bytes:,} bytes with the SHA-256 {reference.sha256}",
        remedy=f"put it back as it was; or, to go on with what is there now, {again}",
        **key._asdict(),
        file=reference.address,
    )
