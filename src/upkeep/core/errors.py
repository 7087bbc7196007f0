"""The one exception that reaches a user: a sentence that names what, where, expected and remedy."""

from functools import partial

from upkeep.core.names import shorten
from upkeep.core.secrets import mask_credentials

LONGEST = 2000  # characters of a part of an error: text from a file or a request may be of any length
REMEDY = "\n  remedy:   "  # what precedes the remedy in an error's text


class UpkeepError(Exception):
    """Something the user can mend: what is wrong, with the value found, and what to do about it.

    `expected` says what should have been found, unless `what` does; `where` is the place: any of ``stage``, ``plant``,
    ``batch``, ``table``, ``column``, ``file``, ``cell``. Credentials in addresses are masked in all of them.

    Examples
    --------
    >>> print(UpkeepError("no batch found", expected="at least one", remedy="check fetch.until", plant="lyon"))
    no batch found [plant=lyon]
      expected: at least one
      remedy:   check fetch.until
    """

    code = 1  # that the command exits with

    def __init__(self, what: str, *, remedy: str, expected: str = "", **where: object) -> None:
        self.what, self.expected, self.remedy = map(_clean, (what, expected, remedy))
        self.where = {
            key: shorten(_clean(value), LONGEST) if isinstance(value, str) else value
            for key, value in where.items()
            if value is not None
        }
        super().__init__(self.what)

    def __str__(self) -> str:
        place = ", ".join(f"{key}={shorten(value, LONGEST)}" for key, value in self.where.items())
        expected = f"\n  expected: {self.expected}" if self.expected else ""
        return f"{self.what}{f' [{place}]' if place else ''}{expected}{REMEDY}{self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes send exceptions back by pickling; the default would lose the keywords.
        return partial(type(self), self.what, expected=self.expected, remedy=self.remedy, **self.where), ()

    def at(self, **where: object) -> "UpkeepError":
        """Return the same error with more of its place; what is known already stays."""
        return type(self)(self.what, expected=self.expected, remedy=self.remedy, **{**where, **self.where})


class TooLittleDataError(UpkeepError):
    """There is too little to train on, for which more history is the remedy."""


def _clean(text: str) -> str:
    # Credentials are recognised by what follows them, so they are masked before anything is cut off.
    masked = mask_credentials(text[: 4 * LONGEST])
    start = masked if len(masked) <= LONGEST else f"{masked[: LONGEST - 1]}…"
    return "\n".join(shorten(line, LONGEST) for line in start.splitlines())
