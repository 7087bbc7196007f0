"""The packages that the service's image installs, and those that MLflow's model image does, in virtual environments."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from bench.checkout import call
from bench.measuring import ROOT
from upkeep.core import paths

LOCK = ROOT / "requirements-serving.lock"


def install_service() -> Path:
    """Return an environment that holds what the Dockerfile installs."""
    folder = _install(
        "service", LOCK.read_text(), [["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(LOCK)]]
    )
    call([str(ROOT / "deploy/slim.sh"), str(folder)], ROOT)
    return folder


def install_peer(model: Path) -> Path:
    """Return an environment that holds what ``mlflow models build-docker`` installs for a model by default.

    These are the three steps of `mlflow.models.docker_utils` and of `mlflow.models.container` on its Python base image.
    """
    import mlflow

    requirements = model / "requirements.txt"
    build = [str(name) for name in yaml.safe_load((model / "python_env.yaml").read_text())["build_dependencies"]]
    steps = [[f"mlflow=={mlflow.__version__}"], [*build, "-r", str(requirements)], ["gunicorn[gevent]"]]
    return _install("mlflow", requirements.read_text(), steps)


def _install(name: str, requirements: str, steps: Sequence[Sequence[str]]) -> Path:
    """Install into an environment, once for the same requirements; without pip, which is in either's base image."""
    digest = hashlib.sha256(f"{sys.version} {requirements}".encode()).hexdigest()[:12]
    folder = ROOT / paths.LOCAL / "bench" / f"{name}-{digest}"
    complete = folder / "complete"
    if complete.exists():
        return folder
    call([sys.executable, "-m", "venv", "--clear", str(folder)], ROOT)
    pip = [str(folder / "bin/pip"), "--disable-pip-version-check"]
    call([*pip, "uninstall", "--yes", "setuptools"], ROOT)
    for step in steps:
        call([*pip, "install", *step], ROOT)
    call([*pip, "uninstall", "--yes", "pip"], ROOT)
    complete.touch()
    return folder


def megabytes(*folders: Path) -> float:
    """Return the size of all files in folders."""
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files) / 1e6
