"""The command line: one sub-command per stage and operation."""

import errno
import os
import sys
from typing import NoReturn

import typer

from upkeep.cli import jobs, production, releases, stages
from upkeep.core.errors import UpkeepError
from upkeep.core.text import show_lines

FULL = os.strerror(errno.ENOSPC)

app = typer.Typer(
    help="Continuous training for predictive maintenance. `dvc repro` runs the stages in order.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _commands in (stages, production, jobs):
    app.add_typer(_commands.app)
app.add_typer(releases.app, name="release")


def main() -> None:
    """Run the command line; errors that the user can fix are shown without a traceback."""
    try:
        app()
    except UpkeepError as error:
        _end(error)
    except Exception as error:
        if FULL in str(error):  # libraries wrap the system's error in their own kinds
            remedy = "free some space (`upkeep prune` lists what may go), then run `dvc repro` again"
        elif isinstance(error, OSError):
            remedy = "see whether a file or a folder is there as it should be, and who may read and write it"
        else:
            raise
        _end(UpkeepError((str(error) or repr(error)).splitlines()[0], remedy=remedy))


def _end(error: UpkeepError) -> NoReturn:
    """Keep an error for later jobs, print it last and exit."""
    from upkeep.gitlab.failure import keep_failure

    keep_failure(error, os.environ)
    sys.stdout.flush()
    typer.echo(f"error: {show_lines(error)}", err=True)
    sys.exit(error.code)
