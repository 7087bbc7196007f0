"""The service's settings, from UPKEEP_... variables; docs/service.md lists them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from upkeep.core import paths
from upkeep.core.errors import UpkeepError


@dataclass(frozen=True)
class Settings:
    """How one worker runs.

    Attributes
    ----------
    tokens
        Any of them opens the service; without one it is open to all.
    log_url
        Where the prediction log goes, any address that fsspec knows; None: no log.
    spool_bytes, max_request_bytes
        Sizes in bytes.
    release
        What is deployed, as ``/version`` and ``/health`` say it.
    """

    host: str
    port: int
    models: Path
    golden: Path
    dictionary: Path
    tokens: tuple[bytes, ...]
    log_url: str | None
    spool: Path
    spool_bytes: int
    max_request_bytes: int
    release: str


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises
    ------
    UpkeepError
        If a number is none, or the file of tokens cannot be read or holds none.
    """

    def number(name: str, default: int) -> int:
        text = environment.get(name) or str(default)
        if not text.isascii() or not text.isdigit():
            raise UpkeepError(f"{name} is {text!r}", expected="a whole number", remedy=f"correct or unset {name}")
        return int(text)

    return Settings(
        host=environment.get("UPKEEP_HOST") or "0.0.0.0",  # noqa: S104  # a container is reached through its ports
        port=number("UPKEEP_PORT", 8000),
        models=Path(environment.get("UPKEEP_MODELS") or paths.MODELS),
        golden=Path(environment.get("UPKEEP_GOLDEN") or paths.GOLDEN),
        dictionary=Path(environment.get("UPKEEP_DICTIONARY") or "data/references/dictionary.yaml"),
        tokens=_read_tokens(environment),
        log_url=environment.get("UPKEEP_LOG_URL") or None,
        spool=Path(environment.get("UPKEEP_SPOOL") or paths.LOCAL / "spool"),
        spool_bytes=number("UPKEEP_SPOOL_BYTES", 1_000_000_000),
        max_request_bytes=number("UPKEEP_MAX_REQUEST_BYTES", 24_000_000),
        release=environment.get("UPKEEP_RELEASE") or "unreleased",
    )


def _read_tokens(environment: Mapping[str, str]) -> tuple[bytes, ...]:
    text = environment.get("UPKEEP_TOKENS", "")
    file = environment.get("UPKEEP_TOKENS_FILE")
    if file:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _no_tokens(f"the file of tokens cannot be read: {error}", file) from error
    tokens = tuple(token.encode() for token in text.replace(",", " ").split())
    if not text.isascii():
        raise _no_tokens("a token holds a letter that no HTTP header can carry", file or "UPKEEP_TOKENS")
    if file and not tokens:
        # An empty file would open the service to all, which nobody who named one wants.
        raise _no_tokens("the file of tokens holds none", file)
    return tokens


def _no_tokens(what: str, file: str) -> UpkeepError:
    return UpkeepError(
        what,
        expected="tokens of ASCII letters, digits and signs between spaces, commas or line ends",
        remedy="write them there, or unset UPKEEP_TOKENS_FILE",
        file=file,
    )
