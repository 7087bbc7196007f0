"""The sources that ``params.yaml`` can name, and what the one it names has to deliver."""

import importlib

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch
from upkeep.sources import Delivery, Key, Source
from upkeep.sources.schedule import schedule_rows
from upkeep.sources.store import group_by_key, raise_without_telemetry

BUILT_IN = {
    "simulator": "upkeep.simulator.source:Simulator",
    "files": "upkeep.sources.files:Files",
    "sql": "upkeep.sources.sql:Sql",
    "cmapss": "upkeep.sources.cmapss:Cmapss",
}


def open_source(fetch: Fetch) -> Source:
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
    return source(fetch.options, fetch.batch_days)


def list_deliveries(fetch: Fetch) -> dict[Key, list[Delivery]]:
    """List what the source has up to ``fetch.until``; raises UpkeepError if it cannot be listed or has no telemetry."""
    offered = open_source(fetch).deliveries(fetch.until)
    deliveries = [delivery for delivery in offered if delivery.batch <= fetch.until]
    if fetch.rows_every_hours:
        deliveries += schedule_rows(deliveries, fetch)
    raise_without_telemetry(deliveries, fetch)
    return group_by_key(deliveries)
