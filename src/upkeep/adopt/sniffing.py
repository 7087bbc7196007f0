"""How the text of a file is written: encoding, separator, decimal sign and marks of missing values."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from charset_normalizer import from_bytes

from upkeep.adopt.words import WORDS, names_one
from upkeep.contract.casting import LOCAL_NUMBERS, cast_column, cast_local, cast_truths
from upkeep.contract.dictionary import DECIMAL
from upkeep.core.types import Floats
from upkeep.sources.columns import blank_gaps
from upkeep.sources.delimited import find_header, find_unicode, is_comment, read_fields

SAMPLE_BYTES = 65_536  # of a file's beginning, by which separator and decimal sign are guessed
ENCODINGS = ["cp1252", "cp1250", "cp1251", "gb18030", "shift_jis", "euc_kr", "utf_16"]
"""Tried where the bytes are not UTF-8."""
FEW_LETTERS = 8  # beyond ASCII: so few do not show the encoding, which is then taken for cp1252, the commonest
SEPARATORS = ",;\t| "
USUAL = {"encoding": "utf-8", "separator": ","}  # how text is written unless an option says otherwise
ONE_TIME = re.compile(r'\s*("?\d[\d./-]+ \d{1,2}:\d\d\S*( [AP]M)?"?\s*)?')  # its blank separates no columns
SENTINEL = re.compile(r"(-9{3,6}|9{4,6}|65535|32767|-32768|6553[.,]5|3276[.,]7)([.,]0*)?")
LOWEST = -99  # number that may stand for missing values because it is the only negative one of several columns
EXTREME = 5.0  # widths of all other values that such a mark lies beyond them
NAMING = ("plant", "machine", "code")  # groups of words in names of columns whose values are names
RECURRING = 3  # times that a word stands among numbers which means a gap there
MANY_NUMBERS = 20  # distinct ones, among which words may stand more often than not `MOSTLY`
MOSTLY = 0.9  # share of numbers among a column's values that makes it one of numbers
EVEN = 0.8  # share of lines with as many columns as the header above which a separator is likely


def sniff_text(content: bytes) -> dict[str, str]:
    """Return the ``encoding``, ``separator`` and ``decimal`` of a CSV file, where they differ from :data:`USUAL`."""
    encoding = find_unicode(content) or _sniff_encoding(content)
    lines = content[:SAMPLE_BYTES].decode(encoding, errors="replace").removeprefix("\ufeff").splitlines()
    lines = (lines if len(content) <= SAMPLE_BYTES else lines[:-1] or lines)[:200]  # the last one may be cut off
    separator = max(SEPARATORS, key=lambda candidate: _score_separator(lines, candidate))
    if separator == " " and all(map(ONE_TIME.fullmatch, lines[1:])):
        separator = USUAL["separator"]
    fields = {value.strip() for line in lines[1:] for value in read_fields(line, separator) or ()}
    found = {"encoding": encoding, "separator": separator, "decimal": _sniff_decimal(fields, separator)}
    if find_unicode(content):
        del found["encoding"]  # each file is known by its beginning
    return {option: value for option, value in found.items() if value and value != USUAL.get(option)}


def _sniff_encoding(content: bytes) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        around = content[max(0, error.start - SAMPLE_BYTES) : error.start + SAMPLE_BYTES]
        tells = sum(byte > 127 for byte in around) > FEW_LETTERS
        best = from_bytes(around, cp_isolation=ENCODINGS).best() if tells else None
        return best.encoding if best else "cp1252"
    return "utf-8"


def _score_separator(lines: Sequence[str], separator: str) -> float:
    """Return a separator's score: the number of columns, if nearly all lines have as many as the header."""
    header = find_header(lines, separator) or 0
    above = [line for line in lines[:header] if not line.startswith("sep=") and not is_comment(line)]
    others = SEPARATORS.replace(separator, "").replace(" ", "")
    if any(mark in line for line in above for mark in others):  # as the header of a table has
        header = 0
    counts = [len(read_fields(line, separator) or ()) for line in lines[header:]] or [0]
    even = sum(count == counts[0] for count in counts) / len(counts)
    return counts[0] * even if counts[0] > 1 and even > EVEN else even - 1


