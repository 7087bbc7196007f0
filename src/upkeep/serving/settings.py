"""The service's settings, from UPKEEP_... variables; docs/service.md lists them."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.core.secrets import mask_credentials
from upkeep.core.types import Frozen

PREFIX = "UPKEEP_"
ALIKE = 0.9  # similarity, of at most 1, above which an unknown name is a misspelt setting
COMMENT = re.compile(r"(?:^|\s)#(.*)")
TOKEN = re.compile(r"[!-~]+")


def _find_client(url: str) -> str:
    if "://" in url:
        from fsspec import get_filesystem_class  # late, since a log in a folder does not need it

        try:
            get_filesystem_class(url.partition("://")[0])
        except (ImportError, ValueError) as error:
            raise ValueError(f"{error}; s3:// needs upkeep[s3], or the image built with UPKEEP_EXTRAS=s3") from error
    return url


def _split_tokens(text: str) -> dict[bytes, str]:
    """Return each token with its name: the comment on its line, or else its number."""
    found: dict[bytes, str] = {}
    for line in text.split("\n"):
        tokens, *comment = COMMENT.split(line, maxsplit=1)
        name = shorten(comment[0].strip()) if comment else ""
        for token in filter(None, map(str.strip, tokens.split(","))):
            if not TOKEN.fullmatch(token):
                raise ValueError("a token holds a blank or a letter that no HTTP header can carry; # begins a comment")
            found[token.encode()] = name or f"token {len(found) + 1}"
    if not found:
        # Whoever sets it does not want an open service.
        raise ValueError("it is set, but holds no token; unset it to let everybody in")
    return found


def _read_tokens(file: str) -> dict[bytes, str]:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"the file of tokens cannot be read: {error}") from error
    return _split_tokens(text)


def _split_hosts(text: str) -> tuple[str, ...]:
    return tuple(text.lower().replace(",", " ").split())


class Settings(Frozen):
    """How one worker runs; each field is the variable of the same name, described in docs/service.md."""

    host: str = "0.0.0.0"  # noqa: S104  # a container is reached through its ports
    port: Annotated[int, Field(ge=0, lt=65_536)] = 8000
    models: Path = paths.MODELS
    shadow_models: Path | None = None
    golden: Path = paths.GOLDEN
    dictionary: Path = Path("data/references/dictionary.yaml")
    monitoring: Path | None = None
    tokens: Annotated[dict[bytes, str], BeforeValidator(_split_tokens)] = Field(default={})
    tokens_file: Annotated[dict[bytes, str], BeforeValidator(_read_tokens)] = Field(default={})
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_split_hosts)] = ()
    log_url: Annotated[str, AfterValidator(_find_client)] | None = None
    spool: Path = paths.LOCAL / "spool"
    spool_bytes: NonNegativeInt = 1_000_000_000
    max_request_bytes: NonNegativeInt = 24_000_000
    max_board_machines: PositiveInt = 20_000
    release: str = "unreleased"


VARIABLES = {PREFIX + field.upper(): field for field in Settings.model_fields}


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; an invalid value or a misspelt variable is an UpkeepError.

    Empty variables count as unset, except for tokens, since without one the service is open.
    """
    for name in environment:
        if name not in VARIABLES and (meant := get_close_matches(name.upper(), VARIABLES, 1, ALIKE)):
            what = f"there is no variable {name}; {meant[0]} is one"
            raise UpkeepError(what, remedy=f"rename it to {meant[0]}, or unset it")
    given = {name: value for name, value in environment.items() if name in VARIABLES and (value or "TOKENS" in name)}
    try:
        settings = Settings.model_validate({VARIABLES[name]: value for name, value in given.items()})
    except ValidationError as error:
        fault = error.errors()[0]
        name = PREFIX + str(fault["loc"][0]).upper()
        found = "" if "TOKENS" in name else f" is {mask_credentials(given[name])!r}"
        what = f"{name}{found}: {fault['msg'].removeprefix('Value error, ')}"
        raise UpkeepError(what, remedy=f"correct or unset {name}") from error
    return settings.model_copy(update={"tokens": settings.tokens_file or settings.tokens})


def find_unknown(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the UPKEEP_... variables that are none of the service's settings."""
    return sorted(name for name in environment if name.upper().startswith(PREFIX) and name not in VARIABLES)
