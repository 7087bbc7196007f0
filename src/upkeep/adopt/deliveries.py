"""Deliveries as layouts: the files that hold one table, or a database's table, with their rows as delivered."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from upkeep.adopt.sniffing import USUAL, find_gaps, sniff_text
from upkeep.adopt.times import holds_a_time
from upkeep.adopt.words import is_kept, kind_of
from upkeep.contract.casting import as_text
from upkeep.contract.dictionary import BROKEN_LINE
from upkeep.core.addresses import open_address
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.core.params import Limits
from upkeep.core.secrets import VARIABLE, expand_variables
from upkeep.sources.bounds import bound_values, check_columns
from upkeep.sources.columns import blank_gaps, stack_rows
from upkeep.sources.delimited import find_unicode, read_delimited
from upkeep.sources.file_options import TableFiles
from upkeep.sources.opening import ENDING, errors_named, read_content, read_parquet, unpack
from upkeep.sources.sql import accept_any_value, as_frame, fetch_rows, open_engine, unreadable

NUMBER = re.compile(r"\s*[+-]?[\d.,eE+-]*( \(again\))*\s*")
POINT = r"^\s*([+-]?\d+)\.(\d+)\s*$"
SPECIAL = re.compile(r"[{}*?$]|::")  # these have a meaning in a path of `params.yaml`
PATTERN = re.compile(r"\*|\^.*\$")  # names of columns that Polars takes for patterns
MOST_ROWS = 200_000
"""Read of a database's table at most: half of them its first, half its last, in the database's order."""
ALIKE = 0.8  # share of common columns above which two files hold the same table


@dataclass(frozen=True)
class Layout:
    """Files that hold one table, or a database's table.

    `rows` are as delivered, those of CSV files as text. For several files, columns such as ``{0}`` hold the parts of
    their addresses that differ, which `facts` has for each of `paths`, without the prefixes and suffixes of `around`.
    `reading` has the options of the source ``files`` for how their text is written, and `partial` the columns that only
    some of the files have. `told` has the encoding and the signs that a file's text shows; where these differ,
    `own` has the reading of each file. `keys` has what folders such as ``plant=north`` call these parts, and `heights`
    the number of each file's rows.
    """

    paths: list[str]
    rows: pl.DataFrame
    reading: dict[str, Any] = field(default_factory=dict)
    partial: frozenset[str] = frozenset()
    facts: list[dict[str, str]] = field(default_factory=list)
    around: dict[str, tuple[str, str]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    own: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    heights: list[int] = field(default_factory=list)

    def trimmed(self, part: str, before: str, after: str) -> "Layout":
        """Return the layout with these prefixes and suffixes cut off this part of all addresses."""
        rows = self.rows.with_columns(pl.col(part).str.strip_prefix(before).str.strip_suffix(after))
        facts = [{**fact, part: fact[part].removeprefix(before).removesuffix(after)} for fact in self.facts]
        return replace(self, rows=rows, facts=facts, around={**self.around, part: (before, after)})

    @property
    def name(self) -> str:
        """Its name in messages."""
        first = shorten(self.paths[0])
        return first if len(self.paths) == 1 else f"{first} and {len(self.paths) - 1} more"

    @property
    def file_name(self) -> str:
        """The name of the first file without its folder, or that of the database's table."""
        return self.paths[0].rpartition("/")[2]


def look_at_files(places: Sequence[str], limits: Limits) -> tuple[list[Layout], list[str]]:
    """Return the tables that files hold, and a note about each file that holds none.

    Raises UpkeepError if there is no such place, or no file that can be read.
    """
    listed = {name: (place, path) for place in places for name, path in _list_files(place).items()}
    files, notes = list[Layout](), list[str]()
    for name, (place, path) in sorted(listed.items()):
        try:
            files.append(_look_at_file(name, place, path, limits))
        except UpkeepError as error:
            if len(listed) == 1:
                raise
            notes.append(f"{shorten(name)} is left out: {error.what}")
    if not files:
        why = f": {notes[0]}" if notes else ""
        raise UpkeepError(
            f"there is no CSV or Parquet file in {', '.join(places)} that can be read{why}",
            expected="a file, a folder, a glob or an address such as s3://bucket/folder with tables as CSV or Parquet",
            remedy="correct the path, or export the tables as CSV",
        )
    return [join_files(group) for group in _group(files)], notes


