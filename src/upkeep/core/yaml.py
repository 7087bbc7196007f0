"""YAML read within bounds, since a few lines of aliases can stand for gigabytes."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_text

MOST_CHARACTERS = 1_000_000  # of a file, and of what it stands for with all aliases filled in
MOST_LEVELS = 100  # libyaml's loader, ten times as fast as the one in Python, crashes where lists are nested too deeply
LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def parse_yaml(text: str | bytes) -> Any:
    """Return the content of YAML; raises only YAMLError, if it is invalid, too large, too deep or has a doubled key.

    The second value of a doubled key would silently win.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.MarkedYAMLError(problem=f"it has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    try:
        _refuse_deep(text)
        loader = LOADER(text)
        node = loader.get_single_node()
        if node and _count_characters(node, {}) > MOST_CHARACTERS:
            what = f"with its aliases filled in it has more than {MOST_CHARACTERS:,} characters"
            raise yaml.MarkedYAMLError(problem=what)
        return loader.construct_document(node) if node else None
    except yaml.YAMLError:
        raise
    except Exception as error:  # dates, numbers and tags of odd values raise whatever Python does
        raise yaml.MarkedYAMLError(problem=f"a value in it cannot be read: {error}") from error


def _refuse_deep(text: str | bytes) -> None:
    level = 0
    for event in yaml.parse(text, LOADER):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise yaml.MarkedYAMLError(
                problem="it is nested too deeply",
                problem_mark=event.start_mark,  # type: ignore[arg-type]  # libyaml's marks are of a class of their own
            )


def _count_characters(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Return how many characters a node expands to, or a number above the limit; `sizes` are those known already."""
    if node not in sizes:
        sizes[node] = MOST_CHARACTERS + 1  # until it is known: a node that holds itself has no end
        if isinstance(node, yaml.ScalarNode):
            size = len(node.value)
        else:
            if isinstance(node, yaml.MappingNode):
                _refuse_doubled([key for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            parts = node.value if isinstance(node, yaml.SequenceNode) else chain(*node.value)
            size = sum(_count_characters(part, sizes) for part in parts)
        sizes[node] = min(size, MOST_CHARACTERS) + 1
    return sizes[node]


def _refuse_doubled(keys: Sequence[yaml.ScalarNode]) -> None:
    seen = set[str]()
    for key in keys:
        if key.value in seen and key.value != "<<":  # merges may be several
            raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
        seen.add(key.value)


def read_yaml(file: Path, *, what: str, remedy: str) -> Any:
    """Return a YAML file's content; raises UpkeepError, which calls it `what`, if it cannot be read."""
    try:
        return parse_yaml(read_text(file, MOST_CHARACTERS))
    except (OSError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not valid YAML: {error}"
        raise UpkeepError(f"{what} cannot be used: {reason}", remedy=remedy, file=file) from error
