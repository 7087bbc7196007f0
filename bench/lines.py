"""How much there is to read in ``src/``."""

import ast
import io
import tokenize

from bench.measuring import ROOT, Row

SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def measure() -> list[Row]:
    """Return lines of code, without docstrings, comments and blank lines, and all lines."""
    texts = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "src/upkeep").rglob("*.py"))]
    note = f"{len(texts)} modules"
    return [
        Row("src/, lines of code", sum(len(_code_lines(text)) for text in texts), "lines", note=note),
        Row("src/, all lines", sum(len(text.splitlines()) for text in texts), "lines", note=note),
    ]


def _code_lines(text: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for token in tokens if token.type not in SILENT for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        # Also the string beneath an attribute, which documents it.
        body = node.body if isinstance(node, DOCUMENTED) else []
        for statement in body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                lines -= set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines
