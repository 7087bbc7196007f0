"""What a measurement returns, and how time and memory are taken on a machine that is never quite quiet."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SAMPLING_SECONDS = 0.01


class Row(NamedTuple):
    """One measured figure: `ours` and `peer` are None if there is none; `target` is such as ``ratio >= 6``."""

    name: str
    ours: float | None
    unit: str
    peer: float | None = None
    target: str | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Return ours / peer."""
        return self.ours / self.peer if self.ours is not None and self.peer else None

    @property
    def met(self) -> bool | None:
        """Return whether the target holds, None if there is none or nothing was measured."""
        if self.target is None:
            return None
        figure, sign, bound = self.target.split()
        value = self.ratio if figure == "ratio" else self.ours
        if value is None:
            return None
        return value >= float(bound) if sign == ">=" else value <= float(bound)

    def as_record(self) -> dict[str, Any]:
        """Return what ``bench/results.json`` holds of it, numbers to four digits."""
        figures = {"ours": self.ours, "peer": self.peer, "ratio": self.ratio}
        rounded = {name: None if value is None else float(f"{value:.4g}") for name, value in figures.items()}
        told = {"target": self.target, "met": self.met, "unit": self.unit, "note": self.note}
        return {"name": self.name, **rounded, **told}


def take_seconds(work: Callable[[], object]) -> float:
    """Return how long one call took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_by_key(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over several runs."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def interleave(rounds: int, works: Mapping[str, Callable[[], Mapping[str, float]]]) -> list[dict[str, float]]:
    """Return the median figures of each work, taken in turns, so that a slow moment is not one side's alone."""
    runs: dict[str, list[Mapping[str, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            runs[name].append(work())
    return [median_by_key(found) for found in runs.values()]


class Ran(NamedTuple):
    """What a command printed, how long it took, and the most memory it took.

    `megabytes` is the peak, sampled, of the resident memory of the process and all its descendants. Pages that they
    share count once for each.
    """

    output: str
    seconds: float
    megabytes: float


def run_command(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Ran:
    """Run a command, whose errors are shown, and watch its memory."""
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:  # a pipe that nobody reads meanwhile would fill
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=output, text=True)
        while process.poll() is None:
            peak = max(peak, sum(_resident_bytes(pid) for pid in _tree(process.pid)))
            time.sleep(SAMPLING_SECONDS)
        seconds = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, text)
    return Ran(text, seconds, peak / 1e6)


def run_module(module: str, *arguments: str, folder: Path = ROOT, **variables: str) -> dict[str, float]:
    """Return the JSON object that a module of the bench prints in a process of its own, and ``megabytes``."""
    ran = run_command([sys.executable, "-m", module, *arguments], folder, {**os.environ, **variables})
    return {**json.loads(ran.output), "megabytes": ran.megabytes}


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:  # it has just ended
        return
    for child in children.split():
        yield from _tree(int(child))


def _resident_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
