"""Text for the terminal."""

from collections.abc import Sequence


def align_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a header and rows of as many cells as lines whose columns stand below each other."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
