"""Parquet and CSV files in any layout, at any address that fsspec can open."""

import bz2
import gzip
import json
import logging
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from functools import lru_cache, partial
from io import BytesIO
from typing import IO, Any, NamedTuple

import polars as pl
import pyarrow as pa

from upkeep.contract.casting import cast_column
from upkeep.contract.dictionary import NEEDED, Table
from upkeep.contract.findings import Finding, report
from upkeep.contract.rules import is_name
from upkeep.core.addresses import open_address
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.core.secrets import expand_all, expand_variables, hide_variables
from upkeep.sources import Delivery, bounds, read_options
from upkeep.sources.batches import batch_of
from upkeep.sources.columns import absent, name_columns
from upkeep.sources.delimited import read_delimited
from upkeep.sources.file_options import PLACEHOLDERS, FilesOptions, TableFiles
from upkeep.sources.times import bring_to_utc, unreadable_times

ENDING = re.compile(r"\.(?:parquet|pq|(?P<text>csv|tsv|txt)(?:\.(?P<packed>gz|bz2|xz|zst))?)$", re.IGNORECASE)
ENDINGS = ".parquet, .pq, .csv, .tsv or .txt, the last three also with .gz, .bz2, .xz or .zst"

UNPACK: dict[str | None, Callable[[IO[bytes]], Any]] = {
    "gz": gzip.open,
    "bz2": bz2.open,
    "xz": lzma.open,
    "zst": lambda packed: pa.CompressedInputStream(packed, "zstd"),
    None: lambda plain: plain,
}

UNKNOWN_PLANT = "unknown"
"""Where rows go if no file of their table names a plant."""

FILES_IN_MEMORY = 8
"""A file holds rows of many batches, which are asked for one by one."""

TIME = "@time"
"""Each row's time in UTC, by which it is dealt to a batch."""

LEAP = timedelta(days=366)

SYSTEMATIC = 10
"""So many times in one file, of which none can be read, are not broken but written in another way."""

Part = tuple[str | None, date | None]
"""Plant and batch; None where no row of the file tells."""

logger = logging.getLogger(__name__)


class File(NamedTuple):
    """One file, how it is read, and what its place tells in ``{plant}`` and ``{machine}``."""

    path: str
    reading: TableFiles
    facts: Mapping[str, str]


class Piece(NamedTuple):
    """What one file, by its number, holds of one plant and batch."""

    number: int
    part: Part
    schema: pl.Schema


class Files:
    """Rows from files, dealt to batches by their time; the machines table goes to the first batch.

    A row without a readable time or a plant's name goes where the row before it goes, so that it reaches ``validate``,
    which tells why it cannot be used.
    """

    limits: Limits

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        self._options = read_options(FilesOptions, options, "files")
        self._batch_days = batch_days

    def deliveries(self, until: date) -> list[Delivery]:
        """List what the files hold; every file is read once for that."""
        by_time = batch_of(pl.col(TIME), self._batch_days)
        listed = _list_table("telemetry", self._options.telemetry, by_time, self.limits)
        listed += _list_table("events", self._options.events, by_time, self.limits)
        first = min((delivery.batch for delivery in listed), default=until)
        listed += _list_table("machines", self._options.machines, pl.lit(first), self.limits)
        later = [delivery.batch for delivery in listed if delivery.batch > until]
        if later:
            logger.warning(f"batches after fetch.until are left for later: {len(later)}, the last of {max(later)}")
        return [delivery for delivery in listed if delivery.batch <= until]


def _list_table(table: Table, readings: Sequence[TableFiles], batch: pl.Expr, limits: Limits) -> list[Delivery]:
    found = [_find(table, reading) for reading in readings]
    files = [file for its_files, _ in found for file in its_files]
    findings = [finding for _, its_findings in found for finding in its_findings]

    @lru_cache(maxsize=FILES_IN_MEMORY)
    def deal(number: int) -> dict[Part, pl.DataFrame]:
        with errors_named(files[number].reading, table=table, file=files[number].path):
            return _deal_rows(table, _read_file(table, files[number], limits), batch)

    def read(pieces: Sequence[Piece]) -> pl.DataFrame:
        first = files[pieces[0].number]
        with errors_named(first.reading, table=table, file=first.path):
            parts, size = list[pl.DataFrame](), 0
            for piece in pieces:
                parts.append(deal(piece.number)[piece.part])
                size += bounds.measure(parts[-1])
                bounds.check_size(size, limits)
            columns = {name for part in parts for name in part.columns}
            bounds.check_shape(sum(part.height for part in parts), len(columns), limits)
            return pl.concat(parts, how="diagonal_relaxed")

    pieces = [Piece(number, part, rows.schema) for number in range(len(files)) for part, rows in deal(number).items()]
    for reading in readings:
        _check_columns(table, reading, [piece for piece in pieces if files[piece.number].reading is reading])
    untimed = [piece for piece in pieces if piece.part[1] is None]
    for number, part, _ in untimed:
        rows, file = deal(number)[part], files[number]
        error = unreadable_times(rows, file.reading).at(table=table, file=file.path)
        if len(untimed) == len(pieces) or rows["time"].count() >= SYSTEMATIC:
            raise error
        logger.warning(str(error))
        name = file.path.rpartition("/")[2]
        findings.append(report("unreadable_times", table, f"{name}: {error.what}; {error.remedy}"))
    return [
        Delivery(table, plant, day, partial(read, group), tuple(findings))
        for (plant, day), placed in sorted(_place(pieces).items())
        for group in _group_by_types(placed)
    ]


