"""The compose file in deploy/cluster: a scheduler and two workers in containers, and the pipeline's bytes from them."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import components
import pytest
import yaml

BIN = Path(sys.executable).parent
STAGES = ("validate", "dataset")
OUTPUTS = ("data/interim", "data/processed", "reports")


def run_stages(checkout: Path, stages: tuple[str, ...], **parallel: object) -> None:
    file = checkout / "params.yaml"
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    params["parallel"] |= parallel
    file.write_text(yaml.safe_dump(params), encoding="utf-8")
    for stage in stages:
        command = [BIN / "upkeep", stage]
        variables = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def digests(checkout: Path) -> dict[str, str]:
    files = [file for name in OUTPUTS for file in (checkout / name).rglob("*") if file.is_file()]
    return {str(file.relative_to(checkout)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with raw data of three small plants."""
    folder = tmp_path / "upkeep"
    components.clone(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["fetch"] |= {"until": "2025-06-30"}
    params["fetch"]["options"] |= {"plants": {"gdansk": 4, "lyon": 4, "porto": 4}}
    params["pieces"]["folder"] = None  # of the run here, which workers would read instead of working
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run_stages(folder, ("fetch",))
    return folder


def test_workers_in_containers_write_the_bytes_that_this_machine_writes(engine, checkout, tmp_path):
    port = components.free_port()
    # In the place of the image's own environment that of these tests, whose interpreter may lie elsewhere.
    mounts = [f"{path}:{path}:ro" for path in {sys.prefix, sys.base_prefix} - {"/usr"}]
    more = tmp_path / "environment.yaml"
    services = {name: {"volumes": mounts} for name in ("scheduler", "worker")}
    more.write_text(yaml.safe_dump({"services": services}), encoding="utf-8")
    compose = [BIN / "docker-compose", "--file", "deploy/cluster/compose.yaml", "--file", more]
    variables = {
        **engine.environment,
        "PWD": str(checkout),
        "UPKEEP_CLUSTER_IMAGE": components.PYTHON_IMAGE,
        "UPKEEP_CLUSTER_PORT": str(port),
        "UPKEEP_USER": f"{os.getuid()}:{os.getgid()}",
        "UPKEEP_VENV": sys.prefix,
    }
    run_stages(checkout, STAGES, backend="loky", jobs=2)
    here = digests(checkout)

    def call(*arguments: str) -> str:
        command = [*compose, *arguments]
        done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("up", "--detach", "--no-build")
    try:
        until = time.monotonic() + 180
        while (logs := call("logs", "worker")).count("Registered to") < 2:
            assert time.monotonic() < until, logs
            time.sleep(0.5)
        run_stages(checkout, STAGES, backend="dask", address=f"tcp://127.0.0.1:{port}")
    finally:
        call("down", "--volumes")
    assert digests(checkout) == here
