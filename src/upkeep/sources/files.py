"""Parquet and CSV files in any layout, at any address that fsspec can open."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache, partial
from typing import Any

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.contract.dictionary import NEEDED, OPTIONAL, Table
from upkeep.contract.findings import Finding, report
from upkeep.contract.rules import is_name
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.sources import Delivery, Key, Reference, bounds, read_options
from upkeep.sources.batches import batch_of
from upkeep.sources.columns import absent, name_columns
from upkeep.sources.delimited import read_delimited
from upkeep.sources.file_options import PLACEHOLDERS, FilesOptions, TableFiles
from upkeep.sources.manifest import not_as_pinned
from upkeep.sources.opening import ENDING, ENDINGS, errors_named, find_place, read_content, read_parquet, unpack
from upkeep.sources.times import bring_to_utc, unreadable_times

UNKNOWN_PLANT = "unknown"  # where rows go if no file of their table names a plant

FILES_IN_MEMORY = 8  # a file holds rows of many batches, which are asked for one by one

TIME = "@time"
LEAP = timedelta(days=366)

SYSTEMATIC = 10  # so many times in one file, of which none can be read, are not broken but written in another way

logger = logging.getLogger(__name__)


class Files:
    """Rows from files, dealt to batches by their time; the machines table goes to the first batch.

    A row without a readable time or a plant's name goes where the row before it goes, so that it reaches ``validate``,
    which tells why it cannot be used.
    """

    limits: Limits

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        self._options = read_options(FilesOptions, options, "files")
        self._batch_days = batch_days
        self._deal = lru_cache(maxsize=FILES_IN_MEMORY)(self._deal_file)

    def deliveries(self, until: date) -> list[Delivery]:
        """List what the files hold; every file is read once for that."""
        listed = [*self._list_table("telemetry"), *self._list_table("events")]
        first = min((delivery.batch for delivery in listed), default=until)
        listed += self._list_table("machines", first)
        later = [delivery.batch for delivery in listed if delivery.batch > until]
        if later:
            logger.warning(f"batches after fetch.until are left for later: {len(later)}, the last of {max(later)}")
        return [delivery for delivery in listed if delivery.batch <= until]

    def read_pinned(self, key: Key, references: Sequence[Reference]) -> pl.DataFrame:
        """Return a delivery's rows from the files that it was pinned to.

        Raises UpkeepError if one is not as it was, or all of them are too large together.
        """
        try:
            joined, size = list[pl.DataFrame](), 0
            for reference in references:
                joined.append(self._take(key, reference))
                size += bounds.measure(joined[-1])
                bounds.check_size(size, self.limits)
            columns = {name for part in joined for name in part.columns}
            bounds.check_shape(sum(part.height for part in joined), len(columns), self.limits)
        except UpkeepError as error:
            raise error.at(**key._asdict()) from error
        return pl.concat(joined, how="diagonal_relaxed")

    def _list_table(self, table: Table, batch: date | None = None) -> list[Delivery]:
        """List a table whose rows belong to the batch of their time, or all to one."""
        findings, untimed = list[Finding](), list[tuple[UpkeepError, bool]]()
        schemas: dict[Reference, pl.Schema] = {}
        for number, reading in enumerate(getattr(self._options, table)):
            paths, unread = _find_files(table, reading)
            findings += unread
            columns: dict[str, None] = {}
            for path in paths:
                with errors_named(reading, table=table, file=path):
                    dealt = self._deal(table, batch, number, path)
                if not dealt:
                    findings.append(report("empty_file", table, f"{path.rpartition('/')[2]} holds no rows"))
                for reference, rows in dealt.items():
                    schemas[reference] = rows.schema
                    columns |= dict.fromkeys(rows.columns)
                    if reference.batch is None:
                        error = unreadable_times(rows, reading).at(table=table, file=path)
                        untimed.append((error, rows["time"].count() >= SYSTEMATIC))
            _check_columns(table, reading, columns)
        for error, is_systematic in untimed:
            if is_systematic or len(untimed) == len(schemas):
                raise error
            logger.warning(str(error))
            name = str(error.where["file"]).rpartition("/")[2]
            findings.append(report("unreadable_times", table, f"{name}: {error.what}; {error.remedy}"))
        return [
            Delivery(*key, partial(self.read_pinned, key, group), tuple(findings), group)
            for key, placed in sorted(_place(table, schemas).items())
            for group in _group_by_types(placed, schemas)
        ]

    def _take(self, key: Key, reference: Reference) -> pl.DataFrame:
        """Return what a file holds of a delivery; an UpkeepError if it is not as it was."""
        number, readings = reference.reading, getattr(self._options, key.table)
        if number >= len(readings) or ".." in reference.address.split("/"):
            raise not_as_pinned([(key, reference)], "is none of the files that fetch.options names")
        with errors_named(readings[number], file=reference.address):
            file_system, root = find_place(readings[number])
            path = _folder(root) + reference.address
            file_system.invalidate_cache(path)  # what it knows of the file may be older than the file
            try:
                dealt = self._deal(key.table, key.batch if key.table == "machines" else None, number, path)
            except FileNotFoundError:
                raise not_as_pinned([(key, reference)], "is gone", vanished=True) from None
        if reference not in dealt:
            raise not_as_pinned([(key, reference)], "has changed since it was fetched")
        return dealt[reference]

    def _deal_file(self, table: Table, batch: date | None, number: int, path: str) -> dict[Reference, pl.DataFrame]:
        """Read one file as delivered, with our column names, and with times in UTC if its reading says how."""
        reading = getattr(self._options, table)[number]
        packed = read_content(reading, path, self.limits)
        content, is_text = unpack(packed, path, self.limits)
        if is_text:
            separator = reading.separator or ("\t" if ".tsv" in path.lower()[-8:] else ",")
            rows = read_delimited(content, separator, reading.encoding, self.limits)
        else:
            rows = read_parquet(content, self.limits)
        _, root = find_place(reading)
        rows = name_columns(rows, _find_facts(root, path), reading, self.limits)
        known = NEEDED[table] | OPTIONAL.get(table, {})
        for name in (name for name, kind in known.items() if kind == "time"):
            rows = bring_to_utc(rows, name, reading)
        address, sha256 = path.removeprefix(_folder(root)), hashlib.sha256(packed).hexdigest()
        whole = Reference(address=address, reading=number, bytes=len(packed), sha256=sha256)
        of_row = batch_of(pl.col(TIME), self._batch_days) if batch is None else pl.lit(batch)
        return {
            whole.model_copy(update={"plant": plant, "batch": day}): part
            for (plant, day), part in _deal_rows(table, rows, of_row).items()
        }


def _find_files(table: Table, reading: TableFiles) -> tuple[list[str], list[Finding]]:
    """Return the files that match ``path``, and a finding for each file or folder that matches and cannot be read."""
    with errors_named(reading, table=table):
        file_system, root = find_place(reading)
        matches = file_system.glob(_as_glob(root), detail=True)
        if matches and all(info["type"] == "directory" for info in matches.values()):
            root += "/**"
            matches = file_system.glob(_as_glob(root), detail=True)
        paths = sorted(str(path) for path, info in matches.items() if info["type"] != "directory")
        reached = {*paths, *(path[: slash.start()] for path in paths for slash in re.finditer("/", path))}
        folders = [path for path in sorted(map(str, matches)) if path not in reached and file_system.find(path)]
    left = {path: f"it does not end in {ENDINGS}" for path in paths if not ENDING.search(path)}
    left |= dict.fromkeys(folders, "it is a folder beside files; let path match what is in it")
    why = {path.removeprefix(_folder(root)): reason for path, reason in left.items()}
    files = [path for path in paths if path not in left]
    if not files:
        raise UpkeepError(
            f"no file matches {reading.path}, or none that can be read{f': there is {next(iter(why))}' if why else ''}",
            expected=f"files that end in {ENDINGS}",
            remedy=f"correct fetch.options.{table}.path in params.yaml, or export the files as CSV",
            table=table,
        )
    if why:
        logger.warning(f"{table}: {len(why)} files of {reading.path} are not read, such as {next(iter(why))}")
    return files, [report("unread_file", table, f"{name} is not read: {reason}") for name, reason in why.items()]


def _folder(root: str) -> str:
    """Return the folder, with a slash at its end, below which all files lie that a pattern may match."""
    literal = re.split(r"[*?{]", root)[0]
    return literal[: literal.rfind("/") + 1]


def _find_facts(root: str, path: str) -> Mapping[str, str]:
    """Return what a file's place tells in ``{plant}`` and ``{machine}``; its pattern may be that of a folder."""
    named = {"{" + name + "}": f"(?P<{name}>[^/]+?)" for name in PLACEHOLDERS}
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", **named}
    for pattern in (root, f"{root}/**"):
        pieces = re.split(r"(\*\*/|\*\*|\*|\?|\{\w+\})", pattern)
        regex = "".join(wild.get(piece, re.escape(piece)) for piece in pieces) + "$"
        if place := re.search(regex, path, re.IGNORECASE):
            return place.groupdict()
    return {}


