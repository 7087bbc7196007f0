"""The service's settings, from UPKEEP_... variables; docs/service.md lists them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from upkeep.core import paths
from upkeep.core.errors import UpkeepError

PREFIX = "UPKEEP_"


def _find_client(url: str) -> str:
    """Refuse an address whose client is not installed: waiting would not mend that."""
    if "://" in url:
        from fsspec import get_filesystem_class  # late, as a log in a folder starts without it

        try:
            get_filesystem_class(url.partition("://")[0])
        except (ImportError, ValueError) as error:
            raise ValueError(f"{error}; s3:// needs upkeep[s3], or the image built with UPKEEP_EXTRAS=s3") from error
    return url


def _split_tokens(text: str) -> tuple[bytes, ...]:
    if not text.isascii():
        raise ValueError("a token holds a letter that no HTTP header can carry")
    return tuple(token.encode() for token in text.replace(",", " ").split())


class Settings(BaseModel):
    """How one worker runs; each field is the variable of the same name, described in docs/service.md."""

    model_config = ConfigDict(frozen=True)

    host: str = "0.0.0.0"  # noqa: S104  # a container is reached through its ports
    port: Annotated[int, Field(ge=0, lt=65_536)] = 8000
    models: Path = paths.MODELS
    golden: Path = paths.GOLDEN
    dictionary: Path = Path("data/references/dictionary.yaml")
    tokens: Annotated[tuple[bytes, ...], BeforeValidator(_split_tokens)] = ()
    log_url: Annotated[str, AfterValidator(_find_client)] | None = None
    spool: Path = paths.LOCAL / "spool"
    spool_bytes: NonNegativeInt = 1_000_000_000
    max_request_bytes: NonNegativeInt = 24_000_000
    release: str = "unreleased"

    @model_validator(mode="before")
    @classmethod
    def _read_tokens_file(cls, values: dict[str, Any]) -> dict[str, Any]:
        file = values.get("tokens_file")
        if not file:
            return values
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the file of tokens cannot be read: {error}") from error
        if not _split_tokens(text):
            # An empty file would open the service to all, which nobody who named one wants.
            raise ValueError(f"the file of tokens holds none: {file}")
        return {**values, "tokens": text}


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; a variable that is empty is as good as none, and one of no use is an UpkeepError."""
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value}
    try:
        return Settings.model_validate({name.removeprefix(PREFIX).lower(): value for name, value in given.items()})
    except ValidationError as error:
        fault = error.errors()[0]
        name = PREFIX + str(fault["loc"][0]).upper() if fault["loc"] else f"{PREFIX}TOKENS_FILE"
        reason = fault["msg"].removeprefix("Value error, ")
        # Tokens are secrets: what is wrong with them is told without them.
        what = f"{name}: {reason}" if name.startswith(f"{PREFIX}TOKENS") else f"{name} is {given[name]!r}: {reason}"
        raise UpkeepError(what, remedy=f"correct or unset {name}") from error
