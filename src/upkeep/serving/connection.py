"""What a connection may cost before any token is asked for: bytes, number and time of headers, and waiting itself.

uvicorn bounds none of them with httptools, which is several times as fast as h11.
"""

from asyncio import Transport
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from upkeep.serving.protocol import Refused

MOST_HEADER_BYTES = 32_768
MOST_HEADERS = 100  # of a request, its trailers included
HEADER_SECONDS = 10.0  # from the connection, or the last answer, to the end of a request's headers
SEND_SECONDS = 60.0  # from an answer to when the client has taken it whole
MOST_WAITING = 500  # connections that have not sent their headers yet; for another one, the oldest is closed
MOST_CONNECTIONS = 900  # a process may have 1024 files open, by the usual limit
MOST_PIPELINED = 16  # requests that came before the answers to those before them
CHECK_SECONDS = 2.0

HEADER_LIMITS = f"at most {MOST_HEADERS} headers of together {MOST_HEADER_BYTES} bytes"
TOO_MANY_HEADERS = 431, "the headers are too many or too large", HEADER_LIMITS


class Connection(HttpToolsProtocol):
    """One connection, as uvicorn serves it, within limits."""

    _waiting: ClassVar[dict["Connection", None]] = {}

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for headers."""
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
        """Take what has come, unless it is more than headers may be, or the rest of what was refused."""
        if self._refusal is not None:
            return  # many a client hears nothing before it has sent all: for that it has the time of headers
        self._advanced = False
        super().data_received(data)
        # Half a header, or of what may stand between chunks, brings no event that could be counted.
        self._unparsed = 0 if self._advanced else self._unparsed + len(data)
        if self._unparsed > MOST_HEADER_BYTES and self._refusal is None:
            self._refuse(*TOO_MANY_HEADERS)
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Count anew."""
        super().on_message_begin()
        self._advanced = True
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if len(self.headers) > MOST_HEADERS or self._header_bytes > MOST_HEADER_BYTES:
            # The parser stops, and uvicorn takes it for a request that is no HTTP.
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
        """Begin to wait for the next request, or refuse it."""
        self._taken_at = self.loop.time()
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last:
            self._await_headers()
            if self._refusal is not None:
                self._send_refusal(self._refusal)

    def send_400_response(self, _: str) -> None:
        """Refuse a request that is no HTTP, or is beyond a limit, once those before it are answered; hear no other."""
        refusal = self._refuse(400, "this is no HTTP request", "HTTP/1.1")
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            # It is the body of this one that is wrong: it has no other answer.
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
        self._await_headers()  # which will not come: the connection ends when their time is over
        self.flow.resume_reading()
        self.transport.write_eof()

    def _refuse(self, status: int, what: str, expected: str) -> Refused:
        """Return why nothing more is heard on this connection: the first reason counts."""
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
