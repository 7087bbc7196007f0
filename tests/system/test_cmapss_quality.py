"""The same pipeline reaches its quality floors on NASA's C-MAPSS by changing parameters only."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

STAGES = ("fetch", "validate", "dataset", "train", "evaluate", "check")


def test_the_example_reaches_its_floors_on_the_official_test_engines(tmp_path, cmapss):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "examples/cmapss/params.yaml", tmp_path)
    (tmp_path / "reports").mkdir()
    environment = {**os.environ, "UPKEEP_CMAPSS": str(cmapss.resolve())}
    for stage in STAGES:
        command = [Path(sys.executable).parent / "upkeep", stage]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{stage}: {done.stdout}{done.stderr}"
    lines = [line for line in done.stdout.splitlines() if line.startswith("ok")]
    assert len(lines) == 12  # of four plants average precision, beyond chance, and last-row F1
