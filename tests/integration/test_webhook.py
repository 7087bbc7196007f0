"""Alarms over real HTTP."""

import re
import socket
import socketserver
import ssl
import subprocess
import threading
from base64 import b64encode
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import pytest
from conftest import ROOT
from receiver import listening

from upkeep.core.params import Webhook
from upkeep.scoring import alerts
from upkeep.scoring.alerts import SECRET, Episode, Watch, open_receiver, send_alarms

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)
KEY = "shared-s3cret"


@pytest.fixture
def waits(monkeypatch):
    """The seconds that would have been waited between attempts; none of them is."""
    seconds = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", seconds.append)
    return seconds


@pytest.fixture
def planner(monkeypatch, waits):  # noqa: ARG001  # so that no test waits
    monkeypatch.setenv(SECRET, KEY)
    with listening(KEY) as receiver:
        yield receiver


def watching(*machines, accepted=False):
    return {
        f"lyon/{machine}": Watch(
            time=MONDAY,
            episode=Episode(
                start=MONDAY,
                accepted=accepted,
                alarm={"plant": "lyon", "machine": machine, "episode": "2025-01-06T00:00:00Z", "reasons": ["70 °C"]},
            ),
        )
        for machine in machines
    }


def send(planner, watches, url=None):
    return send_alarms(open_receiver(Webhook(url=url or planner.url)), watches)


def accepted(watches):
    return {name: watch.episode.accepted for name, watch in watches.items()}


def test_an_alarm_arrives_signed_and_is_marked_as_accepted(planner):
    watches, faults = send(planner, watching("M1"))
    assert (accepted(watches), faults) == ({"lyon/M1": True}, [])
    (alarm,) = planner.accepted.values()
    assert alarm == watching("M1")["lyon/M1"].episode.alarm


def test_what_is_accepted_and_what_raises_no_alarm_is_not_sent(planner):
    quiet = {"lyon/M2": Watch(time=MONDAY, episode=None)}
    send(planner, watching("M1", accepted=True) | quiet)
    assert planner.calls == []


def test_a_receiver_with_another_secret_refuses(planner):
    planner.secret = "other"
    watches, faults = send(planner, watching("M1"))
    assert (accepted(watches), faults) == ({"lyon/M1": False}, ["HTTP status 401"])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_receiver_that_is_busy_is_asked_again_with_the_same_key(planner, status):
    planner.answers = [(status, {})] * 5
    watches, faults = send(planner, watching("M1"))
    assert (accepted(watches), faults) == ({"lyon/M1": True}, [])
    assert len({headers["Idempotency-Key"] for headers, _ in planner.calls}) == 1
    assert len(planner.calls) == 6


def test_a_receiver_says_how_long_to_wait_within_reason(planner, waits):
    planner.answers = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "86400"})]
    _, faults = send(planner, watching("M1"))
    assert (max(waits), faults) == (7, ["HTTP status 503"])


@pytest.mark.parametrize("asked", ["soon", "9" * 5000, "-5", "Mon, 99 Xyz 99999 99:99:99 GMT"])
def test_a_receiver_that_asks_for_no_time_is_asked_again_all_the_same(planner, asked):
    planner.answers = [(503, {"Retry-After": asked})]
    send(planner, watching("M1"))
    assert len(planner.calls) in (1, 2)


def test_a_busy_receiver_keeps_all_alarms_waiting_at_once_not_one_after_the_other(planner, waits):
    planner.answers = [(503, {"Retry-After": "50"})] * 3
    watches, faults = send(planner, watching("M1", "M2", "M3"))
    assert (set(accepted(watches).values()), faults, sum(waits)) == ({True}, [], 50)


def test_an_alarm_is_given_up_after_six_attempts_and_sent_again_in_the_next_run(planner):
    planner.answers = [(503, {})] * 6
    watches, faults = send(planner, watching("M1"))
    assert (accepted(watches), faults) == ({"lyon/M1": False}, ["HTTP status 503"])
    watches, faults = send(planner, watches)
    assert (accepted(watches), faults) == ({"lyon/M1": True}, [])


