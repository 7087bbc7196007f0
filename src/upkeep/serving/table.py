"""A request's body as a table: MLflow's scoring protocol, in its three spellings."""

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from upkeep.core.names import MAX_NAME
from upkeep.core.types import Floats
from upkeep.serving.columns import Read, Type, read_column
from upkeep.serving.protocol import Invocation, Options, Refused, check, cite, load_object, point

MOST_VALUES = 3_000_000
MOST_COLUMNS = 1_000
MOST_LINE = 1_000_000  # characters of a line of CSV, which is read at once
Point = Callable[[int, str | None], str]


class RequestLimits(NamedTuple):
    """What one request may hold, and take in seconds of processor time."""

    rows: int = 200_000
    machines: int = 2_000
    seconds: float = 10.0


LIMITS = RequestLimits()


class Table:
    """Rows as sent: values by column, all of the same length, and whether answers shall give reasons.

    `point` gives the JSON pointer of a row and, if named, its column; of CSV, the line.
    """

    def __init__(self, columns: dict[str, list[Any]], point: Point, reasons: bool, limits: RequestLimits) -> None:
        self.columns, self.point, self.reasons, self.limits = columns, point, reasons, limits
        self.n_rows = len(next(iter(columns.values()), []))
        self._read: dict[tuple[str, Type], Read] = {}
        self._matrices: dict[tuple[str, ...], Floats] = {}
        self._until = time.thread_time() + limits.seconds

    def check_time(self) -> None:
        """Raise `Refused` if the request has had its time; to be asked by the thread that made the table."""
        if time.thread_time() > self._until:
            what = f"answering takes more than {self.limits.seconds:g} s (UPKEEP_MAX_SECONDS)"
            raise Refused(413, what, "fewer machines at a time")

    def read(self, name: str, wanted: Type) -> Read:
        """Return a column in a type of the dictionary; one that was not sent is full of gaps."""
        if (name, wanted) not in self._read:
            values = self.columns.get(name)
            self._read[name, wanted] = Read([None] * self.n_rows) if values is None else read_column(values, wanted)
        return self._read[name, wanted]

    def numbers(self, names: tuple[str, ...]) -> Floats:
        """Return columns as float64, shape (n_rows, n_columns), NaN where there is no value."""
        if names not in self._matrices:
            matrix = np.full((len(names), self.n_rows), np.nan)
            for place, name in enumerate(names):  # one by one: Python does nothing else meanwhile
                if name in self.columns:
                    matrix[place] = np.array(self.read(name, "number").values, dtype=np.float64)  # None is NaN
            self._matrices[names] = matrix.T
        return self._matrices[names]


class Sent(NamedTuple):
    """Rows as they were spelt, by place or by name; where each stands in the body, and where the names stand."""

    names: Sequence[str]
    rows: Sequence[Any]
    point: Point
    header: str


def read_table(body: bytes, content_type: str, query: Mapping[str, str], limits: RequestLimits = LIMITS) -> Table:
    """Return the table that a request holds; `Refused` is raised if it is none in one of the protocol's spellings."""
    kind = content_type.partition(";")[0].strip().lower()
    options = check(Options, {"reasons": query.get("reasons") or None})
    if kind == "text/csv":
        sent = _read_csv(body, limits)
    elif kind in ("", "application/json"):
        sent, given = _read_json(body, limits)
        options = given if given and given.reasons is not None else options
    else:
        raise Refused(415, f"the content type is {cite(kind)}", "application/json or text/csv")
    _check_names(sent, limits)
    return Table(_turn_rows(sent), sent.point, bool(options.reasons), limits)


def _check_weight(body: bytes, rows: Sequence[bytes], what: str, limits: RequestLimits) -> None:
    """Refuse what would be many times as large once it is read: a list without anything in it takes thirty times."""
    n_rows, n_values = sum(map(body.count, rows)), body.count(b",")
    if n_rows > 2 * limits.rows + MOST_COLUMNS:  # a text may hold some of these signs too
        raise Refused(413, f"the body holds {n_rows} {what}", f"at most {limits.rows} rows")
    if n_values > MOST_VALUES:
        raise Refused(413, f"the body holds {n_values} values", f"at most {MOST_VALUES} at a time")


