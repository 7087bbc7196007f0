"""The planner's page and what it asks for: the fleet ranked by risk, and one machine with its reasons."""

import hashlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request, Response

from upkeep.scoring.prediction_log import Prediction
from upkeep.serving.board import Board, BoardMachine
from upkeep.serving.service import describe, to_time

STATIC = Path(__file__).parent / "static"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

StaticFile = tuple[bytes, dict[str, str]]
"""Content and headers of a file of the page."""

Explain = Callable[[Prediction], list[dict[str, Any]]]


def page_routes(board: Board, explain: Explain, *, horizon_hours: float) -> APIRouter:
    """Return the routes of the page.

    `explain` returns the reasons for a prediction, the strongest first, or none if its model is no longer loaded.
    `horizon_hours` is how far ahead the predictions look.
    """
    files = {path.name: _load(path) for path in STATIC.iterdir()}
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def show_page(request: Request) -> Response:
        return _serve(files["index.html"], request)

    @router.get("/static/{name}", include_in_schema=False)
    async def show_file(name: str, request: Request) -> Response:
        return _serve(files[name], request) if name in files else Response(status_code=404, headers=SECURITY)

    @router.get("/fleet")
    def list_fleet(plant: str = "", search: str = "", limit: Annotated[int, Query(ge=1, le=20_000)] = 100) -> Response:
        """Return the fleet, or one plant's or the machines whose name holds `search`, the most urgent first."""
        return _to_json({"horizon_hours": horizon_hours, **_list_fleet(board, explain, plant, search, limit)})

    @router.get("/fleet/machine", responses={404: {}})  # no path can hold every name: a slash, or two dots
    @router.get("/fleet/{plant}/{machine:path}", responses={404: {}})
    def show_machine(plant: str, machine: str) -> Response:
        """Return one machine with the reasons for its risk."""
        found = board.get(plant, machine)
        if found is None:
            what, expected = "no prediction of this machine is known", "a machine that GET /fleet lists"
            place = {"pointer": None, "plant": plant, "machine": machine, "column": None}
            return _to_json({"errors": [place | {"what": what, "expected": expected}]}, status_code=404)
        return _to_json(_describe(found) | {"reasons": _reasons(found, explain)})

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
            _describe(machine) | ({"reasons": _reasons(machine, explain)} if machine.newest["alarm"] else {})
            for machine in found[:limit]
        ],
    }


def _describe(machine: BoardMachine) -> dict[str, Any]:
    newest, maintenance = machine.newest, machine.maintenance
    return describe(newest) | {
        "scored_at": to_time(newest["scored_at"]),
        "history": np.ascontiguousarray(machine.history),
        "last_maintenance": maintenance and {"time": to_time(maintenance.time), "code": maintenance.code},
    }


def _reasons(machine: BoardMachine, explain: Explain) -> list[dict[str, Any]]:
    newest = machine.newest
    # Kept with the prediction they belong to, so that a newer prediction brings its own.
    if "reasons" not in newest:
        newest["reasons"] = explain(newest)
    reasons: list[dict[str, Any]] = newest["reasons"]
    return reasons


def _to_json(content: object, status_code: int = 200) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z)
    return Response(body, status_code, SECURITY | {"cache-control": "no-store"}, "application/json")


def _load(path: Path) -> StaticFile:
    content = path.read_bytes()
    # The tag is of the content, for all files of an image are of the same time.
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    # Asked for again each time, so that page and service are never of different releases; unchanged costs no bytes.
    headers = {"content-type": CONTENT_TYPES[path.suffix], "cache-control": "no-cache", "etag": etag}
    return content, SECURITY | headers


def _serve(file: StaticFile, request: Request) -> Response:
    content, headers = file
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)
