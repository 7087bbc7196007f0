"""MLflow's scoring protocol as typed objects: what `/invocations` is asked and what it answers.

They check requests and describe both to programs in ``/openapi.json``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import Repr
from typing import Annotated, Any

import orjson
from fastapi import Response
from pydantic import AwareDatetime, BaseModel, Field, InstanceOf, TypeAdapter, WithJsonSchema

from upkeep.model.explanation import Reason
from upkeep.model.scoring import Caution

EXAMPLE_COLUMNS = ["plant", "machine", "time", "speed_rpm", "load_pct", "vibration_mm_s", "temperature_c"]
EXAMPLE_ROW = ["lyon", "M001", "2025-12-28T23:00:00Z", 2410, 60.2, 2.1, 45.0]

CELL = {"type": ["string", "number", "boolean", "null"]}
Cell = Annotated[Any, WithJsonSchema(CELL)]
"""Anything: what a machine's row may hold is for the data dictionary to say, and costs that machine only."""

Record = Annotated[InstanceOf[dict[str, Any]], WithJsonSchema({"type": "object", "additionalProperties": CELL})]
"""A row that is not copied, as other models are: of all rows that would take much memory."""

SHOWN = 40
"""Characters of a value that an error repeats."""


BRIEF = Repr()  # which takes no time for what is not shown
BRIEF.maxlevel = 5
BRIEF.maxlist = BRIEF.maxdict = SHOWN
BRIEF.maxstring = BRIEF.maxlong = BRIEF.maxother = 2 * SHOWN


class SplitTable(BaseModel):
    """A table as names and rows."""

    columns: list[str] = Field(examples=[EXAMPLE_COLUMNS])
    data: list[list[Cell]] = Field(examples=[[EXAMPLE_ROW]])


class Options(BaseModel):
    """What else a request asks for."""

    reasons: bool | None = Field(default=None, description="Give the reasons for each score.")


class SplitRequest(BaseModel):
    """A table as names and rows."""

    dataframe_split: SplitTable
    params: Options | None = None


class RecordsRequest(BaseModel):
    """A table as a list of objects."""

    dataframe_records: list[Record] = Field(examples=[[dict(zip(EXAMPLE_COLUMNS, EXAMPLE_ROW, strict=True))]])
    params: Options | None = None


class MachineRisk(BaseModel):
    """A machine's risk."""

    plant: str
    machine: str
    time: AwareDatetime = Field(description="The newest row.")
    probability: float = Field(ge=0, le=1)
    alarm: bool
    threshold: float
    model_version: str
    warnings: list[Caution]
    reasons: list[Reason] = []


@dataclass(frozen=True)
class Error:
    """Why a machine, or a whole request, is not answered: a JSON pointer into the body, or its line of CSV, and why."""

    pointer: str
    what: str
    expected: str
    plant: str | None = None
    machine: str | None = None
    row: int | None = None
    column: str | None = None


class Unanswered(BaseModel):
    """Why there is no answer."""

    errors: list[Error]


class Answered(Unanswered):
    """An answer per machine; `errors` tells of those that have none."""

    predictions: list[MachineRisk]


REFUSALS = {
    400: "The body is no table.",
    401: "The token is missing or wrong.",
    403: "The service is open, and a page or name of another host asks it.",
    408: "The body took too long to come.",
    413: "The body is too large, holds too much or takes too long to answer.",
    415: "The body is neither JSON nor CSV.",
    422: "No machine could be answered, or a column's name is too long.",
    429: "Too many large requests are under way.",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Answered, "description": "An answer per machine; `errors` tells of those that have none."},
    **{status: {"model": Unanswered, "description": reason} for status, reason in REFUSALS.items()},
}
# FastAPI lists the models of bodies that it reads itself; these stand where they are used.
DEFINITIONS = "#/paths/~1invocations/post/requestBody/content/application~1json/schema/$defs/{model}"
TABLES = TypeAdapter(SplitRequest | RecordsRequest).json_schema(ref_template=DEFINITIONS)
INVOCATIONS: dict[str, Any] = {
    "parameters": [
        {"name": "reasons", "in": "query", "schema": {"type": "boolean"}, "description": "As params.reasons, for CSV."}
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": TABLES},
            "text/csv": {"schema": {"type": "string", "examples": [",".join(EXAMPLE_COLUMNS)]}},
        },
    },
}


HEADERS = {
    401: {"www-authenticate": "Bearer"},
    415: {"accept": "application/json, text/csv", "accept-encoding": "gzip, deflate"},
    429: {"retry-after": "1"},
}
"""Of refusals, by their status."""


def to_json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return content as a response."""
    return Response(orjson.dumps(content), status, headers, "application/json")


def cite(value: Any) -> str:
    """Return a value from a request as an error may repeat it."""
    text = BRIEF.repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


class Refused(Exception):  # noqa: N818  # the answer to a request, not a fault of the program
    """A request that has no answer at all: its HTTP status, 4xx, and what is wrong, as errors tell it."""

    def __init__(self, status: int, what: str, expected: str, pointer: str = "", **whose: str) -> None:
        super().__init__(what)
        self.status = status
        self.error = Error(pointer, what, expected, whose.get("plant"), whose.get("machine"))

    def to_response(self, **headers: str) -> Response:
        """Return the response that says so, as `Unanswered` describes it."""
        content = {"predictions": [], "errors": [self.error]}
        return to_json(content, self.status, HEADERS.get(self.status, {}) | headers)
