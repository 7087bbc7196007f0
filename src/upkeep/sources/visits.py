"""Visits that planners reported on the service's page, as events beside those of the source: ``fetch.findings``."""

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

VISIT = ["plant", "machine", "visited_at"]  # identifies a visit, whose newest report counts

logger = logging.getLogger(__name__)


def list_visits(fetch: Fetch, limits: Limits, plants: Sequence[str]) -> Iterator[Delivery]:
    """List the reported visits to these plants as events, each in the batch of its own time.

    They are of kind ``maintenance`` and have no code: the planners do not report which maintenance it was, but a source
    that delivers the visit, too, does. A damaged file is skipped and reported. Raises UpkeepError if the address, or a
    file there, cannot be read; there may be no file yet.
    """
    reports, findings = _read_reports(fetch, limits)
    reports = reports.filter(pl.col("plant").is_in(plants)).drop_nulls(VISIT).sort(VISITS.names())
    newest = reports.sort("said_at", maintain_order=True).unique(VISIT, keep="last", maintain_order=True).sort(VISIT)
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
        yield Delivery("events", plant, batch, partial(events.drop, "batch"), findings)


def _read_reports(fetch: Fetch, limits: Limits) -> tuple[pl.DataFrame, tuple[Finding, ...]]:
    """Return the rows of all files of reports, and a finding for each damaged one."""
    reading = TableFiles.model_construct(path=findings_beside(fetch.findings or ""))
    reports, findings = [VISITS.to_frame()], list[Finding]()
    with errors_named(reading, table="events"):
        file_system, root = find_place(reading)
        file_system.invalidate_cache()
        files = sorted(str(file) for file in file_system.find(root))
    for file in files:
        if not file.endswith(".parquet"):  # it is being written
            continue
        with errors_named(reading, table="events", file=file):
            content = read_content(reading, file, limits)
        try:
            with errors_named(reading, table="events", file=file):
                reports.append(read_parquet(content, limits).select(VISITS.names()).cast(VISITS))
        except UpkeepError as error:
            logger.warning(str(error))
            findings.append(report("unread_file", "events", f"{file.rpartition('/')[2]}: {error.what}"))
    return pl.concat(reports), tuple(findings)
