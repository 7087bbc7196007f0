"""The data dictionary and the parameters as YAML, each guess with its reason as a comment."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from upkeep.adopt.describing import Described
from upkeep.adopt.settings import Setting
from upkeep.contract.dictionary import Column, Dictionary, name_columns
from upkeep.core.params import Params

MARK = "adopt:"
"""Begins the comments of a draft in ``params.yaml``, so that the next draft takes their place."""
HEAD = """\
# The data dictionary is the contract: `upkeep validate` enforces it, docs/data_dictionary.md is made from it.
# Drafted by `upkeep adopt`; behind each guess stands its reason. Correct what you know better, meanings first.
"""
PLANT = {"type": "text", "role": "key", "meaning": "Plant that the machine stands in"}
MACHINE = {"type": "text", "role": "key", "meaning": "Machine, unique within its plant"}
TELEMETRY: dict[str, dict[str, Any]] = {
    "plant": PLANT,
    "machine": MACHINE,
    "time": {"type": "time", "role": "key", "meaning": "When it was read, UTC"},
}
EVENTS: dict[str, dict[str, Any]] = {
    "plant": PLANT,
    "machine": MACHINE,
    "time": {"type": "time", "role": "key", "meaning": "When it happened, UTC"},
    "kind": {"type": "text", "role": "key", "values": ["error", "maintenance", "failure"], "meaning": "What happened"},
    "code": {"type": "text", "role": "attribute", "meaning": "Error code, kind of maintenance or failed component"},
}
MACHINES: dict[str, dict[str, Any]] = {
    "plant": PLANT,
    "machine": MACHINE,
    "model": {"type": "text", "role": "attribute", "required": False, "meaning": "Machine model"},
    "installed": {"type": "time", "role": "attribute", "required": False, "meaning": "When it was installed, UTC"},
}


def draft_dictionary(
    telemetry: Mapping[str, Described],
    machines: Mapping[str, Described],
    names: Mapping[str, str],
    partial: Iterable[str],
) -> str:
    """Return the data dictionary for the columns delivered.

    `names` are its names for those that it has; those of `partial` are not in each file of telemetry.
    """
    tables = CommentedMap(
        telemetry=_table(TELEMETRY, telemetry, names, partial),
        events=_table(EVENTS, {}, {}, ()),
        machines=_table(MACHINES, machines, names, ()),
    )
    Dictionary.model_validate({"tables": tables})
    left_out = [f"#   {name}: {reason}\n" for name, (entry, reason) in telemetry.items() if entry is None]
    note = "".join(["# Columns of telemetry that are left out:\n", *left_out]) if left_out else ""
    return f"{HEAD}{note}\n{_dump(CommentedMap(tables=tables))}"


def draft_params(text: str, source: str, options: CommentedMap, settings: Sequence[Setting]) -> str:
    """Return ``params.yaml`` with the section ``fetch`` and some settings replaced, all else as it was."""
    params = _yaml().load(re.sub(rf"^ *# {MARK}.*\n", "", text, flags=re.MULTILINE))
    params["fetch"]["source"] = source
    params["fetch"]["options"] = options
    for place, value, reason in settings:
        section = params
        for key in place[:-1]:
            section = section[key]
        if isinstance(section.get(place[-1]), list):
            section[place[-1]][:] = value
        else:
            section[place[-1]] = DoubleQuotedScalarString(value) if place[-1] == "until" else value
        section.yaml_set_comment_before_after_key(place[-1], before=f"{MARK} {reason}", indent=2 * (len(place) - 1))
    following = dict(zip(list(params), list(params)[1:], strict=False)).get("fetch")
    if following:
        params.yaml_set_comment_before_after_key(following, before="\n")
    drafted = _dump(params)
    Params.model_validate(_yaml().load(drafted))
    return drafted


def annotate(values: Mapping[str, Any], reasons: Mapping[str, str]) -> CommentedMap:
    """Return a mapping whose entries have their reasons as comments behind them."""
    mapping = CommentedMap(values)
    for name in values.keys() & reasons.keys():
        mapping.yaml_add_eol_comment(reasons[name], key=name)
    return mapping


def on_one_line(values: Mapping[str, Any]) -> CommentedMap:
    """Return a mapping that is written on one line."""
    mapping = CommentedMap(values)
    mapping.fa.set_flow_style()
    return mapping


def _table(
    known: Mapping[str, Mapping[str, Any]],
    described: Mapping[str, Described],
    names: Mapping[str, str],
    partial: Iterable[str],
) -> CommentedMap:
    columns, reasons = {name: on_one_line(column) for name, column in known.items()}, dict[str, str]()
    for name, (entry, reason) in described.items():
        if entry is not None:
            ours = names.get(name, name)
            optional = {"required": False} if name in partial else {}
            columns[ours] = on_one_line({**entry, **optional, "meaning": _meaning(name, ours, entry)})
            reasons[ours] = reason
    return annotate(columns, reasons)


def _meaning(name: str, ours: str, entry: Mapping[str, Any]) -> str:
    bare = re.sub(r"\s*[\[(].*", "", name) or name
    words = name_columns({bare: Column(**entry, meaning=name)})[bare].strip()
    return f"{words[:1].upper()}{words[1:]}" + (f", delivered as {name}" if name != ours else "")


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _dump(content: object) -> str:
    stream = io.StringIO()
    _yaml().dump(content, stream)
    return stream.getvalue()
