"""Files read as validated objects."""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_regular
from upkeep.core.types import describe_faults
from upkeep.core.yaml import read_yaml

T = TypeVar("T")


def read_object(kind: type[T], file: Path, *, what: str, remedy: str, expected: str = "") -> T:
    """Read an object of this kind from a JSON or YAML file; an UpkeepError about a file that fails calls it `what`."""
    try:
        if file.suffix == ".json":
            return TypeAdapter(kind).validate_json(read_regular(file))
        return TypeAdapter(kind).validate_python(read_yaml(file, what=what, remedy=remedy))
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else describe_faults(error)
        raise UpkeepError(f"{what} cannot be used: {reason}", expected=expected, remedy=remedy, file=file) from error
