"""What planners said of visits on the service's page, which joins the events of whatever source: ``fetch.findings``."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial

import polars as pl

from upkeep.contract.dictionary import ALARM_AT, FINDING, VISITS
from upkeep.contract.findings import Finding, report
from upkeep.core.addresses import findings_beside
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch, Limits
from upkeep.sources import Delivery
from upkeep.sources.batches import batch_of
from upkeep.sources.file_options import TableFiles
from upkeep.sources.opening import errors_named, find_place, read_content, read_parquet

VISIT = ["plant", "machine", "visited_at"]  # what tells visits apart: of each, the newest word counts

logger = logging.getLogger(__name__)


def list_visits(fetch: Fetch, limits: Limits, plants: Sequence[str]) -> Iterator[Delivery]:
    """List what was said of visits to these plants as events, each visit in the batch of its own time.

    They are of kind ``maintenance`` and have no code: only what technicians write down tells kinds of maintenance
    apart, and a source that delivers the visit too says which it was. A file that is damaged costs no word of the
    others. Raises UpkeepError if the address, or a file there, cannot be read; there need be none yet.
    """
    reading = TableFiles.model_construct(path=findings_beside(fetch.findings or ""))  # which is no pattern
    parts, told = [VISITS.to_frame()], list[Finding]()
    with errors_named(reading, table="events"):
        file_system, root = find_place(reading)
        file_system.invalidate_cache()
        files = sorted(str(file) for file in file_system.find(root))
    for file in files:
        if not file.endswith(".parquet"):  # it is written at this moment
            continue
        with errors_named(reading, table="events", file=file):
            content = read_content(reading, file, limits)
        try:
            with errors_named(reading, table="events", file=file):
                parts.append(read_parquet(content, limits).select(VISITS.names()).cast(VISITS))
        except UpkeepError as error:
            logger.warning(str(error))
            told.append(report("unread_file", "events", f"{file.rpartition('/')[2]}: {error.what}"))
    said = pl.concat(parts).filter(pl.col("plant").is_in(plants)).drop_nulls(VISIT).sort(VISITS.names())
    newest = said.sort("said_at", maintain_order=True).unique(VISIT, keep="last", maintain_order=True).sort(VISIT)
    visits = newest.select(
        "plant",
        "machine",
        pl.lit("maintenance").alias("kind"),
        pl.lit(None, pl.String).alias("code"),
        FINDING,
        ALARM_AT,
        time="visited_at",
        batch=batch_of(pl.col("visited_at"), fetch.batch_days),
    )
    parted = visits.partition_by("plant", "batch", as_dict=True, maintain_order=True)
    for (plant, batch), events in parted.items():
        yield Delivery("events", plant, batch, partial(events.drop, "batch"), tuple(told))
