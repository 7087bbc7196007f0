"""Text for people: what a name may look like in a terminal, in Markdown and in HTML, and which name was meant."""

import re
import shlex
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from difflib import get_close_matches

from upkeep.core.names import UNSEEN, spell_out

MEND = "mend the source"  # what a remedy says where a delivery is at fault, until it is known what to type after that
BACKSLASH = "\x00"  # stands for one while others are added; `show_text` leaves none

STEERING = re.compile(rf"(?!\s)(?:{UNSEEN})")
"""What steers a terminal, turns the text after it around, or is no character at all; white space is none of it."""

# An underscore within a word formats nothing, and names of columns are full of them.
FORMATTING = re.compile(
    r"[`*\[\]<|~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w)|:(?=//)|(?<=[wW]{3})\."  # spans, HTML, cells, entities, links
    r"|\A[#>=:/]|\A[-+](?![\d.])|@(?=\w)|#(?=\w|#*\Z)|!(?=\d)|%(?=[\w\"])|(?<![\w:]):(?=[\w+-]+:)"
)
"""What Markdown takes for more than a character, and GitLab for a command, a mention, a reference or an emoji."""

LIST_NUMBER = re.compile(r"\A(\d{1,9})([.)])(?=\s|\Z)")


def show_text(text: object) -> str:
    """Return text on one line, each white space in it a blank; what nobody would see is shown as its code."""
    return STEERING.sub(spell_out, " ".join(str(text).split()))


def show_lines(text: object) -> str:
    """Return text for a job's log or a terminal, line by line, which it cannot steer: its blanks stay."""
    return "\n".join(STEERING.sub(spell_out, line) for line in str(text).splitlines())


def escape_markdown(text: object) -> str:
    """Return text as Markdown that shows it, on one line, and does nothing else.

    Names come from whoever delivers data, and reports are published: a name must not become a link, a picture, a
    script, a heading, another cell of a table, or a mention or a command in a note on GitLab. Text that is put into
    HTML is escaped by the templates that it is put into.
    """
    shown = show_text(text).replace("\\", BACKSLASH)
    return LIST_NUMBER.sub(r"\1\\\2", FORMATTING.sub(r"\\\g<0>", shown)).replace(BACKSLASH, "&#92;")


def count_things(number: int, thing: str) -> str:
    """Return a number and the noun that it counts, in the plural where it takes one."""
    plural = "" if number == 1 else "es" if thing.endswith("ch") else "s"
    return f"{number:,} {thing}{plural}"


def name_apart(name: str, taken: Container[str]) -> str:
    """Return a name that is none of those taken: this one, or this one in brackets."""
    while name in taken:
        name = f"({name})"
    return name


def align_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a header and rows of as many cells as lines whose columns stand below each other."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def align_rows(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows, of which there is one at least, as :func:`align_columns` does; each cell has its column's name."""
    return align_columns([*rows[0]], [[*row.values()] for row in rows])


def command_to_read_again(plant: str | None = None, batch: object = None, *, drop_vanished: bool = False) -> str:
    """Return what to type once stored batches were mended in the source: all of them, a plant's, or one batch."""
    options = {"--plant": plant, "--batch": batch}
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    words += ["--drop-vanished"] * drop_vanished
    return f"`{shlex.join(['upkeep', 'fetch', '--again', *words])}`, then `dvc repro`"


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return which of the names was probably meant: one with the same numbers, spelt much alike, such as 1 for M-001.

    Case, zeros in front of numbers or behind their point and signs make no difference.
    """
    letters, numbers = _part_digits(name)
    alike = {_part_digits(other)[0]: other for other in sorted(names) if _part_digits(other)[1] == numbers}
    if numbers and len(alike) == 1 and "" in (letters, *alike):
        return next(iter(alike.values()))
    close = get_close_matches(letters, alike, n=1, cutoff=0.75)
    return alike[close[0]] if close else None


def _part_digits(name: str) -> tuple[str, list[str]]:
    name = re.sub(r"\.0+$", "", unicodedata.normalize("NFKC", name))
    numbers = [number.lstrip("0") for number in re.findall(r"\d+", name)]
    return re.sub(r"[\W\d_]+", "", name).casefold(), numbers
