"""Tables in Markdown, as the model card and the notebooks show them."""

from collections.abc import Iterable, Sequence
from datetime import date

UNKNOWN = "not known"


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; columns of numbers are aligned right.

    Parameters
    ----------
    header
        Names of the columns, shape (n_columns,); underscores become spaces.
    rows
        Each of shape (n_columns,). Text is taken as it is, numbers get thousands separators, None is "not known".
    """
    body = [list(row) for row in rows]
    columns = zip(*body, strict=True) if body else [()] * len(header)
    lines = [[name.replace("_", " ") for name in header], ["--:" if _is_numeric(cells) else ":--" for cells in columns]]
    lines += [[format_value(value).replace("|", "\\|") for value in row] for row in body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _is_numeric(cells: Iterable[object]) -> bool:
    return all(cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells)


def format_value(value: object) -> str:
    """Return a value as a reader expects it: 12,345 and 0.917."""
    match value:
        case None:
            return UNKNOWN
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        case int():
            return f"{value:,}"
        case date():
            return value.isoformat()
    return str(value)


def format_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """Return a metric with its interval: ``0.71 (0.62 to 0.80)``."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
