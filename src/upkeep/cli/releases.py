"""`upkeep release`: which release is in which stage, and how it gets there or back."""

import os
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from upkeep.cli.calling import call, load_params
from upkeep.core.text import show_lines

Stage = Annotated[Literal["staging", "production"], typer.Argument(help="The stage to deploy to.")]
Why = Annotated[str, typer.Option(help="The reason, for the history.")]
TagOnly = Annotated[bool, typer.Option("--tag-only", help="Only record it; nothing is shipped.")]

app = typer.Typer(help="Which release of the fleet's models is where, and since when; kept as tags in git.")


@app.command("list")
def release_list() -> None:
    """List which release was in which stage, and when, newest first."""
    from upkeep.releases.history import tabulate_releases
    from upkeep.releases.tags import refresh

    typer.echo(show_lines(tabulate_releases(refresh())))


@app.command("show")
def release_show(
    name: Annotated[str, typer.Argument(help="A version, a stage or a tag, such as v12.0.0.")] = "production",
) -> None:
    """Show all that is known of one release."""
    from upkeep.releases.history import find_release, show_release
    from upkeep.releases.tags import refresh

    typer.echo(show_lines(show_release(find_release(refresh(), name))))


@app.command("promote")
def release_promote(
    stage: Stage,
    image: Annotated[str, typer.Argument(help="IMAGE@sha256:DIGEST, made from the newest commit here.")] = "",
    verdict: Annotated[str, typer.Option(help="What was judged; default: the figures beside their floors.")] = "",
    why: Why = "",
    tag_only: TagOnly = False,
) -> None:
    """Ship an image with deploy/ship.sh and, once it answers well, record its commit as the stage's release."""
    from upkeep.gitlab.deployment import Order, promote

    order = Order(stage, datetime.now(UTC), why, ship=not tag_only)
    typer.echo(show_lines(promote(order, image, verdict, load_params(), os.environ)))


@app.command("rollback")
def release_rollback(
    stage: Stage,
    to: Annotated[str, typer.Option(help="A version that the stage had; default: the one before.")] = "",
    why: Why = "",
    tag_only: TagOnly = False,
) -> None:
    """Ship the image that the stage had before, from a registry that still holds it, and record that."""
    from upkeep.gitlab.deployment import Order, roll_back

    order = Order(stage, datetime.now(UTC), why, ship=not tag_only)
    typer.echo(show_lines(roll_back(order, to, os.environ)))


@app.command("notes")
def release_notes() -> None:
    """Create the GitLab Release of this job's tag from the changelog."""
    call("upkeep.gitlab.api:release", os.environ)
