"""The data dictionary as a page that people read, ``docs/data_dictionary.md``."""

from collections.abc import Mapping

from upkeep.contract.dictionary import Column, Dictionary, Unit

TABLES = {
    "telemetry": "One row per machine and reading.",
    "events": "One row per error, maintenance or failure.",
    "machines": "One row per machine.",
}

HEAD = ("Column", "Meaning", "Unit", "Type", "Role", "Allowed", "Required", "Also delivered in")

INTRODUCTION = """\
# Data dictionary

`upkeep dictionary` makes this page from `{source}`, the contract that `upkeep validate` enforces.
Change that file, not this one.

- A **key** tells rows apart; without it a row goes to quarantine. A **setting** says under which conditions a machine
  ran, a **sensor** how it answered, an **attribute** what is known of it. A **split** column pins machines to the
  test set.
- A delivery without a **required** column goes to quarantine as a whole; any other missing column is filled with nulls.
- A value that is not **allowed** sends its row to quarantine. A null in a setting or a sensor is a gap and stays.
- A column that was **also delivered in** another unit is converted.
"""


def dictionary_page(dictionary: Dictionary, source: str = "data/references/dictionary.yaml") -> str:
    """Return the page as Markdown: a section per table, then a section per plant that differs from it.

    Parameters
    ----------
    source
        The file to name as the dictionary's own.
    """
    sections = [INTRODUCTION.format(source=source)]
    for table, rows in TABLES.items():
        sections.append(f"## {table}\n\n{rows}\n\n{_format_columns(dictionary.columns(table))}")
    if dictionary.plants:
        sections.append("## Where plants differ\n\nColumns not listed here are as above.\n")
    for plant, tables in dictionary.plants.items():
        sections += [f"### {plant}: {table}\n\n{_format_columns(columns)}" for table, columns in tables.items()]
    return "\n".join(sections)


def _format_columns(columns: Mapping[str, Column]) -> str:
    rows = [HEAD, ("---",) * len(HEAD), *(_format_column(name, column) for name, column in columns.items())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _format_column(name: str, column: Column) -> tuple[str, ...]:
    cells = (
        column.meaning,
        column.unit or "",
        column.type,
        column.role,
        _format_allowed(column),
        "yes" if column.required else "no",
        "; ".join(_format_unit(unit, other) for unit, other in column.also.items()),
    )
    return f"`{name}`", *(cell.replace("|", r"\|").replace("\n", " ") for cell in cells)


def _format_allowed(column: Column) -> str:
    if column.range is not None:
        return " to ".join(f"{bound:.12g}" for bound in column.range)
    return ", ".join(f"`{value}`" for value in column.values or ())


def _format_unit(unit: str, other: Unit) -> str:
    offset = f" {'-' if other.offset < 0 else '+'} {abs(other.offset):.6g}" if other.offset else ""
    return f"{unit} (`value * {other.factor:.6g}{offset}`)"
