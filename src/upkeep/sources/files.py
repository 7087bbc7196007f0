"""Parquet and CSV files in any layout, at any address that fsspec can open."""

import csv
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import lru_cache, partial
from io import BytesIO, StringIO
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
from fsspec.core import url_to_fs
from pydantic import Field

from upkeep.contract.casting import cast_column
from upkeep.contract.dictionary import Table
from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import expand_all, expand_variables, hide_variables
from upkeep.core.types import Frozen
from upkeep.sources import Delivery, read_options
from upkeep.sources.batches import batch_of

PLACEHOLDERS = ("plant", "machine")
"""What a path can tell in place of a column."""

SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz")

UNKNOWN_PLANT = "unknown"
"""Where the rows of a file go that names no plant at all."""

BROKEN_LINE = "broken_line"
"""The column that keeps a CSV line with more fields than the header: no field of it can be trusted."""

FILES_IN_MEMORY = 8
"""A file holds rows of many batches, which are asked for one by one."""

OFFSET = r":\d{2}(\.\d+)?\s*(Z|UTC|[+-]\d{2}(:?\d{2})?)\s*$"
DECIMAL_COMMA = r"^\s*([+-]?\d+),(\d+)\s*$"

Part = tuple[str, date]
"""Plant and batch."""


class TableFiles(Frozen):
    """Where one table's files are and how to read them; docs/sources.md explains each option."""

    path: str
    columns: dict[str, str] = Field(default={})
    plant: str | None = None
    time_zone: ZoneInfo | None = None
    time_format: str | None = None
    separator: str = ","
    decimal: Literal[".", ","] = "."
    encoding: str = "utf8-lossy"
    storage_options: dict[str, Any] = Field(default={})


class FilesOptions(Frozen):
    """``fetch.options`` of the source ``files``."""

    telemetry: TableFiles | None = None
    events: TableFiles | None = None
    machines: TableFiles | None = None


class Files:
    """Rows from files, dealt to batches by their time; the machines table goes to the first batch.

    A row without a readable time or plant goes where the row before it in its file goes, so that it reaches
    ``validate``, which tells why it cannot be used.
    """

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        self._options = read_options(FilesOptions, options, "files")
        self._batch_days = batch_days

    def deliveries(self, until: date) -> list[Delivery]:
        """List what the files hold; every file is read once for that."""
        by_time = partial(_batch_by_time, batch_days=self._batch_days)
        listed: list[Delivery] = []
        if self._options.telemetry:
            listed += _list_table("telemetry", self._options.telemetry, by_time)
        if self._options.events:
            listed += _list_table("events", self._options.events, by_time)
        first = min((delivery.batch for delivery in listed), default=until)
        if self._options.machines:
            listed += _list_table("machines", self._options.machines, lambda _rows: pl.lit(first))
        return [delivery for delivery in listed if delivery.batch <= until]


def _list_table(table: Table, files: TableFiles, batch: Callable[[pl.DataFrame], pl.Expr]) -> Iterator[Delivery]:
    found = _find(files, table)

    @lru_cache(maxsize=FILES_IN_MEMORY)
    def parts(path: str) -> dict[Part, pl.DataFrame]:
        with _errors_named(files, table, path):
            return _deal_rows(_read_file(path, found[path], files), batch)

    holders: dict[Part, list[str]] = {}
    columns: dict[str, None] = {}
    for path in found:
        for part, rows in parts(path).items():
            holders.setdefault(part, []).append(path)
            columns.update(dict.fromkeys(rows.columns))
    for ours, theirs in files.columns.items():
        if ours not in columns:
            raise _absent(theirs, columns, f"correct fetch.options.{table}.columns.{ours}", file=files.path)

    def read(part: Part) -> pl.DataFrame:
        return pl.concat([parts(path)[part] for path in holders[part]], how="diagonal_relaxed")

    for part in sorted(holders):
        yield Delivery(table, *part, partial(read, part))


