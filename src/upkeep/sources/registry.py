"""The sources that ``params.yaml`` can name, and what the one it names has to deliver."""

import importlib
from contextlib import suppress

from upkeep.core.errors import UpkeepError
from upkeep.core.names import check_name, shorten
from upkeep.core.params import Fetch, Limits
from upkeep.sources import Delivery, FileSource, Key, Source
from upkeep.sources.manifest import group_by_key, raise_without_telemetry
from upkeep.sources.schedule import schedule_rows
from upkeep.sources.visits import list_visits

BUILT_IN = {
    "simulator": "upkeep.simulator.source:Simulator",
    "files": "upkeep.sources.files:Files",
    "sql": "upkeep.sources.sql:Sql",
    "cmapss": "upkeep.sources.cmapss:Cmapss",
}

SHOWN = 40
"""Characters of what is no name that tell which one it is."""


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
    with suppress(AttributeError):  # one of the user's own may be frozen, and so has limits of its own
        opened.limits = limits
    if fetch.mode == "reference" and not isinstance(opened, FileSource):
        raise UpkeepError(
            f"the source {fetch.source} has no files that could be read where they are",
            remedy="set fetch.mode: copy in params.yaml, or let fetch.source be files",
        )
    return opened


def list_deliveries(fetch: Fetch, limits: Limits) -> dict[Key, list[Delivery]]:
    """List what the source has from ``fetch.since`` to ``fetch.until``, and what visits to its plants found.

    Raises UpkeepError if it cannot be listed, has no telemetry, or calls a plant what no name is.
    """
    offered = open_source(fetch, limits).deliveries(fetch.until)
    deliveries = [delivery for delivery in offered if fetch.covers(delivery.key)]
    plants = sorted({delivery.plant for delivery in deliveries})
    for plant in plants:
        _check_plant(plant)
    if fetch.findings:
        deliveries += [visits for visits in list_visits(fetch, limits, plants) if fetch.covers(visits.key)]
    if fetch.rows_every_hours:
        deliveries += schedule_rows(deliveries, fetch)
    raise_without_telemetry(deliveries, fetch)
    return group_by_key(deliveries)


def _check_plant(plant: str) -> None:
    try:
        check_name(plant)
    except ValueError as error:
        raise UpkeepError(
            f"the source names a plant {shorten(plant, SHOWN)}: {error}",
            remedy="give it another name in the source, or leave it out in fetch.options",
        ) from error
