"""Parses a request's body, in each of the scoring protocol's three forms, into a table with typed columns."""

import csv
import io
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from itertools import compress, islice
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from upkeep.contract.casting import cast_column, cast_truths
from upkeep.core.names import MAX_NAME
from upkeep.core.types import Floats
from upkeep.serving.protocol import Invocation, Options, Refused, cite, load_object, point, read_part

MOST_ROWS, MOST_MACHINES = 200_000, 2_000  # of one request
MOST_SECONDS = 10.0  # of processor time that one may take
MOST_VALUES = 3_000_000
MOST_COLUMNS = 1_000
MOST_LINE = 1_000_000  # characters of a line of CSV, which is read at once

Type = Literal["text", "number", "time"]

PLAIN_TIME = re.compile(r"(?:19|20|21)\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
PLAIN_TEXT = re.compile(r"[!-~](?:.*[!-~])?", re.DOTALL)
DELIVERED = {str: pl.String(), float: pl.Float64(), int: pl.Int128(), bool: pl.Boolean()}
"""Column types of a delivery by JSON's types; there is none for lists and objects."""

Point = Callable[[int, str | None], str]


class Read(NamedTuple):
    """A column cast to a type: a value or None per row; times are in microseconds since 1970.

    `failed` are the rows whose value could not be cast.
    """

    values: Sequence[Any]
    failed: Set[int] = frozenset()


class RequestTable:
    """A request's rows as columns of values as sent, and whether the caller wants `reasons`.

    `point` returns the place of a row and, if given, a column: a JSON pointer, or a line of CSV. `header` is the place
    of the names.
    """

    def __init__(self, names: Sequence[str], rows: Sequence[Any], point: Point, header: str) -> None:
        _check_names(names, len(rows), header)
        self.columns, self.n_rows, self.point = _turn_rows(names, rows, point), len(rows), point
        self.reasons: bool | None = None
        self._read: dict[tuple[str, Type], Read] = {}
        self._matrices: dict[tuple[str, ...], Floats] = {}
        self._until = time.thread_time() + MOST_SECONDS

    def check_time(self) -> None:
        """Raise `Refused` if the request's time is over; call it from the thread that made the table."""
        if time.thread_time() > self._until:
            raise Refused(413, f"answering takes more than {MOST_SECONDS:g} s", "fewer machines at a time")

    def read(self, name: str, wanted: Type) -> Read:
        """Return a column cast to a type of the dictionary; one that was not sent holds None only."""
        if (name, wanted) not in self._read:
            values = self.columns.get(name)
            self._read[name, wanted] = Read([None] * self.n_rows) if values is None else read_column(values, wanted)
        return self._read[name, wanted]

    def numbers(self, names: tuple[str, ...]) -> Floats:
        """Return columns as float64, shape (n_rows, n_columns), NaN where there is no value."""
        if names not in self._matrices:
            matrix = np.full((len(names), self.n_rows), np.nan)
            for place, name in enumerate(names):  # one by one, since NumPy holds the interpreter's lock meanwhile
                if name in self.columns:
                    matrix[place] = np.array(self.read(name, "number").values, dtype=np.float64)  # None is NaN
            self._matrices[names] = matrix.T
        return self._matrices[names]


def read_table(body: bytes, content_type: str, query: Mapping[str, str]) -> RequestTable:
    """Parse a request's body; `Refused` is raised if it has none of the protocol's forms."""
    kind = content_type.partition(";")[0].strip().lower()
    options = read_part(Options, {"reasons": query.get("reasons") or None})
    if kind not in ("", "application/json", "text/csv"):
        raise Refused(415, f"the content type is {cite(kind)}", "application/json or text/csv")
    table = _read_csv(body) if kind == "text/csv" else _read_json(body)
    table.reasons = options.reasons if table.reasons is None else table.reasons
    return table


def _check_weight(body: bytes, rows: Sequence[bytes], what: str) -> None:
    """Refuse bodies that parsing makes many times as large: an empty list takes thirty times its text."""
    n_rows, n_values = sum(map(body.count, rows)), body.count(b",")
    if n_rows > 2 * MOST_ROWS + MOST_COLUMNS:  # texts may contain some of these signs
        raise Refused(413, f"the body holds {n_rows} {what}", f"at most {MOST_ROWS} rows")
    if n_values > MOST_VALUES:
        raise Refused(413, f"the body holds {n_values} values", f"at most {MOST_VALUES} at a time")


def _read_json(body: bytes) -> RequestTable:
    _check_weight(body, (b"[", b"{"), "lists or objects")
    content = load_object(body)
    asked = read_part(Invocation, content)
    if (split := asked.dataframe_split) is not None:

        def point_to_cell(row: int, column: str | None) -> str:
            places = [place for place, name in enumerate(split.columns) if name == column]
            return point("dataframe_split", "data", row, *places)

        table = RequestTable(split.columns, split.data, point_to_cell, "/dataframe_split/columns")
    elif (records := asked.dataframe_records) is not None:

        def point_to_value(row: int, column: str | None) -> str:
            return point("dataframe_records", row, *([] if column is None else [column]))

        names: dict[str, None] = {}
        for record in records:
            if len(names) <= MOST_COLUMNS:  # with more it is refused below
                names |= dict.fromkeys(islice(record, MOST_COLUMNS + 1))
        table = RequestTable(list(names), records, point_to_value, "/dataframe_records")
    else:
        held = cite(next(iter(content))) if content else "nothing"
        raise Refused(400, f"the body holds {held}", "dataframe_split, dataframe_records, or text/csv")
    table.reasons = None if asked.params is None else asked.params.reasons
    return table


def _read_csv(body: bytes) -> RequestTable:
    _check_weight(body, (b"\n", b"\r"), "ends of lines")
    text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline="")
    try:
        lines = _number_lines(csv.reader(map(_check_line, text), strict=True))
        by_number = {number: [value or None for value in line] for number, line in lines if line}
    except UnicodeDecodeError as error:
        raise Refused(400, f"the CSV text is not UTF-8: {error.reason}", "UTF-8") from error
    except csv.Error as error:
        status = 413 if "field limit" in str(error) else 400
        raise Refused(status, f"the body is not CSV: {error}", "comma-separated values with a header") from error
    if not by_number:
        raise Refused(400, "the CSV text is empty", "a header and rows")
    numbers, (header, *rows) = list(by_number), by_number.values()
    for row in rows:
        if len(row) == len(header) + 1 and row[-1] is None:  # a separator may end a line
            row.pop()

    def tell_line(row: int, column: str | None) -> str:
        return f"line {numbers[row + 1]}" + ("" if column is None else f", {column}")

    return RequestTable([(name or "").strip() for name in header], rows, tell_line, f"line {numbers[0]}")


