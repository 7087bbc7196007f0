"""The data dictionary and ``params.yaml`` as YAML, each guess with its reason as a comment."""

import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from sqlalchemy.sql import ColumnElement, Select
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from upkeep.adopt.columns import Part
from upkeep.adopt.deliveries import Layout
from upkeep.adopt.describing import Described
from upkeep.adopt.settings import Setting
from upkeep.adopt.tables import Tables
from upkeep.adopt.times import TIME_OPTIONS
from upkeep.contract.dictionary import TABLES, Column, Dictionary, names_in_words
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.core.params import check_params
from upkeep.sources import read_options
from upkeep.sources.columns import CONSTANTS
from upkeep.sources.file_options import TableFiles
from upkeep.sources.patterns import pattern_of
from upkeep.sources.sql import BOUND, open_engine

OF_NO_SOURCE = {"mode": "copy", "since": None, "findings": None}  # what was set for one source seldom fits another
MARK = "adopt:"  # begins comments in `params.yaml`, so that the next draft replaces them
TEMPLATE = Path(__file__).with_name("dictionary.yaml")  # the columns of each table that upkeep knows

NO_NAME = "(a column without a name)"
TEXT = "tag:yaml.org,2002:str"
AS_READ: Any = Resolver()
COLON = "\0"  # stands for the colon of a query's parameter until colons within names are escaped

Names = Mapping[str, Mapping[str, str]]  # by table, the dictionary's name of each delivered column that it has


def draft_dictionary(
    described: Mapping[str, Mapping[str, Described]],
    names: Names,
    needed: Collection[str],
    rows: tuple[str, str] | None = None,
) -> str:
    """Return the data dictionary for these columns of each table; those `needed` are in all files of telemetry.

    `rows` is what :func:`upkeep.adopt.settings.suggest_rows` returns.
    """
    head, _, keys = TEMPLATE.read_text(encoding="utf-8").partition("\ntables:")
    draft = _yaml().load(f"tables:{keys}")
    for table, columns in described.items():
        for name, (entry, reason) in columns.items():
            if entry is not None:
                ours = names[table][name]
                optional = {"required": False} if table == "telemetry" and name not in needed else {}
                entry = {**entry, **optional, "meaning": _meaning(name, ours, entry)}
                draft["tables"][table][ours] = on_one_line(entry)
                draft["tables"][table].yaml_add_eol_comment(reason, key=ours)
    length = f"\nrows_every: {rows[0]}  # {rows[1]}; without this line, each reading is a row\n" if rows else ""
    Dictionary.model_validate(draft | ({"rows_every": rows[0]} if rows else {}))
    left_out = {shorten(name) or NO_NAME: why for name, (entry, why) in described["telemetry"].items() if entry is None}
    note = "# Columns of telemetry that are left out:\n" if left_out else ""
    note += "".join(f"#   {name}: {why}\n" for name, why in left_out.items())
    return f"{head}{note}{length}\n{_dump(draft)}"


def draft_params(text: str, source: str, options: CommentedMap, settings: Sequence[Setting]) -> str:
    """Return ``params.yaml`` with the section ``fetch`` and some settings replaced, all else as it was."""
    params = _yaml().load(re.sub(rf"^ *# {MARK}.*\n", "", text, flags=re.MULTILINE))
    fetch = params["fetch"]
    if (fetch["source"], fetch["options"]) != (source, options):
        fetch |= {name: value for name, value in OF_NO_SOURCE.items() if name in fetch}
    fetch |= {"source": source, "options": options}
    for place, value, reason in settings:
        *above, name = place.split(".")
        section = reduce(getitem, above, params)
        if isinstance(section.get(name), list):
            section[name][:] = value
        elif isinstance(value, dict):
            section[name] = on_one_line(value)
        else:
            section[name] = DoubleQuotedScalarString(value) if name == "until" else value
        section.yaml_set_comment_before_after_key(name, before=f"{MARK} {reason}", indent=2 * len(above))
    following = dict(zip(list(params), list(params)[1:], strict=False)).get("fetch")
    if following:
        params.yaml_set_comment_before_after_key(following, before="\n")
    drafted = _dump(params)
    check_params(_yaml().load(drafted), paths.PARAMS)
    return drafted


