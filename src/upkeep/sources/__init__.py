"""Where batches come from: one class per source, all of the protocol :class:`Source`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import polars as pl
from pydantic import BaseModel, Field, ValidationError

from upkeep.contract.dictionary import Table
from upkeep.contract.findings import Finding
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.core.types import Frozen, describe_faults

Options = TypeVar("Options", bound=BaseModel)


class Key(NamedTuple):
    """The table, the plant and the batch of a delivery; a batch is named by its first day."""

    table: Table
    plant: str
    batch: date


class Reference(Frozen):
    """The part of a delivery that one file holds, with the file's size and checksum.

    `address` is relative to the folder of the table's `reading`, which counts from 0, so that it holds no secret and no
    local path; `plant` and `batch` are those of the file's rows, None if the rows do not tell.
    """

    address: str
    reading: int = Field(ge=0)
    bytes: int
    sha256: str
    plant: str | None = None
    batch: date | None = None


@dataclass(frozen=True)
class Delivery:
    """What one plant delivered of one table in one batch, which is named by its first day.

    `read` returns the rows as delivered, broken ones included; it is called only if the batch is needed. `findings` say
    what the source could not read. `references` are the files that hold the delivery, if files do.
    """

    table: Table
    plant: str
    batch: date
    read: Callable[[], pl.DataFrame]
    findings: tuple[Finding, ...] = ()
    references: tuple[Reference, ...] = ()

    @property
    def key(self) -> Key:
        """Table, plant and batch."""
        return Key(self.table, self.plant, self.batch)


class Source(Protocol):
    """A place that batches come from; its `limits`, those of ``params.yaml``, are set before it is used."""

    limits: Limits

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        """Take ``fetch.options`` and ``fetch.batch_days`` from ``params.yaml``."""

    def deliveries(self, until: date) -> Iterable[Delivery]:
        """List the deliveries up to and including the batch that starts on ``until``."""


@runtime_checkable
class FileSource(Source, Protocol):
    """A source whose files can be read where they are: ``fetch.mode: reference``."""

    def read_pinned(self, key: Key, references: Sequence[Reference]) -> pl.DataFrame:
        """Return a delivery's rows from the files that it was pinned to; an UpkeepError if one is not as it was."""


def read_options(model: type[Options], options: Mapping[str, Any], source: str) -> Options:
    """Return ``fetch.options`` as the object that the source takes.

    Raises UpkeepError if an option is unknown, missing or of the wrong type; its value, which may be a secret, is not
    shown.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise UpkeepError(
            f"fetch.options do not fit the source {source}: {describe_faults(error)}",
            expected=f"the options of {source} that docs/sources.md lists",
            remedy="correct fetch.options in params.yaml",
        ) from None
