"""Delimited text such as CSV: each line but the header becomes one row, whatever is broken in it.

Lines are counted before anything is parsed, so that no quote can swallow the lines after it.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise

import polars as pl

from upkeep.contract.dictionary import BROKEN_LINE
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.sources import bounds

QUOTE = '"'
QUOTED = r'"[^"]*"'
BLANKS = " \t\r"
BOM = "\ufeff"  # the byte order mark; a file joined from several holds several, and their headers
BEGINNING = re.compile(
    rb"(?P<utf_32>\xff\xfe\0\0|\0\0\xfe\xff)|(?P<utf_16>\xff\xfe|\xfe\xff)|(?P<utf_32_le>[^\0]\0\0\0)"
    rb"|(?P<utf_32_be>\0\0\0[^\0])|(?P<utf_16_le>[^\0]\0)|(?P<utf_16_be>\0[^\0])"
)  # how text begins whose letters have two or four bytes, with or without a mark
VALUE = re.compile(r'["\s]*[+-]?\d')  # how numbers and times begin
AGAIN = " (again)"  # after a name that another column has
ANNOTATIONS = "#(?:group|datatype|default)"  # how InfluxDB begins the lines above each of a file's tables
MOST_ABOVE = 100  # lines above the header, at most
MOST_BELOW = 2  # lines of units and of meanings below the header
LINES_AT_ONCE = 10_000  # that are held as Python objects
SHOWN = 100  # characters that are kept of a line that is too long


def read_delimited(content: bytes, separator: str, encoding: str, limits: Limits) -> pl.DataFrame:
    """Read every value as text, so that a broken one reaches ``validate`` as it was delivered.

    A line that is not a row is kept whole in the column :data:`BROKEN_LINE`: one with more or fewer fields than the
    header, with a quote that is not closed on it, without any value, or that repeats the header. Below a line that
    names other columns its names count. Of a line that is longer than `limits` allow, the beginning and the length are
    kept.

    Raises UpkeepError if there are more columns or lines than `limits` allow.
    """
    line_ends = max(content.count(b"\n"), content.count(b"\r"))
    bounds.check_size(len(content) + bounds.VALUE_BYTES * line_ends, limits)
    # A byte that the encoding does not have stays visible, as \xfc.
    text = content.decode(find_unicode(content) or encoding, errors="backslashreplace")
    lines = _split_lines(text.removeprefix(BOM), separator)
    at = find_header(lines, separator)
    if at is None:
        return pl.DataFrame()
    above, header, lines = lines[:at], lines[at], lines[at + 1 :]
    begins = _begin_as_header(lines, header, separator)
    starts = [0, *_find_further_headers(lines, begins.arg_true(), header, separator), lines.len()]
    headers, longest = [header, *lines[starts[1:-1]]], 1000 * limits.value_kb
    parts = zip(pairwise(starts), headers, strict=True)
    read = [_read_lines(lines[at:to], begins[at:to], named, separator, limits) for (at, to), named in parts]
    rows = pl.concat([read[0], *(_respell(part, read[0].columns) for part in read[1:])], how="diagonal")
    if above.len():
        shown = [{BROKEN_LINE: _shorten(line, longest)} for line in above]
        rows = pl.concat([rows.clear(), pl.DataFrame(shown), rows], how="diagonal")
    unnamed = (name for name in rows.columns if not name.replace(AGAIN, ""))  # as separators at a line's end make
    return rows.drop([name for name in unnamed if rows[name].null_count() == rows.height])


def _begin_as_header(lines: pl.Series, header: str, separator: str) -> pl.Series:
    """Tell which lines begin with a column's name, in quotes or not, in whatever letters."""
    first, *others = (name.strip() for name in read_fields(header, separator) or header.split(separator))
    names = [first, *(name for name in others[:MOST_ABOVE] if name and not VALUE.match(name))]
    words = "|".join([*map(pl.escape_regex, names), ANNOTATIONS])
    return lines.str.contains(rf'(?i)^[{BOM}{BLANKS}]*"?(?:{words})"?[{BLANKS}]*(?:\x{ord(separator):02x}|$)')


def _find_further_headers(lines: pl.Series, numbers: Iterable[int], header: str, separator: str) -> list[int]:
    """Return which of the numbered lines name other columns than those so far, as where several files were joined."""
    named, found = _fold(read_fields(header, separator) or header.split(separator)), list[int]()
    for number in numbers:
        fields = _fold(read_fields(lines[number], separator) or ())
        is_header = len({*fields} & {*named}) > len(named) / 2 and not any(map(VALUE.match, fields)) and all(fields)
        if is_header and fields != named and (found or number >= MOST_BELOW):
            found.append(number)
            named = fields
    return found


