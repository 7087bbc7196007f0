"""The whole pipeline on three hundred plants and a year: cold, and the next week."""

from bench.measuring import Row
from bench.scale import Fleet, reproduce_twice

LARGE = Fleet(300, 20, 52)


def measure() -> list[Row]:
    """Return seconds and megabytes of ``dvc repro`` in a checkout without any outputs, and a week later."""
    cold, week, note = reproduce_twice(LARGE)
    return [
        Row(f"{LARGE}, cold", cold.seconds, "s", target="ours <= 1200", note=note),
        Row(f"{LARGE}, memory", cold.megabytes, "MB", target="ours <= 6000", note="sum over processes"),
        Row(f"{LARGE}, the next week", week.seconds, "s", cold.seconds, "ratio <= 0.125", "peer: cold"),
    ]
