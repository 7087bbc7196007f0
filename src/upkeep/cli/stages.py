"""The commands of dvc.yaml's stages, and of notebooks as stages."""

import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from upkeep.cli.calling import Day, call, load_params
from upkeep.core.text import align_columns
from upkeep.core.timing import stage_times, timed

STAGES = {
    "validate": "Hold raw batches against the data dictionary; set aside what breaks it.",
    "dataset": "Build features, labels and splits.",
    "train": "Train a model per plant and one for the fleet; keep the better one per plant.",
    "golden": "Write requests, and the answers the service must give to them.",
    "evaluate": "Judge the models on test rows: ranking, failures caught, money.",
    "drift": "Compare the newest batches with the training window.",
    "card": "Write the model card.",
}
"""Stages whose command only runs them; `fetch` and `record` do more."""

app = typer.Typer()
notebook = typer.Typer(help="Notebooks as stages.", no_args_is_help=True)
app.add_typer(notebook, name="notebook")


def run_stage(name: str) -> None:
    """Run a stage with ``params.yaml`` and record how long it took."""
    logging.basicConfig(level=logging.WARNING, format=f"{name}: %(message)s", stream=sys.stderr)
    with timed(name):
        call(f"upkeep.stages.{name}:run", load_params())


def _add_stage(name: str, summary: str) -> None:
    @app.command(name, help=summary)
    def run() -> None:
        run_stage(name)


for _name, _summary in STAGES.items():
    _add_stage(_name, _summary)


@app.command()
def fetch(
    again: Annotated[bool, typer.Option("--again", help="Read stored batches again and replace what changed.")] = False,
    plant: Annotated[str | None, typer.Option(help="Only batches of this plant.")] = None,
    batch: Annotated[datetime | None, Day(help="Only batches that hold this day.")] = None,
    drop_vanished: Annotated[bool, typer.Option("--drop-vanished", help="Drop what the source no longer has.")] = False,
) -> None:
    """Copy the source's new batches to data/raw; with --again, also those that were corrected."""
    if again or plant or batch or drop_vanished:
        day = batch.date() if batch else None
        call("upkeep.stages.fetch:read_again", load_params(), plant, day, drop_vanished=drop_vanished)
    run_stage("fetch")


@app.command()
def record() -> None:
    """Add the run to the experiment log and send it to MLflow, with all runs still waiting."""
    run_stage("record")
    times = stage_times()
    rows = [(name, f"{seconds:>7.1f}") for name, seconds in {**times, "all": sum(times.values())}.items()]
    typer.echo(align_columns(("stage", "seconds"), rows))


@notebook.command("run")
def notebook_run(
    path: Annotated[Path, typer.Argument(help="The notebook.")],
    assignments: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="name=value, over params.yaml.")
    ] = None,
) -> None:
    """Run a notebook with its settings from params.yaml and render it to reports/."""
    from upkeep.reporting.notebooks import rendering_of, resolve_parameters, run_notebook, stage_name

    with timed(stage_name(path)):
        run_notebook(path, rendering_of(path), resolve_parameters(path, load_params(), assignments or []))


@notebook.command("add")
def notebook_add(
    path: Annotated[Path, typer.Argument(help="The notebook; made from a template if it does not exist.")],
    into: Annotated[str, typer.Option(help="Where its data goes: interim, processed or reports.")],
    deps: Annotated[list[Path] | None, typer.Option("-d", "--dep", help="What it reads; may be repeated.")] = None,
) -> None:
    """Make a notebook a stage of dvc.yaml."""
    call("upkeep.reporting.notebooks:add_notebook", path, into, deps or [])
