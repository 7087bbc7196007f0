"""``fetch``: bring raw batches from the source into ``data/raw``, each once, with a manifest of their checksums."""

import logging
from datetime import date, timedelta

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.sources import Key
from upkeep.sources.batches import first_day
from upkeep.sources.manifest import raise_without_telemetry, read_manifest
from upkeep.sources.registry import list_deliveries
from upkeep.sources.store import replace_batches, store_batches

logger = logging.getLogger(__name__)


def run(params: Params) -> None:
    """Make ``data/raw`` hold every batch from ``fetch.since`` to ``fetch.until``, or pin it where it is.

    Raises UpkeepError if ``fetch.until`` is not the first day of a batch, the source cannot be read or has no
    telemetry, or a file fetched earlier is no longer what the manifest says.
    """
    fetch = params.fetch
    start = first_day(fetch.until, fetch.batch_days)
    if start != fetch.until:
        raise UpkeepError(
            f"fetch.until is {fetch.until}, which is not the first day of a batch of {fetch.batch_days} days",
            expected=f"{start} or {start + timedelta(days=fetch.batch_days)}",
            remedy="correct fetch.until in params.yaml",
        )
    listed = list_deliveries(fetch, params.limits)
    manifest = store_batches(listed, fetch, paths.RAW, fetch.covers)
    raise_without_telemetry(manifest.files, fetch)
    if empty := sorted({key.plant for key in listed} - {file.plant for file in manifest.files}):
        logger.warning("plants of which no table has a row: %s; name them as the tables do", ", ".join(empty))


def read_again(params: Params, plant: str | None, batch: date | None, *, drop_vanished: bool) -> str:
    """Replace stored batches by what the source has now: all of them, one plant's, or those that hold a day.

    Returns a text that says what became of each. Raises UpkeepError if nothing is stored of that plant or day, or a
    delivery cannot be read; ``data/raw`` is then unchanged.
    """
    day = first_day(batch, params.fetch.batch_days) if batch else None

    def is_chosen(key: Key) -> bool:
        return plant in (None, key.plant) and day in (None, key.batch)

    listed = list_deliveries(params.fetch, params.limits)
    fates = replace_batches(listed, paths.RAW, is_chosen, drop_vanished=drop_vanished)
    if not fates:
        known = sorted({file.plant for file in read_manifest().files})
        raise UpkeepError(
            "nothing is stored that could be read again",
            expected=f"one of the plants {', '.join(known)}, and a batch up to {params.fetch.until}",
            remedy="correct --plant or --batch; `upkeep fetch` alone reads what is not stored yet",
            plant=plant,
            batch=day,
        )
    gone = "dropped" if drop_vanished else "kept without --drop-vanished"
    words = {"changed": "changed", "vanished": f"no longer in the source, {gone}"}
    told = [f"  {key.table} of {key.plant}, {key.batch}: {words[fate]}" for key, fate in fates.items() if fate in words]
    changed = sum(fate == "changed" for fate in fates.values())
    return "\n".join([f"{len(fates)} batches read again, {changed} changed", *told, "go on with `dvc repro`"])
