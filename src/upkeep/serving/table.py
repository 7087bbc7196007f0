"""A request's body as a table: MLflow's scoring protocol, in its three spellings."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from upkeep.serving.protocol import Options, RecordsRequest, Split, SplitRequest

MOST_CELLS = 20_000_000
EXPECTED = {"model_type": "an object", "dict_type": "an object", "list_type": "a list", "string_type": "text"}
"""In the words of JSON, by pydantic's type of error."""

SHOWN = 40
"""Characters of a value that an error repeats."""


class Refused(Exception):  # noqa: N818  # the answer to a request, not a fault of the program
    """A request that cannot be answered at all.

    Attributes
    ----------
    status
        HTTP status, 4xx.
    fault
        ``pointer`` (RFC 6901, into the body), ``what``, ``expected``.
    """

    def __init__(self, status: int, what: str, expected: str, pointer: str = "") -> None:
        super().__init__(what)
        self.status = status
        self.fault = {"pointer": pointer, "what": what, "expected": expected}


class Table(NamedTuple):
    """Rows as sent.

    Attributes
    ----------
    columns
        Values by column, all of the same length.
    point
        Gives the JSON pointer of a row and, if named, its column.
    reasons
        Whether answers shall give reasons.
    """

    columns: dict[str, list[Any]]
    point: Callable[[int, str | None], str]
    reasons: bool


def read_table(body: bytes, content_type: str, query: Mapping[str, str]) -> Table:
    """Return the table that a request holds.

    Raises
    ------
    Refused
        If the body is no table in one of the protocol's spellings.
    """
    kind = content_type.partition(";")[0].strip().lower()
    asked = _check(Options, {"reasons": query.get("reasons") or None})
    if kind == "text/csv":
        return _read_csv(body, bool(asked.reasons))
    if kind not in ("", "application/json"):
        raise Refused(415, f"the content type is {kind!r}", "application/json or text/csv")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}", "a JSON object") from error
    if not isinstance(content, dict):
        raise Refused(400, f"the body is {show(content)}", "a JSON object")
    if "dataframe_split" in content:
        split = _check(SplitRequest, content)
        return _read_split(split.dataframe_split, _asks_reasons(split.params, asked))
    if "dataframe_records" in content:
        records = _check(RecordsRequest, content)
        return _read_records(records.dataframe_records, _asks_reasons(records.params, asked))
    expected = "dataframe_split, dataframe_records, or text/csv"
    raise Refused(400, f"the body holds {', '.join(map(repr, content)) or 'nothing'}", expected)


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


def _asks_reasons(in_body: Options | None, in_query: Options) -> bool:
    given = in_body.reasons if in_body else None
    return bool(in_query.reasons if given is None else given)


def _pointer(*place: int | str) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in place)


def _read_split(split: Split, reasons: bool) -> Table:
    names, rows = split.columns, split.data
    if twice := _find_twice(names):
        raise Refused(400, f"the column {twice!r} is given twice", "each once", _pointer("dataframe_split", "columns"))
    if set(map(len, rows)) - {len(names)}:
        index = next(index for index, row in enumerate(rows) if len(row) != len(names))
        place = _pointer("dataframe_split", "data", index)
        raise Refused(400, f"row {index} is {len(rows[index])} values", f"a list of {len(names)} values", place)
    positions = {name: index for index, name in enumerate(names)}

    def point(row: int, column: str | None) -> str:
        return _pointer("dataframe_split", "data", row, *([positions[column]] if column in positions else []))

    return Table(_by_column(names, rows), point, reasons)


def _read_records(rows: Sequence[Mapping[str, Any]], reasons: bool) -> Table:
    names = dict.fromkeys(name for row in rows for name in row)
    if len(rows) * len(names) > MOST_CELLS:  # rows of unlike columns: the table would be far larger than the body
        what = f"{len(rows)} rows of {len(names)} columns"
        raise Refused(413, what, f"at most {MOST_CELLS} values", _pointer("dataframe_records"))

    def point(row: int, column: str | None) -> str:
        return _pointer("dataframe_records", row, *([] if column is None else [column]))

    return Table({name: [row.get(name) for row in rows] for name in names}, point, reasons)


def _read_csv(body: bytes, reasons: bool) -> Table:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise Refused(400, f"the CSV text is not UTF-8: byte {error.start}", "UTF-8") from error
    except csv.Error as error:
        raise Refused(400, f"the body is not CSV: {error}", "comma-separated values with a header") from error
    rows = [(number, line) for number, line in enumerate(lines, 1) if line]
    if not rows:
        raise Refused(400, "the CSV text is empty", "a header and rows")
    names = rows[0][1]
    if twice := _find_twice(names):
        raise Refused(400, f"the column {twice!r} stands twice in the header", "each once", "line 1")
    for number, line in rows[1:]:
        if len(line) != len(names):
            raise Refused(400, f"line {number} holds {len(line)} values", f"{len(names)}", f"line {number}")

    def point(row: int, column: str | None) -> str:
        return f"line {rows[row + 1][0]}" + ("" if column is None else f", {column}")

    return Table(_by_column(names, [[value or None for value in line] for _, line in rows[1:]]), point, reasons)


def _find_twice(names: Sequence[str]) -> str | None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    return name if count > 1 else None


def _by_column(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    values = map(list, zip(*rows, strict=True)) if rows else ([] for _ in names)
    return dict(zip(names, values, strict=True))


def show(value: Any) -> str:
    """Return a value from a request as an error may repeat it."""
    try:
        text = repr(value)
    except RecursionError:  # JSON may nest deeper than Python repeats it
        text = "nested too deeply"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