def _number_lines(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield each line's number and values; refuse a value that spans lines, since a lone quote makes one of many."""
    for number, line in enumerate(reader, 1):
        if reader.line_num > number:
            raise Refused(400, "a quote is not closed on its line", "each row on one line", f"line {number}")
        yield number, line


def _check_line(line: str) -> str:
    if len(line) > MOST_LINE:
        raise Refused(413, f"a line has {len(line)} characters", f"at most {MOST_LINE}")
    return line


def _check_names(names: Sequence[str], n_rows: int, header: str) -> None:
    """Refuse repeated or long names, and too large a table; records with different keys make a very large one."""
    if len(names) > MOST_COLUMNS:
        raise Refused(413, f"there are more than {MOST_COLUMNS} columns", f"at most {MOST_COLUMNS}", header)
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    longest = max(names, key=len, default="")
    if count > 1:
        raise Refused(400, f"the column {cite(name)} is given twice", "each once", header)
    if len(longest) > MAX_NAME:
        what = f"the name of column {cite(longest)} has {len(longest)} characters"
        raise Refused(422, what, f"at most {MAX_NAME}", header)
    if n_rows > MOST_ROWS or n_rows * len(names) > MOST_VALUES:
        what = f"there are more than {MOST_ROWS} rows, or than {MOST_VALUES} values"
        raise Refused(413, what, "fewer machines at a time", header)


def _turn_rows(names: Sequence[str], rows: Sequence[Any], point: Point) -> dict[str, list[Any]]:
    """Return rows as columns, in loops that the interpreter can interrupt for other requests."""
    if rows and isinstance(rows[0], dict):
        return {name: [row.get(name) for row in rows] for name in names}
    for index, row in enumerate(rows):
        if len(row) != len(names):
            place = point(index, None)
            raise Refused(400, f"{place} holds {len(row)} values", f"{len(names)} values", place)
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def read_column(values: Sequence[Any], wanted: Type) -> Read:
    """Cast values to a type of the dictionary, with the results of `upkeep.contract.casting`.

    Polars takes milliseconds to start on so few rows, so what nearly all requests hold is cast here: JSON's numbers,
    names without blanks around them, and times such as 2025-01-06T13:00:00Z.
    """
    texts = [value for value in values if value is not None]
    with suppress(TypeError, ValueError):  # no text; no such day or hour
        if wanted == "number" and set(map(type, texts)) <= {float, int} and isfinite(sum(texts)):
            return Read(values)
        if wanted == "text" and all(map(PLAIN_TEXT.fullmatch, set(texts))):
            return Read(values)
        if wanted == "time" and all(map(PLAIN_TIME.fullmatch, texts)):
            instants = iter(np.array([text[:-1] for text in texts], dtype="datetime64[us]").astype(np.int64).tolist())
            return Read([None if value is None else next(instants) for value in values])
    return _cast(values, wanted)


def _cast(values: Sequence[Any], wanted: Type) -> Read:
    """Cast values of each JSON type as `validate` casts a column of that type."""
    read: list[Any] = [None] * len(values)
    failed = {row for row, value in enumerate(values) if value is not None and type(value) not in DELIVERED}
    for kind, dtype in DELIVERED.items():
        if rows := [row for row, value in enumerate(values) if type(value) is kind]:
            column = pl.DataFrame({"value": pl.Series([values[row] for row in rows], dtype=dtype)})
            cast = cast_column("value", dtype, wanted)
            if wanted == "number" and kind is str:
                cast = cast_truths("value", cast)
            failed_here = cast.failed | cast.value.is_infinite() if wanted == "number" else cast.failed
            done = column.select(cast.value.to_physical().alias("value"), failed=failed_here)
            for row, value in zip(rows, done["value"], strict=True):
                read[row] = value
            failed.update(compress(rows, done["failed"]))
    return Read(read, failed)
