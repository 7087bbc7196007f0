"""The service over HTTP: MLflow's scoring protocol, the page, and what operators and Prometheus ask."""

import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import orjson
import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from upkeep import __version__
from upkeep.serving.board import Board
from upkeep.serving.gate import Gate
from upkeep.serving.logs import set_up_logs
from upkeep.serving.metrics import Metrics
from upkeep.serving.page import page_routes
from upkeep.serving.prediction_log import PredictionLog
from upkeep.serving.protocol import INVOCATIONS
from upkeep.serving.service import Reply, Service
from upkeep.serving.settings import Settings, read_settings
from upkeep.serving.smoke import SMOKE
from upkeep.serving.table import Refused

INLINE_BYTES = 100_000
"""Smaller requests take milliseconds and are answered at once; larger ones in a thread, lest the others wait."""

STOP_SECONDS = 20
"""What requests under way have left after SIGTERM."""

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Return the application.

    Raises
    ------
    UpkeepError
        If a model or the dictionary is missing or damaged.
    """
    service = Service(settings.models, settings.dictionary)
    log = None
    if settings.log_url:
        log = PredictionLog(settings.log_url, settings.spool, max_spool_bytes=settings.spool_bytes)
    board = Board(settings.log_url or "")
    metrics = Metrics(service.versions, log)
    one_large = CapacityLimiter(1)  # two take twice the memory and, on one core, no less time
    app = FastAPI(
        title="upkeep",
        version=__version__,
        summary="The risk that a machine fails, from its last hours of telemetry",
        lifespan=_run(board, log),
        docs_url=None,  # its scripts come from a third party's host
        redoc_url=None,
    )
    app.add_middleware(Gate, tokens=settings.tokens, metrics=metrics)
    app.add_exception_handler(HTTPException, _tell)
    app.include_router(page_routes(board, service.explain, horizon_hours=service.horizon_hours))

    def note(reply: Reply) -> None:
        for prediction in reply.predictions:
            board.add(prediction)
            if log is not None:
                log.append(prediction)
        metrics.count_predictions(reply.predictions, len(reply.body["errors"]))

    @app.post("/invocations", openapi_extra=INVOCATIONS, response_class=Response)
    async def invocations(request: Request) -> Response:
        """Score each machine in a table of raw telemetry and events."""
        try:
            body = await _read_body(request, settings.max_request_bytes)
        except Refused as refused:
            return _to_json({"predictions": [], "errors": [refused.fault]}, refused.status)
        content_type = request.headers.get("content-type", "")
        source = "smoke" if request.headers.get(SMOKE) else "api"
        asked = body, content_type, request.query_params, request.state.request_id, source
        if len(body) > INLINE_BYTES:
            reply = await to_thread.run_sync(service.answer, *asked, limiter=one_large)
        else:
            reply = service.answer(*asked)
        note(reply)
        return _to_json(reply.body, reply.status)

    @app.get("/ping", response_class=Response)
    async def ping() -> Response:
        """Tell that the service is there, as MLflow's does."""
        return Response("\n", media_type="application/json")

    @app.get("/health", response_class=Response)
    async def health() -> Response:
        """Tell that the models are loaded, and which."""
        failing = log is not None and log.status.failing
        content = {
            "status": "ok",
            "release": settings.release,
            "models": service.versions,
            "prediction_log": "off" if log is None else "failing" if failing else "ok",
        }
        return _to_json(content)

    @app.get("/version", response_class=Response)
    async def version() -> Response:
        """Tell the versions of code, release and models."""
        return _to_json({"upkeep": __version__, "release": settings.release, "models": service.versions})

    @app.get("/metrics", response_class=Response)
    def read_metrics() -> Response:
        """Return counters in Prometheus' text format."""
        return Response(metrics.render(), media_type="text/plain; version=1.0.0; charset=utf-8")

    return app


def serve() -> None:
    """Serve until SIGTERM; then finish what is under way and put the prediction log away.

    Raises
    ------
    UpkeepError
        If a setting, a model or the dictionary is missing or damaged.
    """
    # uvicorn stops on SIGTERM by itself and then raises it once more, which would end the process as if it had failed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = read_settings()
    app = create_app(settings)
    gc.freeze()  # modules and models stay for good: no collection need look at them again
    gc.enable()
    set_up_logs()
    logger.info("start", extra={"release": settings.release, "port": settings.port})
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _run(board: Board, log: PredictionLog | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if log is not None:
            log.start()
        board.start()
        yield
        board.close()
        if log is not None:
            await run_in_threadpool(log.close)

    return lifespan


async def _read_body(request: Request, most: int) -> bytes:
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise Refused(
                    413, f"the body is larger than {most} bytes", "a smaller one: send fewer machines at a time"
                )
            chunks.append(chunk)
    except ClientDisconnect as error:  # nobody hears it, but it is no fault of the service either
        raise Refused(400, "the connection ended before the body did", "the whole body") from error
    return b"".join(chunks)


async def _tell(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = str(getattr(error, "detail", "")) or "refused"
    return _to_json(
        {"errors": [{"pointer": "", "what": what, "expected": "a route and method of /openapi.json"}]}, status
    )


def _to_json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
