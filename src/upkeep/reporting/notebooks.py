"""Notebooks as stages of the pipeline: checked parameters, papermill, and renderings that are the same on every run.

The cell tagged ``parameters`` names a notebook's parameters and their defaults. One with a comment ``# params: a.b``
takes its value from ``a.b`` in ``params.yaml``; one without keeps its default unless the caller sets it.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from papermill.exceptions import PapermillExecutionError
from papermill.translators import PythonTranslator

from upkeep.core import paths
from upkeep.core.errors import REMEDY, UpkeepError
from upkeep.core.params import Params
from upkeep.core.yaml import parse_yaml
from upkeep.reporting.experiments import flatten
from upkeep.reporting.markdown import find_title
from upkeep.reporting.templates import render_html

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SETTING = re.compile(r"params:\s*(\S+)")
TEMPLATE = Path(__file__).with_name("notebook_template.ipynb")
FOLDERS: dict[str, Path | None] = {"interim": paths.INTERIM, "processed": paths.PROCESSED, "reports": None}
"""What ``--into`` takes, and the folder of data that a notebook's results then go to."""

MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class _ThisInterpreter(AsyncKernelManager):
    """Starts a kernel in the running interpreter, whatever kernelspecs and profiles the machine has."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # A font cache that is built anew in each run costs seconds and prints a warning.
        folders = {"IPYTHONDIR": paths.LOCAL / "ipython", "MPLCONFIGDIR": paths.LOCAL / "matplotlib"}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return KernelSpec(
            # At its default level a kernel warns that its sockets, which are local, are not encrypted.
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
            env={name: str(folder.resolve()) for name, folder in folders.items()} | {"PYTHONHASHSEED": "0"},
            language="python",
        )

    async def _async_interrupt_kernel(self) -> None:
        """Skip the interrupt before a shutdown, at which an idle kernel writes "KeyboardInterrupt caught"."""


def stage_name(notebook: Path) -> str:
    """Return a notebook's stage and the stem of its outputs: ``notebooks/01_eda.ipynb`` is ``eda``."""
    return re.sub(r"^\d+_", "", notebook.stem)


def rendering_of(notebook: Path) -> Path:
    """Return where a notebook's HTML goes; the executed notebook lies beside it."""
    return paths.REPORTS / f"{stage_name(notebook)}.html"


def settings_of(notebook: Path) -> dict[str, str | None]:
    """Return the names in a notebook's ``parameters`` cell and the setting of ``params.yaml`` behind each, if any.

    Raises UpkeepError if the file is not a notebook.
    """
    cells = [cell for cell in _read_notebook(notebook).cells if "parameters" in cell.metadata.get("tags", [])]
    parameters = [parameter for cell in cells[:1] for parameter in PythonTranslator.inspect(cell)]
    return {each.name: match[1] if (match := SETTING.match(each.help)) else None for each in parameters}


def resolve_parameters(notebook: Path, params: Params, assignments: Iterable[str] = ()) -> dict[str, Any]:
    """Return the values that a notebook runs with: those of ``params.yaml`` that its ``parameters`` cell names.

    Assignments are ``name=value`` each, as on the command line; the value is YAML and wins over ``params.yaml``. Raises
    UpkeepError if the notebook cannot be used, or a name is unknown to it or to ``params.yaml``.
    """
    settings = settings_of(notebook)
    given = params.model_dump(mode="json", by_alias=True)
    values: dict[str, Any] = {}
    for name, setting in settings.items():
        if setting is None:
            continue
        try:
            values[name] = reduce(getitem, setting.split("."), given)
        except (KeyError, TypeError):
            raise _unknown_name(f"params.yaml has no {setting!r}", setting, flatten(given), notebook) from None
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in settings:
            raise _unknown_name(f"{assignment!r} does not set a parameter of the notebook", name, settings, notebook)
        try:
            values[name] = parse_yaml(text)
        except yaml.YAMLError as error:
            raise UpkeepError(f"the value of {name} is not YAML: {error}", remedy="put it in quotes") from error
    return values


def add_notebook(notebook: Path, into: str, deps: Sequence[Path]) -> str:
    """Make a notebook a stage of ``dvc.yaml``, from a template if there is none; return the stage's name.

    The stage runs ``upkeep notebook run``. Its outputs are the rendering and the executed notebook in ``reports/`` and,
    if `into` is a folder of data, ``data/<into>/<stage>/``, which the notebook gets as parameter ``output_folder``;
    `deps` are what it reads. Raises UpkeepError if the notebook cannot be used, or DVC refuses.
    """
    if into not in FOLDERS:
        raise UpkeepError(f"a notebook cannot go into {into!r}", remedy=f"set --into to one of {', '.join(FOLDERS)}")
    name, rendering, data = stage_name(notebook), rendering_of(notebook), FOLDERS[into]
    folder = data / name if data else None
    if not notebook.exists():
        _create_notebook(notebook, folder or paths.REPORTS)
    settings = settings_of(notebook)
    if folder and "output_folder" not in settings:
        raise _unknown_name("the notebook has no parameter 'output_folder'", "output_folder", settings, notebook)
    given = ["-p", f"output_folder={folder}"] if folder else []
    command = [
        *(sys.executable, "-m", "dvc", "stage", "add", f"--name={name}"),
        *(f"--deps={path}" for path in [notebook, *deps]),
        *(f"--params={setting}" for setting in settings.values() if setting),
        *(f"--outs={path}" for path in (rendering, rendering.with_suffix(".ipynb"), folder) if path),
        shlex.join(["upkeep", "notebook", "run", str(notebook), *given]),
    ]
    added = subprocess.run(command, capture_output=True, text=True, check=False)
    if added.returncode:
        raise UpkeepError(
            f"DVC did not add the stage {name!r}: {added.stderr.strip().removeprefix('ERROR: ')}",
            remedy=f"correct what DVC names; an older stage of that name goes by: dvc stage remove {name}",
            file="dvc.yaml",
        )
    return name


