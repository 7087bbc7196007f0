"""Parquet and CSV files in any layout, at any address that fsspec can open."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache, partial
from typing import Any

import polars as pl

from upkeep.contract.dictionary import BROKEN_LINE, NEEDED, OPTIONAL, Table
from upkeep.contract.findings import Finding, report
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.core.params import Limits
from upkeep.sources import Delivery, Key, Reference, bounds, read_options
from upkeep.sources.batches import batch_of
from upkeep.sources.columns import CONSTANTS, absent, name_columns, stack_rows
from upkeep.sources.delimited import read_delimited
from upkeep.sources.file_options import FilesOptions, TableFiles
from upkeep.sources.manifest import not_as_pinned
from upkeep.sources.opening import ENDING, ENDINGS, errors_named, find_place, read_content, read_parquet, unpack
from upkeep.sources.patterns import as_glob, find_folder, read_placeholders
from upkeep.sources.placing import TIME, place_rows
from upkeep.sources.times import bring_to_utc, unreadable_times

UNKNOWN_PLANT = "unknown"  # of rows whose table names no plant in any file

FILES_IN_MEMORY = 8  # a file holds rows of many batches, which are read one by one

MISREAD = r"\\x[89a-f][0-9a-f]"  # how an invalid byte is kept

SYSTEMATIC = 10  # if none of so many times in a file can be read, they are written in another way, not broken

logger = logging.getLogger(__name__)


class Files:
    """Rows of files, each in the batch of its time; the machines table belongs to the first batch.

    A row without a readable time or a plant belongs where the row before it does, so that it reaches ``validate``,
    which says why it cannot be used.
    """

    limits: Limits

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        self._options = read_options(FilesOptions, options, "files")
        self._batch_days = batch_days
        self._read = lru_cache(maxsize=FILES_IN_MEMORY)(self._read_parts)

    def deliveries(self, until: date) -> list[Delivery]:
        """List what the files hold, for which every file is read once."""
        findings = list[Finding]()
        listed = [*self._list_table("telemetry", findings), *self._list_table("events", findings)]
        first = min((delivery.batch for delivery in listed), default=until)
        listed += self._list_table("machines", findings, first)
        if later := [delivery.batch for delivery in listed if delivery.batch > until]:
            logger.warning("batches after fetch.until are left for later: %s, the last of %s", len(later), max(later))
        # Each has those of all tables: one of which nothing can be read has no delivery of its own to tell them.
        told = tuple(findings)
        return [replace(delivery, findings=told) for delivery in listed if delivery.batch <= until]

    def read_pinned(self, key: Key, references: Sequence[Reference]) -> pl.DataFrame:
        """Return a delivery's rows from the files that it was pinned to.

        Raises UpkeepError if one is not as it was, or all of them are too large together.
        """
        try:
            joined, size = list[pl.DataFrame](), 0
            for reference in references:
                joined.append(self._read_part(key, reference))
                size += bounds.measure(joined[-1])
                bounds.check_size(size, self.limits)
            columns = {name for part in joined for name in part.columns}
            bounds.check_shape(sum(part.height for part in joined), len(columns), self.limits)
        except UpkeepError as error:
            raise error.at(**key._asdict()) from error
        return stack_rows(joined)

    def _list_table(self, table: Table, findings: list[Finding], batch: date | None = None) -> list[Delivery]:
        """List the deliveries of a table, and add what was found of its files.

        Its rows are in the batch of their time, or all in the given one.
        """
        untimed, empty = list[tuple[UpkeepError, bool]](), list[str]()
        found = list[Reference]()
        for number, reading in enumerate(getattr(self._options, table)):
            paths, unread = _find_files(table, reading)
            findings += unread
            columns: dict[str, None] = {}
            for path in paths:
                with errors_named(reading, table=table, file=path):
                    parts = self._read(table, batch, number, path)
                if not parts:
                    empty.append(path.rpartition("/")[2])
                findings += _report_misread(table, reading, path, parts.values())
                found += parts
                for reference, rows in parts.items():
                    columns |= dict.fromkeys(rows.columns)
                    if reference.batch is None:
                        error = unreadable_times(rows, reading).at(table=table, file=path)
                        untimed.append((error, rows["time"].count() >= SYSTEMATIC))
            _require_columns(table, reading, columns)
        if empty:
            logger.warning("%s: files that hold no rows: %s, such as %s", table, len(empty), empty[0])
            findings += (report("empty_file", table, f"{name} holds no rows") for name in empty)
        findings += _report_untimed(table, untimed, len(found))
        return [
            Delivery(*key, partial(self.read_pinned, key, parts), references=tuple(parts))
            for key, parts in sorted(_group_parts(table, found).items())
        ]

    def _read_part(self, key: Key, reference: Reference) -> pl.DataFrame:
        """Return the rows of a delivery in one file; raises UpkeepError if the file is not as it was."""
        number, readings = reference.reading, getattr(self._options, key.table)
        if number >= len(readings) or ".." in reference.address.split("/"):
            raise not_as_pinned([(key, reference)], "is none of the files that fetch.options names")
        with errors_named(readings[number], file=reference.address):
            file_system, root = find_place(readings[number])
            path = find_folder(root) + reference.address
            file_system.invalidate_cache(path)  # what it remembers of the file may be outdated
            try:
                parts = self._read(key.table, key.batch if key.table == "machines" else None, number, path)
            except FileNotFoundError:
                raise not_as_pinned([(key, reference)], "is gone", vanished=True) from None
        if reference not in parts:
            raise not_as_pinned([(key, reference)], "has changed since it was fetched")
        return parts[reference]

    def _read_parts(self, table: Table, batch: date | None, number: int, path: str) -> dict[Reference, pl.DataFrame]:
        """Read one file and partition its rows, with our column names, and times in UTC where its reading says how."""
        reading = getattr(self._options, table)[number]
        packed = read_content(reading, path, self.limits)
        content, is_text = unpack(packed, path, self.limits)
        separator = reading.separator or ("\t" if ".tsv" in path.lower()[-8:] else ",")
        if is_text:
            rows = read_delimited(content, separator, reading.encoding, self.limits)
        else:
            rows = read_parquet(content, self.limits)
        _, root = find_place(reading)
        rows = name_columns(rows, read_placeholders(root, path), reading, self.limits)
        known = NEEDED[table] | OPTIONAL.get(table, {})
        for name in (name for name, kind in known.items() if kind == "time"):
            rows = bring_to_utc(rows, name, reading)
        if rows.is_empty():
            return {}
        for name in ("plant",) if table == "machines" else ("plant", "time"):
            if name not in rows.columns:
                raise absent(name, rows.columns, _how_to_name(name, rows.columns, separator))
        address, sha256 = path.removeprefix(find_folder(root)), hashlib.sha256(packed).hexdigest()
        whole = Reference(address=address, reading=number, bytes=len(packed), sha256=sha256)
        of_row = batch_of(pl.col(TIME), self._batch_days) if batch is None else pl.lit(batch)
        return {
            whole.model_copy(update={"plant": plant, "batch": day}): part
            for (plant, day), part in place_rows(table, rows, of_row).items()
        }


def _find_files(table: Table, reading: TableFiles) -> tuple[list[str], list[Finding]]:
    """Return the files that match ``path``, and a finding for each file or folder that matches and cannot be read."""
    with errors_named(reading, table=table):
        file_system, root = find_place(reading)
        matches = file_system.glob(as_glob(root), detail=True)
        if matches and all(info["type"] == "directory" for info in matches.values()):
            root += "/**"
            matches = file_system.glob(as_glob(root), detail=True)
        paths = sorted(str(path) for path, info in matches.items() if info["type"] != "directory")
        reached = {*paths, *(path[: slash.start()] for path in paths for slash in re.finditer("/", path))}
        folders = [path for path in sorted(map(str, matches)) if path not in reached and file_system.find(path)]
    left = {path: f"it does not end in {ENDINGS}" for path in paths if not ENDING.search(path)}
    left |= dict.fromkeys(folders, "it is a folder beside files; let path match what is in it")
    why = {path.removeprefix(find_folder(root)): reason for path, reason in left.items()}
    files = [path for path in paths if path not in left]
    if not files:
        raise UpkeepError(
            f"no file matches {reading.path}, or none that can be read{f': there is {next(iter(why))}' if why else ''}",
            expected=f"files that end in {ENDINGS}",
            remedy=f"correct fetch.options.{table}.path in params.yaml, or export the files as CSV",
            table=table,
        )
    if why:
        logger.warning("%s: %s files of %s are not read, such as %s", table, len(why), reading.path, next(iter(why)))
    return files, [report("unread_file", table, f"{name} is not read: {reason}") for name, reason in why.items()]


def _report_misread(table: Table, reading: TableFiles, path: str, parts: Iterable[pl.DataFrame]) -> list[Finding]:
    """Report a file with a name that holds bytes which its encoding does not have, so that it is another name."""
    for rows in parts:
        held = (rows[name].unique() for name in CONSTANTS if rows.schema.get(name) == pl.String)
        names = pl.concat([pl.Series(rows.columns), *held])
        if (misread := names.filter(names.str.contains(MISREAD).fill_null(False)).sort()).len():
            what = f"{path.rpartition('/')[2]} is not in {reading.encoding}, so a name is read as {misread[0]}"
            detail = f"{shorten(what)}; set encoding, such as cp1252"
            logger.warning("%s: %s", table, detail)
            return [report("wrong_encoding", table, detail)]
    return []


def _report_untimed(table: Table, untimed: Sequence[tuple[UpkeepError, bool]], n_parts: int) -> list[Finding]:
    """Report the files none of whose times can be read; raise the first such error if it is systematic, or all fail."""
    findings = []
    for error, is_systematic in untimed:
        if is_systematic and len(untimed) < n_parts:
            error.remedy += "; in an entry of its own in fetch.options, since the times of other files are as expected"
        if is_systematic or len(untimed) == n_parts:
            raise error
        logger.warning(str(error))
        name = str(error.where["file"]).rpartition("/")[2]
        findings.append(report("unreadable_times", table, f"{name}: {error.what}; {error.remedy}"))
    return findings


def _require_columns(table: Table, reading: TableFiles, delivered: Mapping[str, None]) -> None:
    """Raise an UpkeepError about a name in ``columns`` that no file has."""
    for ours, theirs in reading.columns.items():
        if delivered and ours not in delivered:
            remedy = f"correct fetch.options.{table}.columns.{ours}"
            raise absent(theirs, delivered, remedy, table=table, file=reading.path)


def _how_to_name(name: str, columns: Sequence[str], separator: str) -> str:
    first, *others = (column for column in columns if column != BROKEN_LINE)
    for other in ";\t|,":
        if other in first and other != separator:
            return f"set separator: {json.dumps(other)}"
    if not others and separator in first:
        return "each line is in quotes as a whole: export the file again without them"
    if not others:
        return "export the file again, as a table with a line of column names at its top, or move it away"
    constant = ", or give plant: or {plant} in the path" if name == "plant" else ""
    return f"name it in columns, as {name}: THEIR_NAME{constant}"


def _group_parts(table: Table, references: Iterable[Reference]) -> dict[Key, list[Reference]]:
    """Collect parts of a table's files by plant and batch; one without them belongs to those of the part before it."""
    parts = [(part.plant, part.batch, part) for part in references]
    rows = pl.DataFrame(parts, schema={"plant": pl.String, "batch": pl.Date, "part": pl.Object}, orient="row")
    told = pl.col("plant", "batch").forward_fill().backward_fill()
    grouped: dict[Key, list[Reference]] = {}
    for plant, batch, part in rows.with_columns(told).iter_rows():
        grouped.setdefault(Key(table, plant or UNKNOWN_PLANT, batch), []).append(part)
    return grouped
