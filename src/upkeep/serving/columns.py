"""A request's columns in the dictionary's types, as `validate` brings a delivery's columns there.

`upkeep.contract.casting` decides. Polars takes milliseconds to start on so few rows, so what nearly every request is
made of is read here: numbers of JSON, digits of CSV, names without blanks around them, times such as
2025-01-06T13:00:00Z. A test reads tables of anything both ways.
"""

import re
from collections.abc import Sequence, Set
from itertools import compress
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from upkeep.contract.casting import cast_column

Type = Literal["text", "number", "time"]

PLAIN_TIME = re.compile(r"(?:19|20|21)\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
PLAIN_TEXT = re.compile(r"[!-~](?:.*[!-~])?", re.DOTALL)
PLAIN_DIGITS = re.compile(r"-?\d{1,15}(?:\.\d{1,17})?", re.ASCII)
PLAIN_NUMBERS = {float, int, type(None)}
DELIVERED = {str: pl.String(), float: pl.Float64(), int: pl.Int128(), bool: pl.Boolean()}
"""How a delivery would hold values of each type; there is none for lists and objects."""


class Read(NamedTuple):
    """A column brought to a type: a value per row, None where there is none, times in microseconds since 1970.

    `failed` are the rows whose value could not be brought there.
    """

    values: Sequence[Any]
    failed: Set[int] = frozenset()


def read_column(values: Sequence[Any], wanted: Type) -> Read:
    """Return values of a request in a type of the dictionary."""
    plain = _PLAIN[wanted](values)
    return _cast(values, wanted) if plain is None else Read(plain)


def _read_plain_numbers(values: Sequence[Any]) -> Sequence[Any] | None:
    types = set(map(type, values))
    if types <= PLAIN_NUMBERS and isfinite(sum(filter(None, values))):
        return values
    if types <= {str, type(None)} and all(value is None or PLAIN_DIGITS.fullmatch(value) for value in values):
        return [None if value is None else float(value) for value in values]
    return None


def _read_plain_texts(values: Sequence[Any]) -> Sequence[Any] | None:
    try:
        distinct = set(values)
    except TypeError:  # a list or an object
        return None
    is_plain = all(value is None or (type(value) is str and PLAIN_TEXT.fullmatch(value)) for value in distinct)
    return values if is_plain else None


def _read_plain_times(values: Sequence[Any]) -> Sequence[Any] | None:
    texts = [value for value in values if value is not None]
    try:
        if not all(map(PLAIN_TIME.fullmatch, texts)):
            return None
        instants = np.array([text[:-1] for text in texts], dtype="datetime64[us]").astype(np.int64).tolist()
    except (TypeError, ValueError):  # not text; no such day or hour
        return None
    following = iter(instants)
    return [None if value is None else next(following) for value in values]


_PLAIN = {"text": _read_plain_texts, "number": _read_plain_numbers, "time": _read_plain_times}


def _cast(values: Sequence[Any], wanted: Type) -> Read:
    """Read values of each JSON type as `validate` reads a column of that type."""
    read: list[Any] = [None] * len(values)
    failed = {row for row, value in enumerate(values) if value is not None and type(value) not in DELIVERED}
    for kind, dtype in DELIVERED.items():
        rows = [row for row, value in enumerate(values) if type(value) is kind]
        if rows:
            column = pl.DataFrame({"value": pl.Series([values[row] for row in rows], dtype=dtype)})
            cast = cast_column("value", dtype, wanted)
            failed_here = cast.failed | cast.value.is_infinite() if wanted == "number" else cast.failed
            done = column.select(cast.value.to_physical().alias("value"), failed=failed_here)
            for row, value in zip(rows, done["value"], strict=True):
                read[row] = value
            failed.update(compress(rows, done["failed"]))
    return Read(read, failed)