def is_database(place: str) -> bool:
    """Tell whether an address is SQLAlchemy's rather than fsspec's."""
    return "://" in place and place.split("://")[0].split("+")[0] not in {*fsspec.available_protocols()}


def look_at_database(url: str, limits: Limits) -> list[Layout]:
    """Return the tables and views of a database that hold rows.

    Raises UpkeepError if it cannot be reached, holds none, or its address tells the password.
    """
    engine = open_engine(url, "the address")
    if (password := sa.make_url(url).password) and not VARIABLE.fullmatch(password):
        raise UpkeepError(
            "the address holds a password, which would come to stand in params.yaml",
            expected="the name of a variable in its place, such as postgresql+psycopg://user:${PASSWORD}@host/database",
            remedy="export the password as a variable, and put the address in single quotes",
        )
    try:
        known = sa.inspect(engine)
        names = sorted(filter(is_kept, [*known.get_table_names(), *known.get_view_names()]))
        with engine.connect() as connection:
            layouts = [Layout([name], _read_table(connection, name, limits)) for name in names]
    except SQLAlchemyError as error:
        remedy = "check the address, the network, the user's rights and the password's variable"
        raise unreadable(error, url, engine, remedy) from None
    if not (held := [layout for layout in layouts if layout.rows.height]):
        raise UpkeepError("the database has no table with rows", remedy="check its name and the user's rights")
    return held


def _list_files(place: str) -> dict[str, str]:
    """Return the files of a place by their address in `params.yaml`: relative if they lie below this folder."""
    with errors_named(TableFiles.model_construct(path=place)):
        file_system, root = open_address(expand_variables(place))
        above = root
        if file_system.isdir(root):
            found = file_system.find(root)
        else:
            above = root.partition("*")[0].rpartition("/")[0]
            found = file_system.glob(root) if "*" in root else [root] if file_system.exists(root) else []
    here = f"{Path.cwd().as_posix()}/"
    local = "file" in file_system.protocol
    names = {str(path).removeprefix(here) if local else file_system.unstrip_protocol(path): path for path in found}
    return {name: path for name, path in names.items() if not _is_hidden(str(path).removeprefix(above))}


def _is_hidden(place: str) -> bool:
    """Tell whether a file below a folder is a program's own, such as a notebook's copies in .ipynb_checkpoints."""
    *folders, name = place.split("/")
    return name.startswith((".", "_")) or any(folder.startswith((".", "__")) for folder in folders)


def _look_at_file(name: str, place: str, path: str, limits: Limits) -> Layout:
    reading = TableFiles.model_construct(path=place)
    if not ENDING.search(name):
        raise UpkeepError("it is neither CSV nor Parquet", remedy="export its table as CSV", file=name)
    if SPECIAL.search(name) or not name.isprintable():
        what = "its name holds one of {}*?$, :: or a sign that cannot be printed, which mean something in a path"
        raise UpkeepError(what, remedy="rename it", file=name)
    with errors_named(reading, file=name):
        content, is_text = unpack(read_content(reading, path, limits), path, limits)
        if not is_text:
            return Layout([name], _clean_rows(name, read_parquet(content, limits)))
        written = sniff_text(content)
        how = USUAL | written
        rows = read_delimited(content, how["separator"], how["encoding"], limits)
        if rows.is_empty():
            raise UpkeepError("it holds no rows", remedy="deliver it with rows below a line of column names")
        # Such as of the times of failures.
        is_list = rows.width == 1 and rows.columns[0].replace(" ", "_").isidentifier()
        is_row = all(NUMBER.fullmatch(column) for column in rows.columns) or holds_a_time(rows.columns)
        if is_row or (rows.width < 2 and not is_list):
            what = "it has no line of column names at its top, or another separator than , ; | tab or blank"
            raise UpkeepError(what, remedy="deliver it with both")
    rows = _clean_rows(name, rows)
    has_points = any(column.str.contains(POINT).any() for column in rows.iter_columns())
    decimal = written.get("decimal")
    signs = {"separator": how["separator"], "decimal": decimal or ("." if has_points else "")}
    told = signs if content.isascii() or find_unicode(content) else signs | {"encoding": how["encoding"]}
    gaps = find_gaps(rows, decimal)
    return Layout([name], blank_gaps(rows, gaps, decimal), {**written, **({"gaps": gaps} if gaps else {})}, told=told)


