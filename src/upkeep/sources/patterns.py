"""Patterns of paths, as in ``path`` of ``fetch.options``: globs with the placeholders ``{plant}`` and ``{machine}``."""

import re
from collections.abc import Mapping

from upkeep.sources.file_options import PLACEHOLDERS


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
