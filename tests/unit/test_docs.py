"""What the docs name exists: files, links, commands."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from upkeep.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
    targets = re.findall(r"^([a-z.]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {command.split()[0] for command in commands(page, "make")} <= set(targets)


@pytest.mark.parametrize("page", **name_of)
def test_every_command_of_upkeep_exists(page):
    known = {*get_command(app).commands, "STAGE"}
    assert {command.split()[0] for command in commands(page, "upkeep")} <= known


def test_the_guide_lists_every_stage_in_the_order_of_the_pipeline():
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", guide.partition("## Put your own data in")[0], flags=re.MULTILINE)
    assert rows == list(PIPELINE["stages"])


def test_the_guide_names_settings_that_exist():
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    named = re.findall(rf"`({'|'.join(params)})\.(\w+)`", guide)
    assert len(named) > 5
    assert [f"{section}.{setting}" for section, setting in named if setting not in params[section]] == []
