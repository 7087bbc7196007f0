"""Text for people: safe in a terminal and in Markdown, aligned in columns, and the name that was probably meant."""

import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from upkeep.core.names import UNSEEN, spell_out

MEND = "mend the source"  # in remedies; callers that know what to type afterwards add it
ALIKE = "are spelt alike but for case, zeros, punctuation or encoding: if they are one, give it one name everywhere"
BACKSLASH = "\x00"  # stands for a backslash while others are added; `show_text` leaves no such character

STEERING = re.compile(rf"(?!\s)(?:{UNSEEN})")
"""Characters that control a terminal or the direction of text, and non-characters; white space is not among them."""

# An underscore within a word formats nothing, and names of columns are full of them.
FORMATTING = re.compile(
    r"[`*\[\]<|~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w)|:(?=//)|(?<=[wW]{3})\."  # spans, HTML, cells, entities, links
    r"|\A[#>=:/]|\A[-+](?![\d.])|@(?=\w)|#(?=\w|#*\Z)|!(?=\d)|%(?=[\w\"])|(?<![\w:]):(?=[\w+-]+:)"
)
"""Characters that mean something to Markdown, or begin a command, mention, reference or emoji on GitLab."""

LIST_NUMBER = re.compile(r"\A(\d{1,9})([.)])(?=\s|\Z)")


def show_text(text: object) -> str:
    """Return text on one line, with single blanks, and unprintable characters as escape sequences."""
    return STEERING.sub(spell_out, " ".join(str(text).split()))


def show_lines(text: object) -> str:
    """Return lines of text that cannot control a terminal or a job's log; their blanks stay."""
    return "\n".join(STEERING.sub(spell_out, line) for line in str(text).splitlines())


def escape_markdown(text: object) -> str:
    """Return Markdown that shows the text on one line and does nothing else.

    Names come from whoever delivers data, and reports are published: a name must not become a link, a picture, a
    script, a heading, another cell of a table, or a mention or command in a note on GitLab. HTML is escaped by its
    templates.
    """
    shown = show_text(text).replace("\\", BACKSLASH)
    return LIST_NUMBER.sub(r"\1\\\2", FORMATTING.sub(r"\\\g<0>", shown)).replace(BACKSLASH, "&#92;")


def count_things(number: int, thing: str) -> str:
    """Return a number with the noun that it counts, in the plural if need be."""
    plural = "" if number == 1 else "es" if thing.endswith("ch") else "s"
    return f"{number:,} {thing}{plural}"


def align_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a header and its rows as lines with aligned columns."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def align_rows(rows: Sequence[Mapping[str, str]]) -> str:
    """Return one or more rows, each a mapping by column, as :func:`align_columns` does."""
    return align_columns([*rows[0]], [[*row.values()] for row in rows])


def command_to_read_again(plant: str | None = None, batch: object = None, *, drop_vanished: bool = False) -> str:
    """Return the commands that read stored batches again once the source is mended: all, a plant's, or one."""
    options = {"--plant": plant, "--batch": batch}
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    words += ["--drop-vanished"] * drop_vanished
    return f"`{shlex.join(['upkeep', 'fetch', '--again', *words])}`, then `dvc repro`"


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant: one with the same numbers and a similar spelling, such as 1 for M-001.

    Case, leading zeros, a trailing .0 and punctuation make no difference.
    """
    letters, numbers = part_digits(name)
    alike = {part_digits(other)[0]: other for other in sorted(names) if part_digits(other)[1] == numbers}
    if numbers and len(alike) == 1 and "" in (letters, *alike):
        return next(iter(alike.values()))
    close = get_close_matches(letters, alike, n=1, cutoff=0.75)
    return alike[close[0]] if close else None


def pair_alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of names that differ in case, leading zeros, punctuation or how letters are encoded only."""
    known: dict[tuple[str, ...], str] = {}
    for name in sorted(names):
        letters, numbers = part_digits(name)
        first = known.setdefault((letters, *numbers), name)
        if first != name and (letters or numbers):
            yield first, name


def look_alike(name: str, other: str) -> bool:
    """Tell whether names differ only in how letters are encoded, or in characters that cannot be seen."""
    seen = (unicodedata.normalize("NFC", "".join(filter(_is_seen, text))) for text in (name, other))
    return name != other and len({*seen}) == 1


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) != "Cf"  # such as a zero-width space


def tell_apart(name: str, other: str) -> tuple[str, str]:
    """Return two names as messages show them side by side: with escape sequences if they look alike otherwise."""
    return (ascii(name)[1:-1], ascii(other)[1:-1]) if look_alike(name, other) else (name, other)


def part_digits(name: str) -> tuple[str, list[str]]:
    """Return what is left of a name in its letters and numbers where spelling makes no difference."""
    name = re.sub(r"\.0+$", "", unicodedata.normalize("NFKC", name))
    numbers = [number.lstrip("0") for number in re.findall(r"\d+", name)]
    return re.sub(r"[\W\d_]+", "", name).casefold(), numbers
