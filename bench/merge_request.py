"""What a merge request that changes nothing trained waits for, against the pipeline's own cold run."""

import statistics
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.checkout import call, clone, environment
from bench.measuring import Row, take_seconds

RUNS = 3
AUTHOR = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")


def measure() -> list[Row]:
    """Return the seconds of the job's command in fresh clones, whose data lies in a DVC remote."""
    with TemporaryDirectory() as name:
        developer = Path(name) / "developer"
        clone(developer)
        variables = environment(developer)
        call(["dvc", "remote", "add", "--force", "--default", "storage", f"{name}/storage"], developer, variables)
        call(["dvc", "remote", "modify", "storage", "verify", "true"], developer, variables)
        cold = take_seconds(partial(call, ["dvc", "repro"], developer, variables))
        call(["dvc", "push", "--run-cache"], developer, variables)
        call(["git", "add", "--all"], developer)
        call(["git", *AUTHOR, "commit", "--quiet", "--no-verify", "--message", "Models"], developer)
        jobs = [Path(name) / f"job{number}" for number in range(RUNS)]
        seconds = statistics.median(_reproduce(developer, job, variables) for job in jobs)
    note = f"median of {RUNS} fresh clones; peer: dvc repro without cache and remote"
    return [Row("upkeep reproduce, nothing changed", seconds, "s", cold, "ratio <= 0.1", note)]


def _reproduce(developer: Path, job: Path, variables: Mapping[str, str]) -> float:
    call(["git", "clone", "--quiet", "--depth", "20", developer.as_uri(), str(job)], developer)
    return take_seconds(partial(call, ["upkeep", "reproduce"], job, {**variables, **environment(job)}))
