"""Names that come from outside: how long and of what they may be, and how messages repeat them."""

import re
from typing import Annotated

from pydantic import AfterValidator

MAX_NAME = 200
"""Characters of the name of a plant, machine, code, model or column."""

UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
"""Control characters, line breaks, and what turns the direction of text; for Python's expressions and Polars' alike."""


def shorten(text: object, longest: int = MAX_NAME) -> str:
    """Return what comes from outside as a message repeats it: on one line, and with … in place of what is too long."""
    start = str(text)[: longest + 1]
    # Names of files may hold lone surrogates, which no stream takes.
    line = re.sub(rf"{UNPRINTABLE}|[\ud800-\udfff]", lambda found: found[0].encode("unicode_escape").decode(), start)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def check_name(name: str) -> str:
    """Return a name that may stay as it is; raise a ValueError that says why if it may not."""
    if len(name) > MAX_NAME:
        raise ValueError(f"a name has at most {MAX_NAME} characters, not {len(name):,}")
    if re.search(UNPRINTABLE, name):
        raise ValueError("a name has no control characters and no line breaks")
    return name


Name = Annotated[str, AfterValidator(check_name)]
"""A name within an object that pydantic checks."""
