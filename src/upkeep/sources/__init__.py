"""Where batches come from: one class per source, each behind :class:`Source`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Protocol

import polars as pl

Table = Literal["telemetry", "events", "machines"]


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