def _find(table: Table, reading: TableFiles) -> tuple[list[File], list[Finding]]:
    """Return the files that match ``path``, and a finding for each that matches and cannot be read."""
    with errors_named(reading, table=table):
        file_system, root = _open(reading)
        matches = file_system.glob(_as_glob(root), detail=True)
        if matches and all(info["type"] == "directory" for info in matches.values()):
            root += "/**"
            matches = file_system.glob(_as_glob(root), detail=True)
    paths = sorted(str(path) for path, info in matches.items() if info["type"] != "directory")
    above = re.split(r"[*?{[]", root)[0].rpartition("/")[0] + "/"
    left = [path.removeprefix(above) for path in paths if not ENDING.search(path)]
    if len(left) == len(paths):
        raise UpkeepError(
            f"no file matches {reading.path}, or none that can be read{f': there is {left[0]}' if left else ''}",
            expected=f"files that end in {ENDINGS}",
            remedy=f"correct fetch.options.{table}.path in params.yaml, or export the files as CSV",
            table=table,
        )
    if left:
        logger.warning(f"{table}: {len(left)} files of {reading.path} are not read, such as {left[0]}")
    place = _as_regex(root)
    facts = {path: match.groupdict() if (match := place.search(path)) else {} for path in paths}
    files = [File(path, reading, facts[path]) for path in paths if ENDING.search(path)]
    return files, [report("unread_file", table, f"{name} is not read: it does not end in {ENDINGS}") for name in left]


def _open(reading: TableFiles) -> tuple[Any, str]:
    return open_address(expand_variables(reading.path), **expand_all(reading.storage_options))


def _as_glob(root: str) -> str:
    """Return the pattern that fsspec understands; endings are compared without regard to case."""
    pattern = re.sub(r"\{\w+\}", "*", root)
    stem = re.sub(r"(\.\w+)*$", "", pattern)
    ending = pattern.removeprefix(stem)
    return stem + re.sub("[A-Za-z]", lambda a: f"[{a[0].lower()}{a[0].upper()}]" if "*" in stem else a[0], ending)


def _as_regex(pattern: str) -> re.Pattern[str]:
    named = {"{" + name + "}": f"(?P<{name}>[^/]+?)" for name in PLACEHOLDERS}
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", **named}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\{\w+\})", pattern)
    return re.compile("".join(wild.get(piece, re.escape(piece)) for piece in pieces) + "$", re.IGNORECASE)


def _read_file(table: Table, file: File, limits: Limits) -> pl.DataFrame:
    """Read one file as delivered, with our column names, and with times in UTC if its reading says how."""
    content, is_text = open_file(file.reading, file.path, limits)
    if is_text:
        separator = file.reading.separator or ("\t" if ".tsv" in file.path.lower()[-8:] else ",")
        rows = read_delimited(content, separator, file.reading.encoding, limits)
    else:
        rows = read_parquet(content, limits)
    rows = name_columns(rows, file.facts, file.reading, limits)
    for name in (name for name, kind in NEEDED[table].items() if kind == "time"):
        rows = bring_to_utc(rows, name, file.reading)
    return rows


def open_file(reading: TableFiles, path: str, limits: Limits) -> tuple[bytes, bool]:
    """Return what a file holds, unpacked, and whether that is text.

    Raises UpkeepError if it is no regular file, damaged, or its table larger than `limits` allow.
    """
    file_system, _ = _open(reading)
    found = file_system.info(path)
    if found["type"] != "file":  # a pipe or a device may never end
        raise UpkeepError(
            "the path leads to no file, but to a pipe, a socket or a device",
            remedy="move it away, or put the file in its place",
        )
    bounds.check_size(found.get("size") or 0, limits)
    with file_system.open(path, "rb") as stream:
        content = b"".join(bounds.read_chunks(stream, limits))
    ending = ENDING.search(path.lower())
    if not (ending and ending["text"]):
        return content, False
    try:
        with UNPACK[ending["packed"]](BytesIO(content)) as stream:
            return bounds.read_text(stream, reading.separator or ",", limits), True
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _unreadable_file(error) from error


