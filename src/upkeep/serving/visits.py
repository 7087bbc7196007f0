"""What planners say of visits to machines: each word is kept, the newest of a visit counts (``fetch.findings``)."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from upkeep.contract.casting import EARLIEST, LATEST
from upkeep.contract.validation import CLOCK_SLACK
from upkeep.scoring.prediction_log import VISIT_LOG
from upkeep.serving.board import Board
from upkeep.serving.body import Intake
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.page import find_machine
from upkeep.serving.protocol import REFUSALS, Refused, Unanswered, to_json
from upkeep.serving.table import check, load_object

MOST_BYTES = 10_000

Time = Annotated[AwareDatetime, Field(ge=EARLIEST, le=LATEST), AfterValidator(lambda time: time.astimezone(UTC))]


class Visit(BaseModel):
    """A visit to a machine, and what it found."""

    model_config = ConfigDict(extra="forbid")

    plant: str
    machine: str
    alarm_at: Time | None = Field(default=None, description="Any time of the alarm that it answers; null: of none.")
    visited_at: Time
    finding: Literal["defect", "nothing"]


REFUSED = {
    **{status: REFUSALS[status] for status in (400, 401, 403, 408, 413, 415)},
    404: "The machine was not scored in the last weeks.",
    429: "Too many requests are under way, or the spool takes none: nothing was kept.",
}
VISIT: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": Visit.model_json_schema()}}}
}


def visit_route(board: Board, log: LogWriter) -> APIRouter:
    """Return the route by which planners say what visits to the machines of `board` found, which goes to `log`."""
    router = APIRouter(default_response_class=Response)
    intake = Intake(MOST_BYTES)

    @router.post(
        "/findings",
        status_code=202,
        openapi_extra=VISIT,
        responses={status: {"model": Unanswered, "description": why} for status, why in REFUSED.items()},
    )
    async def add_finding(request: Request) -> Response:
        """Keep what a visit found; sent again for the same visit, it corrects what was said before."""
        # A browser sends another site's forms unasked, but this type only after it has asked, which is refused.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "the body is not said to be JSON", "Content-Type: application/json")
        async with intake.read(request) as body:
            visit = check(Visit, load_object(body))
        now = datetime.now(UTC)
        if not (visit.alarm_at or EARLIEST) <= visit.visited_at <= now + CLOCK_SLACK:
            what = "visited_at is ahead of the clock, or before alarm_at"
            raise Refused(400, what, "when the visit was made, after the alarm", "/visited_at")
        find_machine(board, visit.plant, visit.machine)
        who = {"id": request.state.request_id, "said_at": now, "said_by": request.state.token}
        said = visit.model_dump() | who
        if log.status.write_error or not log.append(said, VISIT_LOG):
            raise Refused(429, "the spool takes nothing at the moment", "the same again, a little later")
        return to_json(said, 202)

    return router
