"""What a connection may cost before any token is asked for, and how requests are told apart on it."""

import asyncio
import itertools
import time
from contextlib import ExitStack

import pytest
from served import connect, read_all, serving, statuses, talk, talk_slowly
from starlette.responses import PlainTextResponse

from upkeep.serving import connection

PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


LARGE = 20_000_000


async def echo_length(scope, receive, send):
    """Answer with the number of bytes that the body has; or with many, or later, if the path says so."""
    if scope["path"] == "/later":
        await asyncio.sleep(0.2)
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await PlainTextResponse("a" * LARGE if scope["path"] == "/large" else str(size))(scope, receive, send)


@pytest.fixture(scope="module")
def port():
    with serving(echo_length) as port:
        yield port


@pytest.fixture
def hasty(monkeypatch):
    """Times of minutes as fractions of a second."""
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.05)


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"X: " + b"a" * 10_000_000 + b"\r\n\r\n",
        POST + b"X: " + b"a" * 33_000 + b"\r\n\r\n",
        POST + b"".join(b"X%d: a\r\n" % number for number in range(101)) + b"\r\n",
        b"GET /" + b"a" * 33_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        CHUNKED + b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n",
        CHUNKED + b"0\r\nX: " + b"a" * 1_000_000,
        CHUNKED + b"1;x=" + b"a" * 1_000_000,
        PING + POST + b"X: " + b"a" * 1_000_000,
        b"\r\n" * 500_000,
    ],
    ids=["10 MB", "33 kB", "101", "path", "trailers", "endless trailer", "chunk extension", "second", "empty lines"],
)
def test_headers_beyond_a_limit_are_refused_and_the_limit_named(port, request_):
    answer = talk(port, request_)
    assert statuses(answer)[-1] == 431
    assert b"at most 100 headers of together 32768 bytes" in answer
    assert statuses(talk(port, LAST)) == [200]


def test_headers_within_the_limits_are_taken_however_they_are_cut(port):
    head = POST + b"".join(b"X%d: %s\r\n" % (number, b"a" * 300) for number in range(90))
    request = head + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi"
    assert statuses(talk(port, *(request[at : at + 1000] for at in range(0, len(request), 1000)))) == [200]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("begun", [b"", b"GET", POST, POST + b"X: a", PING, PING + b"GET /"])
def test_connections_whose_headers_do_not_come_are_closed(port, begun):
    with connect(port) as peer:
        peer.sendall(begun)
        answer = read_all(peer)
    assert statuses(answer) == [200] * begun.startswith(PING)


@pytest.mark.usefixtures("hasty")
def test_a_header_a_moment_does_not_keep_a_connection_open(port):
    assert statuses(talk_slowly(port, slowly(POST + b"X: a\r\n" * 1000))) == []


def slowly(content):
    for at in range(0, len(content), 6):
        time.sleep(0.02)
        yield content[at : at + 6]


@pytest.mark.usefixtures("hasty")
def test_a_request_may_take_longer_than_its_headers(port):
    with connect(port) as peer:
        peer.sendall(POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n")
        time.sleep(0.5)
        peer.sendall(b"hi")
        assert statuses(read_all(peer)) == [200]


def test_of_too_many_connections_that_wait_the_oldest_is_closed(port, monkeypatch):
    monkeypatch.setattr(connection, "MOST_WAITING", 20)
    with ExitStack() as peers:
        oldest, *others = (peers.enter_context(connect(port)) for _ in range(30))
        assert read_all(oldest) == b""
        for peer in others[-5:]:
            peer.sendall(LAST)
            assert statuses(read_all(peer)) == [200]


def test_hundreds_of_clients_that_never_finish_keep_nobody_from_an_answer(port, monkeypatch):
    monkeypatch.setattr(connection, "MOST_WAITING", 250)
    begun = itertools.cycle([b"", b"GET", POST + b"X: a", POST + b"Content-Length: 9\r\n\r\nab", CHUNKED + b"1\r\na"])
    with ExitStack() as peers:
        for _, sent in zip(range(500), begun, strict=False):
            peers.enter_context(connect(port)).sendall(sent)
        for _ in range(20):
            assert statuses(talk(port, LAST)) == [200]


def test_requests_sent_before_their_answers_are_answered_in_order_up_to_a_number(port):
    assert statuses(talk(port, PING * 10 + LAST)) == [200] * 11
    assert statuses(talk(port, PING * 5000)) == [200] * 17 + [429]


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (POST + b"X: " + b"a" * 100_000, 431),
        (CHUNKED + b"0\r\nX: " + b"a" * 100_000, 431),
        (b"no HTTP\r\n\r\n", 400),
        (CHUNKED + b"no size\r\n", 400),
    ],
    ids=["headers", "trailers", "no HTTP", "body"],
)
def test_a_refusal_comes_after_the_answers_to_the_requests_before_it_and_breaks_none(port, refused, status, caplog):
    later = PING.replace(b"/ping", b"/later")
    assert statuses(talk(port, later * 2 + refused + PING)) == [200, 200, status]
    assert statuses(talk(port, refused + PING)) == [status]
    assert "Exception" not in caplog.text


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n"])
def test_a_client_that_takes_long_over_an_answer_gets_all_of_it(port, headers):
    with connect(port) as peer:
        peer.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
        time.sleep(0.5)
        assert len(read_all(peer)) > LARGE


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n"])
def test_a_client_that_does_not_take_its_answer_is_left(port, headers, monkeypatch):
    monkeypatch.setattr(connection, "SEND_SECONDS", 0.3)
    with connect(port) as peer:
        peer.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
        time.sleep(0.8)
        assert len(read_all(peer)) < LARGE


@pytest.mark.parametrize(
    "ambiguous",
    [
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        POST + b"Content-Length: 4, 4\r\n\r\nabcd",
        POST + b"Content-Length: +4\r\n\r\nabcd",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 0x4\r\n\r\nabcd",
        POST + b"Content-Length: 99999999999999999999\r\n\r\n",
        POST + b"Content-Length : 4\r\n\r\nabcd",
        POST + b" Content-Length: 4\r\n\r\nabcd",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\n\r\n",
        CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\na",
        CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\nX: a\rY: b\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_a_request_whose_end_is_not_certain_is_refused_and_none_behind_it_heard(port, ambiguous):
    assert statuses(talk(port, ambiguous + LAST)) in ([400], [])
