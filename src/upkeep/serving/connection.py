"""Limits on connections before any token is checked: headers in bytes, number and time, and open connections.

uvicorn has no such limits with httptools, which is several times as fast as h11.
"""

from asyncio import Transport
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from upkeep.serving.protocol import Refused

MOST_HEADER_BYTES = 32_768
MOST_HEADERS = 100  # of a request, its trailers included
HEADER_SECONDS = 10.0  # from the connection, or the last answer, to the end of a request's headers
SEND_SECONDS = 60.0  # for the client to receive an answer
MOST_WAITING = 500  # connections that have not sent their headers yet; beyond, the oldest is closed
MOST_CONNECTIONS = 900  # the usual limit of a process is 1024 open files
MOST_PIPELINED = 16  # requests that wait for the answers to earlier ones
CHECK_SECONDS = 2.0

HEADER_LIMITS = f"at most {MOST_HEADERS} headers of together {MOST_HEADER_BYTES} bytes"
TOO_MANY_HEADERS = 431, "the headers are too many or too large", HEADER_LIMITS


class Connection(HttpToolsProtocol):
    """One connection of uvicorn's, within limits."""

    _waiting: ClassVar[dict["Connection", None]] = {}

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start to wait for headers, and close the connection that has waited longest if there are too many."""
        super().connection_made(transport)
        self._header_bytes = self._unparsed = 0
        self._advanced = False
        self._refusal: Refused | None = None
        self._taken_at = self.loop.time()
        self._await_headers()
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_times)
        if len(self._waiting) > MOST_WAITING or len(self.connections) > MOST_CONNECTIONS:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._check.cancel()
        self._waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data, unless the request was refused; refuse headers that are too large."""
        if self._refusal is not None:
            return  # many clients read no answer before they have sent everything: they have HEADER_SECONDS for it
        self._advanced = False
        super().data_received(data)
        # An unfinished header or chunk extension causes no event in which it could be counted.
        self._unparsed = 0 if self._advanced else self._unparsed + len(data)
        if self._unparsed > MOST_HEADER_BYTES and self._refusal is None:
            self._refuse(*TOO_MANY_HEADERS)
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Reset the count of header bytes."""
        super().on_message_begin()
        self._advanced = True
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if len(self.headers) > MOST_HEADERS or self._header_bytes > MOST_HEADER_BYTES:
            # This stops the parser; uvicorn then calls send_400_response.
            raise self._refuse(*TOO_MANY_HEADERS)

    def on_headers_complete(self) -> None:
        """Start the request, unless too many wait before it."""
        self._advanced = True
        self._waiting.pop(self, None)
        if self._header_bytes + len(self.url) > MOST_HEADER_BYTES:
            raise self._refuse(*TOO_MANY_HEADERS)
        if len(self.pipeline) >= MOST_PIPELINED:
            raise self._refuse(429, "too many requests wait for their answers", f"at most {MOST_PIPELINED}")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._advanced = True
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Start to wait for the next request, or send a pending refusal."""
        self._taken_at = self.loop.time()
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last:
            self._await_headers()
            if self._refusal is not None:
                self._send_refusal(self._refusal)

    def send_400_response(self, _: str) -> None:
        """Refuse a malformed request, or one beyond a limit, after earlier ones are answered; read no further."""
        refusal = self._refuse(400, "this is no HTTP request", "HTTP/1.1")
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            # The current request's own body is malformed, so the refusal is its answer.
            self.cycle.disconnected = self.cycle.response_complete = True
            self.cycle.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
                return
        if self.cycle is None or self.cycle.response_complete:
            self._send_refusal(refusal)

    def _send_refusal(self, refusal: Refused) -> None:
        if self.transport.is_closing():
            return
        response = refusal.to_response(connection="close")
        head = [b"%b: %b\r\n" % header for header in response.raw_headers]
        self.transport.write(b"".join([STATUS_LINE[response.status_code], *head, b"\r\n", bytes(response.body)]))
        self._await_headers()  # none will be read: the connection is closed after HEADER_SECONDS
        self.flow.resume_reading()
        self.transport.write_eof()

    def _refuse(self, status: int, what: str, expected: str) -> Refused:
        """Refuse everything further on this connection; the first reason stays."""
        self._refusal = self._refusal or Refused(status, what, expected)
        return self._refusal

    def _await_headers(self) -> None:
        self._waiting_since = self.loop.time()
        self._waiting[self] = None

    def _check_times(self) -> None:
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_times)
        now = self.loop.time()
        if self.transport.get_write_buffer_size():
            if now - self._taken_at > SEND_SECONDS:
                self.transport.abort()
            return
        self._taken_at = now
        if self in self._waiting and now - self._waiting_since > HEADER_SECONDS:
            self.transport.close()
