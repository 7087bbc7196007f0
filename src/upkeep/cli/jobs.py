"""The commands of GitLab's jobs, and of setting GitLab up."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from upkeep.cli.calling import Today, call, load_params
from upkeep.core.errors import UpkeepError
from upkeep.core.text import show_lines
from upkeep.core.timing import forget_times

app = typer.Typer()


@app.command()
def check() -> None:
    """Check acceptance cases and quality floors; exit 1 and say which do not hold."""
    call("upkeep.gitlab.gate:check", load_params())


@app.command()
def fresh() -> None:
    """Check that the committed lock belongs to code, parameters and data; exit 1 and name stale stages if not."""
    call("upkeep.gitlab.reproduction:check_freshness")


@app.command()
def ready(parts: Annotated[list[str], typer.Argument(help="storage, engine or registry.")]) -> None:
    """Check that what a job needs is set up; exit 69 and name the step of docs/gitlab.md if not."""
    call("upkeep.gitlab.readiness:require", parts, os.environ)


@app.command()
def reproduce() -> None:
    """Run what a merge request made stale, share its results, renew its lock and hold it to the floors."""
    forget_times()
    call("upkeep.gitlab.reproduction:reproduce", os.environ)
    check()


@app.command()
def retrain(today: Today = None) -> None:
    """Train again if there is a reason to, and offer the result as a merge request."""
    call("upkeep.gitlab.retraining:retrain", (today or datetime.now(UTC)).date(), os.environ)


@app.command()
def note(
    target: Annotated[
        str | None, typer.Option(help="Revision to compare with; default: the merge request's target branch.")
    ] = None,
) -> None:
    """Compare this branch with another: write reports/merge_request.md and, with a token, the note."""
    call("upkeep.gitlab.note:run", load_params(), target)


@app.command()
def backtest(most: Annotated[int, typer.Option(min=1, help="How many of the newest releases.")] = 20) -> None:
    """Judge the models of past releases on today's newest rows: how did each do then, how would it do now."""
    call("upkeep.gitlab.backtest:run", load_params(), most)


@app.command("notify-failure")
def notify_failure() -> None:
    """Report this job's failure by an issue or a webhook; for a job's after_script."""
    try:
        call("upkeep.gitlab.failure:notify_failure", os.environ)
    except UpkeepError as error:  # `main` would keep it in place of the failure that is to be told
        sys.exit(f"error: {error}")


@app.command("gitlab-setup")
def gitlab_setup(
    file: Annotated[Path, typer.Argument(help="What to set: examples/gitlab.yaml shows how.")],
    apply: Annotated[bool, typer.Option("--apply", help="Change it; without this it is listed only.")] = False,
) -> None:
    """Set a GitLab project's variables, schedule, token and protections as a file says; list them first."""
    call("upkeep.gitlab.setup:set_up", file, os.environ, apply=apply)


@app.command()
def doctor() -> None:
    """Try each connection that the GitLab jobs need; exit 1 and say what to fix."""
    from upkeep.gitlab.doctor import examine, raise_if_failed, tabulate_diagnoses

    diagnoses = examine()
    typer.echo(show_lines(tabulate_diagnoses(diagnoses)))
    raise_if_failed(diagnoses)
