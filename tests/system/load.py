"""Clients that send golden requests through the proxy, all the time and on few connections, and check each answer."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONNECTIONS = 4
PAUSE = 0.01
"""Seconds between two requests of a client, lest the clients alone keep the machine busy."""


class Load:
    """What came back so far.

    Attributes
    ----------
    answered
        Right answers, by the release that gave them.
    failed
        What went wrong, a sentence each.
    """

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self.stopping = threading.Event()

    def wait_for_more(self, answers: int = 40) -> None:
        """Return once so many more right answers have come."""
        wanted = self.answered.total() + answers
        until = time.monotonic() + 30
        while self.answered.total() < wanted:
            assert time.monotonic() < until, f"no more answers; {self.failed[:3]}"
            time.sleep(0.02)

    def send(self, port: int, cases: list[dict[str, Any]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not self.stopping.is_set():
            for case in cases:
                try:
                    connection.request(
                        "POST", "/invocations", json.dumps(case["request"]), {"Content-Type": "application/json"}
                    )
                    response = connection.getresponse()
                    content = response.read()
                    assert response.status == 200, f"{response.status}: {content[:200]!r}"
                    found = json.loads(content)["predictions"][0]
                    assert {name: found[name] for name in case["answer"]} == case["answer"]
                except (AssertionError, OSError, http.client.HTTPException) as error:
                    self.failed.append(f"{time.strftime('%X')} {error!r}")
                    connection.close()
                else:
                    self.answered[response.headers["X-Upkeep-Release"]] += 1
                self.stopping.wait(PAUSE)
        connection.close()


@contextmanager
def load_on(port: int, golden: Path) -> Iterator[Load]:
    """Keep `port` busy for as long as the block runs."""
    cases = [case for file in sorted(golden.glob("*.json")) for case in json.loads(file.read_text())]
    load = Load()
    clients = [
        threading.Thread(target=load.send, args=(port, cases[start::CONNECTIONS])) for start in range(CONNECTIONS)
    ]
    for client in clients:
        client.start()
    try:
        load.wait_for_more()
        yield load
        load.wait_for_more()
    finally:
        load.stopping.set()
        for client in clients:
            client.join()
