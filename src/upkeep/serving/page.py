"""The planner's page and what it asks for: the fleet ranked by risk, and one machine with its reasons."""

import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse
from pydantic import AwareDatetime, BaseModel, ValidationError

from upkeep.core.files import read_regular
from upkeep.core.types import describe_faults
from upkeep.model.explanation import Reason
from upkeep.scoring.prediction_log import Prediction
from upkeep.serving.board import Board, BoardMachine
from upkeep.serving.protocol import Refused, to_json
from upkeep.serving.service import describe, to_time

STATIC = Path(__file__).parent / "static"
MOST_SHOWN = 1_000
"""Machines in one answer, which the page asks for each minute."""

MOST_BYTES = 10_000_000
"""Of what `upkeep monitor` wrote."""

logger = logging.getLogger(__name__)


class ShownStanding(BaseModel):
    """How a plant stands, as `upkeep monitor` wrote it."""

    status: Literal["act", "watch", "unknown", "fine"]
    since: AwareDatetime
    why: list[str]


class ShownMonitoring(BaseModel):
    """What the page shows of ``monitoring.json``; `page` is where all of it is published, if it is."""

    as_of: AwareDatetime
    page: str | None = None
    standings: dict[str, ShownStanding]


Explain = Callable[[Prediction], list[Reason]]
Limit = Annotated[int, Query(ge=1, le=MOST_SHOWN)]


def page_routes(
    board: Board,
    explain: Explain,
    *,
    horizon_hours: float,
    is_open: bool = False,
    takes_findings: bool = False,
    monitoring: Path | None = None,
) -> APIRouter:
    """Return the routes of the page.

    `explain` returns the reasons for a prediction, the strongest first, or none if its model is no longer loaded.
    `horizon_hours` is how far ahead the predictions look, `is_open` whether no token is asked for, `takes_findings`
    whether what visits found is kept, and `monitoring` the file in which `upkeep monitor` says how the plants stand.
    """
    router, files = APIRouter(), {path.name for path in STATIC.iterdir()}

    @router.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return FileResponse(STATIC / "index.html")

    @router.get("/static/{name}", include_in_schema=False)
    async def show_file(name: str) -> Response:
        if name not in files:
            raise Refused(404, "there is no such file", "a file of the page")
        return FileResponse(STATIC / name)

    @router.get("/fleet")
    def list_fleet(plant: str = "", search: str = "", limit: Limit = 100) -> Response:
        """Return the fleet, or one plant's or the machines whose name holds `search`, the most urgent first."""
        service = {
            "horizon_hours": horizon_hours,
            "open": is_open,
            "takes_findings": takes_findings,
            "monitoring": _read_monitoring(monitoring),
        }
        return to_json(service | _list_fleet(board, explain, plant, search, limit))

    @router.get("/fleet/machine", responses={404: {}})  # no path can hold every name: a slash, or two dots
    @router.get("/fleet/{plant}/{machine:path}", responses={404: {}})
    def show_machine(plant: str, machine: str) -> Response:
        """Return one machine with the reasons for its risk."""
        return to_json(_describe_machine(find_machine(board, plant, machine), explain))

    return router


def find_machine(board: Board, plant: str, machine: str) -> BoardMachine:
    """Return a machine of the board; `Refused` is raised if it is none of them."""
    found = board.get(plant, machine)
    if found is None:
        what = "no prediction of this machine is known"
        raise Refused(404, what, "a machine that GET /fleet lists", plant=plant, machine=machine)
    return found


def _read_monitoring(file: Path | None) -> dict[str, Any] | None:
    """Return how the plants stand, none of them if the file cannot be used; None if no file is named."""
    if file is None:
        return None
    try:
        return ShownMonitoring.model_validate_json(read_regular(file, MOST_BYTES)).model_dump()
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else describe_faults(error)
        logger.warning("the page cannot show how the plants stand: %s", reason, extra={"file": str(file)})
        return {"as_of": None, "page": None, "standings": {}}


def _list_fleet(board: Board, explain: Explain, plant: str, search: str, limit: int) -> dict[str, Any]:
    ranked = board.rank()
    machines = Counter(machine.newest["plant"] for machine in ranked)
    alarms = Counter(machine.newest["plant"] for machine in ranked if machine.newest["alarm"])
    found = [
        machine
        for machine in ranked
        if plant in ("", machine.newest["plant"]) and search.casefold() in machine.newest["machine"].casefold()
    ]
    return {
        "generated_at": datetime.now(UTC),
        "as_of": board.as_of,
        "plants": [{"plant": name, "machines": machines[name], "alarms": alarms[name]} for name in sorted(machines)],
        "total": len(found),
        # Only an alarm is explained here: it is what the planner acts on, and each explanation takes milliseconds.
        "machines": [
            _describe_machine(machine, explain if machine.newest["alarm"] else None) for machine in found[:limit]
        ],
    }


def _describe_machine(machine: BoardMachine, explain: Explain | None) -> dict[str, Any]:
    newest, maintenance = machine.newest, machine.maintenance
    if explain and "reasons" not in newest:  # kept with the prediction they belong to: a newer one brings its own
        newest["reasons"] = explain(newest)
    return describe(newest) | {
        "scored_at": to_time(newest["scored_at"]),
        "history": machine.history.tolist(),
        "last_maintenance": maintenance and {"time": to_time(maintenance[0]), "code": maintenance[1]},
        **({"reasons": newest["reasons"]} if explain else {}),
    }