def test_an_alarm_that_is_refused_is_not_repeated_and_leaves_the_others_their_turn(planner):
    planner.refuses = {"M1"}
    watches, faults = send(planner, watching("M1", "M2"))
    assert accepted(watches) == {"lyon/M1": False, "lyon/M2": True}
    assert (faults, len(planner.calls)) == (["HTTP status 422"], 2)


def test_each_machine_has_its_own_key_that_stays_the_same(planner):
    send(planner, watching("M1", "M2"))
    send(planner, watching("M1", "M2"))
    assert (len(planner.accepted), planner.repeated) == (2, 2)


def test_a_redirect_is_not_followed(planner):
    planner.answers = [(307, {"Location": planner.url})]
    watches, faults = send(planner, watching("M1"))
    assert (accepted(watches), faults) == ({"lyon/M1": False}, ["HTTP status 307"])


def test_credentials_in_the_url_become_basic_authentication(planner):
    send(planner, watching("M1"), planner.url.replace("//", "//upkeep:pass@"))
    headers, _ = planner.calls[0]
    assert headers["Authorization"] == "Basic dXBrZWVwOnBhc3M="


def test_a_receiver_that_is_down_is_tried_for_one_alarm_only_and_no_secret_is_told(planner, waits):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        url = f"http://upkeep:pass-s3cret@127.0.0.1:{closed.getsockname()[1]}/hook/path-s3cret?token=query-s3cret"
        watches, faults = send(planner, watching("M1", "M2"), url)
    assert accepted(watches) == {"lyon/M1": False, "lyon/M2": False}
    assert len(faults) == 2
    assert "refused" in faults[0]
    assert "s3cret" not in " ".join(faults)
    assert len(waits) == 6


def answer_forever(*chunks):
    """Return what writes the last of these chunks again and again, as slowly as a drip if it is short."""

    def answer(connection, is_over):
        for chunk in chunks[:-1]:
            connection.sendall(chunk)
        while not is_over.wait(0.01 if len(chunks[-1]) == 1 else 0):
            connection.sendall(chunks[-1])

    return answer


@contextmanager
def receiving_by(answer):
    """A receiver that answers every connection by a function of its own, until the end of the test."""
    is_over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65536)
            with suppress(OSError):
                answer(self.request, is_over)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook/path-s3cret"
        is_over.set()
        server.shutdown()


