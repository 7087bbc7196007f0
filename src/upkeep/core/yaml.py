"""YAML as people write it, read within bounds: a few lines of aliases can stand for gigabytes."""

from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_text

MOST_CHARACTERS = 1_000_000
"""Of a file, and of what it stands for with all aliases filled in."""


class _BoundedLoader(yaml.SafeLoader):
    """Refuses aliases that stand for too much; each node's size is known once it is composed."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if node is None:
            return None
        if is_alias:
            size = self._sizes.get(node, MOST_CHARACTERS)  # not known yet of what holds the alias itself
        elif isinstance(node, yaml.ScalarNode):
            size = len(node.value)
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else chain(*node.value)
            size = sum(self._sizes[part] for part in parts)
        size += 1
        self._sizes[node] = size
        if size > MOST_CHARACTERS:
            what = f"with its aliases filled in it has more than {MOST_CHARACTERS:,} characters"
            raise yaml.composer.ComposerError(None, None, what, node.start_mark)
        return node


def parse_yaml(text: str | bytes) -> Any:
    """Return what YAML says; raises YAMLError, and nothing else, if it is none, or too large or too deep."""
    if len(text) > MOST_CHARACTERS:
        raise yaml.MarkedYAMLError(problem=f"it has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    try:
        return yaml.load(text, _BoundedLoader)  # noqa: S506  # a safe one
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise yaml.MarkedYAMLError(problem="it is nested too deeply") from None
    except Exception as error:  # dates, numbers and tags of odd values raise whatever Python does
        raise yaml.MarkedYAMLError(problem=f"a value in it cannot be read: {error}") from error


def read_yaml(file: Path, *, what: str, remedy: str) -> Any:
    """Return a YAML file's content; raises UpkeepError, which calls it `what`, if it cannot be read."""
    try:
        return parse_yaml(read_text(file, MOST_CHARACTERS))
    except (OSError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not valid YAML: {error}"
        raise UpkeepError(f"{what} cannot be used: {reason}", remedy=remedy, file=file) from error
