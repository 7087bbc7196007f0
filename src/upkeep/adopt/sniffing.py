"""Look at files: which of them are written alike, how their text is written, and their rows as delivered."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import Any

import polars as pl
from charset_normalizer import from_bytes
from fsspec.core import url_to_fs
from fsspec.utils import infer_compression

from upkeep.adopt.words import kind_of
from upkeep.contract.dictionary import BROKEN_LINE
from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import expand_variables, hide_variables
from upkeep.sources.delimited import read_delimited
from upkeep.sources.files import ENDING

PARQUET = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)

SAMPLE_BYTES = 65_536
"""Of a file's beginning; they tell how its text is written."""
MOST_BYTES = 256 * 2**20
"""Read of one file."""
MOST_FILES = 1000
"""Read of those that are written alike, evenly spread over their names in order, the first and the last included."""

ENCODINGS = ["cp1252", "cp1250", "cp1251", "gb18030", "shift_jis", "euc_kr", "utf_16"]
"""Tried where the bytes are no UTF-8."""
SEPARATORS = ",;\t|"
DECIMAL_COMMA, DECIMAL_POINT = re.compile(r"\s*[+-]?\d+,\d+\s*"), re.compile(r"\s*[+-]?\d+\.\d+\s*")
ALIKE = 0.8
"""Share of common columns from which two files hold the same table."""


