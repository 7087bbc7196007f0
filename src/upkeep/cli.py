"""The command line: one sub-command per stage and operation."""

import errno
import gc
import logging
import os
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.text import align_columns, show_lines
from upkeep.core.timing import forget_times, stage_times, timed

if TYPE_CHECKING:
    from upkeep.core.params import Params

FULL = os.strerror(errno.ENOSPC)

STAGES = {
    "validate": "Hold raw batches against the data dictionary; set aside what breaks it.",
    "dataset": "Build features, labels and splits.",
    "train": "Train a model per plant and one for the fleet; keep the better one per plant.",
    "golden": "Write requests, and the answers the service must give to them.",
    "evaluate": "Judge the models on test rows: ranking, failures caught, money.",
    "drift": "Compare the newest batches with the training window.",
    "card": "Write the model card.",
}
"""What each stage does; `upkeep fetch` and `upkeep record` do something besides."""

app = typer.Typer(
    help="Continuous training for predictive maintenance. `dvc repro` runs the stages in order.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
notebook = typer.Typer(help="Notebooks as stages.", no_args_is_help=True)
app.add_typer(notebook, name="notebook")
release = typer.Typer(help="Which release of the fleet's models is where, and since when; kept as tags in git.")
app.add_typer(release, name="release")


def check_day(day: datetime | None) -> datetime | None:
    """Return a day that others can be counted from; one at the end of the calendar is refused."""
    from upkeep.core.types import CALENDAR

    if day and day.year not in CALENDAR:
        raise typer.BadParameter(f"a day lies between {CALENDAR.start} and {CALENDAR.stop}")
    return day


Day = partial(typer.Option, formats=["%Y-%m-%d"], callback=check_day)
Stage = Annotated[Literal["staging", "production"], typer.Argument(help="Where it goes.")]
Why = Annotated[str, typer.Option(help="In words, for those who read the history.")]
TagOnly = Annotated[bool, typer.Option("--tag-only", help="Note it only; nothing is sent to a server.")]


def load_params() -> "Params":
    """Return what ``params.yaml`` says; what reads it takes longer to import than the rest, and `serve` is in haste."""
    from upkeep.core import params

    return params.load_params()


def tell(function: str, *arguments: Any, **options: Any) -> None:
    """Call a function of the package, imported only now, and print what it returns, which may repeat foreign words."""
    found = resolve_name(function)(*arguments, **options)
    if found is not None:
        typer.echo(show_lines(found))


def run_stage(name: str) -> None:
    """Run the stage of this name with ``params.yaml``, and note how long it took; errors name the stage."""
    logging.basicConfig(level=logging.WARNING, format=f"{name}: %(message)s", stream=sys.stderr)
    with timed(name):
        tell(f"upkeep.stages.{name}:run", load_params())


def _add_stage(name: str, summary: str) -> None:
    @app.command(name, help=summary)
    def run() -> None:
        run_stage(name)


for _name, _summary in STAGES.items():
    _add_stage(_name, _summary)


@app.command()
def fetch(
    again: Annotated[bool, typer.Option("--again", help="Read stored batches again and replace what changed.")] = False,
    plant: Annotated[str | None, typer.Option(help="Of this plant only.")] = None,
    batch: Annotated[datetime | None, Day(help="That hold this day only.")] = None,
    drop_vanished: Annotated[bool, typer.Option("--drop-vanished", help="And drop what the source lost.")] = False,
) -> None:
    """Copy the source's new batches to data/raw; with --again, those that were mended, too."""
    if again or plant or batch or drop_vanished:
        day = batch.date() if batch else None
        tell("upkeep.stages.fetch:read_again", load_params(), plant, day, drop_vanished=drop_vanished)
    run_stage("fetch")


@app.command()
def record() -> None:
    """Add the run to the experiment log and send it to MLflow, with all runs still waiting."""
    run_stage("record")
    times = stage_times()
    rows = [(name, f"{seconds:>7.1f}") for name, seconds in {**times, "all": sum(times.values())}.items()]
    typer.echo(align_columns(("stage", "seconds"), rows))


@app.command()
def check() -> None:
    """Check acceptance cases and quality floors; exit 1 and say which do not hold."""
    tell("upkeep.gitlab.gate:check", load_params())


@app.command()
def score(until: Annotated[datetime | None, Day(help="Score as of the batch that holds this day.")] = None) -> None:
    """Score each machine's newest data and tell the prediction log, the table and the webhook of params.yaml."""
    tell("upkeep.scoring.score:run", load_params(), until.date() if until else None)


@app.command()
def outcomes(
    by: Annotated[
        Literal["model_version", "week"] | None, typer.Option(help="Part each plant's figures by it, too.")
    ] = None,
    as_of: Annotated[datetime | None, Day(help="Tell what was known after this day; adds nothing.")] = None,
) -> None:
    """Add what came of alarms and failures to the ledger, and tell it with live precision, recall and money."""
    from upkeep.production.figures import show_outcomes
    from upkeep.production.ledger import as_known, read_ledger, record_outcomes

    params = load_params()
    if as_of:
        known = as_known(read_ledger(params.production.ledger), as_of.replace(tzinfo=UTC) + timedelta(days=1))
    else:
        known = record_outcomes(params, datetime.now(UTC))
    typer.echo(show_lines(show_outcomes(known, params, ["plant", *([by] if by else [])])))


@app.command()
def rehearse(
    plants: Annotated[int, typer.Option(min=1, max=8, help="Simulated plants.")] = 2,
    machines: Annotated[int, typer.Option(min=2, max=1000, help="Machines per plant.")] = 8,
    weeks: Annotated[
        int, typer.Option(min=24, max=520, help="Weeks to live through; changes come in the middle.")
    ] = 104,
    seeds: Annotated[int, typer.Option(min=1, help="Worlds to draw.")] = 1,
    change: Annotated[list[str] | None, typer.Option(help="What changes; may be repeated. none: nothing.")] = None,
    policies: Annotated[str | None, typer.Option(help="With commas between; all, if none is given.")] = None,
) -> None:
    """Live through simulated years under several policies of retraining, and tell what each costs."""
    from upkeep.rehearsal.rehearse import POLICIES, World
    from upkeep.rehearsal.run import run

    size = World(plants, machines, weeks, seed=1, change="none")
    lived = run(load_params(), size, seeds, change or ["bearings"], policies.split(",") if policies else [*POLICIES])
    typer.echo(show_lines(lived))


@app.command()
def adopt(
    places: Annotated[list[str], typer.Argument(help="Folders, files, globs or addresses, or a database's URL.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the dictionary and the settings there are.")] = False,
) -> None:
    """Look at deliveries, guess what they are, and draft the data dictionary and the parameters for them."""
    from upkeep.adopt.adopt import adopt

    for line in adopt(places, force=force):
        typer.echo(show_lines(line))


@app.command()
def prune(
    days: Annotated[
        int | None, typer.Option(min=0, max=36500, help="Pieces not used, and predictions made, so long ago.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is listed only.")] = False,
) -> None:
    """Remove what only takes room: raw data before fetch.since, old pieces and predictions, unneeded cache."""
    tell("upkeep.gitlab.prune:prune", load_params(), datetime.now(UTC).date(), days, remove=yes)


@app.command()
def fresh() -> None:
    """Tell whether the committed lock belongs to code, parameters and data; exit 1 and name the stale stages if not."""
    tell("upkeep.gitlab.reproduction:check_freshness")


@app.command()
def ready(parts: Annotated[list[str], typer.Argument(help="storage, engine or registry.")]) -> None:
    """Tell whether what a job needs is set up; exit 69 and name the step of docs/gitlab.md if it is not yet."""
    tell("upkeep.gitlab.readiness:require", parts, os.environ)


@app.command()
def reproduce() -> None:
    """Run what a merge request made stale, share its results, renew its lock and hold it to the floors."""
    forget_times()
    tell("upkeep.gitlab.reproduction:reproduce", os.environ)
    check()


@app.command()
def retrain() -> None:
    """Train again if there is a reason to, and offer the result as a merge request."""
    from upkeep.gitlab.retraining import retrain

    try:
        said = retrain(os.environ)
    except UpkeepError as error:  # which `upkeep monitor` tells, too
        write_whole(paths.RETRAINING, error.what.encode())
        raise
    write_whole(paths.RETRAINING, said.encode())
    typer.echo(show_lines(said))


@app.command()
def monitor(
    as_of: Annotated[datetime | None, Day(envvar="UPKEEP_TODAY", help="Another day than today.")] = None,
) -> None:
    """Tell how each plant stands: pages, JSON and webhook; exit 1 if somebody has to act, 69 if too little is known."""
    tell("upkeep.production.monitor:run", load_params(), as_of.replace(tzinfo=UTC) if as_of else datetime.now(UTC))


@app.command()
def note(
    target: Annotated[
        str | None, typer.Option(help="Revision to compare with; default: the merge request's target branch.")
    ] = None,
) -> None:
    """Judge this branch beside another: write reports/merge_request.md, and the merge request's note if allowed."""
    tell("upkeep.gitlab.note:run", load_params(), target)


@app.command()
def backtest(most: Annotated[int, typer.Option(min=1, help="Of the newest releases, so many.")] = 20) -> None:
    """Ask the models of past releases about today's newest rows: how did each do then, how would it do now."""
    tell("upkeep.gitlab.backtest:run", load_params(), most)


@app.command("notify-failure")
def notify_failure() -> None:
    """Notify people of this job's failure by an issue or a webhook; meant for a job's after_script."""
    try:
        tell("upkeep.gitlab.failure:notify_failure", os.environ)
    except UpkeepError as error:  # not kept, lest it take the place of what is to be told
        sys.exit(f"error: {error}")


@app.command()
def serve() -> None:
    """Answer requests over HTTP until SIGTERM; settings come from UPKEEP_... variables (docs/service.md)."""
    gc.disable()  # hardly anything that starting makes is garbage; `serve` turns it on again

    from upkeep.model.trial import begin

    begin(Path(os.environ.get("UPKEEP_MODELS") or paths.MODELS))  # while the rest is imported

    from upkeep.serving.app import serve

    serve()


@app.command()
def smoke(url: Annotated[str, typer.Option(help="Where the service answers.")] = "http://127.0.0.1:8000") -> None:
    """Send a running service the golden requests; exit 1 if an answer differs from training's."""
    tell("upkeep.serving.smoke:smoke", url)


@app.command()
def pages(output: Annotated[Path, typer.Option(help="The folder to write.")] = Path("public")) -> None:
    """Write reports and docs as a web site."""
    tell("upkeep.reporting.pages:build_pages", output)


@release.command("notes")
def release_notes() -> None:
    """Make the GitLab Release of this job's tag from the changelog."""
    tell("upkeep.gitlab.api:release", os.environ)


@release.command("list")
def release_list() -> None:
    """List who had what in which stage, and when, the newest first."""
    from upkeep.releases.history import tabulate_releases
    from upkeep.releases.tags import refresh

    typer.echo(show_lines(tabulate_releases(refresh())))


@release.command("show")
def release_show(
    name: Annotated[str, typer.Argument(help="A version, a stage or a tag, such as v12.0.0.")] = "production",
) -> None:
    """Show all that is known of one release."""
    from upkeep.releases.history import find_release, show_release
    from upkeep.releases.tags import refresh

    typer.echo(show_lines(show_release(find_release(refresh(), name))))


@release.command("promote")
def release_promote(
    stage: Stage,
    image: Annotated[str, typer.Argument(help="IMAGE@sha256:DIGEST, made from the newest commit here.")] = "",
    verdict: Annotated[str, typer.Option(help="What was judged; default: the figures beside their floors.")] = "",
    why: Why = "",
    tag_only: TagOnly = False,
) -> None:
    """Ship an image with deploy/ship.sh and, once it answers well, note its commit as the stage's release."""
    from upkeep.gitlab.deployment import Order, promote

    order = Order(stage, datetime.now(UTC), why, ship=not tag_only)
    typer.echo(show_lines(promote(order, image, verdict, load_params(), os.environ)))


@release.command("rollback")
def release_rollback(
    stage: Stage,
    to: Annotated[str, typer.Option(help="A version that the stage had; default: the one before.")] = "",
    why: Why = "",
    tag_only: TagOnly = False,
) -> None:
    """Ship the image that the stage had before, from whatever registry still holds it, and note that."""
    from upkeep.gitlab.deployment import Order, roll_back

    order = Order(stage, datetime.now(UTC), why, ship=not tag_only)
    typer.echo(show_lines(roll_back(order, to, os.environ)))


@app.command("gitlab-setup")
def gitlab_setup(
    file: Annotated[Path, typer.Argument(help="What to set: examples/gitlab.yaml shows how.")],
    apply: Annotated[bool, typer.Option("--apply", help="Change it; without this it is listed only.")] = False,
) -> None:
    """Set a GitLab project's variables, schedule, token and protections as a file says; list them first."""
    tell("upkeep.gitlab.setup:set_up", file, os.environ, apply=apply)


@app.command()
def doctor() -> None:
    """Try each connection that the GitLab jobs need; exit 1 and say what to fix."""
    from upkeep.gitlab.doctor import examine, raise_if_failed, tabulate_diagnoses

    diagnoses = examine()
    typer.echo(show_lines(tabulate_diagnoses(diagnoses)))
    raise_if_failed(diagnoses)


@app.command()
def dictionary(
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/data_dictionary.md"),
) -> None:
    """Write the data dictionary as a page."""
    from upkeep.contract.dictionary import load_dictionary
    from upkeep.reporting.templates import render_markdown

    source = load_params().validate_.dictionary
    page = render_markdown("data_dictionary.md", dictionary=load_dictionary(source), source=source)
    output.write_text(page, encoding="utf-8")


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
        parameters = resolve_parameters(path, load_params(), assignments or [])
        run_notebook(path, rendering_of(path), parameters)


@notebook.command("add")
def notebook_add(
    path: Annotated[Path, typer.Argument(help="The notebook; made from a template if it does not exist.")],
    into: Annotated[str, typer.Option(help="Where its data goes: interim, processed or reports.")],
    deps: Annotated[list[Path] | None, typer.Option("-d", "--dep", help="What it reads; may be repeated.")] = None,
) -> None:
    """Make a notebook a stage of dvc.yaml."""
    tell("upkeep.reporting.notebooks:add_notebook", path, into, deps or [])


def main() -> None:
    """Run the command line; what the user can mend is told without a traceback."""
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
    """Keep an error for the commands that come after, and end with it as the last words of the log."""
    from upkeep.gitlab.failure import keep_failure

    keep_failure(error, os.environ)
    sys.stdout.flush()
    typer.echo(f"error: {show_lines(error)}", err=True)
    sys.exit(getattr(error, "code", 1))
