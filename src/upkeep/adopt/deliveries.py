"""Look at files, or a database's tables: what holds the same table, how it is written, and its rows as delivered."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from os.path import commonprefix
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import polars as pl
import sqlalchemy as sa
from charset_normalizer import from_bytes
from sqlalchemy.exc import SQLAlchemyError

from upkeep.adopt.words import WORDS, is_kept, kind_of
from upkeep.contract.casting import LOCAL_NUMBERS, as_text, cast_column, cast_local
from upkeep.contract.dictionary import BROKEN_LINE, DECIMAL
from upkeep.core.addresses import open_address
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.core.params import Limits
from upkeep.core.secrets import VARIABLE, expand_variables
from upkeep.sources.bounds import bound_values, check_columns
from upkeep.sources.columns import blank_gaps
from upkeep.sources.delimited import find_header, find_unicode, read_delimited, read_fields
from upkeep.sources.file_options import TableFiles
from upkeep.sources.opening import ENDING, errors_named, read_content, read_parquet, unpack
from upkeep.sources.sql import accept_any_value, as_frame, fetch_chunks, open_engine, unreadable

SAMPLE_BYTES = 65_536  # of a file's beginning; they tell how its text is written
ENCODINGS = ["cp1252", "cp1250", "cp1251", "gb18030", "shift_jis", "euc_kr", "utf_16"]
"""Tried where the bytes are no UTF-8."""
FEW_LETTERS = 8  # so few beyond ASCII do not tell an encoding, and are taken for cp1252, the commonest
SEPARATORS = ",;\t| "
USUAL = {"encoding": "utf-8", "separator": ","}  # how text is written unless an option says otherwise
NUMBER = re.compile(r"\s*[+-]?[\d.,eE+-]*( \(again\))*\s*")
SPECIAL = re.compile(r"[{}*?$]|::")  # in a path of `params.yaml` these mean something
PATTERN = re.compile(r"\*|\^.*\$")  # a column of such a name is a pattern of names to Polars
MOST_ROWS = 200_000
"""Read of a database's table: half of them its first, half its last in the order that the database gives."""
SENTINEL = re.compile(r"-9{3,6}([.,]0*)?")
EXTREME = 5.0  # times the width of all others that such a mark lies below them
MOSTLY = 0.9  # share of a column's values that make it one of numbers
ALIKE = 0.8  # share of common columns from which two files hold the same table


@dataclass(frozen=True)
class Layout:
    """Files that hold one table, or a database's table.

    `rows` are as delivered, of CSV files as text. For several files, columns such as ``{0}`` hold the parts of their
    addresses that differ, which `facts` has for each of `paths`, without what stands `around` the telling text.
    `reading` has the options of the source ``files`` that tell how their text is written; `partial` the columns that
    only some of the files have.
    """

    paths: list[str]
    rows: pl.DataFrame
    reading: dict[str, Any] = field(default_factory=dict)
    partial: frozenset[str] = frozenset()
    facts: list[dict[str, str]] = field(default_factory=list)
    around: dict[str, tuple[str, str]] = field(default_factory=dict)

    def trimmed(self, part: str, before: str, after: str) -> "Layout":
        """Return the layout without what stands before and after the telling text in this part of all addresses."""
        rows = self.rows.with_columns(pl.col(part).str.strip_prefix(before).str.strip_suffix(after))
        facts = [{**fact, part: fact[part].removeprefix(before).removesuffix(after)} for fact in self.facts]
        return replace(self, rows=rows, facts=facts, around={**self.around, part: (before, after)})

    @property
    def name(self) -> str:
        """What the user knows it by."""
        first = shorten(self.paths[0])
        return first if len(self.paths) == 1 else f"{first} and {len(self.paths) - 1} more"

    @property
    def file_name(self) -> str:
        """What the first file is called in its folder, or what the database's table is."""
        return self.paths[0].rpartition("/")[2]


def look_at_files(places: Sequence[str], limits: Limits) -> tuple[list[Layout], list[str]]:
    """Return the tables that files hold, and what to say about those that hold none.

    Raises UpkeepError if there is no such place, or no file that can be read.
    """
    listed = {name: (place, path) for place in places for name, path in _list_files(place).items()}
    files, notes = list[Layout](), list[str]()
    for name, (place, path) in sorted(listed.items()):
        try:
            files.append(_read_file(name, place, path, limits))
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
    return [_join_files(group) for group in _group(files)], notes


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


