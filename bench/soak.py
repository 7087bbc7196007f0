"""Ten minutes at 70% of capacity: whether the service grows, fails or loses predictions.

Requests are due at even intervals, whether or not earlier ones have been answered, and go over the connection that is
free first; the time to answer counts from when a request was due.
"""

import asyncio
import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from bench import environments, servers
from bench.measuring import ROOT, Row
from bench.servers import Running
from upkeep.core import paths
from upkeep.scoring.prediction_log import read_parts

SECONDS = 600
CAPACITY_SECONDS, CAPACITY_TRIES = 5, 4
SHARE = 0.7
CONNECTIONS = 8
SAMPLE_SECONDS = 10
SETTLE_SECONDS = 120  # buffers and the first Parquet files are still being allocated until then

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
OK = b"HTTP/1.1 200"


@dataclass
class Seen:
    """What the load saw: each request's time to answer in seconds, and resident MB at seconds since the start."""

    answers: int = 0
    failed: int = 0
    late: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


def measure() -> list[Row]:
    """Return growth, errors, predictions that are missing from the log, and times to answer."""
    requests = _read_requests()
    with TemporaryDirectory() as name:
        folder = Path(name)
        server = servers.service(environments.install_service(), folder, requests[0])
        with servers.running(server, folder) as process:
            # The best of several: whatever else the machine does in one of them must not make the soak an easy one.
            tries = [
                asyncio.run(_load(process, requests, CAPACITY_SECONDS, float("inf"))) for _ in range(CAPACITY_TRIES)
            ]
            rate = SHARE * max(each.answers for each in tries) / CAPACITY_SECONDS
            seen = asyncio.run(_load(process, requests, SECONDS, rate))
        logged = [part for _, part in read_parts(servers.log_url(folder), date.min, set(), ["id"])]
    rows = pl.concat(logged)["id"].n_unique()
    answers = 1 + seen.answers + sum(each.answers for each in tries)  # one when it had started
    failed = sum(each.failed for each in (*tries, seen))
    return _rows(seen, rate, failed, answers, rows)


def _rows(seen: Seen, rate: float, failed: int, answers: int, rows: int) -> list[Row]:
    # What stays: while a part of the log is shipped, memory is up to 30 MB higher for a moment.
    minutes = itertools.groupby(
        (sample for sample in seen.memory if sample[0] >= SETTLE_SECONDS), lambda sample: sample[0] // 60
    )
    at, floor = np.array([min(samples, key=lambda sample: sample[1]) for _, samples in minutes]).T
    growth = float(np.polyfit(at, floor, 1)[0]) * SECONDS
    note = (
        f"{SECONDS} s at {rate:.0f} requests/s, {SHARE:.0%} of capacity, {CONNECTIONS} connections, {len(seen.late)} "
        f"requests; by the slope of each minute's lowest resident memory after {SETTLE_SECONDS} s, {floor[0]:.0f} MB "
        f"then and {floor[-1]:.0f} in the end"
    )
    p50, p99 = np.percentile(seen.late, [50, 99]) * 1000
    log = f"{answers} answers, those that measured the capacity too; {rows} different ids in the log after SIGTERM"
    times = f"from when the request was due; p50 {p50:.1f} ms"
    return [
        Row("soak, growth of memory in 10 minutes", growth, "MB", target="ours <= 5", note=note),
        Row("soak, errors", failed, "requests", target="ours <= 0"),
        Row("soak, answers that are not in the log", abs(answers - rows), "rows", target="ours <= 0", note=log),
        Row("soak, time to answer, p99", p99, "ms", note=times),
    ]


def _read_requests() -> list[bytes]:
    """Return the bodies of all plants' golden requests."""
    files = sorted((ROOT / paths.GOLDEN).glob("*.json"))
    return [json.dumps(case["request"]).encode() for file in files for case in json.loads(file.read_text("utf-8"))]


async def _load(process: Running, bodies: list[bytes], seconds: float, rate: float) -> Seen:
    seen = Seen()
    head = "POST /invocations HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    requests = itertools.cycle([head.format(len(body)).encode() + body for body in bodies])
    started = time.perf_counter()
    until = started + seconds
    due = (started + number / rate for number in itertools.count())
    sampling = asyncio.create_task(_sample(process.pid, started, seen))
    senders = (_send(process.port, due, until, requests, seen) for _ in range(CONNECTIONS))
    await asyncio.gather(*senders)
    sampling.cancel()
    return seen


async def _send(port: int, due: Iterator[float], until: float, requests: Iterator[bytes], seen: Seen) -> None:
    """Send what is due over one connection, opened again when it breaks."""
    reader, writer = await asyncio.open_connection(servers.HOST, port)
    for planned in due:
        if max(planned, time.perf_counter()) >= until:
            break
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        try:
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            found = LENGTH.search(head)
            await reader.readexactly(int(found[1]) if found else 0)
            answered = head.startswith(OK)
        except (OSError, asyncio.IncompleteReadError):
            answered = False
            reader, writer = await asyncio.open_connection(servers.HOST, port)
        seen.late.append(time.perf_counter() - planned)
        seen.answers += answered
        seen.failed += not answered
    writer.close()


async def _sample(pid: int, started: float, seen: Seen) -> None:
    while True:
        seen.memory.append((time.perf_counter() - started, servers.resident_megabytes(pid)))
        await asyncio.sleep(SAMPLE_SECONDS)
