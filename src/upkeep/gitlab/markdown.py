"""Untrusted text in GitLab's Markdown, so that it formats nothing, mentions nobody and commands nothing.

GitLab reacts to more than Markdown does: ``@all``, ``#1`` or ``~label`` anywhere, ``/merge`` on a line of its own, bare
addresses, HTML. It leaves code alone, so whatever is not plain words is shown as code.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import date

from upkeep.core.text import show_text
from upkeep.reporting.markdown import Markdown, format_names, format_table, format_value

MOST_CHARACTERS = 200  # of one name or message; the rest is cut off
MOST_LISTED = 50  # rows or reasons listed one by one; nobody reads more

# Signs are plain only where they can mean nothing: `_` within a word, `:` and `%` at its end or within a time.
PLAIN = re.compile(
    r"(?!.*www\.|\d+[.)](\s|\Z))[+-]?[^\W_]"
    r"([^\W_]|(?<=[^\W_])_+(?=[^\W_])|[ ,.;()'\"/=+-]|[:%](?![^\s,.;)])|(?<=\d):(?=\d))*",
    re.IGNORECASE,
)
ACTIVE = re.compile(r"[^\w\s,.;()'\"/=+-](?=\S)")
WORD_JOINER = "\N{WORD JOINER}"


def show(value: object) -> Markdown:
    """Return Markdown and plain words as they are, numbers and dates formatted, and anything else as code."""
    if value is None or isinstance(value, Markdown | int | float | date):
        return format_value(value)
    text = _shorten(value)
    return Markdown(text) if not text or PLAIN.fullmatch(text) else code(text)


def code(value: object) -> Markdown:
    """Return text as code on one line that nothing in it can end early."""
    text = re.sub(r"\\+(?=\|)", "", _shorten(value)).replace("`", "'")
    return Markdown(f"`{text or ' '}`")


def sentence(words: str, *values: object) -> Markdown:
    """Return trusted words with each ``{}`` replaced by a value as :func:`show` returns it."""
    return Markdown(words.format(*map(show, values)))


def inert(value: object) -> str:
    """Return text for a title or a commit's message, where code is no option: signs are parted from what follows."""
    return ACTIVE.sub(rf"\g<0>{WORD_JOINER}", _shorten(value))


def name_first(names: Iterable[str]) -> Markdown:
    """Return the first names, joined as in a sentence, and how many more there are."""
    return Markdown(format_names([*map(show, names)]))


def bullets(items: Sequence[object], most: int = MOST_LISTED, where: str = "") -> Markdown:
    """Return a list of the first items, and how many more there are `where`."""
    rest = [Markdown(f"… and {len(items) - most:,} more{where}")] if len(items) > most else []
    return Markdown("".join(f"- {show(item)}\n" for item in [*items[:most], *rest]))


def tabulate(header: Iterable[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """Return a table of the first rows, and how many more there are."""
    listed = [[show(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    rest = f"\n… and {len(listed) - MOST_LISTED:,} more.\n" if len(listed) > MOST_LISTED else ""
    return Markdown(format_table([*map(show, header)], listed[:MOST_LISTED]) + rest)


def _shorten(value: object) -> str:
    text = show_text(str(value)[: 2 * MOST_CHARACTERS])
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
