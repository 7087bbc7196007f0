"""The HTTP service: puts models, page, prediction log, metrics and access together, and runs them as a process."""

import asyncio
import ctypes
import gc
import json
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from upkeep import __version__
from upkeep.core.errors import UpkeepError
from upkeep.serving.access import Access
from upkeep.serving.board import Board
from upkeep.serving.body import Intake
from upkeep.serving.connection import Connection
from upkeep.serving.counters import Counters
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.page import page_routes, visit_route
from upkeep.serving.protocol import INVOCATIONS, RESPONSES, SMOKE, Refused, to_json
from upkeep.serving.service import Reply, Service
from upkeep.serving.settings import Settings, find_unknown, read_settings
from upkeep.serving.shadow import Shadow, load_shadow

STOP_SECONDS = 20  # that requests under way have after SIGTERM
INLINE_BYTES, INLINE_ROWS = 100_000, 100
"""Up to this size requests take milliseconds and are answered at once; larger ones run in a thread."""

KEPT_AT_ONCE = 50  # predictions that are logged before other requests have their turn
MOST_THREADS = 4  # for the page; more would take too much of the interpreter's time from requests
RESERVED = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

Keep = Callable[[Reply], Awaitable[None]]

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Create the application; an UpkeepError is raised if a model or the dictionary is missing or damaged."""
    service = Service(settings.models, settings.dictionary)
    url = settings.log_url
    log = LogWriter(url, settings.spool, max_spool_bytes=settings.spool_bytes) if url else None
    board = Board(url or "", settings.max_board_machines)
    metrics = Counters(service.versions, log)
    shadow = load_shadow(settings, log, metrics)
    app = FastAPI(
        title="upkeep",
        version=__version__,
        summary="The risk that a machine fails, from its last hours of telemetry",
        lifespan=partial(_run_threads, board, log, shadow),
        docs_url=None,  # its scripts come from a third party's host
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to whatever host the request names
    )
    app.add_middleware(Access, tokens=settings.tokens, metrics=metrics, hosts=settings.allowed_hosts)
    app.exception_handler(HTTPException)(_refuse_route)
    app.include_router(page_routes(board, service, settings))
    if log is not None:
        app.include_router(visit_route(board, log))
    keep = partial(_keep, board, log, metrics)
    app.include_router(_scoring_route(service, settings.max_request_bytes, keep, shadow))
    app.include_router(_status_routes(service, settings.release, log, metrics))
    return app


@asynccontextmanager
async def _run_threads(board: Board, log: LogWriter | None, shadow: Shadow | None, _: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = MOST_THREADS
    if log is not None:
        log.start()
    board.start()
    yield
    if shadow is not None:
        shadow.close()
    board.close()
    if log is not None:
        await to_thread.run_sync(log.close)


async def _keep(board: Board, log: LogWriter | None, metrics: Counters, reply: Reply) -> None:
    """Show a reply's predictions, log and count them, and let other requests have their turn meanwhile."""
    for number, prediction in enumerate(reply.predictions, 1):
        board.add(prediction)
        if log is not None:
            log.append(prediction)
        if number % KEPT_AT_ONCE == 0:
            await asyncio.sleep(0)
    metrics.count_predictions(reply.predictions, reply.unanswered)


def _scoring_route(service: Service, max_request_bytes: int, keep: Keep, shadow: Shadow | None) -> APIRouter:
    """Return MLflow's scoring protocol; `keep` takes each reply, on the event loop."""
    router = APIRouter(default_response_class=Response)
    intake = Intake(max_request_bytes)
    # Two large ones at once would take twice the memory and no less time; small bodies do not wait for large ones.
    one_large, one_small = CapacityLimiter(1), CapacityLimiter(1)

    @router.post("/invocations", openapi_extra=INVOCATIONS, responses=RESPONSES)
    async def invocations(request: Request) -> Response:
        """Score each machine in a table of raw telemetry and events."""
        async with intake.read(request) as body:
            content_type = request.headers.get("content-type", "")
            source = "smoke" if request.headers.get(SMOKE) else "api"
            asked = body, content_type, request.query_params, request.state.request_id, source
            if len(body) <= INLINE_BYTES and sum(map(body.count, (b"[", b"{", b"\n", b"\r"))) <= INLINE_ROWS:
                reply = service.answer(*asked)
            else:
                lane = one_large if len(body) > INLINE_BYTES else one_small
                reply = await to_thread.run_sync(_answer_large, service, asked, limiter=lane)
            await keep(reply)
            if shadow and source != "smoke":
                shadow.offer(asked, reply.predictions)
            return Response(reply.content, reply.status, media_type="application/json")

    return router


def _answer_large(service: Service, asked: tuple[Any, ...]) -> Reply:
    """Answer, and return the memory that this took to the system, which the C library would keep."""
    try:
        return service.answer(*asked)
    finally:
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)


def _status_routes(service: Service, release: str, log: LogWriter | None, metrics: Counters) -> APIRouter:
    router = APIRouter(default_response_class=Response)

    @router.get("/ping")
    async def ping() -> Response:
        """Tell that the service is there, as MLflow's does."""
        return Response("\n", media_type="application/json")

    @router.get("/health")
    async def health() -> Response:
        """Tell that the models are loaded, and which."""
        state = "off" if log is None else "failing" if log.last_error else "ok"
        models = service.versions
        return to_json({"status": "ok", "release": release, "models": models, "prediction_log": state})

    @router.get("/version")
    async def version() -> Response:
        """Tell the versions of code, release and models."""
        return to_json({"upkeep": __version__, "release": release, "models": service.versions})

    @router.get("/metrics")
    def read_metrics() -> Response:
        """Return counters in Prometheus' text format."""
        return Response(metrics.render(), media_type="text/plain; version=1.0.0; charset=utf-8")

    return router


async def _refuse_route(_: Request, error: HTTPException) -> Response:
    headers = {name: value.replace("GET", "GET, HEAD") for name, value in (error.headers or {}).items()}
    return Refused(error.status_code, error.detail, "a route and method of /openapi.json").to_response(**headers)


def serve() -> None:
    """Serve until SIGTERM; then finish requests under way and ship the prediction log.

    An UpkeepError is raised if a setting, a model or the dictionary is missing or damaged, or the port is taken.
    """
    # uvicorn stops on SIGTERM and then raises it again, which would end the process as if it had failed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = read_settings()
    _check_address(settings.host, settings.port)
    app = create_app(settings)
    gc.freeze()  # modules and models stay, so collections need not scan them
    gc.set_threshold(20_000, 20, 20)  # fewer scans of what a large request holds
    gc.enable()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)  # uvicorn's logs too
    logger.info("start", extra={"release": settings.release, "port": settings.port})
    if not settings.tokens:
        logger.warning("the service is open: UPKEEP_TOKENS is not set, so whoever reaches it sees and adds predictions")
    if unknown := find_unknown():
        logger.warning("these variables are no settings of the service", extra={"variables": unknown})
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _check_address(host: str, port: int) -> None:
    """Raise an UpkeepError if nothing can listen there: uvicorn would end the process without a remedy."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        what = f"the service cannot listen on {host}, port {port}: {str(error.strerror).partition(' (')[0]}"
        remedy = "set UPKEEP_PORT or UPKEEP_HOST, or end the process that listens there"
        raise UpkeepError(what, remedy=remedy) from error


class JsonLines(logging.Formatter):
    """Formats a record, with its extra fields, as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in RESERVED},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII: a file's name may hold what UTF-8 cannot
