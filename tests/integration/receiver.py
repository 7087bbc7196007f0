"""A planner's system that listens to alarms: a real HTTP server in a thread, which answers as a test wants."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from upkeep.scoring.alerts import sign


class Receiver(ThreadingHTTPServer):
    """Keeps what it accepts.

    Attributes
    ----------
    answers
        Statuses of the next answers, each with headers; afterwards it accepts.
    refuses
        Machines whose alarms it answers with 422.
    calls
        Headers and body of all requests.
    accepted
        Alarms taken, by idempotency key; those that came again with the same key are only counted, in `repeated`.
    """

    daemon_threads = True

    def __init__(self, secret: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secret = secret
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.refuses: set[str] = set()
        self.calls: list[tuple[Message, bytes]] = []
        self.accepted: dict[str, dict] = {}
        self.repeated = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/path-s3cret"

    def judge(self, headers: Message, body: bytes) -> tuple[int, dict[str, str]]:
        self.calls.append((headers, body))
        if headers["X-Upkeep-signature"] != sign(self.secret, headers["X-Upkeep-timestamp"], body):
            return 401, {}
        if self.answers:
            return self.answers.pop(0)
        alarm = json.loads(body)
        if alarm["machine"] in self.refuses:
            return 422, {}
        self.repeated += headers["Idempotency-Key"] in self.accepted
        self.accepted[headers["Idempotency-Key"]] = alarm
        return 204, {}


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, headers = self.server.judge(self.headers, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening(secret: str, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    with Receiver(secret) as receiver:
        if tls:
            receiver.socket = tls.wrap_socket(receiver.socket, server_side=True)
        threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield receiver
        receiver.shutdown()