@dataclass(frozen=True)
class Layout:
    """Files that hold one table, or a database's table.

    `rows` are as delivered, of CSV files as text. For several files, columns such as ``{0}`` hold the parts of their
    addresses that differ, which `facts` has for each of `paths`. `reading` has the options of the source ``files`` that
    tell how their text is written; `partial` the columns that only some of the files have.
    """

    paths: list[str]
    rows: pl.DataFrame
    reading: dict[str, Any] = field(default_factory=dict)
    partial: frozenset[str] = frozenset()
    facts: list[dict[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the user knows it by."""
        return self.paths[0] if len(self.paths) == 1 else f"{self.paths[0]} and {len(self.paths) - 1} more"


def look_at_files(places: Sequence[str]) -> tuple[list[Layout], list[str]]:
    """Return the tables that files hold, and what to say about those that hold none.

    Raises UpkeepError if there is no such place, or no file that can be read.
    """
    files = {name: pair for place in places for name, pair in _list_files(place).items()}
    usable = {name: pair for name, pair in files.items() if ENDING.search(name)}
    notes = [f"{name} is neither CSV nor Parquet, and is left out" for name in sorted(files.keys() - usable.keys())]
    if not usable:
        raise UpkeepError(
            f"there is no CSV or Parquet file in {', '.join(places)}",
            expected="a file, a folder, a glob or an address such as s3://bucket/folder with tables as CSV or Parquet",
            remedy="correct the path, or export the tables as CSV",
        )
    heads: dict[str, dict[str, Any]] = {}
    for name in sorted(usable):
        try:
            heads[name] = _sniff_file(*usable[name], name)
        except UpkeepError as error:
            if len(usable) == 1:
                raise
            notes.append(error.what)
    if not heads:
        raise UpkeepError(f"none of {len(usable)} files can be read: {notes[-1]}", remedy="deliver CSV or Parquet")
    return [_read_group(group, heads, usable) for group in _group(heads)], notes


def sniff_text(content: bytes) -> dict[str, Any]:
    """Return how the beginning of a CSV file is written: ``encoding``, ``separator``, ``decimal`` and its ``names``."""
    encoding = _sniff_encoding(content)
    lines = content.decode(encoding, errors="replace").removeprefix("\ufeff").splitlines()[:200]
    separator = max(SEPARATORS, key=lambda candidate: _evenness(lines, candidate))
    names, *table = csv.reader(lines, delimiter=separator)
    fields = [value for row in table for value in row] if separator != "," else []
    commas = sum(bool(DECIMAL_COMMA.fullmatch(value)) for value in fields)
    decimal = "," if commas > sum(bool(DECIMAL_POINT.fullmatch(value)) for value in fields) else "."
    return {"encoding": encoding, "separator": separator, "decimal": decimal, "names": names}


def read_number(column: pl.Expr, decimal: str) -> pl.Expr:
    """Return text as numbers of a locale; null where it is none."""
    text = column.cast(pl.String).str.strip_chars()
    if decimal == ",":
        text = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    return text.cast(pl.Float64, strict=False).fill_nan(None)


def pattern_of(paths: Sequence[str], placeholders: Mapping[str, str], others: Iterable[str]) -> str | None:
    """Return an address with ``*``, ``{plant}`` and ``{machine}`` that matches these paths; None if it matches others.

    `placeholders` tells which of the columns ``{0}``, ``{1}`` of :class:`Layout` is what.
    """
    parts = [path.split("/") for path in paths]
    if len({len(part) for part in parts}) == 1:
        columns = list(zip(*parts, strict=True))
        pattern = "/".join(_segment(values, placeholders.get(f"{{{at}}}")) for at, values in enumerate(columns))
    else:
        top = [same[0] for same in takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))]
        pattern = "/".join([*top, "**", f"*{_around([part[-1] for part in parts])[1]}"])
    glob = re.sub(r"\{\w+\}", "*", pattern)
    return None if any(fnmatchcase(other, glob) for other in others) else pattern


def _segment(segments: Sequence[str], placeholder: str | None) -> str:
    before, after = _around(segments)
    if len(set(segments)) == 1:
        return segments[0]
    if placeholder:
        return f"{before if before.endswith('=') else ''}{{{placeholder}}}{after if after.startswith('.') else ''}"
    return f"{re.sub(r'[^a-zA-Z]+$', '', before)}*{after}"  # a year or a number may grow


def _around(segments: Sequence[str]) -> tuple[str, str]:
    """Return what names have in common before and after what differs, a common ending at least."""
    before, after = _common(segments), _common([segment[::-1] for segment in segments])[::-1]
    return before, after[after.find(".") :] if "." in after else after


def _common(texts: Sequence[str]) -> str:
    return "".join(letters[0] for letters in takewhile(lambda same: len(set(same)) == 1, zip(*texts, strict=False)))


def _list_files(place: str) -> dict[str, tuple[Any, str]]:
    """Return the files of a place by the address to write down: relative if they lie below this folder."""
    with _errors_named(place):
        file_system, root = url_to_fs(expand_variables(place))
        if file_system.isdir(root):
            found = file_system.find(root)
        else:
            found = file_system.glob(root) if "*" in root else [root] if file_system.exists(root) else []
    local = "file" in file_system.protocol
    here = f"{Path.cwd().as_posix()}/"
    names = {str(path).removeprefix(here) if local else file_system.unstrip_protocol(path): path for path in found}
    return {name: (file_system, path) for name, path in names.items() if not Path(name).name.startswith((".", "_"))}


@contextmanager
def _errors_named(place: str) -> Iterator[None]:
    try:
        yield
    except UpkeepError:
        raise
    except Exception as error:  # every file system behind fsspec raises errors of its own
        raise UpkeepError(
            f"{place} cannot be read: {hide_variables(f'{type(error).__name__}: {error}', place)}".splitlines()[0],
            remedy="check the path, the network and the rights",
        ) from None


def _open(file_system: Any, path: str, name: str) -> Any:
    return file_system.open(path, "rb", compression=infer_compression(name.lower()))


def _sniff_file(file_system: Any, path: str, name: str) -> dict[str, Any]:
    with _errors_named(name), _open(file_system, path, name) as handle:
        if PARQUET.search(name):
            return {"names": list(pl.read_parquet_schema(BytesIO(handle.read())))}
        content = handle.read(SAMPLE_BYTES)
    head = sniff_text(content) if content.strip() else {"names": []}
    if len(head["names"]) < 2 or all(re.fullmatch(r"\s*[+-]?[\d.,eE+-]*\s*", value) for value in head["names"]):
        raise UpkeepError(f"{name} has no line of column names at its top", remedy="deliver it with one")
    return head


def _sniff_encoding(content: bytes) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(content) - 4:  # else the sample ends within a letter
            best = from_bytes(content, cp_isolation=ENCODINGS).best()
            return best.encoding if best else "cp1252"
    return "utf-8"


def _evenness(lines: Sequence[str], separator: str) -> float:
    """Return a score for a separator: columns, if nearly all lines have as many as the first one."""
    counts = [len(row) for row in csv.reader(lines, delimiter=separator)]
    even = sum(count == counts[0] for count in counts) / len(counts)
    return counts[0] * even if counts[0] > 1 and even > ALIKE else even - 1


def _group(heads: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the names of files that hold the same table: like columns, and the same word for what happened, if any."""
    groups: list[tuple[set[str], tuple[object, ...], list[str]]] = []
    for name, head in heads.items():
        columns, written = set(head["names"]), (head.get("separator"), kind_of(Path(name).name))
        for known, how, names in groups:
            if how == written and len(columns & known) >= ALIKE * len(columns | known):
                names.append(name)
                known |= columns
                break
        else:
            groups.append((columns, written, [name]))
    return [names for _, _, names in groups]


def _read_group(
    names: list[str], heads: Mapping[str, Mapping[str, Any]], files: Mapping[str, tuple[Any, str]]
) -> Layout:
    own = [heads[name] for name in names]
    reading = {
        "separator": own[0].get("separator", ","),
        "decimal": max((head.get("decimal", ".") for head in own), key=lambda mark: mark == ","),
        "encoding": next((head["encoding"] for head in own if head.get("encoding", "utf-8") != "utf-8"), "utf-8"),
    }
    places = [name.split("/") for name in names]
    even = len({len(parts) for parts in places}) == 1
    varying = [at for at in range(len(places[0])) if len({parts[at] for parts in places}) > 1] if even else []
    cut = {at: _around([parts[at] for parts in places]) for at in varying}
    facts = [{f"{{{at}}}": _unaffixed(parts[at], *cut[at]) for at in varying} for parts in places]
    frames = []
    for index in sorted({round(step * (len(names) - 1) / (MOST_FILES - 1)) for step in range(MOST_FILES)}):
        with _errors_named(names[index]), _open(*files[names[index]], names[index]) as handle:
            content = handle.read(MOST_BYTES)
            if PARQUET.search(names[index]):
                rows, reading = pl.read_parquet(BytesIO(content)), {}
            else:
                rows = read_delimited(content, reading["separator"], reading["encoding"])
        frames.append(rows.with_columns(pl.lit(value).alias(part) for part, value in facts[index].items()))
    common = set.intersection(*(set(head["names"]) for head in own))
    rows = pl.concat(frames, how="diagonal_relaxed").drop(BROKEN_LINE, strict=False)
    return Layout(names, rows, reading, frozenset({*rows.columns} - common - {*facts[0]}), facts)


def _unaffixed(segment: str, before: str, after: str) -> str:
    segment = segment.removeprefix(before) if before.endswith("=") else segment
    return segment.removesuffix(after) if after.startswith(".") else segment
