"""MLflow's scoring protocol as typed objects: what `/invocations` is asked and what it answers.

They check requests and describe both to programs in ``/openapi.json``.
"""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, FailFast, Field, WithJsonSchema

EXAMPLE_COLUMNS = ["plant", "machine", "time", "speed_rpm", "load_pct", "vibration_mm_s", "temperature_c"]
EXAMPLE_ROW = ["lyon", "M001", "2025-12-28T23:00:00Z", 2410, 60.2, 2.1, 45.0]

Cell = Annotated[Any, WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]
"""Anything: what a machine's row may hold is for the data dictionary to say, and costs that machine only."""


class Split(BaseModel):
    """A table as names and rows."""

    columns: list[str] = Field(examples=[EXAMPLE_COLUMNS])
    data: Annotated[list[list[Cell]], FailFast()] = Field(examples=[[EXAMPLE_ROW]])


class Options(BaseModel):
    """What else a request asks for."""

    reasons: bool | None = Field(default=None, description="Give the reasons for each score.")


class SplitRequest(BaseModel):
    """A table as names and rows."""

    dataframe_split: Split
    params: Options | None = None


class RecordsRequest(BaseModel):
    """A table as a list of objects."""

    dataframe_records: Annotated[list[dict[str, Cell]], FailFast()] = Field(
        examples=[[dict(zip(EXAMPLE_COLUMNS, EXAMPLE_ROW, strict=True))]]
    )
    params: Options | None = None


class Doubt(BaseModel):
    """A reason to trust an answer less."""

    code: str
    message: str
    column: str | None


class Reason(BaseModel):
    """What a feature adds to the score."""

    feature: str
    value: float | None
    contribution: float
    words: str


class Prediction(BaseModel):
    """A machine's risk."""

    plant: str
    machine: str
    time: AwareDatetime = Field(description="The newest row.")
    probability: float = Field(ge=0, le=1)
    alarm: bool
    threshold: float
    model_version: str
    warnings: list[Doubt]
    reasons: list[Reason] = []


class Error(BaseModel):
    """Why a machine, or a whole request, is not answered."""

    pointer: str = Field(description="JSON pointer into the body, or the line of CSV text.")
    plant: str | None = None
    machine: str | None = None
    column: str | None = None
    what: str
    expected: str


class Answered(BaseModel):
    """An answer per machine; `errors` tells of those that have none."""

    predictions: list[Prediction]
    errors: list[Error]


class Unanswered(BaseModel):
    """Why there is no answer."""

    errors: list[Error]


RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Answered, "description": "An answer per machine; `errors` tells of those that have none."},
    400: {"model": Unanswered, "description": "The body is no table."},
    401: {"model": Unanswered, "description": "The token is missing or wrong."},
    413: {"model": Unanswered, "description": "The body is too large."},
    415: {"model": Unanswered, "description": "The body is neither JSON nor CSV."},
    422: {"model": Unanswered, "description": "No machine could be answered."},
}


def _schema(request: type[BaseModel]) -> dict[str, Any]:
    """Return a request's schema with what it refers to put in place: OpenAPI looks for definitions elsewhere."""
    schema = request.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, dict):
            name = str(part.get("$ref", "")).removeprefix("#/$defs/")
            return resolve(definitions[name]) if name else {key: resolve(value) for key, value in part.items()}
        return [resolve(value) for value in part] if isinstance(part, list) else part

    resolved: dict[str, Any] = resolve(schema)
    return resolved


INVOCATIONS: dict[str, Any] = {
    "parameters": [
        {"name": "reasons", "in": "query", "schema": {"type": "boolean"}, "description": "As params.reasons, for CSV."}
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"anyOf": [_schema(SplitRequest), _schema(RecordsRequest)]}},
            "text/csv": {"schema": {"type": "string", "examples": [",".join(EXAMPLE_COLUMNS)]}},
        },
    },
}