def _respell(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return rows with their columns' names as they were spelt first."""
    spelt = dict(zip(_fold(rows.columns), rows.columns, strict=True))
    first = {spelt[folded]: name for name, folded in zip(columns, _fold(columns), strict=True) if folded in spelt}
    return rows.rename({theirs: name for theirs, name in first.items() if name not in rows})


def _read_lines(lines: pl.Series, begins: pl.Series, header: str, separator: str, limits: Limits) -> pl.DataFrame:
    """Return a row for each line below a header, in the order of the lines."""
    names, longest = _name_columns(header, separator, limits), 1000 * limits.value_kb
    bounds.check_size(bounds.VALUE_BYTES * len(lines) * len(names), limits)
    regular = _find_regular(lines, begins, separator, len(names)) & (lines.str.len_bytes() <= longest)
    rows = _parse_regular(lines.filter(regular), names, separator)
    if rows.height != regular.sum():  # Polars reads some line as none or several rows, so each is read by itself
        regular, rows = regular & False, rows.clear()
    if not regular.all():
        parts = lines.filter(~regular).to_frame().iter_slices(LINES_AT_ONCE)
        odd = [_parse_one_by_one(part["line"], header, names, separator, longest) for part in parts]
        place = pl.concat([regular.arg_true(), (~regular).arg_true()])
        rows = pl.concat([rows, *odd], how="diagonal")[place.arg_sort()]
    return rows


def find_header(lines: Iterable[str], separator: str) -> int | None:
    """Return the number of the line with the columns' names: the first with a separator, or else with any text.

    Lines above it, such as a title or a spreadsheet's ``sep=;``, are not rows. A line that begins with # is a remark,
    unless it is just above values and has as many fields. One with far fewer fields than most lines is a title.
    """
    written = [(number, line) for number, line in enumerate(islice(lines, MOST_ABOVE)) if line.strip(BLANKS)]
    fits = [(number, line) for number, line in written if separator in line and not line.startswith("sep=")]
    at = next((at for at, (_, line) in enumerate(fits) if not is_comment(line)), 0)
    if at and _names_the_columns_of(fits[at - 1][1], fits[at][1], separator):
        at -= 1
    at += _count_titles([line for _, line in fits[at:]], separator)
    return fits[at][0] if fits else written[0][0] if written else None


def _count_titles(lines: Sequence[str], separator: str) -> int:
    """Return how many lines stand above the first that has as many fields as most, if it may name the columns.

    They lack two fields at least, since a separator may end all lines but the header.
    """
    counts = [line.count(separator) for line in lines]
    usual, times = Counter(counts).most_common(1)[0] if counts else (0, 0)
    found = counts.index(usual) if times > len(counts) / 2 else 0
    names = lines[found].split(separator) if found else []
    may_name = len({*names, ""}) == usual + 2 and not any(map(VALUE.match, names))
    return found if may_name and max(counts[:found]) < usual - 1 else 0


def _names_the_columns_of(remark: str, line: str, separator: str) -> bool:
    """Tell whether a line that begins as a remark is the header of the next one, which holds values."""
    return remark.count(separator) == line.count(separator) and any(map(VALUE.match, line.split(separator)))


def is_comment(line: str) -> bool:
    """Tell whether a line above the rows begins as a remark does; the line of the columns' names may do so, too."""
    return line.lstrip(BLANKS).startswith("#")


def find_unicode(content: bytes) -> str | None:
    """Return the encoding by the mark at the beginning or a first letter of several bytes; None if neither is there."""
    beginning = BEGINNING.match(content)
    return beginning and beginning.lastgroup


def _split_lines(text: str, separator: str) -> pl.Series:
    r"""Return the lines; they end in ``\n``, in any ``\r`` before it, or in ``\r`` where a file has no ``\n``.

    Where a file has both, as when several were joined, a line that holds ``\r`` may be several, too.
    """
    if "\r" in text:
        text = text.replace("\r\r\n", "\n").replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")
    lines = pl.read_lines(text.encode(), name="line").to_series()
    holds_return = lines.str.contains("\r", literal=True)
    if not holds_return.any():
        return lines
    parts = lines.filter(holds_return).str.strip_chars_end("\r").str.split("\r")
    others = lines.filter(~holds_return) if not holds_return.all() else parts.explode()
    usual = others.str.count_matches(separator, literal=True).mode().max()
    # Most of the parts have as many fields as most lines where they are rows.
    is_row = pl.element().str.count_matches(separator, literal=True) == usual
    are_rows = parts.list.eval(is_row.mean() > 0.5).list.first() & (usual != 0)
    parted = lines.filter(holds_return).zip_with(~are_rows, parts.list.join("\n"))
    return lines.scatter(holds_return.arg_true(), parted).str.split("\n").explode()


def read_fields(line: str, separator: str) -> list[str] | None:
    """Return one line's fields, or None if a quote on it is unpaired or misplaced."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return None


def _name_columns(header: str, separator: str, limits: Limits) -> list[str]:
    """Return the header's names, made unique and distinct from :data:`BROKEN_LINE`."""
    if len(header) > 1000 * limits.value_kb:
        what = f"the header has {len(header):,} characters, more than limits.value_kb in params.yaml allows"
        raise UpkeepError(what, remedy="export the file again, with a line of column names at its top")
    names = read_fields(header, separator) or header.split(separator)
    bounds.check_columns(len(names), limits)
    bare = [name.strip() for name in names]
    names = [short if bare.count(short) == 1 else name for short, name in zip(bare, names, strict=True)]
    unique = dict.fromkeys([BROKEN_LINE])
    again: dict[str, str] = {}
    for name in names:
        called = again.get(name, name)
        while called in unique:
            called += AGAIN
        unique[called] = None
        again[name] = called
    return list(unique)[1:]


def _find_regular(lines: pl.Series, begins: pl.Series, separator: str, width: int) -> pl.Series:
    """Tell which lines certainly hold `width` fields; the others are parsed one by one.

    A header may be repeated with or without quotes, or in capitals: lines that begin as it does are such.
    """
    has_value = lines.str.strip_chars(BLANKS + separator) != ""
    bare, regular = lines, has_value & ~begins
    if lines.str.contains(QUOTE, literal=True).any():
        # A quoted stretch counts as one mark, which is regular only between separators; "" in it makes two marks.
        other = rf"[^{QUOTE}\x{ord(separator):02x}]"
        bare = lines.str.replace_all(QUOTED, QUOTE)
        regular &= lines.str.count_matches(QUOTE, literal=True) % 2 == 0
        regular &= ~bare.str.contains(f"{other}{QUOTE}|{QUOTE}{other}")
    return regular & (bare.str.count_matches(separator, literal=True) == width - 1)


def _parse_regular(lines: pl.Series, names: Sequence[str], separator: str) -> pl.DataFrame:
    schema = dict.fromkeys(names, pl.String())
    if lines.is_empty():
        return pl.DataFrame(schema=schema)
    content = lines.str.join("\n").item().encode()
    return pl.read_csv(content, separator=separator, has_header=False, schema=schema, glob=False)


def _parse_one_by_one(
    lines: Iterable[str], header: str, names: Sequence[str], separator: str, longest: int
) -> pl.DataFrame:
    rows: list[dict[str, str | None]] = []
    named = _fold(read_fields(header, separator) or header.split(separator))
    for line in lines:
        fields = read_fields(line, separator) if len(line) <= longest else None
        if fields and len(fields) == len(names) + 1 and not fields[-1]:  # a separator may end a line
            fields.pop()
        elif fields and len(fields) == len(names) - 1 and not names[-1]:  # or the header
            fields.append("")
        fits = fields and len(fields) == len(names) and _fold(fields) != named
        is_row = fields and fits and not re.fullmatch(ANNOTATIONS, fields[0])
        if fields and is_row and any(field.strip() for field in fields):
            rows.append({name: field or None for name, field in zip(names, fields, strict=True)})
        else:
            rows.append({BROKEN_LINE: _shorten(line, longest)})
    broken = {BROKEN_LINE: pl.String()} if any(BROKEN_LINE in row for row in rows) else {}
    return pl.DataFrame(rows, schema={**dict.fromkeys(names, pl.String()), **broken})


def _fold(fields: Iterable[str]) -> list[str]:
    return [field.strip(f"{BOM}{BLANKS}").casefold() for field in fields]


def _shorten(line: str, longest: int) -> str:
    return line if len(line) <= longest else f"{line[:SHOWN]}… ({len(line):,} characters)"
