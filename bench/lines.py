"""How much there is to read in ``src/``."""

from bench.measuring import ROOT, Row


def measure() -> list[Row]:
    """Return how many lines there are, with docstrings, comments and blank lines."""
    files = sorted((ROOT / "src/upkeep").rglob("*.py"))
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    return [Row("src/, all lines", lines, "lines", note=f"{len(files)} modules")]
