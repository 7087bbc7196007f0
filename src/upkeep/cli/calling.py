"""What commands share: parameters, days, and functions of the package that are imported only when they are called."""

from datetime import datetime
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upkeep.core.text import show_lines

if TYPE_CHECKING:
    from upkeep.core.params import Params


def check_day(day: datetime | None) -> datetime | None:
    """Return the day; one too near to the calendar's ends to count other days from is refused."""
    from upkeep.core.types import CALENDAR

    if day and day.year not in CALENDAR:
        raise typer.BadParameter(f"a day lies between {CALENDAR.start} and {CALENDAR.stop}")
    return day


Day = partial(typer.Option, formats=["%Y-%m-%d"], callback=check_day)
Today = Annotated[datetime | None, Day("--as-of", envvar="UPKEEP_TODAY", help="Another day than today.")]


def load_params() -> "Params":
    """Return the parameters of ``params.yaml``; their module is slow to import, and `serve` does not need it."""
    from upkeep.core import params

    return params.load_params()


def call(function: str, *arguments: Any, **options: Any) -> None:
    """Import a function of the package, call it, and print what it returns, with control characters made visible."""
    found = resolve_name(function)(*arguments, **options)
    if found is not None:
        typer.echo(show_lines(found))
