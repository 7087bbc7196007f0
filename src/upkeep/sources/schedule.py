"""Rows for plants that deliver events but no telemetry: one per machine and interval, so that features have a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache, partial

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.core.params import Fetch
from upkeep.sources import Delivery
from upkeep.sources.batches import batches_between

EVENT = {"machine": pl.String(), "time": pl.Datetime("us", "UTC"), "batch": pl.Date()}


def schedule_rows(deliveries: Sequence[Delivery], fetch: Fetch) -> Iterator[Delivery]:
    """List telemetry without sensors for the plants that have none; `deliveries` are all that there are.

    A machine has a row every ``fetch.rows_every_hours`` from the batch on in which its first event lies. The batch of
    ``fetch.until`` may still be under way, so there rows end with the plant's newest event.
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
    """Return machine, time and batch of all events; what cannot be read, ``validate`` tells of."""
    frames = [pl.DataFrame(schema=EVENT)]
    for delivery in deliveries:
        rows = delivery.read()
        if {"machine", "time"} <= set(rows.columns):
            machine = cast_column("machine", rows.schema["machine"], "text").value
            happened = cast_column("time", rows.schema["time"], "time").value
            frames.append(rows.select(machine=machine, time=happened, batch=pl.lit(delivery.batch)))
    return pl.concat(frames).drop_nulls()


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
