"""How names of features spell what a plant calls its sensors and codes, so that none can be taken for another.

Features and upkeep's own columns beside them share a table. A name that could be read as one of those, or as another
feature's, stands between two @, which no column of a data dictionary begins with; any other is spelt as it is.
"""

import re

MARK = "@"
OWN_COLUMNS = ("plant", "machine", "time", "machine_model", "split", "label", "hours_to_failure", "weight")
"""What tables hold beside features."""

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