def _read_table(connection: sa.Connection, name: str, limits: Limits) -> pl.DataFrame:
    accept_any_value(connection)
    rows = sa.select(sa.text("*")).select_from(sa.table(name))
    count = connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one()
    half = MOST_ROWS // 2
    parts = [rows] if count <= MOST_ROWS else [rows.limit(half), rows.limit(half).offset(count - half)]
    results = [connection.execute(part) for part in parts]
    names = list(results[0].keys())
    check_columns(len(names), limits)
    fetched = (row for result in results for row in fetch_rows(result, limits))
    return _clean_rows(name, bound_values(as_frame(fetched, names), limits))


def _clean_rows(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows without broken lines, with lists and bytes as text; raises UpkeepError if a name is a pattern."""
    if special := [column for column in rows.columns if PATTERN.fullmatch(column)]:
        raise UpkeepError(f"a column of {name} is called {special[0]}", remedy="rename the column")
    rows = rows.filter(pl.col(BROKEN_LINE).is_null()).drop(BROKEN_LINE) if BROKEN_LINE in rows.columns else rows
    odd = [name for name, dtype in rows.schema.items() if dtype.is_nested() or dtype in (pl.Binary, pl.Duration)]
    return rows.with_columns(as_text(name, rows.schema[name]) for name in odd)


def _group(files: Iterable[Layout]) -> list[list[Layout]]:
    """Group files of the same table: similar columns, and names with the same kind of event, if any."""
    groups: list[tuple[set[str], str | None, list[Layout]]] = []
    for file in files:
        columns, kind = {*file.rows.columns}, kind_of(file.file_name)
        for known, of, alike in groups:
            if of == kind and len(columns & known) >= ALIKE * len(columns | known):
                alike.append(file)
                known |= columns
                break
        else:
            groups.append((columns, kind, [file]))
    return [alike for _, _, alike in groups]


def join_files(files: Sequence[Layout]) -> Layout:
    """Return the layout of all files of a table."""
    paths = [path for file in files for path in file.paths]
    places = [path.split("/") for path in paths]
    even = len({len(parts) for parts in places}) == 1
    columns = dict(enumerate(zip(*places, strict=True))) if even else {}
    called = {at: {name.rpartition("=")[0] for name in names} for at, names in columns.items()}
    keys = {f"{{{at}}}": of.pop() for at, of in called.items() if len(of) == 1 and of != {""}}
    varying = [at for at, names in columns.items() if len(set(names)) > 1 or f"{{{at}}}" in keys]
    facts = [{f"{{{at}}}": ENDING.sub("", parts[at]).rpartition("=")[2] for at in varying} for parts in places]
    told = zip(files, facts, strict=True)
    frames = [file.rows.with_columns(pl.lit(fact).alias(part) for part, fact in own.items()) for file, own in told]
    reading = {option: value for file in files for option, value in file.reading.items()}
    options = ("encoding", "separator", "decimal")
    shown = {option: {file.told.get(option, "") for file in files} - {""} for option in options}
    if len(shown["decimal"]) > 1:
        reading["decimal"], with_commas = ",", pl.col(pl.String).str.replace(POINT, "${1},${2}")
        pairs = zip(frames, files, strict=True)
        frames = [rows.with_columns(with_commas) if file.told.get("decimal") == "." else rows for rows, file in pairs]
    rows = stack_rows(frames)
    if gaps := {gap for file in files for gap in file.reading.get("gaps", ())}:
        reading["gaps"] = sorted(gaps)
    partial = {name for frame in frames for name in {*rows.columns} - {*frame.columns}}
    own = [file.reading for file in files] if any(len(values) > 1 for values in shown.values()) else []
    heights = [frame.height for frame in frames]
    return Layout(paths, rows, reading, frozenset(partial), facts, own=own, keys=keys, heights=heights)
