"""Patterns of paths, as in ``path`` of ``fetch.options``: globs with the placeholders ``{plant}`` and ``{machine}``."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from os.path import commonprefix

from upkeep.sources.file_options import PLACEHOLDERS
from upkeep.sources.opening import ENDING


def find_folder(pattern: str) -> str:
    """Return the folder, with a slash at its end, that holds all files that a pattern may match."""
    literal = re.split(r"[*?{]", pattern)[0]
    return literal[: literal.rfind("/") + 1]


def read_placeholders(pattern: str, path: str) -> Mapping[str, str]:
    """Return the values of ``{plant}`` and ``{machine}`` in a file's path; the pattern may be that of its folder."""
    named = {"{" + name + "}": f"(?P<{name}>[^/]+?)" for name in PLACEHOLDERS}
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", **named}
    for whole in (pattern, f"{pattern}/**"):
        pieces = re.split(r"(\*\*/|\*\*|\*|\?|\{\w+\})", whole)
        regex = "".join(wild.get(piece, re.escape(piece)) for piece in pieces) + "$"
        if place := re.search(regex, path, re.IGNORECASE):
            return place.groupdict()
    return {}


def as_glob(pattern: str) -> str:
    """Return the glob of a pattern; where it has a star, its ending matches in upper and lower case."""
    glob = re.sub(r"\{\w+\}", "*", pattern.replace("[", "[[]"))
    stem = re.sub(r"(\.\w+)*$", "", glob)
    ending = glob.removeprefix(stem)
    return stem + re.sub("[A-Za-z]", lambda a: f"[{a[0].lower()}{a[0].upper()}]" if "*" in stem else a[0], ending)


def pattern_of(paths: Sequence[str], placeholders: Mapping[str, str], others: Iterable[str]) -> str | None:
    """Return an address with ``*``, ``{plant}`` and ``{machine}`` that matches these paths; None if it matches others.

    `placeholders` has the text in place of the parts that hold a plant or a machine, by position: ``{0}``, ``{1}``.
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
    first = names[0]
    if placeholder:
        ending = ENDING.search(first)
        return f"{''.join(first.rpartition('=')[:2])}{placeholder}{ending[0] if ending else ''}"
    if len(set(names)) == 1:
        return first
    before = re.sub(r"[^a-zA-Z]+$", "", _common_start(names))  # a year or a number may change
    return f"{before}*{_common_ending(names)}"


def _common_start(names: Sequence[str]) -> str:
    return commonprefix(names)  # noqa: RUF071  # by characters


def _common_ending(names: Sequence[str]) -> str:
    ending = _common_start([name[::-1] for name in names])[::-1]
    return ending[max(ending.find("."), 0) :]
