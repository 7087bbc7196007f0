"""``make bench`` and ``make bench-large`` run every measurement that there is."""

import ast
import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT))  # the bench is no part of the package

from bench.__main__ import LARGE, MEASUREMENTS, format_table
from bench.measuring import Row


def test_each_module_that_measures_is_run_by_one_of_the_two_commands() -> None:
    trees = {file.stem: ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "bench").glob("*.py")}
    measuring = {
        name
        for name, tree in trees.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == "measure" for node in tree.body)
    }
    assert sorted([*MEASUREMENTS, *LARGE]) == sorted(measuring)


@pytest.mark.parametrize(("target", "met"), [("ratio <= 0.5", True), ("ours >= 3", False), (None, None)])
def test_a_row_says_whether_its_target_is_met(target, met) -> None:
    row = Row("speed", 2.0, "s", 4.0, target, "beside a peer")
    assert row.as_record()["met"] is met
    assert "beside a peer" in format_table([row.as_record()])


def test_each_line_of_the_table_shows_its_own_figures() -> None:
    _, first, second = format_table(
        [Row(name, ours, "s").as_record() for name, ours in (("a", 1.0), ("b", 2.0))]
    ).splitlines()
    assert (first.split(), second.split()) == (["a", "1", "s"], ["b", "2", "s"])
