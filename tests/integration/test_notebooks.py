import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from jupyter_client.manager import AsyncKernelManager

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params, load_params
from upkeep.reporting.notebooks import (
    TEMPLATE,
    add_notebook,
    rendering_of,
    resolve_parameters,
    run_notebook,
    settings_of,
)

ROOT = Path(__file__).parents[2]
OWN = [*(ROOT / "notebooks").glob("*.ipynb"), TEMPLATE]


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(autouse=True)
def _in_an_empty_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)


def write_notebook(parameters: str, *cells: str, file: str = "notebooks/03_try.ipynb") -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A trial")])
    notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook.cells.extend(nbformat.v4.new_code_cell(cell) for cell in cells)
    Path(file).parent.mkdir(exist_ok=True)
    nbformat.write(notebook, file)
    return Path(file)


def outputs_of(executed: Path) -> str:
    return json.dumps([cell.get("outputs") for cell in nbformat.read(executed, as_version=4).cells])


def test_a_parameter_takes_its_value_from_the_setting_beside_it(params: Params) -> None:
    names = ["hours = 1  # params: dataset.horizon_hours", "until = ''  # params: fetch.until", "own = 2  # mine"]
    notebook = write_notebook("\n".join([*names, "costs = {}  # params: evaluate.costs"]))
    assert resolve_parameters(notebook, params) == {
        "hours": params.dataset.horizon_hours,
        "until": params.fetch.until.isoformat(),
        "costs": params.evaluate.costs.model_dump(),
    }


def test_what_the_caller_gives_wins(params: Params) -> None:
    notebook = write_notebook("hours = 1  # params: dataset.horizon_hours\nnames = []")
    assert resolve_parameters(notebook, params, ["hours=7", "names=[a, b]"]) == {"hours": 7, "names": ["a", "b"]}


def test_a_setting_that_params_yaml_lacks_is_named_with_the_nearest(params: Params) -> None:
    notebook = write_notebook("hours = 1  # params: dataset.horizon_hour")
    with pytest.raises(UpkeepError, match=r"has no 'dataset\.horizon_hour'") as caught:
        resolve_parameters(notebook, params)
    assert "dataset.horizon_hours" in caught.value.expected


@pytest.mark.parametrize("assignment", ["hour=7", "hours"])
def test_a_parameter_that_the_notebook_lacks_is_refused(params: Params, assignment: str) -> None:
    with pytest.raises(UpkeepError, match="does not set a parameter") as caught:
        resolve_parameters(write_notebook("hours = 1"), params, [assignment])
    assert "hours" in caught.value.expected


@pytest.mark.parametrize("content", ["not json", "{}"])
def test_a_file_that_cannot_be_run_is_refused_with_its_name(content: str) -> None:
    Path("broken.ipynb").write_text(content)
    with pytest.raises(UpkeepError) as caught:
        settings_of(Path("broken.ipynb"))
    assert caught.value.where["file"] == Path("broken.ipynb")


def test_two_runs_leave_the_same_bytes_and_nothing_of_this_machine(tmp_path: Path) -> None:
    notebook = write_notebook(
        "hours = 1",
        "import os, sys, time\nprint(time.time(), file=sys.stderr)\nprint('out', hours)\nprint(os.getcwd())\nobject()",
    )
    rendering = rendering_of(notebook)
    written = []
    for _ in range(2):
        run_notebook(notebook, rendering, {"hours": 7})
        written.append((rendering.read_bytes(), rendering.with_suffix(".ipynb").read_bytes()))
    assert written[0] == written[1]
    page, executed = (text.decode() for text in written[0])
    assert "out 7" in page
    assert '"text": [' in executed
    assert str(tmp_path) not in page + executed
    assert sys.prefix not in page + executed


