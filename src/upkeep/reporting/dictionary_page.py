"""The data dictionary as a page that people read, ``docs/data_dictionary.md``; its words are in ``templates/``."""

from collections.abc import Iterator, Mapping

from upkeep.contract.dictionary import Column, Dictionary, Unit
from upkeep.reporting.markdown import Markdown, format_code, format_value
from upkeep.reporting.templates import render_markdown


def dictionary_page(dictionary: Dictionary, source: str = "data/references/dictionary.yaml") -> str:
    """Return the page in Markdown: a section per table, then one per plant that differs; `source` is named in it."""
    return render_markdown("data_dictionary.md", dictionary=dictionary, source=source, rows=_describe_columns)


def _describe_columns(columns: Mapping[str, Column]) -> Iterator[list[object]]:
    for name, column in columns.items():
        yield [
            format_code(name),
            column.meaning,
            column.unit or "",
            column.type,
            column.role,
            _describe_allowed(column),
            column.required,
            Markdown("; ".join(_describe_unit(unit, other) for unit, other in column.also.items())),
        ]


def _describe_allowed(column: Column) -> Markdown:
    if column.range is not None:
        return Markdown(" to ".join(f"{bound:.12g}" for bound in column.range))
    return Markdown(", ".join(format_code(value) for value in column.values or ()))


def _describe_unit(unit: str, other: Unit) -> str:
    offset = f" {'-' if other.offset < 0 else '+'} {abs(other.offset):.6g}" if other.offset else ""
    return f"{format_value(unit)} ({format_code(f'value * {other.factor:.6g}{offset}')})"
