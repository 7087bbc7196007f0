"""What is published of a fleet whose names are scripts, in a real browser: none of them runs."""

import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from conftest import ROOT
from named_fleet import PICTURE, WORST, run_with_reports

from upkeep.contract.dictionary import load_dictionary
from upkeep.reporting.dictionary_page import dictionary_page
from upkeep.reporting.pages import FRONT, build_pages

SEEN_BY_SCRIPTS = "window.harmed = 0; window.harm = () => { window.harmed += 1 }"
HARM = "window.harmed + document.querySelectorAll('[onerror], img[src=x]').length"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site that GitLab Pages would publish."""
    folder = run_with_reports(WORST, tmp_path_factory.mktemp("worst"))
    with chdir(folder):
        Path("docs").mkdir()
        source = Path("dictionary.yaml")
        Path("docs/data_dictionary.md").write_text(dictionary_page(load_dictionary(source), source))
        for file in FRONT:
            shutil.copy(ROOT / file, file)
        build_pages(Path("public"))
    return folder / "public"


def test_no_name_in_a_report_runs_as_a_script(site, browser):
    pages = sorted(site.rglob("*.html"))
    assert {page.name for page in pages} >= {
        "eda.html",
        "model_quality.html",
        "model_card.html",
        "data_dictionary.html",
    }
    assert len([page for page in pages if page.parent.name == "drift"]) > 1
    for file in pages:
        with browser.new_context() as window:
            window.add_init_script(SEEN_BY_SCRIPTS)
            page = window.new_page()
            page.goto(file.as_uri())
            if file.parent.name == "drift" and file.stem != "index":
                page.get_by_role("columnheader", name="Column").first.wait_for()  # drawn by a script
                page.get_by_role("button", name="Detail panel").first.click()  # plots
                page.get_by_text("reference (mean)").first.wait_for()
            if file.stem in ("eda", "model_quality", "model_card"):
                assert PICTURE in page.inner_text("main")
            assert page.evaluate(HARM) == 0, file
