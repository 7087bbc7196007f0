"""What is published of a fleet with the worst names: all are shown as they are, and none runs as a script."""

import html
import shutil
from contextlib import chdir
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import ROOT
from named_fleet import PICTURE, WORST, run_with_reports

from upkeep.contract.dictionary import load_dictionary
from upkeep.core.plants import name_file
from upkeep.reporting.markdown import format_value
from upkeep.reporting.pages import FRONT, build_pages
from upkeep.reporting.templates import render_markdown
from upkeep.reporting.tracking import connect

SEEN_BY_SCRIPTS = "window.harmed = 0; window.harm = () => { window.harmed += 1 }"
HARM = "window.harmed + document.querySelectorAll('[onerror], img[src=x]').length"


@pytest.fixture(scope="module")
def worst(tmp_path_factory):
    return run_with_reports(WORST, tmp_path_factory.mktemp("worst"))


@pytest.fixture(scope="module")
def site(worst):
    """The site that GitLab Pages would publish."""
    with chdir(worst):
        Path("docs").mkdir()
        source = Path("dictionary.yaml")
        page = render_markdown("data_dictionary.md", dictionary=load_dictionary(source), source=source)
        Path("docs/data_dictionary.md").write_text(page)
        for file in FRONT:
            shutil.copy(ROOT / file, file)
        build_pages(Path("public"))
    return worst / "public"


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


def test_every_report_calls_each_plant_as_it_is_called(worst):
    pages = {file.name: file.read_text(encoding="utf-8") for file in (worst / "reports").glob("*.*")}
    drift = (worst / "reports/drift/index.html").read_text(encoding="utf-8")
    for plant in WORST.plants:
        escaped = html.escape(plant)
        assert escaped in drift
        page = f"{name_file(plant)}.html"  # of plants in which something drifted only
        assert (worst / "reports/drift" / page).exists() == (quote(page) in drift)
        assert format_value(plant) in pages["model_card.md"]
        assert f"test_average_precision_{plant}" in pages["experiments.csv"]
        assert all(escaped in pages[page] for page in ("eda.html", "model_quality.html"))


def test_a_run_waits_for_nothing_but_is_in_mlflow(worst):
    assert not list((worst / ".upkeep/pending").glob("*"))
    client = connect(f"sqlite:///{worst}/mlflow.db")
    [experiment] = [found.experiment_id for found in client.search_experiments() if found.name == "upkeep"]
    runs = client.search_runs([experiment])
    assert {run.data.params["plant"] for run in runs if "plant" in run.data.params} == set(WORST.plants)
