"""Copies of this repository to run the pipeline in, without touching its own data."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from bench.measuring import ROOT
from upkeep.core import paths

BY_WINDOW = {
    "split": {
        "by": "window",
        "window": {"validation_weeks": 4, "test_weeks": 4, "every_weeks": 4},
        "validation_share": 0.2,
        "test_share": 0.25,
        "seed": 7,
    }
}
"""Settings of ``dataset`` by which a week leaves training rows as they are."""

# What the pipeline writes may lie about half done while it runs here.
WRITTEN = ("data/raw/", "data/interim/", "data/processed/", "data/predictions/", "models/", "reports/")


def clone(target: Path) -> None:
    """Clone HEAD and put the working tree's changes on top, but for what the pipeline writes."""
    call(["git", "clone", "--quiet", str(ROOT), str(target)], ROOT)
    for name in _list_files("--modified", "--others", "--exclude-standard"):
        if name.startswith(WRITTEN):
            continue
        source, copy = ROOT / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
        else:
            copy.unlink(missing_ok=True)


def _list_files(*which: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *which], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.split("\0") if name]


def set_fleet(folder: Path, plants: Mapping[str, int], until: date, **changed: Mapping[str, Any]) -> None:
    """Write the shipped parameters for a simulated fleet, machines by plant; `changed` has more settings by section."""
    params = yaml.safe_load((ROOT / paths.PARAMS).read_text(encoding="utf-8"))
    params["fetch"] |= {"until": f"{until}", "options": params["fetch"]["options"] | {"plants": dict(plants)}}
    params["validate"]["dictionary"] = str(ROOT / params["validate"]["dictionary"])
    for section, settings in changed.items():
        params[section] |= settings
    (folder / paths.PARAMS).write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def call(command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None) -> None:
    """Run a command; what it prints is shown only if it fails."""
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} in {folder} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")


def environment(checkout: Path, **more: str) -> dict[str, str]:
    """Return the variables with which the running environment's programs use a checkout's own sources."""
    hidden = ("PYTHONDONTWRITEBYTECODE", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    # The checkout itself too: its own bench measures what runs inside one process.
    sources = os.pathsep.join([str(checkout / "src"), str(checkout)])
    return {**kept, "PATH": path, "PYTHONPATH": sources, **more}
