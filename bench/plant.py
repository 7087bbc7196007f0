"""Training of a plant that takes three gigabytes when held whole, in chunks that stay below one gigabyte."""

from bench.measuring import Row
from bench.memory import measure_plant

MACHINES = {"train": 3000, "validation": 500, "test": 500}


def measure() -> list[Row]:
    """Return seconds and megabytes."""
    return measure_plant(MACHINES, bound=1000)
