"""``make repro`` from a fresh clone: the environment, downloaded and installed, and the pipeline."""

import os
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.checkout import call, clone
from bench.measuring import Row, take_seconds

HIDDEN = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "MAKEFLAGS", "MAKELEVEL", "MLFLOW_TRACKING_URI")


def measure() -> list[Row]:
    """Return the seconds of ``make repro`` with empty package caches."""
    with TemporaryDirectory() as name:
        checkout = Path(name) / "upkeep"
        clone(checkout)
        variables = {key: value for key, value in os.environ.items() if key not in HIDDEN}
        own = str(Path(sys.prefix) / "bin")
        variables["PATH"] = os.pathsep.join(part for part in variables["PATH"].split(os.pathsep) if part != own)
        caches = {"UV_CACHE_DIR": str(Path(name) / "uv"), "PIP_NO_CACHE_DIR": "1"}
        make = ["make", "repro", f"PYTHON={Path(sys.base_prefix) / 'bin/python3'}"]
        seconds = take_seconds(partial(call, make, checkout, {**variables, **caches}))
    note = "packages are downloaded from the configured index, so the network's speed is part of it"
    return [Row("make repro from a fresh clone", seconds, "s", target="ours <= 180", note=note)]
