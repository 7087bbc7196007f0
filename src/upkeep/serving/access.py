"""Access to the service: tokens and origins are checked, and each request gets an id and is logged and counted."""

import hmac
import logging
import re
import time
import uuid
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upkeep.serving.counters import Counters
from upkeep.serving.protocol import Refused, cite

OPEN = {"/", "/ping", "/health", "/version"}  # need no token, as none of them holds data
HEADERS = {
    "cache-control": "no-store",  # page and service must never be of different releases
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of every answer."""

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger(__name__)


class Access:
    """ASGI middleware around the whole application: any of the tokens opens it; without tokens it is open to all.

    Routes find the name of the token in ``state``. An open service can be reached by any web page in a user's browser,
    so requests from another origin are refused, and those to a host name that is neither local nor one of `hosts`,
    since its owner could point it here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, tokens: Mapping[bytes, str], metrics: Counters, hosts: Collection[str]) -> None:
        self._app, self._tokens, self._metrics, self._hosts = app, tokens, metrics, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, asked = time.perf_counter(), 500, Headers(scope=scope)
        given = asked.get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else uuid.uuid4().hex
        # Routes of GET answer HEAD, too; the server, which has its own scope, leaves the body out.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        token = self._find_token(asked)
        scope = {**scope, "method": method, "state": {"request_id": request_id, "token": token}}

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS | {"x-request-id": request_id})
            await send(message)

        try:
            if self._tokens and token is None and not (scope["path"] in OPEN or scope["path"].startswith("/static/")):
                raise Refused(401, "the token is missing or wrong", "Authorization: Bearer TOKEN")
            if not self._tokens:
                self._check_origin(method, asked)
            await self._app(scope, receive, send_with_id)
        except Refused as refused:
            await refused.to_response()(scope, receive, send_with_id)
        finally:
            # Counted by route: paths that strangers invent must not become labels.
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - started
            self._metrics.count_request(route, status, seconds)
            told = {"request_id": request_id, "method": method, "route": route, "status": status}
            logger.info("request", extra=told | {"ms": round(seconds * 1000, 2)})

    def _find_token(self, asked: Headers) -> str | None:
        """Return the name of the request's token; None if it has none, or a wrong one."""
        scheme, _, token = asked.get("authorization", "").partition(" ")
        given = token.strip().encode("latin-1")
        # All are compared, each in constant time, so that timing tells nothing about them.
        names = [name for known, name in self._tokens.items() if hmac.compare_digest(given, known)]
        return names[0] if names and scheme.lower() == "bearer" else None

    def _check_origin(self, method: str, asked: Headers) -> None:
        hosts, origin = asked.getlist("host"), asked.get("origin")
        if not all(map(self._is_known, hosts)):
            known = "an address, a name without dots, one of UPKEEP_ALLOWED_HOSTS, or a token: UPKEEP_TOKENS"
            raise Refused(403, f"the service is asked as {cite(', '.join(hosts))}", known)
        if method != "GET" and origin is not None and [origin.partition("://")[2]] != hosts:
            raise Refused(403, f"a page of {cite(origin)} asks", "the service's own page, or a token: UPKEEP_TOKENS")

    def _is_known(self, host: str) -> bool:
        """Tell whether a Host header is one of `hosts`, a name that only this machine or network resolves, or an IP."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            is_local = name.endswith(".localhost") or not set(name) & set(".:")
            return is_local or name in self._hosts or ip_address(name) is not None
        except ValueError:  # no address, or brackets that hold none
            return False