def test_a_rendering_needs_no_network_and_shows_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = Path("stale/kernels/python3")
    stale.mkdir(parents=True)
    (stale / "kernel.json").write_text('{"argv": ["/nowhere/python"], "display_name": "old", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(stale.parents[1].resolve()))
    notebook = write_notebook("", f"import sys\nprint('ran')\nassert sys.executable == {sys.executable!r}")
    opened = nbformat.read(notebook, as_version=4)
    opened.cells.insert(0, nbformat.v4.new_code_cell("# Imports"))
    nbformat.write(opened, notebook)
    run_notebook(notebook, Path("reports/try.html"), {})
    page = Path("reports/try.html").read_text()
    assert "<pre>ran" in page
    assert "<title>A trial</title>" in page
    assert "import sys" not in page
    assert "<script src" not in page
    assert "http" not in page


def test_a_failing_cell_is_named_and_leaves_what_ran_before_it() -> None:
    notebook = write_notebook(
        "", "print('so far')", "wear = 1\nraise ValueError('no rows\\nof plant lyon')", "print('never')"
    )
    with pytest.raises(UpkeepError, match=r"cell 2 failed at `wear = 1`: ValueError: of plant lyon") as caught:
        run_notebook(notebook, Path("reports/try.html"), {})
    assert caught.value.where == {"file": notebook, "cell": 2}
    for file in (Path("reports/try.html"), Path("reports/try.ipynb")):
        text = file.read_text()
        assert "so far" in text
        assert "ValueError" in text
    assert "never" not in outputs_of(Path("reports/try.ipynb"))


def test_a_cell_that_ends_in_an_error_of_upkeep_tells_its_remedy() -> None:
    cell = "from upkeep.core.files import read_json\nfrom pathlib import Path\nread_json(Path('x'), remedy='type it')"
    with pytest.raises(UpkeepError, match=r"the file cannot be read: No such file.*file=x") as caught:
        run_notebook(write_notebook("", cell), Path("reports/try.html"), {})
    assert caught.value.remedy == "type it"


@pytest.mark.parametrize("name", ["01_eda", "02_model_quality"])
def test_a_report_without_its_data_or_its_notebook_says_what_to_type(name: str, params: Params) -> None:
    shutil.copytree(ROOT / "notebooks", "notebooks")
    notebook = Path(f"notebooks/{name}.ipynb")
    with pytest.raises(UpkeepError) as caught:
        run_notebook(notebook, rendering_of(notebook), resolve_parameters(notebook, params))
    assert "dvc repro" in caught.value.remedy
    notebook.unlink()
    with pytest.raises(UpkeepError, match="no such notebook") as caught:
        resolve_parameters(notebook, params)
    assert f"git checkout HEAD -- {notebook}" in caught.value.remedy


def test_a_kernel_that_dies_is_an_error_and_not_a_traceback() -> None:
    notebook = write_notebook("", "import os\nos._exit(1)")
    with pytest.raises(UpkeepError, match="kernel died"):
        run_notebook(notebook, Path("reports/try.html"), {})


def test_a_run_that_goes_well_interrupts_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    async def record(_: AsyncKernelManager, signum: int) -> None:
        sent.append(signum)

    monkeypatch.setattr(AsyncKernelManager, "_async_signal_kernel", record)
    run_notebook(write_notebook("", "1"), Path("reports/try.html"), {})
    assert sent == []


@pytest.fixture
def repository() -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--quiet"], check=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"}
    )


@pytest.mark.usefixtures("repository")
def test_a_new_notebook_becomes_a_stage_in_one_step(params: Params) -> None:
    Path("data/raw").mkdir(parents=True)
    notebook = Path("notebooks/03_shift_load.ipynb")
    assert add_notebook(notebook, "interim", [Path("data/raw")]) == "shift_load"
    stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]["shift_load"]
    assert stage["cmd"] == "upkeep notebook run notebooks/03_shift_load.ipynb -p output_folder=data/interim/shift_load"
    assert stage["deps"] == ["data/raw", "notebooks/03_shift_load.ipynb"]
    assert set(stage["outs"]) == {"data/interim/shift_load", "reports/shift_load.html", "reports/shift_load.ipynb"}
    with pytest.raises(UpkeepError, match="'shift_load' already exists") as caught:
        add_notebook(notebook, "reports", [])
    assert "dvc stage remove shift_load" in caught.value.remedy
    run_notebook(notebook, rendering_of(notebook), resolve_parameters(notebook, params))
    assert "Shift load" in rendering_of(notebook).read_text()
    assert Path("data/interim/shift_load").is_dir()


@pytest.mark.usefixtures("repository")
def test_a_stage_depends_on_the_settings_that_its_notebook_names() -> None:
    add_notebook(write_notebook("hours = 1  # params: dataset.horizon_hours"), "reports", [])
    stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]["try"]
    assert stage["params"] == ["dataset.horizon_hours"]
    assert stage["cmd"] == "upkeep notebook run notebooks/03_try.ipynb"


@pytest.mark.usefixtures("repository")
def test_a_stage_finds_its_notebook_in_a_folder_whose_name_has_a_blank() -> None:
    add_notebook(Path("my notes/03_try.ipynb"), "reports", [])
    stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]["try"]
    assert stage["cmd"] == "upkeep notebook run 'my notes/03_try.ipynb'"
    assert stage["deps"] == ["my notes/03_try.ipynb"]


def test_a_notebook_that_cannot_be_a_stage_changes_nothing() -> None:
    notebook = write_notebook("hours = 1")
    for into, what in (
        ("raw", "cannot go into 'raw'"),
        ("interim", "no parameter 'output_folder'"),
        ("reports", "DVC did not add the stage 'try': you are not inside of a DVC repository"),
    ):
        with pytest.raises(UpkeepError, match=what):
            add_notebook(notebook, into, [])
    assert not Path("dvc.yaml").exists()


@pytest.mark.parametrize("notebook", OWN, ids=lambda notebook: notebook.stem)
def test_notebooks_in_git_are_clean_and_thin_and_configured_by_params_yaml(notebook: Path, params: Params) -> None:
    content = nbformat.read(notebook, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in content.cells if cell.cell_type == "code")
    assert set(content.metadata) <= {"kernelspec", "language_info"}
    assert settings_of(notebook).keys() - resolve_parameters(notebook, params).keys() <= {"output_folder"}
    assert sum(cell.source.count("\n") + 1 for cell in content.cells if cell.cell_type == "code") < 150
