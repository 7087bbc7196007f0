"""The data dictionary as a page that people read, ``docs/data_dictionary.md``; its words are in ``templates/``."""

from pathlib import Path

from upkeep.contract.dictionary import Dictionary, Unit
from upkeep.reporting.templates import render_markdown


def dictionary_page(dictionary: Dictionary, source: Path) -> str:
    """Return the page in Markdown: a section per table, then one per plant that differs; it names the file `source`."""
    return render_markdown(
        "data_dictionary.md", dictionary=dictionary, source=source, spell_conversion=_spell_conversion
    )


def _spell_conversion(unit: Unit) -> str:
    offset = f" {'-' if unit.offset < 0 else '+'} {abs(unit.offset):.6g}" if unit.offset else ""
    return f"value * {unit.factor:.6g}{offset}"
