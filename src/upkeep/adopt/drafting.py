"""The data dictionary and the parameters as YAML, each guess with its reason as a comment."""

import io
import re
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
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
TEMPLATE = Path(__file__).with_name("dictionary.yaml")
"""The keys of each table, and what else upkeep knows of it."""


def draft_dictionary(
    telemetry: Mapping[str, Described],
    machines: Mapping[str, Described],
    names: Mapping[str, str],
    partial: Collection[str],
) -> str:
    """Return the data dictionary for the columns delivered.

    `names` are its names for those that it has; those of `partial` are not in each file of telemetry.
    """
    head, _, keys = TEMPLATE.read_text(encoding="utf-8").partition("\ntables:")
    draft = _yaml().load(f"tables:{keys}")
    for table, described in (("telemetry", telemetry), ("machines", machines)):
        columns = draft["tables"][table]
        for name, (entry, reason) in described.items():
            if entry is not None:
                ours = names.get(name, name)
                optional = {"required": False} if table == "telemetry" and name in partial else {}
                columns[ours] = on_one_line({**entry, **optional, "meaning": _meaning(name, ours, entry)})
                columns.yaml_add_eol_comment(reason, key=ours)
    Dictionary.model_validate(draft)
    left_out = [f"#   {name}: {reason}\n" for name, (entry, reason) in telemetry.items() if entry is None]
    note = "".join(["# Columns of telemetry that are left out:\n", *left_out]) if left_out else ""
    return f"{head}{note}\n{_dump(draft)}"


def draft_params(text: str, source: str, options: CommentedMap, settings: Sequence[Setting]) -> str:
    """Return ``params.yaml`` with the section ``fetch`` and some settings replaced, all else as it was."""
    params = _yaml().load(re.sub(rf"^ *# {MARK}.*\n", "", text, flags=re.MULTILINE))
    params["fetch"]["source"] = source
    params["fetch"]["options"] = options
    for place, value, reason in settings:
        *above, name = place.split(".")
        section = reduce(getitem, above, params)
        if isinstance(section.get(name), list):
            section[name][:] = value
        else:
            section[name] = DoubleQuotedScalarString(value) if name == "until" else value
        section.yaml_set_comment_before_after_key(name, before=f"{MARK} {reason}", indent=2 * len(above))
    following = dict(zip(list(params), list(params)[1:], strict=False)).get("fetch")
    if following:
        params.yaml_set_comment_before_after_key(following, before="\n")
    drafted = _dump(params)
    Params.model_validate(_yaml().load(drafted))
    return drafted


def annotate(values: Mapping[str, Any], reasons: Mapping[str, str]) -> CommentedMap:
    """Return a mapping whose entries have their reasons as comments behind them."""
    mapping = CommentedMap(values)
    for name in filter(reasons.__contains__, values):
        mapping.yaml_add_eol_comment(reasons[name], key=name)
    return mapping


def on_one_line(values: Mapping[str, Any]) -> CommentedMap:
    """Return a mapping that is written on one line."""
    mapping = CommentedMap(values)
    mapping.fa.set_flow_style()
    return mapping


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
