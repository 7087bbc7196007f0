"""A request's body as a table: MLflow's scoring protocol, in its three spellings."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, isnan
from typing import Any, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from upkeep.core.types import Floats
from upkeep.serving.columns import Read, Type, read_column
from upkeep.serving.protocol import Options, RecordsRequest, Refused, SplitRequest, SplitTable

MOST_CELLS = 20_000_000
EXPECTED = {"model_type": "an object", "dict_type": "an object", "list_type": "a list", "string_type": "text"}
"""In the words of JSON, by pydantic's type of error."""

TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|NaN|-?Infinity|-?\d[-+.\deE]*+', re.DOTALL)
"""Strings and numbers, those that are none in JSON included."""

SHOWN = 40
"""Characters of a value that an error repeats."""


Point = Callable[[int, str | None], str]


class Table:
    """Rows as sent: values by column, all of the same length, and whether answers shall give reasons.

    `point` gives the JSON pointer (RFC 6901) of a row and, if named, its column; of CSV, the line.
    """

    def __init__(self, columns: dict[str, list[Any]], point: Point, reasons: bool) -> None:
        self.columns, self.point, self.reasons = columns, point, reasons
        self.n_rows = len(next(iter(columns.values()), []))
        self._read: dict[tuple[str, Type], Read] = {}
        self._matrices: dict[tuple[str, ...], Floats] = {}

    def read(self, name: str, wanted: Type) -> Read:
        """Return a column in a type of the dictionary; one that was not sent is full of gaps."""
        if (name, wanted) not in self._read:
            values = self.columns.get(name)
            self._read[name, wanted] = Read([None] * self.n_rows, []) if values is None else read_column(values, wanted)
        return self._read[name, wanted]

    def numbers(self, names: tuple[str, ...]) -> Floats:
        """Return columns as float64, shape (n_rows, n_columns), NaN where there is no value."""
        if names not in self._matrices:
            values = [self.read(name, "number").values for name in names]
            self._matrices[names] = np.array(values, dtype=np.float64).reshape(len(names), self.n_rows).T  # None is NaN
        return self._matrices[names]


def read_table(body: bytes, content_type: str, query: Mapping[str, str]) -> Table:
    """Return the table that a request holds; `Refused` is raised if it is none in one of the protocol's spellings."""
    kind = content_type.partition(";")[0].strip().lower()
    asked = _check(Options, {"reasons": query.get("reasons") or None}).reasons
    if kind == "text/csv":
        return Table(*_read_csv(body), bool(asked))
    if kind not in ("", "application/json"):
        raise Refused(415, f"the content type is {kind!r}", "application/json or text/csv")
    content = _read_json(body)
    if not isinstance(content, dict):
        raise Refused(400, f"the body is {show(content)}", "a JSON object")
    if "dataframe_split" in content:
        split = _check(SplitRequest, content)
        columns, point, params = *_read_split(split.dataframe_split), split.params
    elif "dataframe_records" in content:
        records = _check(RecordsRequest, content)
        columns, point, params = *_read_records(records.dataframe_records), records.params
    else:
        expected = "dataframe_split, dataframe_records, or text/csv"
        raise Refused(400, f"the body holds {', '.join(map(repr, content)) or 'nothing'}", expected)
    return Table(columns, point, bool(asked if params is None or params.reasons is None else params.reasons))


def _read_json(body: bytes) -> Any:
    """Return what a body holds, be it with the numbers that Python's json and JavaScript write beyond the standard."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            return orjson.loads(TOKENS.sub(_as_json, body))
        except orjson.JSONDecodeError:
            raise Refused(400, f"the body is not JSON: {error}", "a JSON object") from error


def _as_json(token: re.Match[bytes]) -> bytes:
    """Return NaN as the gap that it stands for, and numbers beyond float64 as text, which is no number either."""
    text = token[0]
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


def _read_split(split: SplitTable) -> tuple[dict[str, list[Any]], Point]:
    positions = {name: index for index, name in enumerate(split.columns)}

    def point(row: int, column: str | None) -> str:
        return _pointer("dataframe_split", "data", row, *([positions[column]] if column in positions else []))

    return _by_column(split.columns, split.data, point, _pointer("dataframe_split", "columns")), point


def _read_records(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[Any]], Point]:
    names = dict.fromkeys(name for row in rows for name in row)
    if len(rows) * len(names) > MOST_CELLS:  # rows of unlike columns: the table would be far larger than the body
        what = f"{len(rows)} rows of {len(names)} columns"
        raise Refused(413, what, f"at most {MOST_CELLS} values", _pointer("dataframe_records"))

    def point(row: int, column: str | None) -> str:
        return _pointer("dataframe_records", row, *([] if column is None else [column]))

    return {name: [row.get(name) for row in rows] for name in names}, point


def _read_csv(body: bytes) -> tuple[dict[str, list[Any]], Point]:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise Refused(400, f"the CSV text is not UTF-8: byte {error.start}", "UTF-8") from error
    except csv.Error as error:
        raise Refused(400, f"the body is not CSV: {error}", "comma-separated values with a header") from error
    numbers = [number for number, line in enumerate(lines, 1) if line]
    if not numbers:
        raise Refused(400, "the CSV text is empty", "a header and rows")
    names = lines[numbers[0] - 1]
    rows = [[value or None for value in lines[number - 1]] for number in numbers[1:]]

    def point(row: int, column: str | None) -> str:
        return f"line {numbers[row + 1]}" + ("" if column is None else f", {column}")

    return _by_column(names, rows, point, f"line {numbers[0]}"), point


def _by_column(names: Sequence[str], rows: Sequence[Sequence[Any]], point: Point, header: str) -> dict[str, list[Any]]:
    """Return rows as columns; `header` is where the names stand."""
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise Refused(400, f"the column {name!r} is given twice", "each once", header)
    for index, row in enumerate(rows):
        if len(row) != len(names):
            place = point(index, None)
            raise Refused(400, f"{place} holds {len(row)} values", f"{len(names)} values", place)
    values = map(list, zip(*rows, strict=True)) if rows else ([] for _ in names)
    return dict(zip(names, values, strict=True))


def show(value: Any) -> str:
    """Return a value from a request as an error may repeat it."""
    try:
        text = repr(value)
    except RecursionError:  # JSON may nest deeper than Python repeats it
        text = "nested too deeply"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
