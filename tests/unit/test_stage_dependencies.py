"""Each stage of dvc.yaml depends on all the code that it runs, or DVC would call a stale result fresh."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from upkeep.core.params import Params
from upkeep.stages.record import OF_NO_STAGE

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
SOURCES = ROOT / "src"
VERSION = SOURCES / "upkeep/__init__.py"
"""Holds the version only, which no output may depend on: a release must not train anew."""
BY_NAME = re.compile(r"(upkeep(?:\.\w+)+):\w+")
"""How the code names a class that it imports only when asked to."""
NAMED_IN_TEXT = {"upkeep.simulator.source"}
"""The registry of sources names the simulator, which is built on sources: no import, and the only arrow upwards."""


def entries(stage: str) -> list[str]:
    """Return the code that a stage's command starts with."""
    if notebook := re.fullmatch(r"upkeep notebook run (\S+)", STAGES[stage]["cmd"]):
        cells = json.loads((ROOT / notebook[1]).read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        return ["import upkeep.reporting.notebooks", *code]
    return [f"import upkeep.stages.{stage}"]


@cache
def imported(code: str) -> frozenset[str]:
    """Return the names of modules, and of what may be one, that run when this code does."""
    return frozenset(find_imports(code))


def find_imports(code: str) -> Iterator[str]:
    tree = ast.parse(code)
    for_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    skipped = {id(node) for check in for_types for node in ast.walk(check)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and (named := BY_NAME.fullmatch(node.value))
        ):
            yield named[1]


def files_of(name: str) -> Iterator[Path]:
    """Yield the files that run when this name is imported: the packages around it and, if it is one, the module."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        path = SOURCES.joinpath(*parts[:length])
        yield from (file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file())


@cache
def closure(code: str) -> frozenset[Path]:
    """Return all files of the package that run when this code does."""
    found: set[Path] = set()
    waiting = [code]
    while waiting:
        names = [name for name in imported(waiting.pop()) if name.split(".")[0] == "upkeep"]
        new = {file for name in names for file in files_of(name)} - found
        found |= new
        waiting += [file.read_text(encoding="utf-8") for file in new]
    return frozenset(found)


def code_of(stage: str) -> frozenset[Path]:
    return frozenset().union(*(closure(code) for code in entries(stage)))


def dependencies(stage: str) -> list[Path]:
    return [ROOT / dependency for dependency in STAGES[stage]["deps"]]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_it_runs(stage: str) -> None:
    files = code_of(stage)
    assert len(files) > 3
    known = dependencies(stage)
    missing = {file for file in files - {VERSION} if not any(file.is_relative_to(path) for path in known)}
    faces = {SOURCES / "upkeep/stages/__init__.py"}  # a docstring
    assert not {str(file.relative_to(ROOT)) for file in missing - faces}


@pytest.mark.parametrize("stage", STAGES)
def test_no_output_depends_on_the_version(stage: str) -> None:
    files = code_of(stage)
    assert not [file for file in files - {VERSION} if "__version__" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_few_folders_of_code_and_on_no_needless_one(stage: str) -> None:
    files = code_of(stage)
    code = [path for path in dependencies(stage) if path.is_relative_to(SOURCES)]
    assert 3 <= len(code) <= 5
    assert [path for path in code if not any(file.is_relative_to(path) for file in files)] == []


@pytest.mark.parametrize("stage", ["validate", "dataset", "train"])
def test_pieces_are_named_by_all_code_that_their_stage_depends_on(stage: str) -> None:
    package = SOURCES / "upkeep"
    code = {path for path in dependencies(stage) if path.is_relative_to(SOURCES)}
    assert {package / part for part in import_module(f"upkeep.stages.{stage}").CODE} == code


def test_stages_that_read_delivered_files_run_again_when_other_values_are_too_long() -> None:
    assert "limits" in STAGES["fetch"]["params"]
    assert "limits.value_kb" in STAGES["validate"]["params"]  # it reads pinned files with mode: reference


def test_a_run_is_recorded_anew_when_any_section_changes_that_its_record_holds() -> None:
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    assert set(STAGES["record"]["params"]) == sections - OF_NO_STAGE


def test_a_face_that_is_no_dependency_holds_a_docstring_only() -> None:
    body = ast.parse((SOURCES / "upkeep/stages/__init__.py").read_text(encoding="utf-8")).body
    assert [type(node) for node in body] == [ast.Expr]


def test_the_closure_follows_imports_inside_functions_and_classes_named_in_texts() -> None:
    files = closure("import upkeep.stages.fetch")
    assert SOURCES / "upkeep/simulator/fleet.py" in files
    assert SOURCES / "upkeep/core/errors.py" in files
    assert closure("def later():\n    from upkeep.core import paths") >= {SOURCES / "upkeep/core/paths.py"}


def test_imports_only_point_down_the_list_of_rooms_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `(\w+)/` \|", readme, flags=re.MULTILINE)
    folders = {path.name for path in (SOURCES / "upkeep").iterdir() if (path / "__init__.py").is_file()}
    assert set(rooms) == folders
    for room in rooms:
        for file in (SOURCES / "upkeep" / room).rglob("*.py"):
            names = [
                name.split(".") for name in imported(file.read_text(encoding="utf-8")) if name not in NAMED_IN_TEXT
            ]
            used = {parts[1] for parts in names if parts[0] == "upkeep" and parts[1] in rooms}
            assert [other for other in used if rooms.index(other) < rooms.index(room)] == [], file
