"""A request's body as a table: MLflow's scoring protocol, in its three spellings."""

import csv
import io
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import isfinite, isnan
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from upkeep.core.names import MAX_NAME
from upkeep.core.types import Floats
from upkeep.serving.columns import Read, Type, read_column
from upkeep.serving.protocol import Options, RecordsRequest, Refused, SplitRequest, SplitTable, show

MOST_VALUES = 3_000_000
MOST_COLUMNS = 1_000
MOST_LINE = 1_000_000
"""Characters of a line of CSV, which is read at once."""

EXPECTED = {"model_type": "an object", "dict_type": "an object", "list_type": "a list", "string_type": "text"}
"""In the words of JSON, by pydantic's type of error."""

TOKENS = re.compile(
    rb'(?:[^"\dNI-]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?|-?\d{1,17}(?:\.\d{1,17})?(?![-+.\deE])){1,1000}+'
    rb"|NaN|-?Infinity|-?\d[-+.\deE]*+",
    re.DOTALL,
)
"""What JSON certainly has, some of it at once; and numbers, those that are none in JSON included."""

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
            matrix = np.empty((len(names), self.n_rows))
            for place, name in enumerate(names):  # one by one: Python does nothing else meanwhile
                matrix[place] = np.array(self.read(name, "number").values, dtype=np.float64)  # None is NaN
            self._matrices[names] = matrix.T
        return self._matrices[names]


def read_table(body: bytes, content_type: str, query: Mapping[str, str], limits: RequestLimits = LIMITS) -> Table:
    """Return the table that a request holds; `Refused` is raised if it is none in one of the protocol's spellings."""
    kind = content_type.partition(";")[0].strip().lower()
    asked = _check(Options, {"reasons": query.get("reasons") or None}).reasons
    if kind == "text/csv":
        return Table(*_read_csv(body, limits), bool(asked), limits)
    if kind not in ("", "application/json"):
        raise Refused(415, f"the content type is {show(kind)}", "application/json or text/csv")
    content = _read_json(body, limits)
    if not isinstance(content, dict):
        raise Refused(400, f"the body is {show(content)}", "a JSON object")
    if "dataframe_split" in content:
        split = _check(SplitRequest, content)
        columns, point, params = *_read_split(split.dataframe_split, limits), split.params
    elif "dataframe_records" in content:
        records = _check(RecordsRequest, content)
        columns, point, params = *_read_records(records.dataframe_records, limits), records.params
    else:
        held = show(next(iter(content), None)) if content else "nothing"
        raise Refused(400, f"the body holds {held}", "dataframe_split, dataframe_records, or text/csv")
    return Table(columns, point, bool(asked if params is None or params.reasons is None else params.reasons), limits)


def _read_json(body: bytes, limits: RequestLimits) -> Any:
    """Return what a body holds, be it with the numbers that Python's json and JavaScript write beyond the standard."""
    # Before they are read: a list without anything in it takes thirty times its two bytes. A text may hold some too.
    lists, values = body.count(b"[") + body.count(b"{"), body.count(b",")
    if lists > 2 * limits.rows + MOST_COLUMNS:
        raise Refused(413, f"the body holds {lists} lists or objects", f"at most {limits.rows} rows")
    if values > MOST_VALUES:
        raise Refused(413, f"the body holds {values} values", f"at most {MOST_VALUES} at a time")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            return orjson.loads(TOKENS.sub(_as_json, body, 2 * MOST_VALUES))
        except orjson.JSONDecodeError:
            raise Refused(400, f"the body is not JSON: {error}", "a JSON object") from error


def _as_json(token: re.Match[bytes]) -> bytes:
    """Return NaN as the gap that it stands for, and numbers beyond float64 as text, which is no number either."""
    text = token[0]
    if text[:1] not in b"NI-0123456789":
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return text if isfinite(number) else b"null" if isnan(number) else b'"%b"' % text


Model = TypeVar("Model", bound=BaseModel)


def _check(model: type[Model], content: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
    *_, parent, last = ["the body", *fault["loc"]]
    place = f"{parent}[{last}]" if isinstance(last, int) else last
    what = f"{place} is missing" if fault["type"] == "missing" else f"{place} is {show(fault['input'])}"
    expected = EXPECTED.get(fault["type"], fault["msg"].removeprefix("Input should be "))
    raise Refused(400, what, expected, _pointer(*fault["loc"]))


def _pointer(*place: int | str) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in place)


