"""What the docs name exists: files, links, commands, settings, variables; and what there is, they explain."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from upkeep.cli import app
from upkeep.gitlab.doctor import CHECKS
from upkeep.gitlab.server_checks import SSH_FAULTS
from upkeep.serving.settings import VARIABLES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
WRITTEN_BY_RUNS = (
    *(
        "data/raw",
        "data/interim",
        "data/processed",
        "data/predictions",
        "models/plants",
        "models/golden",
        "reports",
        "mlartifacts",
    ),
    *(".venv", ".upkeep", "dvc.lock", "mlflow.db", "dvc_plots", "deliveries", "bench/results.json"),
    "data/references/labelled_events.csv",
)
"""What a fresh clone does not hold, or the reader makes."""

EXAMPLES = (
    "gitlab.yaml",
    "n/a",
    "proxy/haproxy.cfg",
    "src/upkeep/sources/gateway.py",
    "feature/",
    "hotfix/",
    "release/",
)
BASES = (ROOT, ROOT / "src/upkeep")
"""What paths are relative to: the package's own files are named without the way to it."""
IN_BACKTICKS = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/?)`")
WRONG = {"validate.max_quarantine_share", "UPKEEP_TOKEN"}
"""Shown as misspelt."""
FILE_SUFFIXES = {".cfg", ".csv", ".html", ".ipynb", ".json", ".lock", ".md", ".py", ".toml", ".yaml", ".yml"}

name_of = {"argvalues": PAGES, "ids": [str(page.relative_to(ROOT)) for page in PAGES]}


def prose(page: Path) -> str:
    """Return a page without its blocks of code, whose names may be examples."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(page: Path, program: str) -> set[str]:
    """Return what follows `program` in the page's code: in backticks, or at the start of a line in a block."""
    code = re.findall(rf"`{program} ([^`]+)`", prose(page))
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        code += re.findall(rf"(?:^|&& ){program} (.+?)(?= #| &&|$)", block, flags=re.MULTILINE)
    return {command.strip() for command in code}


@pytest.mark.parametrize("page", **name_of)
def test_every_relative_link_leads_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not link.startswith("http")]
    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert anchor in anchors, link


@pytest.mark.parametrize("page", **name_of)
def test_every_path_in_backticks_exists_or_is_written_by_a_run(page):
    named = [path for path in IN_BACKTICKS.findall(prose(page)) if "/" in path or Path(path).suffix in FILE_SUFFIXES]
    mentioned = [path for path in named if not path.startswith(WRITTEN_BY_RUNS + EXAMPLES)]
    assert [path for path in mentioned if not any((base / path).exists() for base in BASES)] == []


@pytest.mark.parametrize("page", **name_of)
def test_every_make_target_exists(page):
    targets = re.findall(r"^([a-z.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {command.split()[0] for command in commands(page, "make")} <= set(targets)


@pytest.mark.parametrize("page", **name_of)
def test_every_command_of_upkeep_exists(page):
    top = get_command(app)
    for words in map(str.split, sorted(commands(page, "upkeep") - {"STAGE"})):
        called = top.commands[words[0]]
        called = called.commands[words[1]] if words[1:] and hasattr(called, "commands") else called
        options = {word for word in words if word.startswith("-")}
        assert options <= {option for parameter in called.params for option in parameter.opts}, words


@pytest.mark.parametrize("page", **name_of)
def test_each_command_of_a_block_is_on_a_line_of_its_own(page):
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [line for line in "\n".join(blocks).splitlines() if re.search(r" # .* # ", line)] == []


def test_the_guide_lists_every_stage_in_the_order_of_the_pipeline():
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", guide.partition("## Put your own data in")[0], flags=re.MULTILINE)
    assert rows == list(PIPELINE["stages"])


@pytest.mark.parametrize("page", **name_of)
def test_every_setting_exists(page):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    known = {f"{section}.{setting}" for section, settings in params.items() for setting in settings}
    assert set(re.findall(rf"`((?:{'|'.join(params)})\.\w+)", prose(page))) - WRONG <= known


def test_every_variable_is_explained_and_none_that_nothing_reads():
    found = [file for folder in ("src", "deploy", "ci", "examples") for file in (ROOT / folder).rglob("*.*")]
    files = [ROOT / ".gitlab-ci.yml", *(file for file in found if file.suffix in {".py", ".sh", ".yaml", ".yml"})]
    read, explained = (
        {name for file in some for name in re.findall(r"\bUPKEEP_[A-Z_]*[A-Z]\b", file.read_text(encoding="utf-8"))}
        for some in (files, PAGES)
    )
    assert explained - WRONG == read | {*VARIABLES}


def test_the_readme_draws_what_feeds_what():
    stages = PIPELINE["stages"]
    made = {name: [str(*out) if isinstance(out, dict) else out for out in stages[name]["outs"]] for name in stages}
    (chart,) = re.findall(r"```mermaid\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    drawn = [pair for line in chart.splitlines()[1:] for pair in pairwise(line.split(" --> "))]
    for giver, taker in (map(str.strip, pair) for pair in drawn):
        assert any(needed.startswith(out) for needed in stages[taker]["deps"] for out in made[giver]), (giver, taker)
    assert {name.strip() for pair in drawn for name in pair} == {*stages}


def test_the_doctor_answers_as_the_docs_show():
    (told,) = re.findall(r"```\n(ok  .*?)```", (ROOT / "docs/gitlab.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    shown = re.findall(r"^(?:ok|FAIL|skipped) +(.+?)  ", told, flags=re.MULTILINE)
    assert shown == [name for name in CHECKS if name in shown]
    (remedy,) = re.findall("-> (.+)", told)
    assert remedy in {words.format(port=22) for *_, words in SSH_FAULTS}
