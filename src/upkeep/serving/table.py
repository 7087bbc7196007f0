"""A request's body as a table: MLflow's scoring protocol, in its three spellings."""

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, isnan
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from upkeep.core.names import MAX_NAME
from upkeep.core.types import Floats
from upkeep.serving.columns import Read, Type, read_column
from upkeep.serving.protocol import Options, RecordsRequest, Refused, SplitRequest, cite

MOST_VALUES = 3_000_000
MOST_COLUMNS = 1_000
MOST_LINE = 1_000_000
"""Characters of a line of CSV, which is read at once."""

EXACT_DIGITS = 19
"""Of an integer; one of more is read as a float."""

EXPECTED = {"model_type": "an object", "is_instance_of": "an object", "list_type": "a list", "string_type": "text"}
"""In the words of JSON, by pydantic's type of error."""

Columns = dict[str, list[Any]]
Point = Callable[[int, str | None], str]


class RequestLimits(NamedTuple):
    """What one request may hold, and take in seconds of processor time."""

    rows: int = 200_000
    machines: int = 2_000
    seconds: float = 10.0


LIMITS = RequestLimits()


class Table:
    """Rows as sent: values by column, all of the same length, and whether answers shall give reasons.

    `point` gives the JSON pointer (RFC 6901) of a row and, if named, its column; of CSV, the line.
    """

    def __init__(self, columns: Columns, point: Point, reasons: bool, limits: RequestLimits) -> None:
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


def read_table(body: bytes, content_type: str, query: Mapping[str, str], limits: RequestLimits = LIMITS) -> Table:
    """Return the table that a request holds; `Refused` is raised if it is none in one of the protocol's spellings."""
    kind = content_type.partition(";")[0].strip().lower()
    asked = check(Options, {"reasons": query.get("reasons") or None})
    if kind == "text/csv":
        columns, point = _read_csv(body, limits)
    elif kind in ("", "application/json"):
        columns, point, given = _read_json(body, limits)
        asked = given if given and given.reasons is not None else asked
    else:
        raise Refused(415, f"the content type is {cite(kind)}", "application/json or text/csv")
    return Table(columns, point, bool(asked.reasons), limits)


def _check_weight(body: bytes, rows: Sequence[bytes], what: str, limits: RequestLimits) -> None:
    """Refuse what would be many times as large once it is read: a list without anything in it takes thirty times."""
    n_rows, n_values = sum(map(body.count, rows)), body.count(b",")
    if n_rows > 2 * limits.rows + MOST_COLUMNS:  # a text may hold some of these signs too
        raise Refused(413, f"the body holds {n_rows} {what}", f"at most {limits.rows} rows")
    if n_values > MOST_VALUES:
        raise Refused(413, f"the body holds {n_values} values", f"at most {MOST_VALUES} at a time")


def _read_json(body: bytes, limits: RequestLimits) -> tuple[Columns, Point, Options | None]:
    _check_weight(body, (b"[", b"{"), "lists or objects", limits)
    content = load_object(body)
    if "dataframe_split" in content:
        split = check(SplitRequest, content)
        return *_read_split(split.dataframe_split.columns, split.dataframe_split.data, limits), split.params
    if "dataframe_records" in content:
        records = check(RecordsRequest, content)
        return *_read_records(records.dataframe_records, limits), records.params
    held = cite(next(iter(content), None)) if content else "nothing"
    raise Refused(400, f"the body holds {held}", "dataframe_split, dataframe_records, or text/csv")


def load_object(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds in JSON; `Refused` is raised if it holds none."""
    content = _load_json(body)
    if not isinstance(content, dict):
        raise Refused(400, f"the body is {cite(content)}", "a JSON object")
    return content


def _load_json(body: bytes) -> Any:
    """Return what a body holds, be it with the numbers that Python's json and JavaScript write beyond the standard."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            content = json.loads(
                body.decode(), parse_constant=_read_number, parse_float=_read_number, parse_int=_read_integer
            )
            orjson.dumps(content)  # which no lone surrogate passes: no answer could repeat it
        except (ValueError, TypeError, RecursionError):
            raise Refused(400, f"the body is not JSON: {error}", "a JSON object") from error
        return content


