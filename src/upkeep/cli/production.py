"""The commands of everyday work: adopt deliveries, score, serve, monitor, clean up."""

import gc
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from upkeep.cli.calling import Day, Today, call, load_params
from upkeep.core import paths
from upkeep.core.text import show_lines

app = typer.Typer()


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
def score(
    until: Annotated[
        datetime | None, Day(help="Only print the scores of the batches up to the one that holds this day.")
    ] = None,
    today: Today = None,
) -> None:
    """Score each machine's newest data; predictions go to the log, table and webhook of params.yaml."""
    call("upkeep.scoring.score:run", load_params(), _read_clock(today), until.date() if until else None)


@app.command()
def outcomes(
    by: Annotated[
        Literal["model_version", "week"] | None, typer.Option(help="Split each plant's figures by this.")
    ] = None,
    as_of: Annotated[datetime | None, Day(help="Show what was known after this day; adds nothing.")] = None,
) -> None:
    """Add outcomes of alarms and failures to the ledger, and show live precision, recall and money."""
    from upkeep.production.figures import show_outcomes
    from upkeep.production.ledger import as_known, read_ledger, record_outcomes

    params = load_params()
    if as_of:
        known = as_known(read_ledger(params.production.ledger), as_of.replace(tzinfo=UTC) + timedelta(days=1))
    else:
        known = record_outcomes(params, datetime.now(UTC))
    typer.echo(show_lines(show_outcomes(known, params, ["plant", *([by] if by else [])])))


@app.command()
def monitor(today: Today = None) -> None:
    """Report each plant's status: pages, JSON and webhook; exit 1 if somebody has to act, 69 if too little is known."""
    call("upkeep.production.monitor:run", load_params(), _read_clock(today))


@app.command()
def rehearse(
    plants: Annotated[int, typer.Option(min=1, max=8, help="Simulated plants.")] = 2,
    machines: Annotated[int, typer.Option(min=2, max=1000, help="Machines per plant.")] = 8,
    weeks: Annotated[int, typer.Option(min=24, max=520, help="Simulated weeks; changes come in the middle.")] = 104,
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds to simulate.")] = 1,
    change: Annotated[list[str] | None, typer.Option(help="What changes; may be repeated; none: nothing.")] = None,
    policies: Annotated[str | None, typer.Option(help="Names with commas between; default: all.")] = None,
) -> None:
    """Simulate years under several policies of retraining, and show what each costs."""
    from upkeep.rehearsal.rehearse import POLICIES, World
    from upkeep.rehearsal.run import run

    size = World(plants, machines, weeks, seed=1, change="none")
    lived = run(load_params(), size, seeds, change or ["bearings"], policies.split(",") if policies else [*POLICIES])
    typer.echo(show_lines(lived))


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
    call("upkeep.serving.smoke:smoke", url)


@app.command()
def prune(
    days: Annotated[
        int | None, typer.Option(min=0, max=36500, help="Also pieces and predictions older than this.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is listed only.")] = False,
) -> None:
    """Remove what nothing needs: raw data before fetch.since, old pieces and predictions, unused cache."""
    call("upkeep.gitlab.prune:prune", load_params(), datetime.now(UTC).date(), days, remove=yes)


@app.command()
def pages(output: Annotated[Path, typer.Option(help="The folder to write.")] = Path("public")) -> None:
    """Write reports and docs as a web site."""
    call("upkeep.reporting.pages:build_pages", output)


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


def _read_clock(today: datetime | None) -> datetime:
    """Return the beginning of that day in UTC, by default now."""
    return today.replace(tzinfo=UTC) if today else datetime.now(UTC)