def _as_glob(root: str) -> str:
    """Return the pattern that fsspec understands; endings are compared without regard to case."""
    pattern = re.sub(r"\{\w+\}", "*", root.replace("[", "[[]"))
    stem = re.sub(r"(\.\w+)*$", "", pattern)
    ending = pattern.removeprefix(stem)
    return stem + re.sub("[A-Za-z]", lambda a: f"[{a[0].lower()}{a[0].upper()}]" if "*" in stem else a[0], ending)


def _deal_rows(table: Table, rows: pl.DataFrame, batch: pl.Expr) -> dict[tuple[Any, ...], pl.DataFrame]:
    """Deal one file's rows to plants and batches, a row that does not tell to those of the row before it."""
    if rows.is_empty():
        return {}
    for name in ("plant",) if table == "machines" else ("plant", "time"):
        if name not in rows.columns:
            raise absent(name, rows.columns, _how_to_name(name, rows.columns))
    plant = cast_column("plant", rows.schema["plant"], "text").value
    told = [cast_column(name, rows.schema[name], "text").value for name in ("machine", "time") if name in rows.columns]
    # A line below the rows, such as "5,167 rows exported", tells of no plant.
    named = is_name(plant) & pl.any_horizontal(pl.lit(not told), *(value.is_not_null() for value in told))
    keys = {"@plant": pl.when(named).then(plant).forward_fill().backward_fill()}
    if table != "machines":
        time = cast_column("time", rows.schema["time"], "time").value
        keys[TIME] = _without_leaps(time) if table == "telemetry" else time
    dealt = rows.with_columns(**keys).with_columns(batch.forward_fill().backward_fill().alias("@batch"))
    return dealt.drop(TIME, strict=False).partition_by("@plant", "@batch", as_dict=True, include_key=False)


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


