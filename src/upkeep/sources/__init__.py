"""Where batches come from: one class per source, each behind :class:`Source`."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Protocol

import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch

Table = Literal["telemetry", "events", "machines"]

BUILT_IN = {
    "simulator": "upkeep.simulator.source:Simulator",
    "files": "upkeep.sources.files:Files",
    "sql": "upkeep.sources.sql:Sql",
    "cmapss": "upkeep.sources.cmapss:Cmapss",
}


@dataclass(frozen=True)
class Delivery:
    """What one plant delivered of one table in one batch.

    Attributes
    ----------
    table, plant
        What and whose.
    batch
        The first day of the batch.
    read
        Reads the rows as delivered, broken ones included. Called only if the batch is needed.
    """

    table: Table
    plant: str
    batch: date
    read: Callable[[], pl.DataFrame]


class Source(Protocol):
    """A place that batches come from."""

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        """Take ``fetch.options`` and ``fetch.batch_days`` from ``params.yaml``."""

    def deliveries(self, until: date) -> Iterable[Delivery]:
        """List what there is up to and including the batch that starts on ``until``."""


def open_source(fetch: Fetch) -> Source:
    """Return the source that ``fetch.source`` names: a built-in one, or ``module:Class`` of the user's own.

    Raises
    ------
    UpkeepError
        If no such source can be imported.
    """
    module, _, name = BUILT_IN.get(fetch.source, fetch.source).partition(":")
    try:
        source: type[Source] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UpkeepError(
            f"the source {fetch.source!r} cannot be imported: {error}",
            expected=f"one of {', '.join(BUILT_IN)}, or 'module:Class' that can be imported",
            remedy="correct fetch.source in params.yaml",
            stage="fetch",
        ) from error
    return source(fetch.options, fetch.batch_days)
