"""``fetch.options`` of the source ``files``: where each table's files are, and how they are read."""

import codecs
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BeforeValidator, Field, model_validator

from upkeep.core.types import Frozen

PLACEHOLDERS = ("plant", "machine")  # columns whose value may stand in the path instead

OF_ONE_TABLE = {"kind": "events", "code": "events", "kinds": "events", "pivot": "telemetry"}
"""Options that only one table can have."""

Epoch = Literal["s", "ms", "us", "ns"]
Kind = Literal["error", "maintenance", "failure"]
Constant = Annotated[str | None, Field(coerce_numbers_to_str=True)]  # the value of every row


def _name_keys(kinds: Any) -> Any:
    """Return kinds with keys that YAML reads as numbers or booleans turned back into the text of files."""
    if not isinstance(kinds, Mapping):
        return kinds
    return {str(key).lower() if isinstance(key, bool) else str(key): kind for key, kind in kinds.items()}


def _as_list(readings: Any) -> Any:
    return [readings] if isinstance(readings, Mapping | TableFiles) else readings


class Pivot(Frozen):
    """The two columns of a long format, by their names in the files: the sensor's name and its value."""

    name: str
    value: str


class TableFiles(Frozen):
    """Where files of one table are and how to read them; docs/sources.md explains each option."""

    path: str
    columns: dict[str, str] = Field(default={})
    plant: Constant = None
    machine: Constant = None
    kind: Kind | None = None
    code: Constant = None
    kinds: Annotated[dict[str, Kind], BeforeValidator(_name_keys)] = Field(default={})
    pivot: Pivot | None = None
    time_of_day: str | None = None
    time_zone: ZoneInfo | None = None
    time_format: str | None = None
    epoch: Epoch | None = None
    separator: str | None = None
    decimal: Literal[".", ","] | None = None
    encoding: str = "utf-8"
    gaps: list[Annotated[str, Field(coerce_numbers_to_str=True)]] = Field(default=[])
    storage_options: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _check_sense(self) -> Self:
        placeholders = re.findall(r"(?<!\$)\{(\w+)\}", self.path)
        unknown = [name for name in placeholders if name not in PLACEHOLDERS]
        twice = len(set(placeholders)) < len(placeholders)
        faults = {
            f"path knows {{plant}} and {{machine}}, not {{{'}, {'.join(unknown)}}}": bool(unknown),
            "path has a placeholder twice": twice and not unknown,
            "separator is one character of ASCII, such as ';', and no quote": self.separator is not None
            and not re.fullmatch(r"[\t -~]", self.separator.replace('"', "")),
            "encoding is one that Python knows, such as utf-8, latin-1 or cp1252": not _is_encoding(self.encoding),
            "give time_format or epoch, not both": bool(self.time_format and self.epoch),
            "give time_of_day or epoch, not both": bool(self.time_of_day and self.epoch),
        }
        if self.time_format is not None:
            faults |= _judge_time_format(self.time_format, self.time_zone)
        if broken := [rule for rule, holds in faults.items() if holds]:
            raise ValueError("; ".join(broken))
        return self


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def _judge_time_format(time_format: str, time_zone: ZoneInfo | None) -> dict[str, bool]:
    faults = {
        "time_format: write fractions of a second as %.f, or as %3f or %6f behind a comma": "%f" in time_format,
        "time_format: %Z says nothing about the offset; give time_zone": "%Z" in time_format and not time_zone,
    }
    if not any(faults.values()):
        try:
            pl.select(pl.lit("").str.to_datetime(time_format, strict=False))
        except pl.exceptions.PolarsError as error:
            faults[f"time_format: {str(error).splitlines()[0]}"] = True
    return faults


class FilesOptions(Frozen):
    """``fetch.options`` of the source ``files``: one reading or several of each table."""

    telemetry: Annotated[list[TableFiles], BeforeValidator(_as_list)] = Field(default=[])
    events: Annotated[list[TableFiles], BeforeValidator(_as_list)] = Field(default=[])
    machines: Annotated[list[TableFiles], BeforeValidator(_as_list)] = Field(default=[])

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        for table in ("telemetry", "events", "machines"):
            given = {name for reading in getattr(self, table) for name in reading.model_fields_set}
            if foreign := sorted(name for name in given if OF_ONE_TABLE.get(name, table) != table):
                raise ValueError(f"{table} cannot have {', '.join(foreign)}")
        return self