def file_options(tables: Tables, layouts: Iterable[Layout], labelled: Path | None, names: Names) -> CommentedMap:
    """Return ``fetch.options`` of the source ``files`` for the tables found among `layouts`.

    `labelled` is the file of failures that are known from a label.
    """
    known = {path for layout in layouts for path in layout.paths}
    options = CommentedMap()
    for table in TABLES:
        readings = [reading for part in tables[table] for reading in _readings(part, known, names.get(table, {}))]
        if table == "events" and labelled:
            readings.append(annotate({"path": str(labelled)}, {"path": "made from the label beside the readings"}))
        if readings:
            options[table] = readings[0] if len(readings) == 1 else readings
    return options


def _readings(part: Part, known: Collection[str], names: Mapping[str, str]) -> list[CommentedMap]:
    """Return one reading if a pattern matches exactly the part's files, else one for each file."""
    paths = part.layout.paths
    around = {theirs: part.layout.around.get(theirs, ("", "")) for theirs in part.placeholders}
    spelt = {theirs: f"{{{ours}}}".join(around[theirs]) for theirs, ours in part.placeholders.items()}
    pattern = pattern_of(paths, spelt, sorted({*known} - {*paths}))
    if pattern and not part.layout.own:
        return [_reading(part, pattern, part.layout.reading, names)]
    written = part.layout.own or [part.layout.reading] * len(paths)
    told = [{ours: facts[theirs] for theirs, ours in part.placeholders.items()} for facts in part.layout.facts]
    return [
        _reading(part, path, {**constants, **how}, names)
        for path, constants, how in zip(paths, told, written, strict=True)
    ]


def _reading(part: Part, path: str, further: Mapping[str, Any], names: Mapping[str, str]) -> CommentedMap:
    columns = {**part.columns, **{names[name]: name for name in part.kept if name in names}}
    taken = Counter(columns.values())
    is_given = {ours: ours != theirs or taken[theirs] > 1 for ours, theirs in columns.items()}
    given = {ours: columns[ours] for ours in columns if is_given[ours] and columns[ours] not in part.placeholders}
    # A column counts before a constant of its name.
    given |= {f"({name})": name for name in CONSTANTS if name in part.options and name in part.layout.rows.columns}
    found = {"path": path, "columns": given, **part.options, **further}
    values = read_options(TableFiles, found, "files").model_dump(mode="json", exclude_defaults=True)
    reasons = {ours: guess.reason for ours, guess in part.guesses.items()}
    for name, value in values.items():
        if isinstance(value, dict):
            values[name] = annotate(value, reasons) if name == "columns" else on_one_line(value)
    in_path = [f"{name}: {reasons[name]}" for name in part.placeholders.values()]
    return annotate(values, {**reasons, "path": "; ".join([f"{part.layout.rows.height:,} rows looked at", *in_path])})


