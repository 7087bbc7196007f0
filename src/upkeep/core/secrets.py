"""Secrets: filled in from the environment, and masked in all that is shown, logged or sent.

This is the only place that does either.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# Each matches a whole word, with or without a secret in it, so that no character is scanned twice.
USER_INFO = re.compile(r"//(?P<user>\S+@)?(?P<rest>\S*)")
QUERY = re.compile(r"(?P<before>//[^\s?]*\??|\?(?=[\w.%-]+=))(?P<query>\S*)")
SECRET_NAME = re.compile(
    r"pass|secret|token|credential|connection_?string|(api|access|account|private|storage)_?key(?!_?id)|^key$|(^|_)sas$",
    re.IGNORECASE,
)
SHORTEST_SECRET = 4  # shorter ones are not masked: they would be found in texts by chance


def expand_variables(text: str, write: Callable[[str], str] = str) -> str:
    """Fill in ``$NAME`` and ``${NAME}``, each value passed through `write`; raises UpkeepError if one is not set."""
    from upkeep.core.errors import UpkeepError  # which masks what it says, and so needs this module first

    for name in _variables(text):
        if name not in os.environ:
            raise UpkeepError(
                f"the environment variable {name} is not set",
                remedy=f"export {name}=..., set it as a CI variable, or correct the setting that mentions it",
            )
    return VARIABLE.sub(lambda match: write(os.environ[match[1] or match[2]]), text)


def expand_all(options: Any) -> Any:
    """Fill in variables in every string of nested mappings and lists."""
    if isinstance(options, Mapping):
        return {key: expand_all(value) for key, value in options.items()}
    if isinstance(options, list):
        return [expand_all(value) for value in options]
    return expand_variables(options) if isinstance(options, str) else options


def hide_variables(message: str, *templates: str) -> str:
    """Replace the values of the variables that `templates` mention, which may be secrets, by the variables' names."""
    names = {name for template in templates for name in _variables(template)}
    return _mask(message, {os.environ.get(name, ""): f"${{{name}}}" for name in names})


def _mask(text: str, shown: Mapping[str, str]) -> str:
    """Replace secrets even if percent-encoded, as in addresses, the longest first, since it may begin with another."""
    known = {secret: word for secret, word in shown.items() if len(secret) >= SHORTEST_SECRET}
    known |= {unquote(secret): word for secret, word in known.items()}
    for written in sorted(known, key=len, reverse=True):
        text = re.sub("".join(map(_match_escaped, written)), known[written], text)
    return mask_credentials(text)


def _match_escaped(character: str) -> str:
    plus = r"|\+" if character == " " else ""
    escaped = "".join(f"%{byte:02X}" for byte in character.encode())
    return f"(?:(?i:{escaped})|{re.escape(character)}{plus})"  # a % is the first character of its own escape


def _variables(text: str) -> list[str]:
    return [braced or bare for braced, bare in VARIABLE.findall(text)]


def mask_credentials(text: str) -> str:
    """Return the text with the user, password and query of each address in it masked."""
    shown = USER_INFO.sub(lambda found: f"//{'***@' if found['user'] else ''}{found['rest']}", text)
    return QUERY.sub(lambda found: f"{found['before']}{'***' if found['query'] else ''}", shown)


def mask_values(text: str, *secrets: str | None) -> str:
    """Return the text with these values, and the credentials of each address in it, masked."""
    return _mask(text, dict.fromkeys(filter(None, secrets), "***"))


def mask_environment(text: str, environment: Mapping[str, str]) -> str:
    """Return the text without the values of variables whose names say that they are secret."""
    return mask_values(text, *(value for name, value in environment.items() if SECRET_NAME.search(name)))


def mask_secrets(value: Any) -> Any:
    """Return nested parameters with addresses' credentials, and values under a secret's name, masked."""
    if isinstance(value, Mapping):
        return {name: "***" if SECRET_NAME.search(str(name)) else mask_secrets(item) for name, item in value.items()}
    if isinstance(value, list):
        return [mask_secrets(item) for item in value]
    return mask_credentials(value) if isinstance(value, str) else value
