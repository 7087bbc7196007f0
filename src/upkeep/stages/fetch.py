"""``fetch``: bring raw batches from the source into ``data/raw``, each once, with a manifest of their checksums."""

from collections.abc import Iterable
from datetime import date, timedelta
from itertools import groupby

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.sources import Key
from upkeep.sources.batches import first_day
from upkeep.sources.registry import list_deliveries
from upkeep.sources.store import raise_without_telemetry, read_manifest, replace_batches, store_batches


def run(params: Params) -> None:
    """Make ``data/raw`` hold every batch up to ``fetch.until``.

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
    manifest = store_batches(list_deliveries(fetch), fetch, paths.RAW, lambda key: key.batch <= fetch.until)
    raise_without_telemetry(manifest.files, fetch)


def read_again(params: Params, plant: str | None, batch: date | None, *, drop_vanished: bool) -> str:
    """Put what the source has now in the place of stored batches: of all, of one plant's, or those that hold a day.

    Returns which of them changed. Raises UpkeepError if nothing is stored of that plant or day, or a delivery cannot be
    read; ``data/raw`` is then as it was.
    """
    fetch = params.fetch
    day = first_day(batch, fetch.batch_days) if batch else None

    def is_chosen(key: Key) -> bool:
        return (plant is None or key.plant == plant) and (day is None or key.batch == day)

    stored = [file.key for file in read_manifest().files]
    if not any(map(is_chosen, stored)):
        raise UpkeepError(
            "nothing is stored that could be read again",
            expected=f"of the plants {', '.join(sorted({key.plant for key in stored}))}, a batch up to {fetch.until}",
            remedy="correct --plant or --batch; `upkeep fetch` alone reads what is not stored yet",
            plant=plant,
            batch=day,
        )
    read = replace_batches(list_deliveries(fetch), fetch, paths.RAW, is_chosen, drop_vanished=drop_vanished)
    fate = "dropped" if drop_vanished else "kept; `--drop-vanished` drops them"
    return "\n".join(
        [
            f"{read.read} batches read again, {len(read.changed)} changed",
            *_list_batches(read.changed),
            *([f"{len(read.vanished)} are not in the source any more: {fate}"] if read.vanished else []),
            *_list_batches(read.vanished),
            "go on with `dvc repro`",
        ]
    )


def _list_batches(keys: Iterable[Key]) -> list[str]:
    """Name batches, a line for each table and plant."""
    tables = groupby(sorted(keys), key=lambda key: (key.table, key.plant))
    return [f"  {table} of {plant}: {', '.join(str(key.batch) for key in own)}" for (table, plant), own in tables]
