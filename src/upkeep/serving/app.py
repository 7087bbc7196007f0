"""The service put together: models, page, prediction log, counters, access; and its life as a process."""

import gc
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from upkeep import __version__
from upkeep.serving.access import Access
from upkeep.serving.board import Board
from upkeep.serving.counters import Counters
from upkeep.serving.log_writer import LogWriter
from upkeep.serving.page import page_routes
from upkeep.serving.protocol import refuse, to_json
from upkeep.serving.routes import service_routes
from upkeep.serving.service import Reply, Service
from upkeep.serving.settings import Settings, read_settings
from upkeep.serving.table import Refused

STOP_SECONDS = 20
"""What requests under way have left after SIGTERM."""

RESERVED = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Return the application; an UpkeepError is raised if a model or the dictionary is missing or damaged."""
    service = Service(settings.models, settings.dictionary)
    log = None
    if settings.log_url:
        log = LogWriter(settings.log_url, settings.spool, max_spool_bytes=settings.spool_bytes)
    board = Board(settings.log_url or "")
    metrics = Counters(service.versions, log)

    @asynccontextmanager
    async def run_threads(_: FastAPI) -> AsyncIterator[None]:
        if log is not None:
            log.start()
        board.start()
        yield
        board.close()
        if log is not None:
            await run_in_threadpool(log.close)

    def keep(reply: Reply) -> None:
        for prediction in reply.predictions:
            board.add(prediction)
            if log is not None:
                log.append(prediction)
        metrics.count_predictions(reply.predictions, len(reply.body["errors"]))

    app = FastAPI(
        title="upkeep",
        version=__version__,
        summary="The risk that a machine fails, from its last hours of telemetry",
        lifespan=run_threads,
        docs_url=None,  # its scripts come from a third party's host
        redoc_url=None,
        redirect_slashes=False,  # the address to go to would be whatever host the request names
    )
    app.add_middleware(Access, tokens=settings.tokens, metrics=metrics)
    app.exception_handler(HTTPException)(_refuse_route)
    app.exception_handler(Refused)(_refuse_body)
    app.include_router(page_routes(board, service.explain, horizon_hours=service.horizon_hours))
    app.include_router(service_routes(service, settings, log, metrics, keep))
    return app


def serve() -> None:
    """Serve until SIGTERM; then finish what is under way and put the prediction log away.

    An UpkeepError is raised if a setting, a model or the dictionary is missing or damaged.
    """
    # uvicorn stops on SIGTERM by itself and then raises it once more, which would end the process as if it had failed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = read_settings()
    app = create_app(settings)
    gc.freeze()  # modules and models stay for good: no collection need look at them again
    gc.enable()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)  # uvicorn's logs too
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


class JsonLines(logging.Formatter):
    """Formats a record with its extra fields, but no payload, as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in RESERVED},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


async def _refuse_route(_: Request, error: HTTPException) -> Response:
    return refuse(error.status_code, error.detail or "refused", "a route and method of /openapi.json")


async def _refuse_body(_: Request, refused: Refused) -> Response:
    return to_json({"predictions": [], "errors": [refused.fault]}, refused.status)
