"""Access to the service: who may ask what, and under which id each request is logged and counted."""

import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upkeep.serving.counters import Counters
from upkeep.serving.protocol import Refused, cite

OPEN = {"/", "/ping", "/health", "/version"}  # without a token: none of them holds data
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
    """ASGI middleware around the whole application; any of the tokens opens it, and without one it is open to all.

    Routes find the name of that token in ``state``. To whom it is open, a browser with anybody's page in it belongs: of
    such a page, requests from another origin are refused, and those to a name that is neither of this network nor one
    of `hosts`, since its owner can point it here.
    """

    def __init__(
        self, app: ASGIApp, tokens: Mapping[bytes, str], metrics: Counters, hosts: Collection[str] = ()
    ) -> None:
        self._app, self._tokens, self._metrics, self._hosts = app, tokens, metrics, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, asked = time.perf_counter(), 500, Headers(scope=scope)
        given = asked.get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else uuid.uuid4().hex
        # Whatever answers GET answers HEAD, of which the server sends the headers only: it goes by its own scope.
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
            # By route, not by path: what strangers ask for must not become a label each.
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - started
            self._metrics.count_request(route, status, seconds)
            told = {"request_id": request_id, "method": method, "route": route, "status": status}
            logger.info("request", extra=told | {"ms": round(seconds * 1000, 2)})

    def _find_token(self, asked: Headers) -> str | None:
        """Return the name of the token that a request bears, if it is one of them."""
        scheme, _, token = asked.get("authorization", "").partition(" ")
        given = token.strip().encode("latin-1")
        # All are compared, in constant time each: how long it takes tells nothing about them.
        names = [name for known, name in self._tokens.items() if hmac.compare_digest(given, known)]
        return names[0] if names and scheme.lower() == "bearer" else None

    def _check_origin(self, method: str, asked: Headers) -> None:
        hosts, origin = asked.getlist("host"), asked.get("origin")
        if not all(_is_local(host) or _name(host) in self._hosts for host in hosts):
            known = "an address, a name without dots, one of UPKEEP_ALLOWED_HOSTS, or a token: UPKEEP_TOKENS"
            raise Refused(403, f"the service is asked as {cite(', '.join(hosts))}", known)
        if method != "GET" and origin is not None and [origin.partition("://")[2]] != hosts:
            raise Refused(403, f"a page of {cite(origin)} asks", "the service's own page, or a token: UPKEEP_TOKENS")


@lru_cache(maxsize=64)
def _is_local(host: str) -> bool:
    """Tell whether a Host header is an address, or a name that only the own network or machine resolves."""
    name = _name(host)
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.endswith(".localhost") or not set(name) & set(".:")
    return True


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that hold no address
        return "."
