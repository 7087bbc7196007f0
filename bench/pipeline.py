"""The whole pipeline through DVC: cold, with nothing to do, in a merge request, and against one warm process."""

import importlib
import json
import shutil
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from bench.checkout import call, clone, environment
from bench.measuring import Row, run_module, take_seconds
from upkeep.core import paths
from upkeep.core.params import Params, load_params

IDLE_RUNS, JOBS = 5, 3
AUTHOR = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")


def measure() -> list[Row]:
    """Return the seconds of ``dvc repro``."""
    with TemporaryDirectory() as name:
        through_dvc, in_one_process = Path(name) / "dvc", Path(name) / "process"
        for checkout in (through_dvc, in_one_process):
            clone(checkout)
        repro = partial(call, ["dvc", "repro"], through_dvc, environment(through_dvc))
        cold = take_seconds(repro)
        times = json.loads((through_dvc / paths.LOCAL / "stage_times.json").read_text(encoding="utf-8"))
        idle = statistics.median(take_seconds(repro) for _ in range(IDLE_RUNS))
        job = statistics.median(_reproduce(through_dvc, Path(name)))
        warm = run_module("bench.pipeline", folder=in_one_process, **environment(in_one_process, TQDM_DISABLE="1"))
    stages = ", ".join(f"{stage} {seconds}" for stage, seconds in times.items())
    note = "peer: all stages called in one process that has done it once before; its second pass, from no outputs"
    fresh = f"median of {JOBS} fresh clones, whose data lies in a DVC remote; peer: dvc repro without cache and remote"
    return [
        Row("dvc repro, cold", cold, "s", target="ours <= 75", note=f"within the stages: {stages}"),
        Row("dvc repro, nothing to do", idle, "s", target="ours <= 1.5", note=f"median of {IDLE_RUNS}"),
        Row("dvc repro against one warm process", cold, "s", warm["second"], "ratio <= 2", note),
        Row("upkeep reproduce, nothing changed", job, "s", cold, "ratio <= 0.1", fresh),
    ]


def _reproduce(developer: Path, folder: Path) -> Iterator[float]:
    """Yield the seconds of what a merge request that changes nothing trained waits for: its job's command."""
    variables = environment(developer)
    call(["dvc", "remote", "add", "--force", "--default", "storage", f"{folder}/storage"], developer, variables)
    call(["dvc", "remote", "modify", "storage", "verify", "true"], developer, variables)
    call(["dvc", "push", "--run-cache"], developer, variables)
    call(["git", "add", "--all"], developer)
    call(["git", *AUTHOR, "commit", "--quiet", "--no-verify", "--message", "Models"], developer)
    for number in range(JOBS):
        job = folder / f"job{number}"
        call(["git", "clone", "--quiet", "--depth", "20", developer.as_uri(), str(job)], developer)
        yield take_seconds(partial(call, ["upkeep", "reproduce"], job, environment(job)))


def _run_stages(params: Params) -> None:
    """Call what each stage's command in dvc.yaml calls, in the order of the file."""
    from upkeep.reporting.notebooks import rendering_of, resolve_parameters, run_notebook

    for stage in yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values():
        _, name, *rest = stage["cmd"].split()
        if name == "notebook":
            notebook = Path(rest[-1])
            run_notebook(notebook, rendering_of(notebook), resolve_parameters(notebook, params))
        else:
            importlib.import_module(f"upkeep.stages.{name}").run(params)


def _remove_outputs() -> None:
    folders = (
        paths.RAW,
        paths.INTERIM,
        paths.PROCESSED,
        paths.PREDICTIONS,
        paths.MODELS,
        paths.EVALUATION,
        paths.DRIFT,
        paths.LOCAL,  # the pieces of the first pass
    )
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    params = load_params()
    paths.REPORTS.mkdir(exist_ok=True)
    seconds = []
    for _ in range(2):
        _remove_outputs()
        seconds.append(take_seconds(partial(_run_stages, params)))
    print(json.dumps(dict(zip(("first", "second"), seconds, strict=True))))
