"""``fetch.options`` as typed objects."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from upkeep.core.errors import UpkeepError

Options = TypeVar("Options", bound=BaseModel)


def read_options(model: type[Options], options: Mapping[str, Any], source: str) -> Options:
    """Check ``fetch.options`` against what the source takes.

    Raises UpkeepError if an option is unknown, missing or of the wrong type, without its value, which may be a secret.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise UpkeepError(
            f"fetch.options do not fit the source {source}: {'; '.join(faults)}",
            expected=f"the options of {source} that docs/sources.md lists",
            remedy="correct fetch.options in params.yaml",
        ) from None
