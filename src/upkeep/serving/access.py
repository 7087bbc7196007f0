"""Access to the service: who may ask what, and under which id each request is logged and counted."""

import hmac
import logging
import re
import time
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upkeep.serving.counters import Counters
from upkeep.serving.protocol import Refused

OPEN = {"/", "/ping", "/health", "/version"}
"""Open without a token: whether the service is there, and the page's shell, which holds no data."""
OPEN_FOLDER = "/static/"
CHALLENGE = {"www-authenticate": "Bearer"}
HEADERS = {
    "cache-control": "no-store",  # page and service must never be of different releases
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of every answer."""

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger(__name__)


class Access:
    """ASGI middleware around the whole application; any of the tokens opens it, and without one it is open to all."""

    def __init__(self, app: ASGIApp, tokens: Sequence[bytes], metrics: Counters) -> None:
        self._app, self._tokens, self._metrics = app, tokens, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        asked = Headers(scope=scope)
        given = asked.get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else uuid.uuid4().hex
        # Whatever answers GET answers HEAD, of which the server sends the headers only: it goes by its own scope.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        scope = {**scope, "method": method, "state": {**scope.get("state", {}), "request_id": request_id}}
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS | {"x-request-id": request_id})
            await send(message)

        try:
            if self._admits(scope["path"], asked.get("authorization", "")):
                await self._app(scope, receive, send_with_id)
            else:
                refused = Refused(401, "the token is missing or wrong", "Authorization: Bearer TOKEN")
                await refused.to_response(CHALLENGE)(scope, receive, send_with_id)
        finally:
            # By route, not by path: what strangers ask for must not become a label each.
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - started
            self._metrics.count_request(route, status, seconds)
            logger.info(
                "request",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "ms": round(seconds * 1000, 2),
                },
            )

    def _admits(self, path: str, authorization: str) -> bool:
        if not self._tokens or path in OPEN or path.startswith(OPEN_FOLDER):
            return True
        scheme, _, token = authorization.partition(" ")
        # All are compared, in constant time each: how long it takes tells nothing about them.
        matches = [hmac.compare_digest(token.strip().encode("latin-1"), known) for known in self._tokens]
        return scheme.lower() == "bearer" and any(matches)
