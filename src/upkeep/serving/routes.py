"""What the service answers over HTTP beside the page: MLflow's scoring protocol, and what operators ask."""

from collections.abc import Callable

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from upkeep import __version__
from upkeep.serving.counters import Counters
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.protocol import INVOCATIONS, RESPONSES, to_json
from upkeep.serving.service import Reply, Service
from upkeep.serving.settings import Settings
from upkeep.serving.smoke import SMOKE
from upkeep.serving.table import Refused

INLINE_BYTES = 100_000
"""Smaller requests take milliseconds and are answered at once; larger ones in a thread, lest the others wait."""


def service_routes(
    service: Service, settings: Settings, log: LogWriter | None, metrics: Counters, keep: Callable[[Reply], None]
) -> APIRouter:
    """Return the routes; `keep` takes each reply, on the event loop. A route raises `Refused` instead of a reply."""
    router = APIRouter(default_response_class=Response)
    one_large = CapacityLimiter(1)  # two take twice the memory and, on one core, no less time

    @router.post("/invocations", openapi_extra=INVOCATIONS, responses=RESPONSES)
    async def invocations(request: Request) -> Response:
        """Score each machine in a table of raw telemetry and events."""
        body = await _read_body(request, settings.max_request_bytes)
        content_type = request.headers.get("content-type", "")
        source = "smoke" if request.headers.get(SMOKE) else "api"
        asked = body, content_type, request.query_params, request.state.request_id, source
        if len(body) > INLINE_BYTES:
            reply = await to_thread.run_sync(service.answer, *asked, limiter=one_large)
        else:
            reply = service.answer(*asked)
        keep(reply)
        return to_json(reply.body, reply.status)

    @router.get("/ping")
    async def ping() -> Response:
        """Tell that the service is there, as MLflow's does."""
        return Response("\n", media_type="application/json")

    @router.get("/health")
    async def health() -> Response:
        """Tell that the models are loaded, and which."""
        state = "off" if log is None else "failing" if log.status.last_error else "ok"
        models = service.versions
        return to_json({"status": "ok", "release": settings.release, "models": models, "prediction_log": state})

    @router.get("/version")
    async def version() -> Response:
        """Tell the versions of code, release and models."""
        return to_json({"upkeep": __version__, "release": settings.release, "models": service.versions})

    @router.get("/metrics")
    def read_metrics() -> Response:
        """Return counters in Prometheus' text format."""
        return Response(metrics.render(), media_type="text/plain; version=1.0.0; charset=utf-8")

    return router


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