def _check_columns(table: Table, reading: TableFiles, delivered: Mapping[str, None]) -> None:
    """Raise an UpkeepError about a name in ``columns`` that no file has."""
    for ours, theirs in reading.columns.items():
        if delivered and ours not in delivered:
            remedy = f"correct fetch.options.{table}.columns.{ours}"
            raise absent(theirs, delivered, remedy, table=table, file=reading.path)


def _place(table: Table, references: Iterable[Reference]) -> dict[Key, list[Reference]]:
    """Collect parts of a table's files by plant and batch; one that does not tell goes where the one before it goes."""
    parts = [(part.plant, part.batch, part) for part in references]
    rows = pl.DataFrame(parts, schema={"plant": pl.String, "batch": pl.Date, "part": pl.Object}, orient="row")
    told = pl.col("plant", "batch").forward_fill().backward_fill()
    placed: dict[Key, list[Reference]] = {}
    for plant, batch, part in rows.with_columns(told).iter_rows():
        placed.setdefault(Key(table, plant or UNKNOWN_PLANT, batch), []).append(part)
    return placed


def _group_by_types(
    references: Iterable[Reference], schemas: Mapping[Reference, pl.Schema]
) -> list[tuple[Reference, ...]]:
    """Split parts of files into groups whose columns have the same types, each a delivery of its own."""
    groups: list[tuple[dict[str, pl.DataType], list[Reference]]] = []
    for reference in references:
        typed = {name: dtype for name, dtype in schemas[reference].items() if dtype != pl.Null}
        for types, group in groups:
            if all(types.get(name, dtype) == dtype for name, dtype in typed.items()):
                types.update(typed)
                group.append(reference)
                break
        else:
            groups.append((typed, [reference]))
    return [tuple(group) for _, group in groups]