def sniff_text(content: bytes) -> dict[str, str]:
    """Return how a CSV file is written, where that is not as usual: ``encoding``, ``separator``, ``decimal``."""
    encoding = find_unicode(content) or _sniff_encoding(content)
    lines = content[:SAMPLE_BYTES].decode(encoding, errors="replace").removeprefix("\ufeff").splitlines()
    lines = (lines if len(content) <= SAMPLE_BYTES else lines[:-1] or lines)[:200]  # the last one may be cut off
    separator = max(SEPARATORS, key=lambda candidate: _evenness(lines, candidate))
    fields = {value.strip() for line in lines[1:] for value in read_fields(line, separator) or ()}
    found = {"encoding": encoding, "separator": separator, "decimal": _sniff_decimal(fields, separator)}
    return {option: value for option, value in found.items() if value and value != USUAL.get(option)}


def _sniff_decimal(fields: Iterable[str], separator: str) -> str | None:
    """Return the decimal sign of numbers if it is a comma, or a point beside marks that group thousands."""
    signs = [{sign for sign, form in LOCAL_NUMBERS.items() if re.match(form, value)} for value in fields]
    commas, points = signs.count({","}), signs.count({"."})
    grouped = [
        value for value in fields if re.match(LOCAL_NUMBERS["."], value) and re.search(r"\d\D\d{3}(\D|$)", value)
    ]
    if commas > points or (commas == points and separator != "," and any("," in value for value in grouped)):
        return ","
    return "." if any(re.search(r"\d[^\d.eE]\d", value) for value in grouped) else None


def pattern_of(paths: Sequence[str], placeholders: Mapping[str, str], others: Iterable[str]) -> str | None:
    """Return an address with ``*``, ``{plant}`` and ``{machine}`` that matches these paths; None if it matches others.

    `placeholders` tells what stands for which of the columns ``{0}``, ``{1}`` of :class:`Layout`.
    """
    places = [path.split("/") for path in paths]
    if len({len(parts) for parts in places}) == 1:
        columns = enumerate(zip(*places, strict=True))
        pattern = "/".join(_segment(names, placeholders.get(f"{{{at}}}")) for at, names in columns)
    else:
        start = _common_start(paths)
        pattern = f"{start[: start.rfind('/') + 1]}**/*{_common_ending([parts[-1] for parts in places])}"
    glob = re.sub(r"\{\w+\}", "*", pattern.replace("[", "[[]"))
    return None if any(fnmatchcase(other, glob) for other in others) else pattern


def _segment(names: Sequence[str], placeholder: str | None) -> str:
    """Return what matches all these names of files or folders."""
    first = names[0]
    if len(set(names)) == 1:
        return first
    if placeholder:
        ending = ENDING.search(first)
        return f"{''.join(first.rpartition('=')[:2])}{placeholder}{ending[0] if ending else ''}"
    before = re.sub(r"[^a-zA-Z]+$", "", _common_start(names))  # a year or a number may grow
    return f"{before}*{_common_ending(names)}"


def _common_ending(names: Sequence[str]) -> str:
    ending = _common_start([name[::-1] for name in names])[::-1]
    return ending[max(ending.find("."), 0) :]


def _common_start(names: Sequence[str]) -> str:
    return commonprefix(names)  # noqa: RUF071  # sign by sign


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
    if not ENDING.search(name):
        raise UpkeepError("it is neither CSV nor Parquet", remedy="export its table as CSV", file=name)
    if SPECIAL.search(name) or not name.isprintable():
        what = "its name holds one of {}*?$, :: or a sign that cannot be printed, which mean something in a path"
        raise UpkeepError(what, remedy="rename it", file=name)
    with errors_named(reading, file=name):
        content, is_text = unpack(read_content(reading, path, limits), path, limits)
        if not is_text:
            return Layout([name], _hold_rows(name, read_parquet(content, limits)))
        written = sniff_text(content)
        how = USUAL | written
        rows = read_delimited(content, how["separator"], how["encoding"], limits)
        if rows.is_empty():
            raise UpkeepError("it holds no rows", remedy="deliver it with rows below a line of column names")
        if rows.width < 2 or all(NUMBER.fullmatch(column) for column in rows.columns):
            what = "it has no line of column names at its top, or another separator than , ; | tab or blank"
            raise UpkeepError(what, remedy="deliver it with both")
    rows = _hold_rows(name, rows)
    if gaps := _find_gaps(rows, written.get("decimal")):
        return Layout([name], blank_gaps(rows, gaps), {**written, "gaps": gaps})
    return Layout([name], rows, written)