def _find(files: TableFiles, table: Table) -> dict[str, dict[str, str]]:
    """Return the files that match ``path``, and what the place of each tells in ``{plant}`` and ``{machine}``."""
    with _errors_named(files, table):
        file_system, root = _open(files)
        pattern = re.sub(r"\{\w+\}", "*", root)
        if "*" not in pattern and file_system.isdir(pattern):
            root = pattern = pattern.rstrip("/") + "/**"
        paths = sorted(str(path) for path in file_system.glob(pattern) if str(path).endswith(SUFFIXES))
    if not paths:
        raise UpkeepError(
            f"no file matches {files.path}, or none that ends in {', '.join(SUFFIXES)}",
            remedy=f"correct fetch.options.{table}.path in params.yaml",
            table=table,
        )
    place = _as_regex(root)
    return {path: match.groupdict() if (match := place.search(path)) else {} for path in paths}


def _as_regex(pattern: str) -> re.Pattern[str]:
    named = {"{" + name + "}": f"(?P<{name}>[^/]+?)" for name in PLACEHOLDERS}
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", **named}
    pieces = re.split(r"(\*\*/|\*\*|\*|\{\w+\})", pattern)
    return re.compile("".join(wild.get(piece, re.escape(piece)) for piece in pieces) + "$")


def _open(files: TableFiles) -> tuple[Any, str]:
    file_system, path = url_to_fs(expand_variables(files.path), **expand_all(files.storage_options))
    return file_system, str(path)


def _read_file(path: str, facts: Mapping[str, str], files: TableFiles) -> pl.DataFrame:
    """Read one file as delivered, with our column names, and with times in UTC if its time zone is given."""
    file_system, _ = _open(files)
    with file_system.open(path, "rb", compression="infer") as handle:
        content = handle.read()
    if path.endswith((".parquet", ".pq")):
        rows = pl.read_parquet(BytesIO(content), hive_partitioning=False)
    else:
        rows = _read_csv(content, files)
    return _with_times_in_utc(_with_our_names(rows, facts, files), files)


def _read_csv(content: bytes, files: TableFiles) -> pl.DataFrame:
    """Read every value as text, so that a broken one reaches ``validate`` as it was delivered."""
    if not content.strip():
        return pl.DataFrame()
    try:
        rows = pl.read_csv(content, separator=files.separator, infer_schema=False, encoding=files.encoding)
    except pl.exceptions.ComputeError:
        rows = _read_ragged_csv(content, files)
    if files.decimal == ",":
        rows = rows.with_columns(pl.exclude(*PLACEHOLDERS, "time").str.replace(DECIMAL_COMMA, "$1.$2"))
    return rows


def _read_ragged_csv(content: bytes, files: TableFiles) -> pl.DataFrame:
    """Read a CSV some of whose lines have more fields than its header; those lines are kept whole in one column."""
    encoding = "utf-8" if files.encoding.startswith("utf8") else files.encoding
    text = content.decode(encoding, errors="replace").removeprefix("\ufeff")
    header, *lines = csv.reader(StringIO(text, newline=""), delimiter=files.separator)
    table: list[dict[str, str | None]] = [
        {BROKEN_LINE: files.separator.join(line)}
        if len(line) > len(header)
        else {name: value or None for name, value in zip(header, line, strict=False)}
        for line in lines
        if line
    ]
    return pl.DataFrame(table, schema=dict.fromkeys([*header, BROKEN_LINE], pl.String))


def _with_our_names(rows: pl.DataFrame, facts: Mapping[str, str], files: TableFiles) -> pl.DataFrame:
    """Rename columns to ours, and add what no column but the file's place or ``plant`` tells."""
    renamed = {theirs: ours for ours, theirs in files.columns.items() if theirs in rows.columns}
    in_the_way = [ours for ours in renamed.values() if ours in rows.columns and ours not in renamed]
    rows = rows.rename({**renamed, **{name: f"{name} (delivered)" for name in in_the_way}})
    facts = {**({"plant": files.plant} if files.plant else {}), **facts}
    return rows.with_columns(pl.lit(value).alias(name) for name, value in facts.items() if name not in rows.columns)