def read_parquet(content: bytes, limits: Limits) -> pl.DataFrame:
    """Return the rows of a Parquet file, extension types as what they are stored as.

    Raises UpkeepError if they are more than `limits` allow.
    """
    try:
        bounds.check_footer(content, limits)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable_file(error) from error
    rows = pl.read_parquet(BytesIO(content), hive_partitioning=False)
    extensions = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.BaseExtension)]
    rows = rows.with_columns(pl.col(extensions).ext.storage()) if extensions else rows
    return bounds.bound_values(rows, limits)


def _deal_rows(table: Table, rows: pl.DataFrame, batch: pl.Expr) -> dict[Part, pl.DataFrame]:
    """Deal one file's rows to plants and batches, a row that does not tell to those of the row before it."""
    if rows.is_empty():
        return {}
    for name in ("plant",) if table == "machines" else ("plant", "time"):
        if name not in rows.columns:
            raise absent(name, rows.columns, _how_to_name(name, rows.columns))
    plant = cast_column("plant", rows.schema["plant"], "text").value
    keys = {"@plant": pl.when(is_name(plant)).then(plant).forward_fill().backward_fill()}
    if table != "machines":
        time = cast_column("time", rows.schema["time"], "time").value
        keys[TIME] = _without_leaps(time) if table == "telemetry" else time
    dealt = rows.with_columns(**keys).with_columns(batch.forward_fill().backward_fill().alias("@batch"))
    parts = dealt.drop(TIME, strict=False).partition_by("@plant", "@batch", as_dict=True, include_key=False)
    return {(plant, batch): part for (plant, batch), part in parts.items()}


def _without_leaps(time: pl.Expr) -> pl.Expr:
    """Leave out a reading's time that is ahead of those on both sides by :data:`LEAP`, as a clock's error is."""
    before, after = time.forward_fill().shift(1), time.backward_fill().shift(-1)
    return pl.when((time - pl.max_horizontal(before, after) <= LEAP).fill_null(True)).then(time)


def _how_to_name(name: str, columns: Sequence[str]) -> str:
    for separator in ";\t|,":
        if separator in columns[0]:
            return f"set separator: {json.dumps(separator)}"
    constant = ", or give plant: or {plant} in the path" if name == "plant" else ""
    return f"name it in columns, as {name}: THEIR_NAME{constant}"


def _check_columns(table: Table, reading: TableFiles, pieces: Sequence[Piece]) -> None:
    """Raise an UpkeepError about a name in ``columns`` that no file has."""
    delivered = {name: None for piece in pieces for name in piece.schema}
    for ours, theirs in reading.columns.items():
        if pieces and ours not in delivered:
            remedy = f"correct fetch.options.{table}.columns.{ours}"
            raise absent(theirs, delivered, remedy, table=table, file=reading.path)


def _place(pieces: Sequence[Piece]) -> dict[tuple[str, date], list[Piece]]:
    """Collect pieces by plant and batch; one that does not tell goes where the one before it goes."""
    parts = pl.DataFrame([piece.part for piece in pieces], schema={"plant": pl.String, "batch": pl.Date}, orient="row")
    filled = parts.select(pl.all().forward_fill().backward_fill()).fill_null(UNKNOWN_PLANT)
    placed: dict[tuple[str, date], list[Piece]] = {}
    for place, piece in zip(filled.iter_rows(), pieces, strict=True):
        placed.setdefault(place, []).append(piece)
    return placed


def _group_by_types(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Split pieces into groups whose columns have the same types, each a delivery of its own."""
    groups: list[tuple[dict[str, pl.DataType], list[Piece]]] = []
    for piece in pieces:
        typed = {name: dtype for name, dtype in piece.schema.items() if dtype != pl.Null}
        for types, group in groups:
            if all(types.get(name, dtype) == dtype for name, dtype in typed.items()):
                types.update(typed)
                group.append(piece)
                break
        else:
            groups.append((typed, [piece]))
    return [group for _, group in groups]


def _unreadable_file(error: BaseException) -> UpkeepError:
    what = f"the file is damaged, or holds a type that cannot be read: {error}"
    return UpkeepError(what, remedy="export it again, or move it away")


@contextmanager
def errors_named(reading: TableFiles, **where: Any) -> Iterator[None]:
    """Turn what Polars and the file systems behind fsspec raise into errors that name the file and no secret."""
    try:
        yield
    except UpkeepError as error:
        raise error.at(**where) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _unreadable_file(error).at(**where) from error
    except Exception as error:  # every file system behind fsspec raises errors of its own
        fault = f"{type(error).__name__}: {error}"
        options = map(str, reading.storage_options.values())
        raise UpkeepError(
            f"{reading.path} cannot be read: {hide_variables(fault, reading.path, *options)}",
            remedy="check the path, the network, the rights and storage_options",
            **where,
        ) from None