def _read_json(body: bytes, limits: RequestLimits) -> tuple[Sent, Options | None]:
    _check_weight(body, (b"[", b"{"), "lists or objects", limits)
    content = load_object(body)
    asked = check(Invocation, content)
    if (split := asked.dataframe_split) is not None:
        positions = {name: [index] for index, name in enumerate(split.columns)}

        def point_to_cell(row: int, column: str | None) -> str:
            return point("dataframe_split", "data", row, *positions.get(column or "", []))

        return Sent(split.columns, split.data, point_to_cell, "/dataframe_split/columns"), asked.params
    if (records := asked.dataframe_records) is not None:

        def point_to_value(row: int, column: str | None) -> str:
            return point("dataframe_records", row, *([] if column is None else [column]))

        names = list(dict.fromkeys(chain.from_iterable(records)))
        return Sent(names, records, point_to_value, "/dataframe_records"), asked.params
    held = cite(next(iter(content))) if content else "nothing"
    raise Refused(400, f"the body holds {held}", "dataframe_split, dataframe_records, or text/csv")


def _read_csv(body: bytes, limits: RequestLimits) -> Sent:
    _check_weight(body, (b"\n", b"\r"), "ends of lines", limits)
    text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline="")
    try:
        lines = enumerate(csv.reader(map(_check_line, text), strict=True), 1)
        by_number = {number: [value or None for value in line] for number, line in lines if line}
    except UnicodeDecodeError as error:
        raise Refused(400, f"the CSV text is not UTF-8: {error.reason}", "UTF-8") from error
    except csv.Error as error:
        status = 413 if "field limit" in str(error) else 400
        raise Refused(status, f"the body is not CSV: {error}", "comma-separated values with a header") from error
    if not by_number:
        raise Refused(400, "the CSV text is empty", "a header and rows")
    numbers, (header, *rows) = list(by_number), by_number.values()

    def tell_line(row: int, column: str | None) -> str:
        return f"line {numbers[row + 1]}" + ("" if column is None else f", {column}")

    return Sent([name or "" for name in header], rows, tell_line, f"line {numbers[0]}")


def _check_line(line: str) -> str:
    if len(line) > MOST_LINE:
        raise Refused(413, f"a line has {len(line)} characters", f"at most {MOST_LINE}")
    return line


def _check_names(sent: Sent, limits: RequestLimits) -> None:
    """Refuse names of no use, and a table that would be too large; rows of unlike columns make a very large one."""
    name, count = next(iter(Counter(sent.names).most_common(1)), ("", 0))
    longest, n_rows = max(sent.names, key=len, default=""), len(sent.rows)
    if count > 1:
        raise Refused(400, f"the column {cite(name)} is given twice", "each once", sent.header)
    if len(longest) > MAX_NAME:
        what = f"the name of column {cite(longest)} has {len(longest)} characters"
        raise Refused(422, what, f"at most {MAX_NAME}", sent.header)
    if len(sent.names) > MOST_COLUMNS:
        raise Refused(413, f"there are more than {MOST_COLUMNS} columns", f"at most {MOST_COLUMNS}", sent.header)
    if n_rows > limits.rows or n_rows * len(sent.names) > MOST_VALUES:
        what = f"there are more than {limits.rows} rows (UPKEEP_MAX_ROWS), or than {MOST_VALUES} values"
        raise Refused(413, what, "fewer machines at a time", sent.header)


def _turn_rows(sent: Sent) -> dict[str, list[Any]]:
    """Return rows as columns: by rows, which Python can interrupt for other requests."""
    if sent.rows and isinstance(sent.rows[0], dict):
        return {name: [row.get(name) for row in sent.rows] for name in sent.names}
    for index, row in enumerate(sent.rows):
        if len(row) != len(sent.names):
            place = sent.point(index, None)
            raise Refused(400, f"{place} holds {len(row)} values", f"{len(sent.names)} values", place)
    return {name: [row[place] for row in sent.rows] for place, name in enumerate(sent.names)}
