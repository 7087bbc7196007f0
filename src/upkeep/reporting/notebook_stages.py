"""New notebooks as stages of ``dvc.yaml``, in one step."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.yaml import read_yaml
from upkeep.reporting.notebooks import read_settings, rendering_of, stage_name, unknown_name

FOLDERS: dict[str, Path | None] = {"interim": paths.INTERIM, "processed": paths.PROCESSED, "reports": None}
"""What a notebook can be added into, and the folder of data that its results then go to."""

TEMPLATE = Path(__file__).with_name("notebook_template.ipynb")


def add_notebook(notebook: Path, into: str, deps: Sequence[Path]) -> str:
    """Make a notebook a stage of ``dvc.yaml``, from a template if there is none; return the stage's name.

    The stage runs ``upkeep notebook run``. Its outputs are the rendering and the executed notebook in ``reports/`` and,
    if `into` is a folder of data, ``data/<into>/<stage>/``, which the notebook gets as parameter ``output_folder``;
    `deps` are what it reads. Raises UpkeepError if the stage exists, the notebook cannot be used, or DVC refuses.
    """
    name = stage_name(notebook)
    if into not in FOLDERS:
        raise UpkeepError(f"a notebook cannot go into {into!r}", remedy=f"set --into to one of {', '.join(FOLDERS)}")
    if name in _stages():
        raise UpkeepError(
            f"dvc.yaml has a stage {name!r} already",
            remedy=f"rename the notebook, or run: dvc stage remove {name}",
            file=notebook,
        )
    data = FOLDERS[into]
    folder = data / name if data else None
    if not notebook.exists():
        _create(notebook, folder)
    _add_stage(name, _stage_options(notebook, folder, deps))
    return name


def _stages() -> Mapping[str, Any]:
    pipeline = Path("dvc.yaml")
    if not pipeline.exists():
        return {}
    content: dict[str, Any] = read_yaml(pipeline, what="the pipeline", remedy="correct the file") or {}
    return content.get("stages") or {}


def _create(notebook: Path, folder: Path | None) -> None:
    template = nbformat.read(TEMPLATE, as_version=4)
    for cell in template.cells:
        cell.source = cell.source.replace("TITLE", stage_name(notebook).replace("_", " ").capitalize())
        cell.source = cell.source.replace("OUTPUT_FOLDER", str(folder or paths.REPORTS))
    notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(template, notebook)


def _stage_options(notebook: Path, folder: Path | None, deps: Sequence[Path]) -> list[str]:
    settings = read_settings(notebook)
    rendering = rendering_of(notebook)
    command = f"upkeep notebook run {notebook}"
    outs = [rendering, rendering.with_suffix(".ipynb")]
    if folder:
        if "output_folder" not in settings:
            raise unknown_name("the notebook has no parameter 'output_folder'", "output_folder", settings, notebook)
        command += f" -p output_folder={folder}"
        outs.append(folder)
    return [
        *(f"--deps={path}" for path in [notebook, *deps]),
        *(f"--params={setting}" for setting in settings.values() if setting),
        *(f"--outs={path}" for path in outs),
        command,
    ]


def _add_stage(name: str, options: Sequence[str]) -> None:
    added = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "add", "--quiet", f"--name={name}", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if added.returncode:
        raise UpkeepError(
            f"DVC did not add the stage {name!r}: {added.stderr.strip().removeprefix('ERROR: ')}",
            remedy="correct what DVC names",
            file="dvc.yaml",
        )
