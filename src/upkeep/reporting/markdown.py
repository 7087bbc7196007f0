"""Values, lists and tables in Markdown; whatever is not Markdown already is escaped."""

import re
from collections.abc import Iterable, Sequence
from datetime import date

from upkeep.core.text import escape_markdown, show_text

UNKNOWN = "not known"
MOST_NAMES = 6

TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
BARE_PIPE = re.compile(r"(?<!\\)\|")


class Markdown(str):
    """Text that is Markdown already, and so is not escaped."""

    __slots__ = ()


def format_value(value: object) -> Markdown:
    """Return a value as a reader expects it: 12,345 and 0.917; None is "not known", and text is escaped."""
    match value:
        case Markdown():
            return value
        case None:
            return Markdown(UNKNOWN)
        case bool():
            return Markdown("yes" if value else "no")
        case float():
            return Markdown(f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}")
        case int():
            return Markdown(f"{value:,}")
        case date():
            return Markdown(value.isoformat())
    return Markdown(escape_markdown(value))


def format_known(form: str, value: float | None) -> str:
    """Return a number in a form such as ``{:.0%}``; None is "not known"."""
    return UNKNOWN if value is None else form.format(value)


def find_title(text: str, default: str) -> str:
    """Return the first heading of the first level, `default` if there is none."""
    found = TITLE.search(text)
    return found[1] if found else default


def format_names(names: Sequence[str]) -> str:
    """Return names as part of a sentence, the first few of many: ``lyon, porto and 3 more``."""
    listed = [*names] if len(names) <= MOST_NAMES else [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    return f"{', '.join(listed[:-1])} and {listed[-1]}" if len(listed) > 1 else "".join(listed)


def format_interval(value: float | None, interval: Sequence[float] | None, form: str = "{:.2f}") -> str:
    """Return a metric with its interval: ``0.71 (0.62 to 0.80)``."""
    ends = f" ({' to '.join(map(form.format, interval))})" if interval and value is not None else ""
    return format_known(form, value) + ends


def format_code(text: object) -> Markdown:
    """Return text as code on one line, within which it can neither mention people nor be formatted."""
    shown = show_text(text).replace("`", "'")
    if not shown or "|" in shown:  # within backticks there is no way to write either in a cell
        return Markdown(f"<code>{escape_markdown(shown)}</code>")
    return Markdown(f"`{shown}`")


def format_list(items: Iterable[object]) -> Markdown:
    """Return a bulleted list."""
    return Markdown("".join(f"- {_on_one_line(item)}\n" for item in items))


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """Return a table in Markdown: underscores in its header are spaces, columns of numbers are aligned right.

    Header and rows are of shape (n_columns,); :func:`format_value` writes the cells.
    """
    body = [list(row) for row in rows]
    columns = zip(*body, strict=True) if body else [()] * len(header)
    lines = [
        [_write_cell(name.replace("_", " ")) for name in header],
        ["--:" if _is_numeric(cells) else ":--" for cells in columns],
        *([_write_cell(value) for value in row] for row in body),
    ]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")


def _is_numeric(cells: Iterable[object]) -> bool:
    return all(cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells)


def _write_cell(value: object) -> str:
    return BARE_PIPE.sub(r"\|", _on_one_line(value))


def _on_one_line(value: object) -> str:
    return " ".join(format_value(value).splitlines())
