"""``fetch``: bring raw batches from the source into ``data/raw``, each once, with a manifest of their checksums."""

from datetime import timedelta

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.sources.batches import first_day
from upkeep.sources.registry import list_deliveries
from upkeep.sources.store import raise_without_telemetry, store_batches


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