def _find_gaps(rows: pl.DataFrame, decimal: str | None) -> list[str]:
    """Return the words for no value that stand in columns of numbers, and -999 and its like far below the others."""
    odd = [gap for gap in WORDS["gaps"] if any((rows[name].str.strip_chars() == gap).any() for name in rows.columns)]
    blank = blank_gaps(rows, odd)
    numbers = read_numbers(blank, decimal)
    measured = [name for name in rows.columns if 0 < blank[name].count() <= numbers[name].count() / MOSTLY]
    held = set[str]()
    for name in measured:
        texts = rows[name].str.strip_chars()
        marks = {text for text in texts.unique().drop_nulls() if SENTINEL.fullmatch(text)}
        usual = numbers[name].filter(~texts.is_in(marks)).drop_nulls().to_numpy()
        far = {mark for mark in marks if usual.size and float(mark) < usual.min() - EXTREME * np.ptp(usual)}
        held |= far | {*texts.filter(blank[name].is_null()).drop_nulls()}
    return sorted(held)


def read_numbers(rows: pl.DataFrame, decimal: str | None) -> pl.DataFrame:
    """Return all columns as numbers, those in text with this decimal sign; null where a value is none."""
    casts = {name: cast_column(name, dtype, "number") for name, dtype in rows.schema.items()}
    if decimal:
        casts |= {name: cast_local(name, casts[name]) for name in casts if rows.schema[name] == pl.String}
    marked = rows.with_columns(pl.lit(decimal).alias(DECIMAL))
    return marked.select(cast.value.alias(name) for name, cast in casts.items())


def _read_table(connection: sa.Connection, name: str, limits: Limits) -> pl.DataFrame:
    accept_any_value(connection)
    rows = sa.select(sa.text("*")).select_from(sa.table(name))
    count = connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one()
    half = MOST_ROWS // 2
    parts = [rows] if count <= MOST_ROWS else [rows.limit(half), rows.limit(half).offset(count - half)]
    results = [connection.execute(part) for part in parts]
    names = list(results[0].keys())
    check_columns(len(names), limits)
    chunks = (chunk for result in results for chunk in fetch_chunks(result, limits))
    return _hold_rows(name, bound_values(as_frame(chunks, names), limits))


def _hold_rows(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows as delivered but for broken lines, lists and bytes in them as text.

    Raises UpkeepError if a column's name would be taken for a pattern.
    """
    if special := [column for column in rows.columns if PATTERN.fullmatch(column)]:
        raise UpkeepError(f"a column of {name} is called {special[0]}", remedy="rename the column")
    rows = rows.filter(pl.col(BROKEN_LINE).is_null()).drop(BROKEN_LINE) if BROKEN_LINE in rows.columns else rows
    odd = [name for name, dtype in rows.schema.items() if dtype.is_nested() or dtype in (pl.Binary, pl.Duration)]
    return rows.with_columns(as_text(name, rows.schema[name]) for name in odd)


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
    """Return a score for a separator: columns, if nearly all lines have as many as the header."""
    header = find_header(lines, separator) or 0
    above = [line for line in lines[:header] if not line.startswith("sep=")]
    if any(mark in line for line in above for mark in SEPARATORS.strip(" ")):  # as a header of its own has
        header = 0
    counts = [len(read_fields(line, separator) or ()) for line in lines[header:]] or [0]
    even = sum(count == counts[0] for count in counts) / len(counts)
    return counts[0] * even if counts[0] > 1 and even > ALIKE else even - 1


def _group(files: Iterable[Layout]) -> list[list[Layout]]:
    """Return files that hold the same table: like columns, and the same word for what happened, if any."""
    groups: list[tuple[set[str], tuple[object, ...], list[Layout]]] = []
    for file in files:
        columns, written = {*file.rows.columns}, (file.reading.get("separator"), kind_of(file.file_name))
        for known, how, alike in groups:
            if how == written and len(columns & known) >= ALIKE * len(columns | known):
                alike.append(file)
                known |= columns
                break
        else:
            groups.append((columns, written, [file]))
    return [alike for _, _, alike in groups]


def _join_files(files: Sequence[Layout]) -> Layout:
    """Return files of one table as such."""
    paths = [path for file in files for path in file.paths]
    places = [path.split("/") for path in paths]
    even = len({len(parts) for parts in places}) == 1
    varying = [at for at, same in enumerate(zip(*places, strict=False)) if even and len(set(same)) > 1]
    facts = [{f"{{{at}}}": ENDING.sub("", parts[at]).rpartition("=")[2] for at in varying} for parts in places]
    told = zip(files, facts, strict=True)
    frames = [file.rows.with_columns(pl.lit(fact).alias(part) for part, fact in own.items()) for file, own in told]
    rows = pl.concat(frames, how="diagonal_relaxed")
    reading = {option: value for file in files for option, value in file.reading.items()}
    if gaps := {gap for file in files for gap in file.reading.get("gaps", ())}:
        reading["gaps"] = sorted(gaps)
    partial = {name for frame in frames for name in {*rows.columns} - {*frame.columns}}
    return Layout(paths, rows, reading, frozenset(partial), facts)
