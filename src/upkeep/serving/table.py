"""A request's body as a table: MLflow's scoring protocol, in its three spellings."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

Column = list[Any]

MOST_CELLS = 20_000_000
FORMATS = "dataframe_split, dataframe_records, or text/csv"


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

    columns: dict[str, Column]
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
    if kind == "text/csv":
        return _read_csv(body, _read_flag(query.get("reasons", False), "/reasons"))
    if kind not in ("", "application/json"):
        raise Refused(415, f"the content type is {kind!r}", "application/json or text/csv")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}", "a JSON object") from error
    if not isinstance(content, dict):
        raise Refused(400, f"the body is a {_name(content)}", "a JSON object")
    params = content.get("params") or {}
    if not isinstance(params, dict):
        raise Refused(400, f"params is a {_name(params)}", 'an object, such as {"reasons": true}', "/params")
    reasons = _read_flag(params.get("reasons", query.get("reasons", False)), "/params/reasons")
    if "dataframe_split" in content:
        return _read_split(content["dataframe_split"], reasons)
    if "dataframe_records" in content:
        return _read_records(content["dataframe_records"], reasons)
    raise Refused(400, f"the body holds {', '.join(map(repr, content)) or 'nothing'}", FORMATS)


def _read_flag(value: Any, pointer: str) -> bool:
    if value in (True, "true", "1"):
        return True
    if value in (False, None, "", "false", "0"):
        return False
    raise Refused(400, f"reasons is {str(value)[:40]!r}", "true or false", pointer)


def _read_split(content: Any, reasons: bool) -> Table:
    place = "/dataframe_split"
    if not isinstance(content, dict):
        raise Refused(400, f"dataframe_split is a {_name(content)}", "an object with columns and data", place)
    names, rows = content.get("columns"), content.get("data")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(400, "the columns are not given as a list of names", '["plant", ...]', f"{place}/columns")
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise Refused(400, f"the column {twice!r} is given twice", "each once", f"{place}/columns")
    if not isinstance(rows, list):
        raise Refused(400, f"data is a {_name(rows)}", "a list of rows", f"{place}/data")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            found = f"{len(row)} values" if isinstance(row, list) else f"a {_name(row)}"
            raise Refused(400, f"row {index} is {found}", f"a list of {len(names)} values", f"{place}/data/{index}")
    values = map(list, zip(*rows, strict=True)) if rows else ([] for _ in names)
    positions = {name: index for index, name in enumerate(names)}

    def point(row: int, column: str | None) -> str:
        return f"{place}/data/{row}" + (f"/{positions[column]}" if column in positions else "")

    return Table(dict(zip(names, values, strict=True)), point, reasons)


def _read_records(rows: Any, reasons: bool) -> Table:
    place = "/dataframe_records"
    if not isinstance(rows, list):
        raise Refused(400, f"dataframe_records is a {_name(rows)}", "a list of objects", place)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise Refused(400, f"row {index} is a {_name(row)}", "an object", f"{place}/{index}")
    names = dict.fromkeys(name for row in rows for name in row)
    if len(rows) * len(names) > MOST_CELLS:  # rows of unlike columns: the table would be far larger than the body
        raise Refused(413, f"{len(rows)} rows of {len(names)} columns", f"at most {MOST_CELLS} values", place)

    def point(row: int, column: str | None) -> str:
        return f"{place}/{row}" + ("" if column is None else f"/{column.replace('~', '~0').replace('/', '~1')}")

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
    names = [name.strip() for name in rows[0][1]]
    if len(set(names)) < len(names):
        raise Refused(400, "a column's name stands twice in the header", "each once", "line 1")
    for number, line in rows[1:]:
        if len(line) != len(names):
            raise Refused(400, f"line {number} holds {len(line)} values", f"{len(names)}", f"line {number}")
    data = [[value.strip() or None for value in line] for _, line in rows[1:]]
    values = map(list, zip(*data, strict=True)) if data else ([] for _ in names)

    def point(row: int, column: str | None) -> str:
        return f"line {rows[row + 1][0]}" + ("" if column is None else f", {column}")

    return Table(dict(zip(names, values, strict=True)), point, reasons)


def _name(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
