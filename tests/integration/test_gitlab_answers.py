"""What answers in GitLab's place: elsewhere, for ever, far too much, or nonsense."""

import itertools
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from upkeep.core.errors import UpkeepError
from upkeep.gitlab import api

USER, PROJECT = {"id": 1, "username": "upkeep", "web_url": "x"}, {"id": 1, "path_with_namespace": "a/b"}
NOTES = "/api/v4/projects/1/merge_requests/1/notes"


@contextmanager
def answering(answers):
    """Serve, by path, JSON or what a function of the handler sends; yields a job's variables and what was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            asked.append((path, self.headers.get("PRIVATE-TOKEN")))
            answer = answers.get(path, {})
            answer(self) if callable(answer) else send(self, json.dumps(answer).encode())

        def do_POST(self):
            send(self)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield {"CI_SERVER_URL": url, "CI_PROJECT_ID": "1", "UPKEEP_GITLAB_TOKEN": "glpat-secret"}, asked
        server.shutdown()


def send(handler, content=b"{}", status=200, **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def project(**answers):
    return {"/api/v4/user": USER, "/api/v4/projects/1": PROJECT, **answers}


def refusal(answers, read=lambda opened: api.put_note(opened, 1, "text")):
    with answering(answers) as (environment, _), pytest.raises(UpkeepError) as caught:
        read(api.open_project(environment))
    assert "glpat" not in str(caught.value)
    return caught.value.what


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_does_not_get_the_token(status):
    with answering({}) as (elsewhere, asked):
        there = elsewhere["CI_SERVER_URL"]
        answers = {"/api/v4/user": lambda call: send(call, status=status, Location=f"{there}/api/v4/user")}
        assert there in refusal(answers)
    assert asked == []


def test_a_link_to_a_further_page_elsewhere_does_not_get_the_token():
    with answering({NOTES: []}) as (elsewhere, asked):
        link = f'<{elsewhere["CI_SERVER_URL"]}/other>; rel="next"'
        note = json.dumps([{"id": 1, "body": "x", "author": {"id": 2}}]).encode()
        assert "No connection adapters" in refusal(project(**{NOTES: lambda call: send(call, note, Link=link)}))
    assert asked == []


def test_an_answer_that_is_too_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(api, "MOST_BYTES", 10_000)
    assert "larger than 10,000 bytes" in refusal({"/api/v4/user": {"name": "x" * 20_000}})


@pytest.mark.parametrize(
    "wait", [lambda call: drip(call), lambda call: send(call, status=429, **{"Retry-After": "9999"})]
)
def test_an_answer_that_takes_for_ever_ends(wait, monkeypatch):
    monkeypatch.setattr(api, "ALL_SECONDS", 0.3)
    assert "took longer than 0.3 s" in refusal({"/api/v4/user": wait})


def drip(call):
    call.send_response(200)
    call.end_headers()
    for _ in range(100):
        try:
            call.wfile.write(b" ")
        except OSError:
            return
        time.sleep(0.02)


def test_pages_without_end_end(monkeypatch):
    monkeypatch.setattr(api, "MOST_ROWS", 50)
    numbers = itertools.count()

    def page(call):
        rows = [{"id": next(numbers), "body": "x", "author": {"id": 2}} for _ in range(20)]
        send(call, json.dumps(rows).encode(), Link=f'<http://{call.headers["Host"]}{NOTES}?page=2>; rel="next"')

    with answering(project(**{NOTES: page})) as (environment, asked):
        api.put_note(api.open_project(environment), 1, "text")
    assert len([path for path, _ in asked if path == NOTES]) == 3


@pytest.mark.parametrize(
    "notes",
    [
        None,
        7,
        {"message": "x"},
        [None],
        [{"id": 1}],
        [{"id": 1, "author": None, "body": "x"}],
        [{"id": 1, "author": {"id": 1}, "body": None}],
        [{"id": 1, "author": [], "body": "x"}],
    ],
)
def test_notes_of_another_shape_are_a_sentence(notes):
    assert refusal(project(**{NOTES: notes})).startswith("writing the note on merge request !1 failed: ")


@pytest.mark.parametrize("content", [b"", b"<html>", b"[" * 100_000, b"\xff\xfe", b"null", b"[]"])
def test_an_answer_that_is_no_object_is_a_sentence(content):
    answers = {"/api/v4/user": lambda call: send(call, content)}
    assert refusal(answers).startswith("opening project 1 on http://127.0.0.1")


def test_a_page_of_a_proxy_is_told_in_its_first_words():
    page = b"<html>\x1b[31m" + b"login " * 10_000
    told = refusal({"/api/v4/user": lambda call: send(call, page, status=418)})
    assert "answered 418, <html>\\x1b[31mlogin" in told
    assert len(told) < 500
