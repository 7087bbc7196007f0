"""Where batches come from: one class per source, each behind :class:`Source`."""

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
    """What a delivery is about; `batch` is the first day of its batch."""

    table: Table
    plant: str
    batch: date


class Reference(Frozen):
    """What of a delivery one file holds, and how the file is known again.

    `address` is relative to the folder of the table's `reading`, counted from 0, so that neither secrets nor places of
    one machine are part of it; `plant` and `batch` are what the file's rows tell, None if they do not.
    """

    address: str
    reading: int = Field(ge=0)
    bytes: int
    sha256: str
    plant: str | None = None
    batch: date | None = None


@dataclass(frozen=True)
class Delivery:
    """What one plant delivered of one table in one batch, named after its first day.

    `read` returns the rows as delivered, broken ones included; it is called only if the batch is needed. `findings` are
    about what the source could not read of the table. `references` are the files that it lies in, if it lies in files.
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
    """A place that batches come from; `limits`, those of ``params.yaml``, are set before it is asked."""

    limits: Limits

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        """Take ``fetch.options`` and ``fetch.batch_days`` from ``params.yaml``."""

    def deliveries(self, until: date) -> Iterable[Delivery]:
        """List what there is up to and including the batch that starts on ``until``."""


@runtime_checkable
class FileSource(Source, Protocol):
    """A source of files, which can be read where they are: ``fetch.mode: reference``."""

    def read_pinned(self, key: Key, references: Sequence[Reference]) -> pl.DataFrame:
        """Return a delivery's rows from the files that it was pinned to; an UpkeepError if one is not as it was."""


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
