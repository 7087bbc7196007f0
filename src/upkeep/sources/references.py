"""``fetch.mode: reference``: deliveries stay in the source's files, to which they are pinned beside the manifest."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field, TypeAdapter, ValidationError
from tqdm import tqdm

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_regular, write_whole
from upkeep.core.parallel import QUIET_SECONDS
from upkeep.core.text import count_things
from upkeep.core.types import describe_faults
from upkeep.sources import Delivery, FileSource, Key, Reference
from upkeep.sources.manifest import Manifest, RawFile, how_to_read_again, pack_delivery, read_batch

FILE = "references.json"

Pins = dict[str, Annotated[tuple[Reference, ...], Field(min_length=1)]]
"""Where each delivery is, by the name of the file that would hold it as a copy."""

PINS = TypeAdapter(Pins)


def read_pins(raw: Path) -> Pins:
    """Return what the deliveries of a folder are pinned to: nothing if they are copies."""
    try:
        return PINS.validate_json(read_regular(raw / FILE))
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        fault = describe_faults(error) if isinstance(error, ValidationError) else error.strerror
        remedy = f"delete the folder {raw} and run this again"
        raise UpkeepError(f"the pinned addresses cannot be used: {fault}", remedy=remedy, file=raw / FILE) from error


def write_pins(raw: Path, pins: Pins, manifest: Manifest) -> None:
    """Write what the deliveries of the manifest are pinned to.

    The manifest is written before: a kill in between leaves pins that fit no file of today, so that it is read again.
    """
    kept = {file.file: pins[file.file] for file in manifest.files if file.file in pins}
    write_whole(raw / FILE, PINS.dump_json(kept, indent=1, exclude_defaults=True) + b"\n")


def pin_batches(
    raw: Path, listed: Mapping[Key, list[Delivery]], stored: Mapping[Key, list[RawFile]], chosen: Collection[Key]
) -> tuple[dict[Key, list[RawFile]], Pins]:
    """Pin the chosen batches anew, and those of which a file is another one that holds the same rows of them.

    So a file may grow by rows of other batches. Raises UpkeepError if rows that were pinned before have changed, or
    their file is gone.
    """
    stored, pins, lost = dict(stored), read_pins(raw), list[tuple[Key, Reference]]()
    for key in tqdm(sorted({*stored, *chosen}), delay=QUIET_SECONDS, unit="batch"):
        held, offered = stored.get(key, []), listed.get(key, [])
        known = [pins[file.file] for file in held]
        there = [delivery.references for delivery in offered]
        found_again = set(chain(*there))
        missing = [reference for reference in chain(*known) if reference not in found_again]
        if missing or (key in chosen and known != there):
            found = pin(key, offered)
            if missing and key not in chosen and not hold_same(list(found), held):
                lost.append((key, missing[0]))
            stored[key] = list(found)
            pins |= {file.file: references for file, references in found.items()}
    if lost:
        raise not_as_pinned(
            lost,
            "has changed since it was fetched, or is gone",
            raw,
            vanished=any(key not in listed for key, _ in lost),
        )
    return stored, pins


def read_pinned(pins: Pins, source: FileSource, file: RawFile) -> pl.DataFrame:
    """Return a delivery's rows from where it is; raises UpkeepError if that is not as it was, or not known."""
    if file.file not in pins:
        raise UpkeepError("a delivery is not pinned", remedy="run `dvc repro fetch`", **file.key._asdict())
    return source.read_pinned(file.key, pins[file.file])


def pin(key: Key, deliveries: Sequence[Delivery]) -> dict[RawFile, tuple[Reference, ...]]:
    """Read a batch and return what it holds and where; raises UpkeepError if it cannot be read."""
    read = enumerate(zip(read_batch(key, deliveries), deliveries, strict=True), 1)
    return {pack_delivery(key, number, rows)[0]: delivery.references for number, (rows, delivery) in read}


def hold_same(one: Sequence[RawFile], other: Sequence[RawFile]) -> bool:
    """Tell whether two lists of deliveries hold the same rows in the same order."""
    return [file.sha256 for file in one] == [file.sha256 for file in other]


def not_as_pinned(
    lost: Sequence[tuple[Key, Reference]], what: str, raw: Path = paths.RAW, *, vanished: bool = False
) -> UpkeepError:
    """Return the error about batches whose files are not what they were when they were fetched."""
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
