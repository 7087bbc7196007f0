"""Patterns of the addresses that files of one table share."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from os.path import commonprefix

from upkeep.sources.opening import ENDING
from upkeep.sources.patterns import as_glob


def pattern_of(paths: Sequence[str], placeholders: Mapping[str, str], others: Iterable[str]) -> str | None:
    """Return an address with ``*``, ``{plant}`` and ``{machine}`` that matches these paths; None if it matches others.

    `placeholders` has the text for each of the columns ``{0}``, ``{1}`` of a layout that is a plant or a machine.
    """
    places = [path.split("/") for path in paths]
    if len({len(parts) for parts in places}) == 1:
        columns = enumerate(zip(*places, strict=True))
        pattern = "/".join(_segment(names, placeholders.get(f"{{{at}}}")) for at, names in columns)
    else:
        start = _common_start(paths)
        pattern = f"{start[: start.rfind('/') + 1]}**/*{_common_ending([parts[-1] for parts in places])}"
    glob = as_glob(pattern)
    return None if any(fnmatchcase(other, glob) for other in others) else pattern


def _segment(names: Sequence[str], placeholder: str | None) -> str:
    """Return the pattern of these names of files or folders."""
    first = names[0]
    if len(set(names)) == 1:
        return first
    if placeholder:
        ending = ENDING.search(first)
        return f"{''.join(first.rpartition('=')[:2])}{placeholder}{ending[0] if ending else ''}"
    before = re.sub(r"[^a-zA-Z]+$", "", _common_start(names))  # a year or a number may change
    return f"{before}*{_common_ending(names)}"


def _common_ending(names: Sequence[str]) -> str:
    ending = _common_start([name[::-1] for name in names])[::-1]
    return ending[max(ending.find("."), 0) :]


def _common_start(names: Sequence[str]) -> str:
    return commonprefix(names)  # noqa: RUF071  # by characters