ENDLESS = {
    "silence": lambda _, is_over: is_over.wait(),
    "a byte now and then": answer_forever(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x"),
    "headers": answer_forever(b"HTTP/1.1 200 OK\r\n", b"X-Padding: x\r\n" * 5),
    "promises": answer_forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nonsense": answer_forever(b"s3cret" * 10_000),
}


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("answer", ENDLESS)
def test_an_answer_that_never_ends_is_none(answer, monkeypatch):
    monkeypatch.setenv(SECRET, KEY)
    monkeypatch.setattr(alerts, "EXCHANGE_SECONDS", 0.1)
    monkeypatch.setattr(alerts, "RUN_SECONDS", 0.3)
    with receiving_by(ENDLESS[answer]) as url:
        watches, faults = send_alarms(open_receiver(Webhook(url=url)), watching("M1", "M2"))
    assert accepted(watches) == {"lyon/M1": False, "lyon/M2": False}
    assert all(fault.startswith("no answer: ") and len(fault) < 250 for fault in faults)
    assert "path-s3cret" not in "".join(faults)


@pytest.mark.parametrize("head", [b"", b"Content-Encoding: gzip\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.usefixtures("waits")
def test_the_body_of_an_answer_is_never_read(status, head, monkeypatch):
    monkeypatch.setenv(SECRET, KEY)
    answer = answer_forever(b"HTTP/1.1 %d Fine\r\n%s\r\n" % (status, head), b"x")
    with receiving_by(answer) as url:
        watches, faults = send_alarms(open_receiver(Webhook(url=url)), watching("M1"))
    assert accepted(watches) == {"lyon/M1": status == 200}
    assert faults == ["HTTP status 503"] * (status == 503)


@pytest.mark.usefixtures("waits")
def test_what_there_was_no_time_for_is_sent_by_the_next_run(planner, monkeypatch):
    planner.answers = [(503, {"Retry-After": "2"})]
    receiver = open_receiver(Webhook(url=planner.url))
    monkeypatch.setattr(alerts, "RUN_SECONDS", 1)
    watches, faults = send_alarms(receiver, watching("M1", "M2"))
    assert (accepted(watches), faults) == ({"lyon/M1": False, "lyon/M2": True}, ["HTTP status 503"])
    monkeypatch.setattr(alerts, "RUN_SECONDS", 0)
    watches, faults = send_alarms(receiver, watches)
    assert faults == ["no time was left of the 0 s for all alarms"]
    monkeypatch.setattr(alerts, "RUN_SECONDS", 60)
    watches, faults = send_alarms(receiver, watches)
    assert (accepted(watches), faults) == ({"lyon/M1": True, "lyon/M2": True}, [])
    assert (len(planner.accepted), planner.repeated) == (2, 0)


def test_an_alarm_at_which_the_receiver_hangs_keeps_no_other_from_being_sent(planner, monkeypatch):
    monkeypatch.setattr(alerts, "EXCHANGE_SECONDS", 0.2)
    judge, is_over = planner.judge, threading.Event()

    def hang_at_the_first(headers, body):
        if b'"M1"' in body:
            is_over.wait()
        return judge(headers, body)

    planner.judge = hang_at_the_first
    watches, faults = send(planner, watching("M1", "M2"))
    is_over.set()
    assert (accepted(watches), len(faults)) == ({"lyon/M1": False, "lyon/M2": True}, 1)


@pytest.mark.parametrize("password", ["p/w", "p@ss", "a:b", "50%", "50%41", "?#x", "zwölf"])
def test_a_password_may_hold_any_character(password, planner, monkeypatch):
    monkeypatch.setenv("PLANNER_PASSWORD", password)
    send(planner, watching("M1"), planner.url.replace("//", "//upkeep:${PLANNER_PASSWORD}@"))
    headers, _ = planner.calls[0]
    assert headers["Authorization"] == f"Basic {b64encode(f'upkeep:{password}'.encode()).decode()}"


def test_a_receiver_checks_the_signature_as_the_docs_show(planner):
    send(planner, watching("M1"))
    ((headers, body),) = planner.calls
    page = (ROOT / "docs/scoring.md").read_text(encoding="utf-8")
    shown: dict = {}
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0], shown)  # noqa: S102  # our own page
    assert shown["is_genuine"](KEY, headers, body)
    assert not shown["is_genuine"]("other", headers, body)
    assert not shown["is_genuine"](KEY, headers, body + b" ")
    headers.replace_header("X-Upkeep-Timestamp", "1736150400")
    assert not shown["is_genuine"](KEY, headers, body)


@pytest.fixture
def certificate(tmp_path):
    """A certificate that only a company's own machines know, and its key."""
    file = tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=planner", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", file, "-out", tmp_path / "own.pem"], check=True, capture_output=True)
    with file.open("ab") as both:
        both.write((tmp_path / "own.pem").read_bytes())
    return file


@pytest.mark.usefixtures("waits")
def test_a_company_s_own_certificate_is_taken_once_ssl_cert_file_names_it(certificate, monkeypatch):
    monkeypatch.setenv(SECRET, KEY)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with listening(KEY, tls) as planner:
        url = planner.url.replace("http://", "https://")
        watches, (fault,) = send(planner, watching("M1"), url)
        assert "certificate verify failed" in fault
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert accepted(send(planner, watches, url)[0]) == {"lyon/M1": True}