def run_notebook(notebook: Path, rendering: Path, parameters: Mapping[str, Any]) -> None:
    """Execute a notebook and render it, without anything that differs between two equal runs.

    Writes `rendering` (one self-contained HTML file, code hidden) and, beside it, the executed ``.ipynb``. If a cell
    fails, both hold what ran before. The kernel starts in the working directory. Raises UpkeepError if the notebook
    cannot be read or a cell fails.
    """
    executed = rendering.with_suffix(".ipynb")
    rendering.parent.mkdir(parents=True, exist_ok=True)
    executed.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            dict(parameters),
            kernel_name=KERNEL["name"],
            language=KERNEL["language"],
            kernel_manager_class=_ThisInterpreter,
            progress_bar={"delay": 2, "desc": notebook.stem},
            stderr_file=sys.stderr,
        )
    except PapermillExecutionError as error:
        raise _failed_cell(notebook, rendering, error) from error
    except (DeadKernelError, RuntimeError) as error:
        raise UpkeepError(
            f"the notebook's kernel died: {error}", remedy="give it more memory or less data", file=notebook
        ) from error
    finally:
        if executed.exists():
            known_ids = {cell.get("id") for cell in _read_notebook(notebook).cells}
            result = _strip_notebook(_read_notebook(executed), known_ids)
            nbformat.write(result, executed)
            rendering.write_text(_render_notebook(result), encoding="utf-8")


def _read_notebook(notebook: Path) -> nbformat.NotebookNode:
    if not notebook.is_file():
        raise UpkeepError(
            "there is no such notebook",
            remedy=f"correct the path, take it back by `git checkout HEAD -- {notebook}`, "
            f"or make one by `upkeep notebook add {notebook} --into reports`",
            file=notebook,
        )
    try:
        return nbformat.read(notebook, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        raise UpkeepError(
            f"the notebook cannot be read: {str(error).splitlines()[0]}",
            remedy="open it in a notebook editor and save it as a Jupyter notebook of format 4",
            file=notebook,
        ) from error


def _unknown_name(what: str, name: str, known: Iterable[str], notebook: Path) -> UpkeepError:
    names = sorted(known)
    nearest = ", ".join(get_close_matches(name, names) or names[:10])
    expected = f"a known name, such as {nearest}" if names else "no parameters: the notebook has none"
    return UpkeepError(
        what, expected=expected, remedy="correct the name, or the notebook's parameters cell", file=notebook
    )


def _failed_cell(notebook: Path, rendering: Path, error: PapermillExecutionError) -> UpkeepError:
    if error.ename == UpkeepError.__name__:
        what, _, remedy = str(error.evalue).rpartition(REMEDY)
    else:
        at, reason = (str(text).strip().splitlines() or [""] for text in (error.source, error.evalue))
        what = f"cell {error.exec_count} failed at `{at[0]}`: {error.ename}: {reason[-1]}"
        remedy = f"see {rendering} for what ran up to there, and mend the cell"
    return UpkeepError(what, remedy=remedy, file=notebook, cell=error.exec_count)


def _strip_notebook(notebook: nbformat.NotebookNode, known_ids: set[str | None]) -> nbformat.NotebookNode:
    """Remove what differs between two runs: times, random ids, paths, addresses and the error stream."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for position, cell in enumerate(notebook.cells):
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.id not in known_ids:
            cell.id = f"added-{position}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, position)  # where pieces break depends on the clock
            cell.outputs = _without_paths(cell.outputs)
    return notebook


def _without_paths(node: Any) -> Any:
    """Shorten absolute paths and drop memory addresses in all text of an output; images stay as they are."""
    match node:
        case str():
            # The environment often lies inside the checkout, and that inside the home: the longest path first.
            for folder, short in ((sys.prefix, "<env>"), (Path.cwd(), "."), (Path.home(), "~")):
                node = re.sub(rf"{re.escape(str(folder))}(?![\w.-])", short, node)
            return MEMORY_ADDRESS.sub("", node)
        case list():
            return [_without_paths(item) for item in node]
        case dict():
            node |= {key: _without_paths(value) for key, value in node.items() if not key.startswith("image/")}
    return node


def _render_notebook(notebook: nbformat.NotebookNode) -> str:
    """Return one HTML page that loads nothing: nbconvert's own pages fetch MathJax and require.js from the net."""
    look = {"template_name": "basic", "anchor_link_text": "", "embed_images": True}
    body, _ = HTMLExporter(exclude_input=True, exclude_output_prompt=True, **look).from_notebook_node(notebook)
    # Comments in code begin with #, too.
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    title = find_title("\n".join(texts), "Notebook")
    return render_html("page.html", title=title, content=body)


def _create_notebook(notebook: Path, folder: Path) -> None:
    template = _read_notebook(TEMPLATE)
    for cell in template.cells:
        cell.source = cell.source.replace("TITLE", stage_name(notebook).replace("_", " ").capitalize())
        cell.source = cell.source.replace("OUTPUT_FOLDER", str(folder))
    notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(template, notebook)
