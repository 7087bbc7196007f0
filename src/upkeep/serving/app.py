"""The service put together: models, page, prediction log, counters, access; and its life as a process."""

import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from upkeep import __version__
from upkeep.serving.access import Access
from upkeep.serving.board import Board
from upkeep.serving.json_lines import set_up_logs
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.metrics import Metrics
from upkeep.serving.page import page_routes
from upkeep.serving.routes import operator_routes, scoring_route, to_json
from upkeep.serving.service import Reply, Service
from upkeep.serving.settings import Settings, read_settings

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
        log = LogWriter(settings.log_url, settings.spool, max_spool_bytes=settings.spool_bytes)
    board = Board(settings.log_url or "")
    metrics = Metrics(service.versions, log)
    app = FastAPI(
        title="upkeep",
        version=__version__,
        summary="The risk that a machine fails, from its last hours of telemetry",
        lifespan=_run(board, log),
        docs_url=None,  # its scripts come from a third party's host
        redoc_url=None,
        redirect_slashes=False,  # the address to go to would be whatever host the request names
    )
    app.add_middleware(Access, tokens=settings.tokens, metrics=metrics)
    app.add_exception_handler(HTTPException, _tell)
    app.include_router(page_routes(board, service.explain, horizon_hours=service.horizon_hours))

    def keep(reply: Reply) -> None:
        for prediction in reply.predictions:
            board.add(prediction)
            if log is not None:
                log.append(prediction)
        metrics.count_predictions(reply.predictions, len(reply.body["errors"]))

    app.include_router(scoring_route(service, keep, settings.max_request_bytes))
    app.include_router(operator_routes(service, settings.release, log, metrics))
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


def _run(board: Board, log: LogWriter | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
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


async def _tell(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = str(getattr(error, "detail", "")) or "refused"
    return to_json(
        {"errors": [{"pointer": "", "what": what, "expected": "a route and method of /openapi.json"}]}, status
    )
