"""MLflow's scoring protocol as OpenAPI says it: how `/invocations` is asked and what it answers."""

from typing import Any

EXAMPLE_COLUMNS = ["plant", "machine", "time", "speed_rpm", "load_pct", "vibration_mm_s", "temperature_c"]
EXAMPLE_ROW = ["lyon", "M001", "2025-12-28T23:00:00Z", 2410, 60.2, 2.1, 45.0]
CELL = {"type": ["string", "number", "null"]}
PARAMS = {
    "type": "object",
    "properties": {"reasons": {"type": "boolean", "description": "Give the reasons for each score."}},
}


def _object(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


TEXT, NUMBER, OPTIONAL_TEXT = {"type": "string"}, {"type": "number"}, {"type": ["string", "null"]}

SPLIT = _object(
    ["dataframe_split"],
    {
        "dataframe_split": _object(
            ["columns", "data"],
            {
                "columns": {"type": "array", "items": TEXT, "examples": [EXAMPLE_COLUMNS]},
                "data": {"type": "array", "items": {"type": "array", "items": CELL}, "examples": [[EXAMPLE_ROW]]},
            },
        ),
        "params": PARAMS,
    },
)
RECORDS = _object(
    ["dataframe_records"],
    {
        "dataframe_records": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": CELL},
            "examples": [[dict(zip(EXAMPLE_COLUMNS, EXAMPLE_ROW, strict=True))]],
        },
        "params": PARAMS,
    },
)
WARNING = _object(["code", "message", "column"], {"code": TEXT, "message": TEXT, "column": OPTIONAL_TEXT})
REASON = _object(
    ["feature", "value", "contribution", "words"],
    {"feature": TEXT, "value": {"type": ["number", "null"]}, "contribution": NUMBER, "words": TEXT},
)
PREDICTION = _object(
    ["plant", "machine", "time", "probability", "alarm", "threshold", "model_version", "warnings"],
    {
        "plant": TEXT,
        "machine": TEXT,
        "time": {"type": "string", "format": "date-time", "description": "The newest row."},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
        "alarm": {"type": "boolean"},
        "threshold": NUMBER,
        "model_version": TEXT,
        "warnings": {"type": "array", "items": WARNING},
        "reasons": {"type": "array", "items": REASON},
    },
)
ERROR = _object(
    ["pointer", "what", "expected"],
    {
        "pointer": {"type": "string", "description": "JSON pointer into the body, or the line of CSV text."},
        "plant": OPTIONAL_TEXT,
        "machine": OPTIONAL_TEXT,
        "column": OPTIONAL_TEXT,
        "what": TEXT,
        "expected": TEXT,
    },
)
ANSWER = _object(
    ["predictions", "errors"],
    {"predictions": {"type": "array", "items": PREDICTION}, "errors": {"type": "array", "items": ERROR}},
)
REFUSED = _object(["errors"], {"errors": {"type": "array", "items": ERROR}})


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


INVOCATIONS: dict[str, Any] = {
    "parameters": [
        {"name": "reasons", "in": "query", "schema": {"type": "boolean"}, "description": "As params.reasons, for CSV."}
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"anyOf": [SPLIT, RECORDS]}},
            "text/csv": {"schema": {"type": "string", "examples": [",".join(EXAMPLE_COLUMNS)]}},
        },
    },
    "responses": {
        "200": _answer("An answer per machine; `errors` tells of those that have none.", ANSWER),
        "400": _answer("The body is no table.", REFUSED),
        "401": _answer("The token is missing or wrong.", REFUSED),
        "413": _answer("The body is too large.", REFUSED),
        "415": _answer("The body is neither JSON nor CSV.", REFUSED),
        "422": _answer("No machine could be answered.", REFUSED),
    },
}
