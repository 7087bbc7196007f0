"""The planner's page and what it asks for: the fleet ranked by risk, and one machine with its reasons."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from upkeep.model.explanation import Reason
from upkeep.scoring.prediction_log import Prediction
from upkeep.serving.board import Board, BoardMachine
from upkeep.serving.protocol import Refused, to_json
from upkeep.serving.service import describe, to_time

STATIC = Path(__file__).parent / "static"
MOST_SHOWN = 1_000
"""Machines in one answer, which the page asks for each minute."""

Explain = Callable[[Prediction], list[Reason]]
Limit = Annotated[int, Query(ge=1, le=MOST_SHOWN)]


def page_routes(board: Board, explain: Explain, *, horizon_hours: float, is_open: bool = False) -> APIRouter:
    """Return the routes of the page.

    `explain` returns the reasons for a prediction, the strongest first, or none if its model is no longer loaded.
    `horizon_hours` is how far ahead the predictions look, `is_open` whether no token is asked for.
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
        service = {"horizon_hours": horizon_hours, "open": is_open}
        return to_json(service | _list_fleet(board, explain, plant, search, limit))

    @router.get("/fleet/machine", responses={404: {}})  # no path can hold every name: a slash, or two dots
    @router.get("/fleet/{plant}/{machine:path}", responses={404: {}})
    def show_machine(plant: str, machine: str) -> Response:
        """Return one machine with the reasons for its risk."""
        found = board.get(plant, machine)
        if found is None:
            what = "no prediction of this machine is known"
            raise Refused(404, what, "a machine that GET /fleet lists", plant=plant, machine=machine)
        return to_json(_describe_machine(found, explain))

    return router


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