def sql_options(url: str, tables: Tables, names: Names, since: str) -> CommentedMap:
    """Return ``fetch.options`` of the source ``sql`` for the tables found."""
    dialect: Any = type(open_engine(url, "the address").dialect)
    dialect = dialect(paramstyle="named")  # any other would double each %

    def write(queries: Iterable[Select[Any]], joined: str) -> str:
        options = {"dialect": dialect, "compile_kwargs": {"literal_binds": True}}
        written = joined.join(str(query.compile(**options)) for query in queries).replace(" \n", " ")
        return BOUND.sub(r"\\:\1", written).replace(COLON, ":")  # a colon within a name marks no parameter

    timed = tables["telemetry"] or tables["events"]
    listed: list[Select[Any]] = [
        sa.select(sa.column(part.columns["plant"])).distinct().select_from(sa.table(part.layout.paths[0]))
        if "plant" in part.columns
        else sa.select(sa.literal(part.options["plant"]))
        for part in timed
    ]
    is_named = any("plant" in part.columns for part in timed)
    plants = write(listed, " UNION ") if is_named else [timed[0].options["plant"]]
    values, reasons = {"url": url, "since": since, "plants": plants}, dict[str, str]()
    for name in TABLES:
        if parts := tables[name]:
            values[name] = write(_query(parts, names.get(name, {})), " UNION ALL ")
            guesses = [guess for part in parts for guess in part.guesses.items()]
            reasons[name] = "; ".join(f"{ours} {guess.reason}" for ours, guess in guesses)
    return annotate(values, reasons)


def _query(parts: Sequence[Part], names: Mapping[str, str]) -> Iterator[Select[Any]]:
    """Yield the query of each part, for one plant and, where there is a time, for one batch."""
    selected = [_select(part, names) for part in parts]
    every = dict.fromkeys(name for given in selected for name in given)
    for part, given in zip(parts, selected, strict=True):
        bounds = [given["plant"] == sa.literal_column(f"{COLON}plant")]
        if "time" in given:
            bounds += [
                given["time"] >= sa.literal_column(f"{COLON}since"),
                given["time"] < sa.literal_column(f"{COLON}until"),
            ]
        query = sa.select(*(given.get(name, sa.null()).label(name) for name in every))
        yield query.select_from(sa.table(part.layout.paths[0])).where(*bounds)


def _select(part: Part, names: Mapping[str, str]) -> dict[str, ColumnElement[Any]]:
    if {"pivot", *TIME_OPTIONS} & {*part.guesses}:
        raise UpkeepError(
            f"the table {part.layout.name} has times as numbers, in local time, in two columns or in a format of "
            "its own, or one row per sensor",
            remedy="make a view with a timestamp in UTC and a column per sensor, and adopt again",
        )
    given: dict[str, ColumnElement[Any]] = {ours: sa.column(theirs) for ours, theirs in part.columns.items()}
    if "kinds" in part.options:
        given["kind"] = sa.case(part.options["kinds"], value=given["kind"], else_=given["kind"])
    given |= {name: sa.literal(part.options[name]) for name in CONSTANTS if name in part.options}
    return given | {names[name]: sa.column(name) for name in part.kept if name in names}


def annotate(values: Mapping[str, Any], reasons: Mapping[str, str]) -> CommentedMap:
    """Return a mapping whose entries are followed by their reasons as comments."""
    mapping = CommentedMap(values)
    for name in filter(reasons.__contains__, values):
        mapping.yaml_add_eol_comment(reasons[name], key=name)
    return mapping


def on_one_line(values: Mapping[str, Any]) -> CommentedMap:
    """Return a mapping that YAML writes on one line."""
    mapping = CommentedMap(values)
    mapping.fa.set_flow_style()
    return mapping


def _meaning(name: str, ours: str, entry: Mapping[str, Any]) -> str:
    bare = re.sub(r"\s*[\[(].*", "", name) or name
    words = names_in_words({bare: Column(**entry, meaning=name)})[bare].strip()
    meaning = shorten(f"{words[:1].upper()}{words[1:]}")
    return meaning + (f", delivered as {shorten(name)}" if name not in (ours, meaning) else "")


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml.representer.add_representer(str, _represent_text)
    return yaml


def _represent_text(writer: Any, text: str) -> Any:
    """Write text; in quotes where the older YAML that reads it takes Off, 10:30 or 1_000 for no text."""
    tag = AS_READ.resolve(ScalarNode, text, (True, False))
    return writer.represent_scalar(TEXT, text, style=None if tag == TEXT else '"')


def _dump(content: object) -> str:
    stream = io.StringIO()
    _yaml().dump(content, stream)
    return stream.getvalue()
