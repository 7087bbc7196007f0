"""The section ``fetch.options`` of the source ``files`` for what was found, each option with its reason."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ruamel.yaml.comments import CommentedMap

from upkeep.adopt.columns import Part
from upkeep.adopt.drafting import annotate, on_one_line
from upkeep.adopt.sniffing import Layout, pattern_of
from upkeep.adopt.tables import Tables
from upkeep.contract.dictionary import TABLES
from upkeep.sources import read_options
from upkeep.sources.file_options import TableFiles


def file_options(
    tables: Tables, layouts: Iterable[Layout], labelled: Path | None, names: Mapping[str, str]
) -> CommentedMap:
    """Return the options for the tables found among `layouts`, and for the file of failures that a label told of.

    `names` are those that the dictionary has for columns that it has.
    """
    known = [path for layout in layouts for path in layout.paths]
    options = CommentedMap()
    for table in TABLES:
        readings = [reading for part in getattr(tables, table) for reading in _readings(part, known, names)]
        if table == "events" and labelled:
            readings.append(annotate({"path": str(labelled)}, {"path": "made from the label beside the readings"}))
        if readings:
            options[table] = readings[0] if len(readings) == 1 else readings
    return options


def _readings(part: Part, known: Sequence[str], names: Mapping[str, str]) -> list[CommentedMap]:
    """Return one mapping if a pattern matches the part's files and no others, else one for each file."""
    paths = part.layout.paths
    others = sorted({*known} - {*paths})
    pattern = pattern_of(paths, {theirs: ours for ours, theirs in part.placeholders.items()}, others)
    if pattern:
        return [_reading(part, pattern, {}, names)]
    return [
        _reading(part, path, {ours: str(facts[theirs]) for ours, theirs in part.placeholders.items()}, names)
        for path, facts in zip(paths, part.layout.facts, strict=True)
    ]


def _reading(part: Part, path: str, constants: dict[str, str], names: Mapping[str, str]) -> CommentedMap:
    renamed = {names[name]: name for name in part.kept if names.get(name, name) != name}
    columns = {ours: theirs for ours, theirs in {**part.columns, **renamed}.items() if ours != theirs}
    found = {"path": path, "columns": columns, **part.options, **constants, **part.layout.reading}
    values = read_options(TableFiles, found, "files").model_dump(mode="json", exclude_defaults=True)
    for name, value in values.items():
        if isinstance(value, dict):
            values[name] = annotate(value, part.reasons) if name == "columns" else on_one_line(value)
    in_path = [f"{name}: {part.reasons[name]}" for name in part.placeholders]
    told = {"path": "; ".join([f"{part.layout.rows.height:,} rows looked at", *in_path])}
    times = {name: part.reasons["time"] for name in ("time_format", "time_zone", "epoch") if "time" in part.reasons}
    return annotate(values, {**part.reasons, **times, **told})
