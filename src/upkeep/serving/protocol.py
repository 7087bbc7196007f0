"""MLflow's scoring protocol as typed objects, which check requests and describe both sides in ``/openapi.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import Repr
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Response
from pydantic import AwareDatetime, BaseModel, Field, InstanceOf, ValidationError, WithJsonSchema

from upkeep.model.explanation import Reason
from upkeep.model.scoring import Caution

SMOKE = "x-upkeep-smoke"
"""Header of golden requests, whose old data must not appear on the page."""

CELL = {"type": ["string", "number", "boolean", "null"]}
Cell = Annotated[Any, WithJsonSchema(CELL)]
"""Any value: the data dictionary judges it, and a wrong one costs its machine only."""

Record = Annotated[InstanceOf[dict[str, Any]], WithJsonSchema({"type": "object", "additionalProperties": CELL})]
"""A row, not copied into a model of its own, which would take much memory for all rows."""

EXPECTED = {
    **dict.fromkeys(("model_type", "is_instance_of"), "an object"),
    "timezone_aware": "a time with its offset, such as 2025-12-29T09:30:00Z",
}
"""By pydantic's type of error, in JSON's terms."""

EXACT_DIGITS = 19  # longer integers are read as floats
SHOWN = 40  # characters of a value that an error repeats
BRIEF = Repr()  # stops early, unlike repr
BRIEF.maxlevel = 5
BRIEF.maxlist = BRIEF.maxdict = SHOWN
BRIEF.maxstring = BRIEF.maxlong = BRIEF.maxother = 2 * SHOWN

Part = TypeVar("Part", bound=BaseModel)  # of a request


class SplitTable(BaseModel):
    """A table as names and rows."""

    # One fault is enough: one for each of millions of items would fill the memory.
    columns: list[str] = Field(fail_fast=True, examples=[["plant", "machine", "time", "vibration_mm_s"]])
    data: list[list[Cell]] = Field(fail_fast=True, examples=[[["lyon", "M001", "2025-12-28T23:00:00Z", 2.1]]])


class Options(BaseModel):
    """What else a request asks for."""

    reasons: bool | None = Field(default=None, description="Give the reasons for each score.")


class Invocation(BaseModel):
    """A table, as names and rows or as a list of objects."""

    dataframe_split: SplitTable | None = None
    dataframe_records: list[Record] | None = Field(default=None, fail_fast=True)
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
    """Why a machine, or a whole request, has no answer; `pointer` is a JSON pointer into the body, or a line of CSV."""

    pointer: str
    what: str
    expected: str
    plant: str | None = None
    machine: str | None = None
    row: int | None = None
    column: str | None = None


class Predictions(BaseModel):
    """An answer per machine; `errors` tells of those that have none."""

    predictions: list[MachineRisk]
    errors: list[Error]


HEADERS = {
    401: {"www-authenticate": "Bearer"},
    415: {"accept": "application/json, text/csv", "accept-encoding": "gzip, deflate"},
    429: {"retry-after": "1"},
}
"""Of refusals, by their status."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    "default": {"model": Predictions, "description": "Why there is no answer."}
}
RESPONSES: dict[int | str, dict[str, Any]] = REFUSALS | {
    200: {"model": Predictions, "description": "An answer per machine; `errors` tells of those that have none."},
}
# FastAPI lists only models of bodies that it parses itself, so these are defined where they are used.
DEFINITIONS = "#/paths/~1invocations/post/requestBody/content/application~1json/schema/$defs/{model}"
INVOCATIONS: dict[str, Any] = {
    "parameters": [
        {"name": "reasons", "in": "query", "schema": {"type": "boolean"}, "description": "As params.reasons, for CSV."}
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": Invocation.model_json_schema(ref_template=DEFINITIONS)},
            "text/csv": {"schema": {"type": "string"}},
        },
    },
}


class Refused(Exception):  # noqa: N818  # the answer to a request, not a fault of the program
    """A request that is not answered: its HTTP status, 4xx, and the error."""

    def __init__(self, status: int, what: str, expected: str, pointer: str = "", **whose: str) -> None:
        super().__init__(what)
        self.status = status
        self.error = Error(pointer, what, expected, whose.get("plant"), whose.get("machine"))

    def to_response(self, **headers: str) -> Response:
        """Return the response, in the form of `Predictions`."""
        content = {"predictions": [], "errors": [self.error]}
        return to_json(content, self.status, HEADERS.get(self.status, {}) | headers)


def to_json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of JSON."""
    return Response(orjson.dumps(content), status, headers, "application/json")


def cite(value: Any) -> str:
    """Return a value from a request as an error may repeat it."""
    text = BRIEF.repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def point(*place: int | str) -> str:
    """Return the JSON pointer (RFC 6901) of a place in a body."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in place)


def read_part(kind: type[Part], content: Mapping[str, Any]) -> Part:
    """Validate a part of a request; `Refused` is raised at its first fault."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
    *_, parent, last = ["the body", *fault["loc"]]
    place = f"{parent}[{last}]" if isinstance(last, int) else last
    what = f"{place} is missing" if fault["type"] == "missing" else f"{place} is {cite(fault['input'])}"
    expected = EXPECTED.get(fault["type"], fault["msg"].removeprefix("Input should be "))
    raise Refused(400, what, expected, point(*fault["loc"]))


def load_object(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object; NaN, Infinity and large integers, as Python writes them, are accepted, too."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            content = json.loads(body.decode(), parse_constant=_read_constant, parse_int=_read_integer)
            orjson.dumps(content)  # fails on lone surrogates, which no answer could repeat
        except (ValueError, TypeError, RecursionError):
            raise Refused(400, f"the body is not JSON: {error}", "a JSON object") from error
    if not isinstance(content, dict):
        raise Refused(400, f"the body is {cite(content)}", "a JSON object")
    return content


def _read_constant(text: str) -> float | None:
    return None if text == "NaN" else float(text)


def _read_integer(text: str) -> float:
    return int(text) if len(text) <= EXACT_DIGITS else float(text)
