"""Names that come from outside: which ones are allowed, and how messages and features spell them.

Features share a table with upkeep's own columns. A name that could be read as one of those, or as that of another
feature, is put between two @, with which no column of a data dictionary begins; any other is spelt as it is.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

MAX_NAME = 200  # characters of the name of a plant, machine, code, model or column

UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
"""Control characters, line breaks and marks of text direction, as a regular expression for both Python and Polars."""

UNSEEN = rf"{UNPRINTABLE}|[\ud800-\udfff\ufffe\uffff]"
"""The same and non-characters: names of files may hold lone surrogates, which cannot be encoded."""


def spell_out(unseen: re.Match[str]) -> str:
    """Return the escape sequence of an unprintable character."""
    return ascii(unseen[0])[1:-1]


def shorten(text: object, longest: int = MAX_NAME) -> str:
    """Return text from outside as messages repeat it: on one line, cut with … where it is too long."""
    line = re.sub(UNSEEN, spell_out, str(text)[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def check_name(name: str) -> str:
    """Return the name; raise a ValueError that says why if it is not allowed."""
    if len(name) > MAX_NAME:
        raise ValueError(f"a name has at most {MAX_NAME} characters, not {len(name):,}")
    if re.search(UNPRINTABLE, name):
        raise ValueError("a name has no control characters and no line breaks")
    return name


Name = Annotated[str, AfterValidator(check_name)]  # a name within an object that pydantic checks

MARK = "@"
KEYS = ("plant", "machine", "time")  # the keys of a row; the machines table has no time
OWN_COLUMNS = (*KEYS, "machine_model", "split", "label", "hours_to_failure", "prevented", "weight")  # beside features

AMBIGUOUS = re.compile(
    rf"{'|'.join(OWN_COLUMNS)}|age_hours|model_code|(errors|hours_since|setting|attribute)(_.*)?"
    r"|.+_(mean|std|min|max|slope|from_baseline)_[\d.]+h",
    re.DOTALL,
)


def spell_sensor(sensor: str) -> str:
    """Return a column of telemetry as names of features spell it."""
    return f"{MARK}{sensor}{MARK}" if AMBIGUOUS.fullmatch(sensor) else sensor


def spell_code(code: str) -> str:
    """Return an event's code as names of features spell it: maintenance called ``failure`` is not a failure."""
    return f"{MARK}{code}{MARK}" if code == "failure" or code.startswith(MARK) else code
