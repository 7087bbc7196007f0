"""The web site of reports and docs."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.reporting.pages import build_pages


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """This repository's docs, and reports of one line each."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    for report in (paths.MODEL_QUALITY, paths.EDA, paths.DRIFT / "index.html", paths.MODEL_CARD):
        (tmp_path / report).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / report).write_text("# Model card\n" if report.suffix == ".md" else "<h1>A report</h1>")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def links(page: Path) -> list[str]:
    return re.findall(r'href="(?!https?:|#)([^"]+)"', page.read_text(encoding="utf-8"))


def test_every_link_among_the_pages_leads_to_one(checkout):
    build_pages(Path("public"))
    pages = sorted((checkout / "public").rglob("*.html"))
    assert len(pages) > len(list((checkout / "docs").rglob("*.md")))
    for page in pages:
        for link in links(page):
            name, _, anchor = link.partition("#")
            target = page.parent / name
            if target.suffix == ".html":
                assert target.exists(), f"{page}: {link}"
                assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), f"{page}: {link}"


def test_what_an_earlier_run_left_is_gone(checkout):
    build_pages(Path("public"))
    (checkout / "public/old.html").touch()
    build_pages(Path("public"))
    assert not (checkout / "public/old.html").exists()


@pytest.mark.parametrize("folder", [".", "docs", "reports/drift"])
def test_a_folder_that_holds_anything_else_is_left_as_it_is(checkout, folder):
    before = sorted(checkout.rglob("*"))
    with pytest.raises(UpkeepError, match="holds other files"):
        build_pages(Path(folder))
    assert sorted(checkout.rglob("*")) == before


def test_a_missing_report_is_told_with_how_to_get_it(checkout):
    (checkout / paths.EDA).unlink()
    with pytest.raises(UpkeepError) as caught:
        build_pages(Path("public"))
    assert str(paths.EDA) in caught.value.what
    assert "dvc pull" in caught.value.remedy
