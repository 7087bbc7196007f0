"""Requests at and beyond every limit of the service: in names, columns, machines, rows, headers and encodings."""

import gzip
import json
import zlib
from typing import NamedTuple

from hypothesis import strategies as st

TIME = "2025-12-28T23:00:00Z"
COLUMNS = ["plant", "machine", "time", "kind", "code", "vibration_mm_s", "load_pct"]
CELLS = ["1.5", "-0", "1e999", "NaN", "Infinity", "9" * 400, "null", "true", '"much"', '"\\ud800"', "[]", '{"a":{}}']
"""As JSON writes them."""

PACKERS = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress, "br": bytes, "gzip, gzip": gzip.compress}
CHARSETS = ["utf-8", "utf-16", "utf-32-be", "latin-1", "gb18030", "klingon"]
LENGTHS = [0, 1, 40, 199, 200, 201, 5_000, 100_000, 600_000, 20_000_000]
COUNTS = [1, 2, 10, 99, 101, 1_000, 2_000, 2_001, 40_000, 900_000]


class Extreme(NamedTuple):
    """What a request is made of: lengths in characters, counts, and how it is written."""

    machines: int
    rows: int
    machine_length: int
    code_length: int
    unknown_columns: int
    column_length: int
    cell: str
    spelling: str
    reasons: bool
    packing: str
    charset: str
    headers: int
    header_length: int


def extremes(largest: int) -> st.SearchStrategy[Extreme]:
    """Requests whose parts are of up to `largest` bytes each."""
    lengths = st.sampled_from([length for length in LENGTHS if length <= largest])
    counts = st.sampled_from([count for count in COUNTS if count * 25 <= largest])
    usual = st.sampled_from([0, 1, 8])
    return st.builds(
        Extreme,
        machines=counts,
        rows=st.sampled_from([1, 1, 2, 52, 1_000]),
        machine_length=usual | lengths,
        code_length=usual | lengths,
        unknown_columns=st.sampled_from([0, 0, 1, 300, 1_001, 20_000]),
        column_length=usual | lengths,
        cell=st.sampled_from(CELLS),
        spelling=st.sampled_from(["split", "records", "csv", "nested", "cut off"]),
        reasons=st.booleans(),
        packing=st.sampled_from([*["identity"] * 4, *PACKERS]),
        charset=st.sampled_from([*["utf-8"] * 4, *CHARSETS]),
        headers=st.sampled_from([*[0] * 6, 50, 101, 5_000]),
        header_length=st.sampled_from([*[10] * 6, 8_000, 40_000]) | lengths,
    )


def write_request(extreme: Extreme, largest: int) -> tuple[dict[str, str], bytes]:
    """Return headers and body; rows, machines, columns and headers are as many as fit into `largest` bytes."""
    n_unknown = min(extreme.unknown_columns, largest // (extreme.column_length + 1))
    columns = [*COLUMNS, *(f"{number}{'c' * extreme.column_length}" for number in range(n_unknown))]
    unknown = ["1"] * n_unknown

    def write_row(machine: int, *, is_event: bool) -> list[str]:
        name = json.dumps(f"{machine}{'m' * extreme.machine_length}")
        code = json.dumps("c" * extreme.code_length)
        kind = ['"error"', code] if is_event else ["null", "null"]
        return ['"lyon"', name, f'"{TIME}"', *kind, extreme.cell, "50", *unknown]

    keys = sum(map(len, columns)) if extreme.spelling == "records" else 0
    size = len(",".join(write_row(10**6, is_event=True))) + keys
    rows = min(extreme.rows * extreme.machines, max(1, largest // size))
    table = [write_row(row % extreme.machines, is_event=row == 0) for row in range(rows)]
    body = _spell(extreme, columns, table)
    known = extreme.charset if extreme.charset != "klingon" else "utf-8"
    n_headers = min(extreme.headers, largest // (extreme.header_length + 1))
    kind = "text/csv" if extreme.spelling == "csv" else "application/json"
    headers = {
        "content-type": f"{kind}; charset={extreme.charset}",
        "content-encoding": extreme.packing,
        **{f"x-{number}": "h" * extreme.header_length for number in range(n_headers)},
    }
    return headers, PACKERS[extreme.packing](body.encode(known, "replace"))


def _spell(extreme: Extreme, columns: list[str], table: list[list[str]]) -> str:
    if extreme.spelling == "csv":
        return "\n".join([",".join(columns), *(",".join(row).replace("null", "").replace("\\", "") for row in table)])
    if extreme.spelling == "nested":
        depth = extreme.machines + extreme.column_length
        return "[" * depth + "]" * depth
    if extreme.spelling == "records":
        names = [json.dumps(name) for name in columns]
        rows = ",".join("{" + ",".join(map(":".join, zip(names, row, strict=True))) + "}" for row in table)
        text = f'{{"dataframe_records": [{rows}]'
    else:
        rows = ",".join(f"[{','.join(row)}]" for row in table)
        text = f'{{"dataframe_split": {{"columns": {json.dumps(columns)}, "data": [{rows}]}}'
    params = f', "params": {{"reasons": {json.dumps(extreme.reasons)}}}}}'
    return text + (params if extreme.spelling != "cut off" else "")
