"""The same bytes on every x86-64 processor: what DVC hashes does not depend on the kernels that libraries choose."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from kernels import KERNELS, usable_kernels

STAGES = ("dataset", "train", "golden", "evaluate")
WRITTEN = ("data/processed", "data/predictions", "models", "reports")
REPORTED = {"Prescott": "Katmai"}
"""OpenBLAS has one set of kernels for both on 64 bits, and calls it by the older name."""
RUN = """
import json, sys
from threadpoolctl import threadpool_info
from upkeep.cli.stages import run_stage
for stage in sys.argv[1:]:
    run_stage(stage)
print(json.dumps(sorted({each["architecture"] for each in threadpool_info() if each["internal_api"] == "openblas"})))
"""


def run_stages(fleet: Path, folder: Path, variables: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Run the stages on a plant's reconciled data; return the kernels of OpenBLAS, and a hash per file written."""
    folder.mkdir()
    params = yaml.safe_load((fleet / "params.yaml").read_text())
    params["dataset"]["windows_hours"] = [24]  # half the features take half the time
    params["evaluate"]["bootstrap"] = 20
    params["model"] |= {"compare": ["logistic", "hist_gradient_boosting", "random_forest"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("data/raw", "data/interim", "reports"):
        shutil.copytree(fleet / name, folder / name, ignore=shutil.ignore_patterns("porto.*"))
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *STAGES], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    files = [file for name in WRITTEN for file in (folder / name).rglob("*") if file.is_file()]
    hashes = {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return json.loads(done.stdout.splitlines()[-1]), hashes


@pytest.fixture(scope="module")
def plain(trained_fleet, tmp_path_factory) -> tuple[list[str], dict[str, str]]:
    """What the machine's own kernels give."""
    return run_stages(trained_fleet, tmp_path_factory.mktemp("plain") / "fleet", {})


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_byte_is_the_same_with_the_kernels_of_another_processor(kernel, plain, trained_fleet, tmp_path):
    if kernel not in usable_kernels():
        assert kernel == "SkylakeX"  # AVX-512 is what many processors lack; its kernels cannot run there
        return
    own, expected = plain
    if own == [kernel]:
        return
    used, hashes = run_stages(trained_fleet, tmp_path / "fleet", KERNELS[kernel])
    assert used == [REPORTED.get(kernel, kernel)]
    assert {"data/predictions/lyon.parquet", "models/plants/lyon/model.json", "reports/metrics.json"} <= set(hashes)
    assert {name for name in hashes | expected if hashes.get(name) != expected.get(name)} == set()


def test_the_kernels_do_differ_in_the_last_digits():
    """Else the test above could not fail."""
    code = "import numpy as np; x = np.random.default_rng(0).normal(size=20_001); print(float(x @ x), np.exp(x).sum())"
    sums = set()
    for name in usable_kernels():
        command = [sys.executable, "-c", code]
        sums.add(subprocess.run(command, env={**os.environ, **KERNELS[name]}, capture_output=True, check=True).stdout)
    assert len(sums) > 1