def _read_split(split: SplitTable, limits: RequestLimits) -> tuple[dict[str, list[Any]], Point]:
    positions = {name: index for index, name in enumerate(split.columns)}

    def point(row: int, column: str | None) -> str:
        return _pointer("dataframe_split", "data", row, *([positions[column]] if column in positions else []))

    header = _pointer("dataframe_split", "columns")
    return _by_column(split.columns, split.data, point, header, limits), point


def _read_records(rows: Sequence[Any], limits: RequestLimits) -> tuple[dict[str, list[Any]], Point]:
    def point(row: int, column: str | None) -> str:
        return _pointer("dataframe_records", row, *([] if column is None else [column]))

    names: dict[str, None] = {}
    for index, row in enumerate(rows):
        if type(row) is not dict:
            raise Refused(400, f"dataframe_records[{index}] is {show(row)}", "an object", point(index, None))
        names.update(dict.fromkeys(row))
        # Rows of unlike columns: the table would be far larger than the body.
        _check_size(index + 1, names, limits, point(index, None))
    _check_names(list(names), "/dataframe_records")
    return {name: [row.get(name) for row in rows] for name in names}, point


def _read_csv(body: bytes, limits: RequestLimits) -> tuple[dict[str, list[Any]], Point]:
    numbers: list[int] = []

    def point(row: int, column: str | None) -> str:
        return f"line {numbers[row + 1]}" + ("" if column is None else f", {column}")

    def read_lines() -> Iterator[list[str]]:
        text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline="")
        for number, line in enumerate(csv.reader(map(_check_line, text), strict=True), 1):
            if line:
                numbers.append(number)
                yield line

    try:
        lines = read_lines()
        names = next(lines, None)
        if names is None:
            raise Refused(400, "the CSV text is empty", "a header and rows")
        rows = ([value or None for value in line] for line in lines)
        return _by_column(names, rows, point, f"line {numbers[0]}", limits), point
    except UnicodeDecodeError as error:
        raise Refused(400, f"the CSV text is not UTF-8: {error.reason}", "UTF-8") from error
    except csv.Error as error:
        status = 413 if "field limit" in str(error) else 400
        raise Refused(status, f"the body is not CSV: {error}", "comma-separated values with a header") from error


def _check_line(line: str) -> str:
    if len(line) > MOST_LINE:
        raise Refused(413, f"a line has {len(line)} characters", f"at most {MOST_LINE}")
    return line


def _by_column(
    names: Sequence[str], rows: Iterable[Any], point: Point, header: str, limits: RequestLimits
) -> dict[str, list[Any]]:
    """Return rows as columns; `header` is where the names stand."""
    _check_size(0, names, limits, header)
    _check_names(names, header)
    checked: list[list[Any]] = []
    for index, row in enumerate(rows):
        if type(row) is not list:
            raise Refused(400, f"data[{index}] is {show(row)}", "a list", point(index, None))
        if len(row) != len(names):
            place = point(index, None)
            raise Refused(400, f"{place} holds {len(row)} values", f"{len(names)} values", place)
        _check_size(index + 1, names, limits, header)
        checked.append(row)
    # By rows, which Python can interrupt for other requests.
    return {name: [row[place] for row in checked] for place, name in enumerate(names)}


def _check_names(names: Sequence[str], header: str) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise Refused(400, f"the column {show(name)} is given twice", "each once", header)
    longest = max(names, key=len, default="")
    if len(longest) > MAX_NAME:
        what = f"the name of column {show(longest)} has {len(longest)} characters"
        raise Refused(422, what, f"at most {MAX_NAME}", header)


def _check_size(n_rows: int, names: Collection[str], limits: RequestLimits, place: str) -> None:
    if len(names) > MOST_COLUMNS:
        raise Refused(413, f"there are more than {MOST_COLUMNS} columns", f"at most {MOST_COLUMNS}", place)
    if n_rows > limits.rows or n_rows * len(names) > MOST_VALUES:
        what = f"there are more than {limits.rows} rows (UPKEEP_MAX_ROWS), or than {MOST_VALUES} values"
        raise Refused(413, what, "fewer machines at a time", place)
