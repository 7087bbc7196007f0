"""Look at files: which of them are written alike, how their text is written, and their rows as delivered."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import Any

import polars as pl
from charset_normalizer import from_bytes

from upkeep.adopt.words import kind_of
from upkeep.contract.dictionary import BROKEN_LINE
from upkeep.core.addresses import open_address
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.core.secrets import expand_variables
from upkeep.sources.delimited import read_delimited
from upkeep.sources.file_options import TableFiles
from upkeep.sources.files import ENDING, errors_named, open_file, read_parquet

SAMPLE_BYTES = 65_536
"""Of a file's beginning; they tell how its text is written."""
ENCODINGS = ["cp1252", "cp1250", "cp1251", "gb18030", "shift_jis", "euc_kr", "utf_16"]
"""Tried where the bytes are no UTF-8."""
FEW_LETTERS = 8
"""So few beyond ASCII do not tell an encoding, and are taken for cp1252, the commonest."""
USUAL = {"separator": ",", "decimal": ".", "encoding": "utf-8"}
"""How text is written unless an option says otherwise."""
SEPARATORS = ",;\t|"
DECIMAL_COMMA, DECIMAL_POINT = re.compile(r"\s*[+-]?\d+,\d+\s*"), re.compile(r"\s*[+-]?\d+\.\d+\s*")
NUMBER = re.compile(r"\s*[+-]?[\d.,eE+-]*( \(again\))*\s*")
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


def look_at_files(places: Sequence[str], limits: Limits) -> tuple[list[Layout], list[str]]:
    """Return the tables that files hold, and what to say about those that hold none.

    Raises UpkeepError if there is no such place, or no file that can be read.
    """
    listed = {name: (place, path) for place in places for name, path in _list_files(place).items()}
    notes = [
        f"{name} is neither CSV nor Parquet, and is left out" for name in sorted(listed) if not ENDING.search(name)
    ]
    if len(notes) == len(listed):
        raise UpkeepError(
            f"there is no CSV or Parquet file in {', '.join(places)}",
            expected="a file, a folder, a glob or an address such as s3://bucket/folder with tables as CSV or Parquet",
            remedy="correct the path, or export the tables as CSV",
        )
    files = []
    for name in filter(ENDING.search, sorted(listed)):
        try:
            files.append(_read_file(name, *listed[name], limits))
        except UpkeepError as error:
            if len(listed) == 1:
                raise
            notes.append(f"{name} is left out: {error.what}")
    if not files:
        raise UpkeepError(f"none of {len(listed)} files can be read: {notes[-1]}", remedy="deliver CSV or Parquet")
    return [_join(group) for group in _group(files)], notes


def sniff_text(content: bytes) -> dict[str, str]:
    """Return how a CSV file is written: ``encoding``, ``separator`` and ``decimal``."""
    encoding = _sniff_encoding(content)
    lines = content[:SAMPLE_BYTES].decode(encoding, errors="replace").removeprefix("\ufeff").splitlines()[:200]
    separator = max(SEPARATORS, key=lambda candidate: _evenness(lines, candidate))
    fields = [value for row in csv.reader(lines[1:], delimiter=separator) for value in row if separator != ","]
    commas = sum(bool(DECIMAL_COMMA.fullmatch(value)) for value in fields)
    decimal = "," if commas > sum(bool(DECIMAL_POINT.fullmatch(value)) for value in fields) else "."
    return {"encoding": encoding, "separator": separator, "decimal": decimal}


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


def _list_files(place: str) -> dict[str, str]:
    """Return the files of a place by the address to write down: relative if they lie below this folder."""
    with errors_named(TableFiles.model_construct(path=place)):
        file_system, root = open_address(expand_variables(place))
        if file_system.isdir(root):
            found = file_system.find(root)
        else:
            found = file_system.glob(root) if "*" in root else [root] if file_system.exists(root) else []
    here = f"{Path.cwd().as_posix()}/"
    local = "file" in file_system.protocol
    names = {str(path).removeprefix(here) if local else file_system.unstrip_protocol(path): path for path in found}
    return {name: path for name, path in names.items() if not Path(name).name.startswith((".", "_"))}


def _read_file(name: str, place: str, path: str, limits: Limits) -> Layout:
    reading = TableFiles.model_construct(path=place)
    if re.search(r"[{}*?[]", name):
        raise UpkeepError(f"{name} has one of {{}}*?[ in its name, which mean something in a path", remedy="rename it")
    with errors_named(reading, file=name):
        content, is_text = open_file(reading, path, limits)
        if not is_text:
            return Layout([name], read_parquet(content, limits).drop(BROKEN_LINE, strict=False))
        written = sniff_text(content) if content.strip() else USUAL
        rows = read_delimited(content, written["separator"], written["encoding"], limits)
        rows = rows.drop(BROKEN_LINE, strict=False)
        if rows.width < 2 or all(NUMBER.fullmatch(column) for column in rows.columns):
            raise UpkeepError(f"{name} has no line of column names at its top", remedy="deliver it with one")
    return Layout([name], rows, {option: value for option, value in written.items() if value != USUAL[option]})


def _sniff_encoding(content: bytes) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        around = content[max(0, error.start - SAMPLE_BYTES) : error.start + SAMPLE_BYTES]
        tells = sum(byte > 127 for byte in around) > FEW_LETTERS
        best = from_bytes(around, cp_isolation=ENCODINGS).best() if tells else None
        return best.encoding if best else "cp1252"
    return "utf-8"


def _evenness(lines: Sequence[str], separator: str) -> float:
    """Return a score for a separator: columns, if nearly all lines have as many as the first one."""
    counts = [len(row) for row in csv.reader(lines, delimiter=separator)]
    even = sum(count == counts[0] for count in counts) / len(counts)
    return counts[0] * even if counts[0] > 1 and even > ALIKE else even - 1


def _group(files: Iterable[Layout]) -> list[list[Layout]]:
    """Return files that hold the same table: like columns, and the same word for what happened, if any."""
    groups: list[tuple[set[str], tuple[object, ...], list[Layout]]] = []
    for file in files:
        columns, written = {*file.rows.columns}, (file.reading.get("separator"), kind_of(Path(file.name).name))
        for known, how, alike in groups:
            if how == written and len(columns & known) >= ALIKE * len(columns | known):
                alike.append(file)
                known |= columns
                break
        else:
            groups.append((columns, written, [file]))
    return [alike for _, _, alike in groups]


def _join(files: Sequence[Layout]) -> Layout:
    """Return files of one table as such."""
    places = [file.name.split("/") for file in files]
    even = len({len(parts) for parts in places}) == 1
    varying = [at for at, same in enumerate(zip(*places, strict=False)) if even and len(set(same)) > 1]
    cut = {at: _around([parts[at] for parts in places]) for at in varying}
    facts = [{f"{{{at}}}": _unaffixed(parts[at], *cut[at]) for at in varying} for parts in places]
    frames = [
        file.rows.with_columns(pl.lit(value).alias(part) for part, value in told.items())
        for file, told in zip(files, facts, strict=True)
    ]
    common = set.intersection(*({*frame.columns} for frame in frames))
    rows = pl.concat(frames, how="diagonal_relaxed")
    reading = {option: value for file in files for option, value in file.reading.items()}
    return Layout([file.name for file in files], rows, reading, frozenset({*rows.columns} - common), facts)


def _unaffixed(segment: str, before: str, after: str) -> str:
    segment = segment.removeprefix(before) if before.endswith("=") else segment
    return segment.removesuffix(after) if after.startswith(".") else segment
