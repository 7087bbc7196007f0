"""The planner's page and its routes: the fleet by risk, one machine with its reasons, and findings of visits.

Each finding is kept; of those on the same visit the newest counts (``fetch.findings``).
"""

import logging
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from upkeep.contract.casting import EARLIEST, LATEST
from upkeep.contract.rules import CLOCK_SLACK
from upkeep.core.errors import UpkeepError
from upkeep.core.objects import read_object
from upkeep.scoring.prediction_log import VISIT_LOG
from upkeep.serving.board import Board, BoardMachine
from upkeep.serving.body import Intake
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.protocol import REFUSALS, Refused, load_object, read_part, to_json
from upkeep.serving.service import Service, describe_prediction, to_time
from upkeep.serving.settings import Settings

STATIC = Path(__file__).parent / "static"
MOST_SHOWN = 1_000  # machines in one answer, which the page asks for each minute
VISIT_BYTES = 10_000  # of a finding
Limit = Annotated[int, Query(ge=1, le=MOST_SHOWN)]

Time = Annotated[AwareDatetime, Field(ge=EARLIEST, le=LATEST), AfterValidator(lambda time: time.astimezone(UTC))]

logger = logging.getLogger(__name__)


class Visit(BaseModel):
    """A visit to a machine, and what it found."""

    model_config = ConfigDict(extra="forbid")

    plant: str
    machine: str
    alarm_at: Time | None = Field(default=None, description="Any time of the alarm that it answers; null: of none.")
    visited_at: Time
    finding: Literal["defect", "nothing"]


class ShownStanding(BaseModel):
    """How a plant stands, as `upkeep monitor` wrote it."""

    status: Literal["act", "watch", "unknown", "fine"]
    since: AwareDatetime
    why: list[str]


class ShownMonitoring(BaseModel):
    """What the page shows of ``monitoring.json``; `page` is the address of the published report, if any."""

    as_of: AwareDatetime | None = None
    page: str | None = None
    standings: dict[str, ShownStanding] = {}


VISIT: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": Visit.model_json_schema()}}}
}


def page_routes(board: Board, service: Service, settings: Settings) -> APIRouter:
    """Return the routes of the page, which shows the board's machines and the service's reasons."""
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
        """Return the fleet, one plant of it, or the machines whose name contains `search`; the most urgent first."""
        about = {
            "generated_at": datetime.now(UTC),
            "horizon_hours": service.horizon_hours,
            "open": not settings.tokens,
            "takes_findings": settings.log_url is not None,
            "monitoring": _read_monitoring(settings.monitoring),
        }
        return to_json(about | _describe_fleet(board, service, plant, search.casefold(), limit))

    @router.get("/fleet/machine", responses={404: {}})  # no path can hold every name: a slash, or two dots
    def show_machine(plant: str, machine: str) -> Response:
        """Return one machine with the reasons for its risk."""
        return to_json(_describe_machine(_find_machine(board, plant, machine), service, explain=True))

    return router


def visit_route(board: Board, log: LogWriter) -> APIRouter:
    """Return the route that takes planners' findings on the board's machines and puts them into the log."""
    router = APIRouter(default_response_class=Response)
    intake = Intake(VISIT_BYTES)

    @router.post("/findings", status_code=202, openapi_extra=VISIT, responses=REFUSALS)
    async def add_finding(request: Request) -> Response:
        """Keep a finding; sent again for the same visit, it corrects the earlier one."""
        # Browsers send other sites' forms at once, but JSON only after a preflight request, which is refused.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "the body is not said to be JSON", "Content-Type: application/json")
        async with intake.read(request) as body:
            visit = read_part(Visit, load_object(body))
        now = datetime.now(UTC)
        if not (visit.alarm_at or EARLIEST) <= visit.visited_at <= now + CLOCK_SLACK:
            what = "visited_at is ahead of the clock, or before alarm_at"
            raise Refused(400, what, "when the visit was made, after the alarm", "/visited_at")
        _find_machine(board, visit.plant, visit.machine)
        said = visit.model_dump() | {"id": request.state.request_id, "said_at": now, "said_by": request.state.token}
        if log.write_error or not log.append(said, VISIT_LOG):
            raise Refused(429, "the spool takes nothing at the moment", "the same again, a little later")
        return to_json(said, 202)

    return router


def _describe_fleet(board: Board, service: Service, plant: str, part: str, limit: int) -> dict[str, Any]:
    """Return the counts of each plant, and the first machines of `plant`, or of all, whose name contains `part`."""
    ranked = board.rank()
    machines = Counter(machine.newest["plant"] for machine in ranked)
    alarms = Counter(machine.newest["plant"] for machine in ranked if machine.stands)
    plants = [{"plant": name, "machines": machines[name], "alarms": alarms[name]} for name in sorted(machines)]
    found = [
        machine
        for machine in ranked
        if plant in ("", machine.newest["plant"]) and part in machine.newest["machine"].casefold()
    ]
    # Only alarms are explained: they are what the planner acts on, and each explanation takes milliseconds.
    shown = [_describe_machine(machine, service, explain=machine.stands) for machine in found[:limit]]
    return {"as_of": board.as_of, "plants": plants, "total": len(found), "machines": shown}


def _find_machine(board: Board, plant: str, machine: str) -> BoardMachine:
    found = board.get(plant, machine)
    if found is None:
        what = "no prediction of this machine is known"
        raise Refused(404, what, "a machine that GET /fleet lists", plant=plant, machine=machine)
    return found


def _read_monitoring(file: Path | None) -> dict[str, Any] | None:
    """Return the plants' standings, none if the file cannot be read; None if no file is configured."""
    if file is None:
        return None
    try:
        found = read_object(ShownMonitoring, file, what="the file", remedy="run `upkeep monitor`")
    except UpkeepError as error:
        logger.warning("the page cannot show how the plants stand: %s", error.what, extra={"file": str(file)})
        found = ShownMonitoring()
    return found.model_dump()


def _describe_machine(machine: BoardMachine, service: Service, *, explain: bool) -> dict[str, Any]:
    newest, maintenance = machine.newest, machine.maintenance
    if explain and "reasons" not in newest:  # kept with the prediction that they explain
        newest["reasons"] = service.explain(newest)
    return describe_prediction(newest) | {
        "scored_at": to_time(newest["scored_at"]),
        "stands": machine.stands,
        "history": machine.history.tolist(),
        "last_maintenance": maintenance and {"time": to_time(maintenance[0]), "code": maintenance[1]},
        "maintained_since": machine.maintained_since,
        **({"reasons": newest["reasons"]} if explain else {}),
    }
