"""The sources that ``params.yaml`` can name, and the deliveries of the one that it names.

Plants that deliver events but no telemetry get rows, one per machine and interval, so that features have a time.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache, partial

import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.names import check_name, shorten
from upkeep.core.params import Fetch, Limits
from upkeep.sources import Delivery, FileSource, Key, Source
from upkeep.sources.batches import batches_between
from upkeep.sources.manifest import group_by_key, raise_without_telemetry
from upkeep.sources.visits import list_visits
from upkeep.sources.withdrawn import list_events

BUILT_IN = {
    "simulator": "upkeep.simulator.source:Simulator",
    "files": "upkeep.sources.files:Files",
    "sql": "upkeep.sources.sql:Sql",
    "cmapss": "upkeep.sources.cmapss:Cmapss",
}


def open_source(fetch: Fetch, limits: Limits) -> Source:
    """Return the source that ``fetch.source`` names: a built-in one, or ``module:Class`` of the user's own."""
    module, _, name = BUILT_IN.get(fetch.source, fetch.source).partition(":")
    try:
        source: type[Source] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UpkeepError(
            f"the source {fetch.source!r} cannot be imported: {error}",
            expected=f"one of {', '.join(BUILT_IN)}, or 'module:Class' that can be imported",
            remedy="correct fetch.source in params.yaml",
        ) from error
    opened = source(fetch.options, fetch.batch_days)
    opened.limits = limits
    if fetch.mode == "reference" and not isinstance(opened, FileSource):
        raise UpkeepError(
            f"the source {fetch.source} has no files that could be read where they are",
            remedy="set fetch.mode: copy in params.yaml, or let fetch.source be files",
        )
    return opened


def list_deliveries(fetch: Fetch, limits: Limits) -> dict[Key, list[Delivery]]:
    """List what the source has from ``fetch.since`` to ``fetch.until``, and the findings of visits to its plants.

    Raises UpkeepError if it cannot be listed, has no telemetry, or the name of a plant is not allowed.
    """
    offered = open_source(fetch, limits).deliveries(fetch.until)
    deliveries = [delivery for delivery in offered if fetch.covers(delivery.key)]
    plants = sorted({delivery.plant for delivery in deliveries})
    for plant in plants:
        try:
            check_name(plant)
        except ValueError as error:
            raise UpkeepError(
                f"the source names a plant {shorten(plant, 40)}: {error}",
                remedy="give it another name in the source, or leave it out in fetch.options",
            ) from error
    if fetch.findings:
        deliveries += [visits for visits in list_visits(fetch, limits, plants) if fetch.covers(visits.key)]
    if fetch.rows_every_hours:
        deliveries += schedule_rows(deliveries, fetch)
    raise_without_telemetry(deliveries, fetch)
    return group_by_key(deliveries)


def schedule_rows(deliveries: Sequence[Delivery], fetch: Fetch) -> Iterator[Delivery]:
    """List telemetry without sensors for the plants among all `deliveries` that have no telemetry.

    A machine has a row every ``fetch.rows_every_hours``, beginning with the batch of its first event. The batch of
    ``fetch.until`` may still be under way, so its rows end with the plant's newest event.
    """
    with_telemetry = {delivery.plant for delivery in deliveries if delivery.table == "telemetry"}
    by_plant: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        if delivery.table == "events" and delivery.plant not in with_telemetry:
            by_plant.setdefault(delivery.plant, []).append(delivery)
    for plant, own in by_plant.items():
        events = lru_cache(maxsize=1)(partial(_read_events, own))
        for batch in batches_between(min(delivery.batch for delivery in own), fetch.until, fetch.batch_days):
            yield Delivery("telemetry", plant, batch, partial(_schedule_batch, plant, batch, events, fetch))


def _read_events(deliveries: Iterable[Delivery]) -> pl.DataFrame:
    """Return machine, time and batch of all events that can be read; ``validate`` reports the others."""
    events = (list_events(delivery.read()).with_columns(batch=pl.lit(delivery.batch)) for delivery in deliveries)
    return pl.concat(events).select("machine", "time", "batch")


def _schedule_batch(plant: str, batch: date, events: Callable[[], pl.DataFrame], fetch: Fetch) -> pl.DataFrame:
    known = events().filter(pl.col("batch") <= batch)
    begins = datetime.combine(batch, time(), UTC)
    ends = begins + timedelta(days=fetch.batch_days)
    if batch == fetch.until:
        newest = known["time"].max()
        ends = min(ends, newest) if isinstance(newest, datetime) else begins
    every = timedelta(hours=fetch.rows_every_hours or 0)
    times = pl.datetime_range(begins, ends, every, closed="left", time_zone="UTC", eager=True).alias("time")
    machines = known.select(pl.lit(plant).alias("plant"), pl.col("machine").unique().sort())
    return machines.join(times.dt.cast_time_unit("us").to_frame(), how="cross")
