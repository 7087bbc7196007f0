"""``fetch.options`` as typed objects, with ``$VARIABLES`` from the environment so that no secret stands in git."""

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from upkeep.errors import UpkeepError

Options = TypeVar("Options", bound=BaseModel)

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def read_options(model: type[Options], options: Mapping[str, Any], source: str) -> Options:
    """Check ``fetch.options`` against what the source takes.

    Raises
    ------
    UpkeepError
        If an option is unknown, missing or of the wrong type. The value found is left out: it may be a secret.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise UpkeepError(
            f"fetch.options do not fit the source {source}: {'; '.join(faults)}",
            expected=f"the options of {source} that docs/sources.md lists",
            remedy="correct fetch.options in params.yaml",
            stage="fetch",
        ) from None


def expand_variables(text: str) -> str:
    """Fill in ``$NAME`` and ``${NAME}`` from the environment.

    Raises
    ------
    UpkeepError
        If a variable is not set.
    """
    for name in _variables(text):
        if name not in os.environ:
            raise UpkeepError(
                f"the environment variable {name} is not set",
                expected=f"a value for ${name}, which params.yaml mentions",
                remedy=f"export {name}=..., or set it as a CI variable",
            )
    return VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], text)


def expand_all(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in variables in every string of a nested mapping."""
    return {key: _expand_value(value) for key, value in options.items()}


def hide_variables(message: str, *templates: str) -> str:
    """Put the names of the variables that `templates` mention back in place of their values, which may be secrets."""
    for name in {name for template in templates for name in _variables(template)}:
        if value := os.environ.get(name):
            message = message.replace(value, f"${{{name}}}")
    return message


def _variables(text: str) -> list[str]:
    return [braced or bare for braced, bare in VARIABLE.findall(text)]


def _expand_value(value: Any) -> Any:
    if isinstance(value, str):
        return expand_variables(value)
    return expand_all(value) if isinstance(value, Mapping) else value