def _with_times_in_utc(rows: pl.DataFrame, files: TableFiles) -> pl.DataFrame:
    """Bring ``time`` from the plant's own clock and format to UTC; text that does not parse stays as it is."""
    dtype = rows.schema.get("time")
    if dtype is None or not (files.time_zone or files.time_format):
        return rows
    delivered = pl.col("time")
    is_text = dtype == pl.String
    if is_text and files.time_format:
        local = delivered.str.to_datetime(files.time_format, time_unit="us", strict=False)
        has_offset = pl.lit("z" in files.time_format)
    else:
        local = cast_column("time", dtype, "time").value
        has_offset = delivered.str.contains(OFFSET) if is_text else pl.lit(bool(getattr(dtype, "time_zone", None)))
    local = local.dt.replace_time_zone(None)
    # When clocks go back, an hour comes twice: the first is meant. When they go forward, one does not exist.
    placed = local.dt.replace_time_zone(str(files.time_zone or "UTC"), ambiguous="earliest", non_existent="null")
    utc = pl.when(has_offset).then(local.dt.replace_time_zone("UTC")).otherwise(placed.dt.convert_time_zone("UTC"))
    if not is_text:
        return rows.with_columns(time=utc)
    unreadable = pl.when(local.is_null()).then(delivered).otherwise(delivered + f" ({files.time_zone})")
    return rows.with_columns(time=pl.coalesce(utc.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ"), unreadable))


def _deal_rows(rows: pl.DataFrame, batch: Callable[[pl.DataFrame], pl.Expr]) -> dict[Part, pl.DataFrame]:
    """Deal one file's rows to plants and batches."""
    if rows.is_empty():
        return {}
    if "plant" not in rows.columns:
        raise _absent("plant", rows.columns, "name it in columns, or give plant: or {plant} in the path")
    name = cast_column("plant", rows.schema["plant"], "text").value
    plant = pl.col("plant").forward_fill().backward_fill().fill_null(UNKNOWN_PLANT)
    dealt = rows.with_columns(plant=name).with_columns(plant.alias("@plant"), batch(rows).alias("@batch"))
    parts = dealt.partition_by("@plant", "@batch", as_dict=True, include_key=False)
    return {(str(plant), batch): part for (plant, batch), part in parts.items()}


def _batch_by_time(rows: pl.DataFrame, batch_days: int) -> pl.Expr:
    if "time" not in rows.columns:
        raise _absent("time", rows.columns, "name it in columns")
    time = cast_column("time", rows.schema["time"], "time").value
    if rows.select(time.is_null().all()).item():
        raise UpkeepError(
            f"no time in the file can be read; the first is {rows['time'][0]!r}",
            remedy="deliver ISO 8601 or a date-time type, or set time_format, for instance '%d.%m.%Y %H:%M'",
        )
    return batch_of(time, batch_days).forward_fill().backward_fill()


def _absent(name: str, columns: Iterable[str], remedy: str, **where: object) -> UpkeepError:
    names = list(columns)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return UpkeepError(
        f"there is no column {name!r}{f'; did you mean {close[0]!r}?' if close else ''}",
        expected=f"one of the columns there are: {', '.join(names)}",
        remedy=remedy,
        column=name,
        **where,
    )


@contextmanager
def _errors_named(files: TableFiles, table: Table, path: str | None = None) -> Iterator[None]:
    """Turn what Polars and the file systems behind fsspec raise into errors that name the file and no secret."""
    try:
        yield
    except UpkeepError as error:
        raise error.at(table=table, file=path) from error
    except pl.exceptions.PolarsError as error:
        raise UpkeepError(
            f"the file is damaged: {error}", remedy="deliver it again, or move it away", table=table, file=path
        ) from error
    except Exception as error:  # every file system behind fsspec raises errors of its own
        options = map(str, files.storage_options.values())
        raise UpkeepError(
            f"{files.path} cannot be read: {hide_variables(f'{type(error).__name__}: {error}', files.path, *options)}",
            remedy="check the path, the network, the rights and storage_options",
            table=table,
        ) from None