def _sniff_decimal(fields: Iterable[str], separator: str) -> str | None:
    """Return the decimal sign if it is a comma, or a point where other marks group thousands."""
    signs = [{sign for sign, form in LOCAL_NUMBERS.items() if re.match(form, value)} for value in fields]
    commas, points = signs.count({","}), signs.count({"."})
    grouped = [
        value for value in fields if re.match(LOCAL_NUMBERS["."], value) and re.search(r"\d\D\d{3}(\D|$)", value)
    ]
    if commas > points or (commas == points and separator != "," and any("," in value for value in grouped)):
        return ","
    return "." if any(re.search(r"\d[^\d.eE]\d", value) for value in grouped) else None


def find_gaps(rows: pl.DataFrame, decimal: str | None) -> list[str]:
    """Return the texts for missing values in columns of numbers, with -999 and the like if far from the others.

    A gap is one in any column, so none is what a column of names or codes holds, or one whose other values are near.
    """
    odd = [gap for gap in WORDS["gaps"] if any((rows[name].str.strip_chars() == gap).any() for name in rows.columns)]
    blank = blank_gaps(rows, odd, decimal)
    numbers = read_numbers(blank, decimal)
    measured = [name for name in rows.columns if _is_measured(blank[name], numbers[name])]
    held, usual_too, words = set[str](), set[str](), set[str]()
    for name in measured:
        is_name = any(names_one(name, group) for group in NAMING)
        texts = rows[name].str.strip_chars()
        marks = {text for text in texts.unique().drop_nulls() if SENTINEL.fullmatch(text)}
        usual = numbers[name].filter(~texts.is_in(marks)).drop_nulls().to_numpy()
        far = {mark for mark in marks if not is_name and usual.size and _is_far(float(mark.replace(",", ".")), usual)}
        if usual.size:
            usual_too |= marks - far
        held |= far | {*texts.filter(blank[name].is_null()).drop_nulls()}
        if not is_name:
            words |= _list_words(texts.filter(numbers[name].is_null()))
    for name in rows.drop(measured).columns:
        words -= {*rows[name].str.strip_chars().unique()}
    return sorted((held - usual_too) | words | _find_lowest(numbers.select(measured)))


def _find_lowest(numbers: pl.DataFrame) -> set[str]:
    """Return what is the only negative number of several columns, recurs in them, and has none below it in others."""
    found = list[float]()
    for column in numbers.iter_columns():
        negative = column.filter(column < 0)
        is_one = negative.len() >= RECURRING and negative.n_unique() == 1 and column.n_unique() > MANY_NUMBERS
        found += [negative[0]] if is_one and negative[0] <= LOWEST and negative[0] % 1 == 0 else []
    lowest = {mark: all(column.min() == mark for column in numbers if (column == mark).any()) for mark in found}
    return {f"{mark:.0f}" for mark, is_lowest in lowest.items() if is_lowest and found.count(mark) > 1}


def _is_measured(texts: pl.Series, numbers: pl.Series) -> bool:
    """Tell whether texts are numbers but for a few, or for words that recur among more than as many numbers."""
    words = _list_words(texts.str.strip_chars().filter(numbers.is_null()))
    failing = texts.str.strip_chars().is_in(words).sum()
    often = numbers.n_unique() > MANY_NUMBERS and numbers.count() > failing
    return 0 < texts.count() - (failing if often else 0) <= numbers.count() / MOSTLY


def _list_words(texts: pl.Series) -> set[str]:
    """Return what recurs among texts and has no digit, as a historian's ``Bad Input`` and ``I/O Timeout`` do."""
    words = texts.filter(~texts.str.contains(r"\d")).value_counts(name="times").filter(pl.col("times") >= RECURRING)
    return {*words[texts.name]}


def _is_far(mark: float, usual: Floats) -> bool:
    """Tell whether a mark lies many widths of the usual values below or above them."""
    room = EXTREME * np.ptp(usual)
    return bool(mark < usual.min() - room or (mark > usual.max() + room and mark > EXTREME * usual.max()))


def read_numbers(rows: pl.DataFrame, decimal: str | None) -> pl.DataFrame:
    """Return all columns as numbers, text read with this decimal sign; null where a value is not a number."""
    casts = {name: cast_column(name, dtype, "number") for name, dtype in rows.schema.items()}
    if decimal:
        casts |= {name: cast_local(name, casts[name]) for name in casts if rows.schema[name] == pl.String}
    casts |= {name: cast_truths(name, casts[name]) for name in casts if rows.schema[name] == pl.String}
    marked = rows.with_columns(pl.lit(decimal).alias(DECIMAL))
    return marked.select(cast.value.alias(name) for name, cast in casts.items())
