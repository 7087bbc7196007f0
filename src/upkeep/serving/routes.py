"""What the service answers over HTTP beside the page: MLflow's scoring protocol, and what operators ask."""

from collections.abc import Callable

import orjson
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from upkeep import __version__
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.metrics import Metrics
from upkeep.serving.protocol import INVOCATIONS, RESPONSES
from upkeep.serving.service import Reply, Service
from upkeep.serving.smoke import SMOKE
from upkeep.serving.table import Refused

INLINE_BYTES = 100_000
"""Smaller requests take milliseconds and are answered at once; larger ones in a thread, lest the others wait."""


def scoring_route(service: Service, keep: Callable[[Reply], None], most_bytes: int) -> APIRouter:
    """Return the route that scores machines; `keep` takes each reply, on the event loop."""
    router = APIRouter()
    one_large = CapacityLimiter(1)  # two take twice the memory and, on one core, no less time

    @router.post("/invocations", openapi_extra=INVOCATIONS, responses=RESPONSES, response_class=Response)
    async def invocations(request: Request) -> Response:
        """Score each machine in a table of raw telemetry and events."""
        try:
            body = await _read_body(request, most_bytes)
        except Refused as refused:
            return to_json({"predictions": [], "errors": [refused.fault]}, refused.status)
        content_type = request.headers.get("content-type", "")
        source = "smoke" if request.headers.get(SMOKE) else "api"
        asked = body, content_type, request.query_params, request.state.request_id, source
        if len(body) > INLINE_BYTES:
            reply = await to_thread.run_sync(service.answer, *asked, limiter=one_large)
        else:
            reply = service.answer(*asked)
        keep(reply)
        return to_json(reply.body, reply.status)

    return router


def operator_routes(service: Service, release: str, log: LogWriter | None, metrics: Metrics) -> APIRouter:
    """Return the routes that tell how the service is, and which release it is."""
    router = APIRouter()

    @router.get("/ping", response_class=Response)
    async def ping() -> Response:
        """Tell that the service is there, as MLflow's does."""
        return Response("\n", media_type="application/json")

    @router.get("/health", response_class=Response)
    async def health() -> Response:
        """Tell that the models are loaded, and which."""
        state = "off" if log is None else "failing" if log.status.last_error else "ok"
        return to_json({"status": "ok", "release": release, "models": service.versions, "prediction_log": state})

    @router.get("/version", response_class=Response)
    async def version() -> Response:
        """Tell the versions of code, release and models."""
        return to_json({"upkeep": __version__, "release": release, "models": service.versions})

    @router.get("/metrics", response_class=Response)
    def read_metrics() -> Response:
        """Return counters in Prometheus' text format."""
        return Response(metrics.render(), media_type="text/plain; version=1.0.0; charset=utf-8")

    return router


def to_json(content: object, status: int = 200) -> Response:
    """Return content as a response."""
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _read_body(request: Request, most: int) -> bytes:
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise Refused(413, f"the body is larger than {most} bytes", "fewer machines at a time")
            chunks.append(chunk)
    except ClientDisconnect as error:  # nobody hears it, but it is no fault of the service either
        raise Refused(400, "the connection ended before the body did", "the whole body") from error
    return b"".join(chunks)
