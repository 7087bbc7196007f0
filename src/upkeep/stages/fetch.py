"""``fetch``: bring raw batches from the source into ``data/raw``, each once, with a manifest of their checksums."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import polars as pl
from tqdm import tqdm

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.parallel import QUIET_SECONDS
from upkeep.core.params import Fetch, Params
from upkeep.sources import Delivery
from upkeep.sources.batches import first_day
from upkeep.sources.registry import open_source
from upkeep.sources.store import (
    Key,
    Manifest,
    RawFile,
    check_file,
    empty_manifest,
    group_by_key,
    read_manifest,
    remove_unlisted,
    same_rows,
    store,
    to_fetch,
    write_manifest,
)

PLANT_NAME = re.compile(r"[A-Za-z0-9_-]+")

SAVE_SECONDS = 1
"""How often the manifest is saved under way: a killed run fetches again what the manifest does not list yet."""

logger = logging.getLogger(__name__)


def run(params: Params) -> None:
    """Make ``data/raw`` hold every batch up to ``fetch.until``.

    Raises
    ------
    UpkeepError
        If ``fetch.until`` is not the first day of a batch, the source cannot be read or has no telemetry,
        or a file fetched earlier is no longer what the manifest says.
    """
    fetch = params.fetch
    _check_until(fetch)
    manifest = store_batches(list_deliveries(fetch), fetch, paths.RAW, lambda key: key[2] <= fetch.until)
    _require_telemetry(manifest.files, fetch)


def store_batches(
    listed: Mapping[Key, list[Delivery]], fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]
) -> Manifest:
    """Make the folder `raw` hold the wanted batches, each fetched once but for the newest, and no others.

    Raises
    ------
    UpkeepError
        If a delivery cannot be read, or a file fetched earlier is no longer what the manifest says.
    """
    manifest = _resume(fetch, raw, wanted)
    stored = group_by_key(manifest.files, lambda file: file.key)
    listed = {key: deliveries for key, deliveries in listed.items() if wanted(key)}
    saved = time.monotonic()
    for key in tqdm(to_fetch(listed, stored, fetch.reread_batches), delay=QUIET_SECONDS, unit="batch"):
        stored[key] = _fetch_batch(raw, key, listed[key], stored.get(key, []))
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(raw, manifest, stored)
            saved = time.monotonic()
    return _save(raw, manifest, stored)


def _check_until(fetch: Fetch) -> None:
    start = first_day(fetch.until, fetch.batch_days)
    if start != fetch.until:
        raise UpkeepError(
            f"fetch.until is {fetch.until}, which is not the first day of a batch of {fetch.batch_days} days",
            expected=f"{start} or {start + timedelta(days=fetch.batch_days)}",
            remedy="correct fetch.until in params.yaml",
            stage="fetch",
        )


def list_deliveries(fetch: Fetch) -> dict[Key, list[Delivery]]:
    """List what the source has up to ``fetch.until``.

    Raises
    ------
    UpkeepError
        If the source cannot be listed, has no telemetry, or names a plant as no folder can be named.
    """
    offered = open_source(fetch).deliveries(fetch.until)
    deliveries = [delivery for delivery in offered if delivery.batch <= fetch.until]
    for delivery in deliveries:
        if not PLANT_NAME.fullmatch(delivery.plant):
            raise UpkeepError(
                f"the source names a plant {delivery.plant!r}, which cannot name a folder",
                expected="letters, digits, _ and - only",
                remedy="rename the plant in the source or in its query",
                stage="fetch",
                table=delivery.table,
            )
    _require_telemetry(deliveries, fetch)
    return group_by_key(deliveries, lambda delivery: (delivery.table, delivery.plant, delivery.batch))


def _require_telemetry(found: Iterable[Delivery | RawFile], fetch: Fetch) -> None:
    if not any(each.table == "telemetry" for each in found):
        raise UpkeepError(
            f"the source {fetch.source} has no telemetry up to the batch of {fetch.until}",
            expected="at least one batch of telemetry",
            remedy="check fetch.until and fetch.options in params.yaml",
            stage="fetch",
        )


def _resume(fetch: Fetch, raw: Path, wanted: Callable[[Key], bool]) -> Manifest:
    """Return what is stored and still wanted, checked; everything else is removed from `raw`."""
    fresh = empty_manifest(fetch)
    listing = raw / paths.MANIFEST.name
    known = read_manifest(listing) if listing.exists() else fresh
    if not known.same_origin(fresh):
        logger.warning(f"fetch: source, options or batch_days changed, so {raw} starts afresh")
        known = fresh
    manifest = known.with_files(file for file in known.files if wanted(file.key))
    # The manifest goes first: a kill in between leaves files that nothing lists, which the next run removes.
    write_manifest(manifest, listing)
    remove_unlisted(raw, manifest.files)
    for file in tqdm(manifest.files, delay=QUIET_SECONDS, unit="checksum"):
        check_file(raw, file)
    return manifest


def _fetch_batch(raw: Path, key: Key, deliveries: list[Delivery], stored: list[RawFile]) -> list[RawFile]:
    """Store what one plant delivered of one batch; of a batch read again, only what holds other rows than before."""
    files = list(stored)
    for delivery in deliveries:
        rows = _read(delivery)
        known = stored and any(same_rows(rows, pl.read_parquet(raw / file.file)) for file in files)
        if not known and not rows.is_empty():
            files.append(store(raw, key, len(files) + 1, rows))
    return files


def _read(delivery: Delivery) -> pl.DataFrame:
    try:
        return delivery.read()
    except UpkeepError as error:
        raise error.at(stage="fetch", table=delivery.table, plant=delivery.plant, batch=delivery.batch) from error


def _save(raw: Path, manifest: Manifest, stored: Mapping[Key, list[RawFile]]) -> Manifest:
    manifest = manifest.with_files(file for files in stored.values() for file in files)
    write_manifest(manifest, raw / paths.MANIFEST.name)
    return manifest
