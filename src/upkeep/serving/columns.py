"""A request's columns brought to their types; a value that cannot be brought there is told, never guessed."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from upkeep.contract.casting import EARLIEST, ISO_TIME, LATEST
from upkeep.core.types import Floats
from upkeep.serving.table import Table

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
MICROSECOND = timedelta(microseconds=1)
FIRST, LAST = ((time - EPOCH) // MICROSECOND for time in (EARLIEST, LATEST))
TIME = re.compile(ISO_TIME)
NUMBERS = {float, int, type(None)}
ZULU_LENGTH = len("2025-01-06T13:00:00Z")
SHOWN = 40
"""Characters of a value that an error repeats."""


class Refusal(NamedTuple):
    """A value that cannot be used."""

    column: str
    what: str
    expected: str


class TypedColumns:
    """The table's columns, each brought to its type once.

    Attributes
    ----------
    plant, machine, kind, code, model, time
        Shape (n_rows,), None where there is none; times in microseconds since 1970.
    refusals
        By row, the first value in it that could not be brought to its type.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.n_rows = len(next(iter(table.columns.values()), []))
        self.refusals: dict[int, Refusal] = {}
        self.plant, self.machine = (self._texts(name) for name in ("plant", "machine"))
        self.kind, self.code, self.model = (self._texts(name) for name in ("kind", "code", "model"))
        self.time = [self._time(row, "time", value) for row, value in enumerate(table.columns["time"])]
        self._numbers: dict[str, Floats] = {}

    def number(self, name: str) -> Floats:
        """Return a column as float64, NaN where there is no value, shape (n_rows,)."""
        if name not in self._numbers:
            self._numbers[name] = self._read_numbers(name)
        return self._numbers[name]

    def installed(self, rows: Sequence[int]) -> int | None:
        """Return the first date of installation among rows, in microseconds since 1970."""
        values = self.table.columns.get("installed", [])
        return next((self._time(row, "installed", values[row]) for row in rows if values and values[row]), None)

    def _texts(self, name: str) -> Sequence[str | None]:
        values = self.table.columns.get(name)
        if values is None:
            return [None] * self.n_rows
        return [
            value.strip() or None if type(value) is str else self._text(row, name, value)
            for row, value in enumerate(values)
        ]

    def _text(self, row: int, name: str, value: Any) -> str | None:
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(int(value)) if value == value // 1 else str(value)
        self._refuse(row, name, value, "text")
        return None

    def _time(self, row: int, name: str, value: Any) -> int | None:
        try:
            time = (_parse_time(value) - EPOCH) // MICROSECOND
            if FIRST <= time <= LAST:
                return time
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
            pass
        self._refuse(row, name, value, "a time such as 2025-01-06T13:00:00Z, between 1900 and 2200")
        return None

    def _read_numbers(self, name: str) -> Floats:
        values = self.table.columns.get(name)
        if values is None:
            return np.full(self.n_rows, np.nan)
        if set(map(type, values)) <= NUMBERS:
            return np.array(values, dtype=np.float64)  # None becomes NaN
        return np.array([self._number(row, name, value) for row, value in enumerate(values)], dtype=np.float64)

    def _number(self, row: int, name: str, value: Any) -> float:
        try:
            if value is None or value == "":
                return np.nan
            if not isinstance(value, bool | list | dict):
                return float(value)
        except (ValueError, OverflowError):
            pass
        self._refuse(row, name, value, "a number, or null where there is none")
        return np.nan

    def _refuse(self, row: int, name: str, value: Any, expected: str) -> None:
        self.refusals.setdefault(row, Refusal(name, f"{name} is {show(value)}", expected))


def show(value: Any) -> str:
    """Return a value from a request as an error may repeat it."""
    try:
        text = repr(value)
    except RecursionError:  # JSON may nest deeper than Python repeats it
        text = "nested too deeply"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _parse_time(text: str) -> datetime:
    """Parse what `validate` would parse; without an offset a time is in UTC."""
    if len(text) == ZULU_LENGTH and text[10] == "T" and text[19] == "Z":
        return datetime.fromisoformat(text)  # what nearly all send, without the cost of the pattern
    match = TIME.match(text.strip())
    if match is None:
        raise ValueError(text)
    day, minutes, seconds, offset = match.groups()
    return datetime.fromisoformat(f"{day}T{minutes or '00:00'}{(seconds or ':00')[:10]}{offset or '+00'}")
