"""An application on a server of its own, whose connections are those of the service, and bytes over a socket."""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import uvicorn
from starlette.types import ASGIApp

from upkeep.serving.connection import Connection

SECONDS = 30


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """Serve in a thread, and give the port."""
    config = uvicorn.Config(
        app, port=0, http=Connection, log_config=None, access_log=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    running = Thread(target=server.run)
    running.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        running.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def talk(port: int, *sent: bytes) -> bytes:
    """Send bytes part by part, and return all that comes until the service closes the connection."""
    return talk_slowly(port, sent)


def talk_slowly(port: int, sent: Iterable[bytes]) -> bytes:
    """As `talk`, with parts that are made while it sends."""
    with connect(port) as peer:
        with suppress(ConnectionError):  # it has closed already, and its answer waits
            for part in sent:
                peer.sendall(part)
        return read_all(peer)


def read_all(peer: socket.socket) -> bytes:
    """Return what comes until the connection ends, in whichever way."""
    received = b""
    with suppress(ConnectionError):
        while part := peer.recv(65_536):
            received += part
    return received


def statuses(answer: bytes) -> list[int]:
    """Return the status of each answer."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
