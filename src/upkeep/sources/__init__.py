"""Where batches come from: one class per source, each behind :class:`Source`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple, Protocol, TypeVar

import polars as pl
from pydantic import BaseModel, ValidationError

from upkeep.contract.dictionary import Table
from upkeep.contract.findings import Finding
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.core.types import describe_faults

Options = TypeVar("Options", bound=BaseModel)


class Key(NamedTuple):
    """What a delivery is about; `batch` is the first day of its batch."""

    table: Table
    plant: str
    batch: date


@dataclass(frozen=True)
class Delivery:
    """What one plant delivered of one table in one batch, named after its first day.

    `read` returns the rows as delivered, broken ones included; it is called only if the batch is needed. `findings` are
    about what the source could not read of the table.
    """

    table: Table
    plant: str
    batch: date
    read: Callable[[], pl.DataFrame]
    findings: tuple[Finding, ...] = ()

    @property
    def key(self) -> Key:
        """Table, plant and batch."""
        return Key(self.table, self.plant, self.batch)


class Source(Protocol):
    """A place that batches come from; `limits`, those of ``params.yaml``, are set before it is asked."""

    limits: Limits

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        """Take ``fetch.options`` and ``fetch.batch_days`` from ``params.yaml``."""

    def deliveries(self, until: date) -> Iterable[Delivery]:
        """List what there is up to and including the batch that starts on ``until``."""


def read_options(model: type[Options], options: Mapping[str, Any], source: str) -> Options:
    """Check ``fetch.options`` against what the source takes.

    Raises UpkeepError if an option is unknown, missing or of the wrong type, without its value, which may be a secret.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise UpkeepError(
            f"fetch.options do not fit the source {source}: {describe_faults(error)}",
            expected=f"the options of {source} that docs/sources.md lists",
            remedy="correct fetch.options in params.yaml",
        ) from None