def _read_number(text: str) -> float | str | None:
    """Return NaN as the gap that it stands for, and numbers beyond float64 as text, which is no number either."""
    number = float(text)
    return number if isfinite(number) else None if isnan(number) else text


def _read_integer(text: str) -> int | float | str | None:
    return int(text) if len(text) <= EXACT_DIGITS else _read_number(text)


Model = TypeVar("Model", bound=BaseModel)


def check(model: type[Model], content: Mapping[str, Any]) -> Model:
    """Return content as an object of this kind; `Refused` is raised if it is none."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
    *_, parent, last = ["the body", *fault["loc"]]
    place = f"{parent}[{last}]" if isinstance(last, int) else last
    what = f"{place} is missing" if fault["type"] == "missing" else f"{place} is {cite(fault['input'])}"
    expected = EXPECTED.get(fault["type"], fault["msg"].removeprefix("Input should be "))
    raise Refused(400, what, expected, _pointer(*fault["loc"]))


def _pointer(*place: int | str) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in place)


def _read_split(names: Sequence[str], rows: Sequence[list[Any]], limits: RequestLimits) -> tuple[Columns, Point]:
    positions = {name: index for index, name in enumerate(names)}

    def point(row: int, column: str | None) -> str:
        return _pointer("dataframe_split", "data", row, *([positions[column]] if column in positions else []))

    return _turn_rows(names, rows, point, _pointer("dataframe_split", "columns"), limits), point


def _read_records(rows: Sequence[dict[str, Any]], limits: RequestLimits) -> tuple[Columns, Point]:
    def point(row: int, column: str | None) -> str:
        return _pointer("dataframe_records", row, *([] if column is None else [column]))

    names = list(dict.fromkeys(name for row in rows for name in row))
    _check_names(names, len(rows), "/dataframe_records", limits)  # rows of unlike columns make a very large table
    return {name: [row.get(name) for row in rows] for name in names}, point


def _read_csv(body: bytes, limits: RequestLimits) -> tuple[Columns, Point]:
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

    def point(row: int, column: str | None) -> str:
        return f"line {numbers[row + 1]}" + ("" if column is None else f", {column}")

    names = [name or "" for name in header]
    return _turn_rows(names, rows, point, f"line {numbers[0]}", limits), point


def _check_line(line: str) -> str:
    if len(line) > MOST_LINE:
        raise Refused(413, f"a line has {len(line)} characters", f"at most {MOST_LINE}")
    return line


def _turn_rows(
    names: Sequence[str], rows: Sequence[list[Any]], point: Point, header: str, limits: RequestLimits
) -> Columns:
    """Return rows as columns; `header` is where the names stand."""
    _check_names(names, len(rows), header, limits)
    for index, row in enumerate(rows):
        if len(row) != len(names):
            place = point(index, None)
            raise Refused(400, f"{place} holds {len(row)} values", f"{len(names)} values", place)
    # By rows, which Python can interrupt for other requests.
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _check_names(names: Sequence[str], n_rows: int, header: str, limits: RequestLimits) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise Refused(400, f"the column {cite(name)} is given twice", "each once", header)
    longest = max(names, key=len, default="")
    if len(longest) > MAX_NAME:
        what = f"the name of column {cite(longest)} has {len(longest)} characters"
        raise Refused(422, what, f"at most {MAX_NAME}", header)
    if len(names) > MOST_COLUMNS:
        raise Refused(413, f"there are more than {MOST_COLUMNS} columns", f"at most {MOST_COLUMNS}", header)
    if n_rows > limits.rows or n_rows * len(names) > MOST_VALUES:
        what = f"there are more than {limits.rows} rows (UPKEEP_MAX_ROWS), or than {MOST_VALUES} values"
        raise Refused(413, what, "fewer machines at a time", header)
