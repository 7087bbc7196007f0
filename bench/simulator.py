"""Telemetry rows that the simulator makes a second on one core, against a plain loop over rows."""

import json
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from bench.measuring import Row, median_by_key, run_module
from upkeep.simulator.source import Simulator

ROUNDS = 5
PLANTS = {"gdansk": 58, "hamburg": 58, "lyon": 58, "porto": 58}  # two million rows
WEEKS = 51
LOOP_HOURS = 50_000


def measure() -> list[Row]:
    """Return the simulator's speed, defects included."""
    found = run_module("bench.simulator", POLARS_MAX_THREADS="1")
    note = (
        f"median of {ROUNDS} fleets over a year, with all defects, without writing files; peer: a loop that draws and "
        "rounds seven readings a row, without wear, failures or defects"
    )
    name = "simulator, one core, 2 million rows"
    return [Row(name, found["ours"], "million rows/s", found["peer"], "ours >= 2", note)]


def _simulate() -> int:
    options = {"seed": 7, "start": date(2025, 1, 6), "plants": PLANTS, "defects": True}
    deliveries = Simulator(options, 7).deliveries(date(2025, 1, 6) + timedelta(weeks=WEEKS - 1))
    return sum(delivery.read().height for delivery in deliveries if delivery.table == "telemetry")


def _loop() -> int:
    rng = random.Random(7)  # noqa: S311 - numbers to time, not secrets
    start = datetime(2025, 1, 6, tzinfo=UTC)
    rows = [
        ("plant", "M001", start + timedelta(hours=hour), *(round(rng.gauss(50, 10), 2) for _ in range(7)))
        for hour in range(LOOP_HOURS)
    ]
    return len(rows)


def _million_rows_a_second(simulate: Callable[[], int]) -> float:
    started = time.process_time()  # seconds of one core, whatever else the machine does
    rows = simulate()
    return rows / 1e6 / (time.process_time() - started)


if __name__ == "__main__":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    works = {"ours": _simulate, "peer": _loop}
    rounds = [{name: _million_rows_a_second(work) for name, work in works.items()} for _ in range(ROUNDS)]
    print(json.dumps(median_by_key(rounds)))
