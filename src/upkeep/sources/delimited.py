"""CSV and its kin, read line by line: each line but the header becomes one row, whatever is broken in it.

Lines are counted before anything is parsed, so that no quote can swallow the lines after it.
"""

import codecs
import csv
from collections.abc import Sequence
from itertools import compress

import polars as pl

from upkeep.contract.dictionary import BROKEN_LINE

QUOTE = '"'
QUOTED = r'"[^"]*"'
BLANKS = " \t\r"
BOM = "\ufeff"
"""The byte order mark; files that are joined into one bring it and their headers along."""


def read_delimited(content: bytes, separator: str, encoding: str) -> pl.DataFrame:
    """Read every value as text, so that a broken one reaches ``validate`` as it was delivered.

    A line that is no row of its own is kept whole in the column :data:`BROKEN_LINE`: one with more or fewer fields than
    the header, with a quote that is not closed on it, without any value, or that repeats the header.
    """
    lines = _split_lines(_decode(content, encoding))
    at = next((number for number, line in enumerate(lines) if line.strip(BLANKS)), None)
    if at is None:
        return pl.DataFrame()
    header = lines.pop(at)
    names = _name_columns(_read_fields(header, separator) or header.split(separator))
    regular = _find_regular(lines, header, separator, len(names))
    rows = _parse_regular(list(compress(lines, regular)), names, separator)
    if rows.height != regular.sum():  # Polars takes some line for another number of rows, so each is read by itself
        regular, rows = regular & False, rows.clear()
    odd = _parse_one_by_one(list(compress(lines, ~regular)), header, names, separator)
    place = pl.concat([regular.arg_true(), (~regular).arg_true()])
    rows = pl.concat([rows, odd], how="diagonal")[place.arg_sort()]
    return rows.drop("") if "" in names and rows[""].null_count() == rows.height else rows


def _decode(content: bytes, encoding: str) -> str:
    r"""Return the content as text; a byte that the encoding does not have stays visible, as ``\xfc``."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    return content.decode(encoding, errors="backslashreplace").removeprefix(BOM)


def _split_lines(text: str) -> list[str]:
    r"""Return the lines; they end in ``\n``, in any ``\r`` before it, or in ``\r`` where a file has no ``\n``."""
    if "\r" in text:
        text = text.replace("\r\r\n", "\n").replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _read_fields(line: str, separator: str) -> list[str] | None:
    """Return one line's fields, or None if a quote on it has no partner or stands where none may."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return None


def _name_columns(names: Sequence[str]) -> list[str]:
    """Tell columns of the same name apart, and from :data:`BROKEN_LINE`."""
    unique = [BROKEN_LINE]
    for name in names:
        while name in unique:
            name += " (again)"
        unique.append(name)
    return unique[1:]


def _find_regular(lines: Sequence[str], header: str, separator: str, width: int) -> pl.Series:
    """Tell which lines hold `width` fields beyond doubt; the others are looked at one by one."""
    line = pl.col("line")
    quoted = line.str.contains(QUOTE, literal=True)
    frame = pl.DataFrame({"line": lines}, schema={"line": pl.String})
    if frame.select(quoted.any()).item():
        # A quoted stretch counts as one mark, which is regular only between separators; "" in it makes two marks.
        other = rf"[^{QUOTE}\x{ord(separator):02x}]"
        bare = line.str.replace_all(QUOTED, QUOTE)
        paired = line.str.count_matches(QUOTE, literal=True) % 2 == 0
        paired &= ~bare.str.contains(f"{other}{QUOTE}|{QUOTE}{other}")
    else:
        bare, paired = line, pl.lit(True)
    has_width = bare.str.count_matches(separator, literal=True) == width - 1
    has_value = line.str.strip_chars(BLANKS + separator) != ""
    return frame.select(
        (paired & has_width & has_value & (line.str.strip_chars_start(BOM) != header)).alias("regular")
    ).to_series()


def _parse_regular(lines: Sequence[str], names: Sequence[str], separator: str) -> pl.DataFrame:
    schema = dict.fromkeys(names, pl.String())
    if not lines:
        return pl.DataFrame(schema=schema)
    content = "\n".join(lines).encode()
    return pl.read_csv(content, separator=separator, has_header=False, schema=schema, glob=False)


def _parse_one_by_one(lines: Sequence[str], header: str, names: Sequence[str], separator: str) -> pl.DataFrame:
    rows: list[dict[str, str | None]] = []
    for line in lines:
        fields = _read_fields(line, separator)
        if fields and len(fields) == len(names) + 1 and not fields[-1]:  # a separator may end a line
            fields.pop()
        elif fields and len(fields) == len(names) - 1 and not names[-1]:  # or the header
            fields.append("")
        fits = fields and len(fields) == len(names) and line.lstrip(BOM) != header
        if fields and fits and any(field.strip() for field in fields):
            rows.append({name: field or None for name, field in zip(names, fields, strict=True)})
        else:
            rows.append({BROKEN_LINE: line})
    broken = {BROKEN_LINE: pl.String()} if any(BROKEN_LINE in row for row in rows) else {}
    return pl.DataFrame(rows, schema={**dict.fromkeys(names, pl.String()), **broken})
