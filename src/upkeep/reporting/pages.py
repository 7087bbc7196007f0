"""The reports and the docs as a static web site, for GitLab Pages or any folder."""

import re
import shutil
from pathlib import Path

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.reporting.markdown import Markdown, find_title
from upkeep.reporting.templates import render_html, render_markdown

DOCS = Path("docs")
FRONT = (Path("README.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md"))
REPORTS = {
    "Model quality": paths.MODEL_QUALITY,
    "Model card": paths.MODEL_CARD,
    "Data": paths.EDA,
    "Drift": paths.DRIFT / "index.html",
}
MONITORING = {"Monitoring": paths.MONITORING / "index.html"}  # no stage writes it, and so it may not be there

TO_MARKDOWN = re.compile(r'(href="(?![a-z]+:)[^"]+)\.md(["#])')
ANCHOR = re.compile(r'(?<= id=")[^"]+')


def build_pages(target: Path) -> str:
    """Write the site to the folder `target`, replacing an older one, and return a line that says what is in it.

    Raises UpkeepError if a report is missing, or the folder holds anything but such a site.
    """
    reports = {title: report for title, report in (REPORTS | MONITORING).items() if report.exists()}
    if missing := [str(report) for title, report in REPORTS.items() if title not in reports]:
        raise UpkeepError(
            f"{', '.join(missing)} missing",
            remedy="run `dvc repro`, or `dvc pull model_quality card eda drift`",
            file=missing[0],
        )
    if target.exists() and any(target.iterdir()) and not (target / FRONT[0].with_suffix(".html")).exists():
        what = f"{target} holds other files, which would be lost"
        raise UpkeepError(what, remedy="name a new folder, or an empty one")
    shutil.rmtree(target, ignore_errors=True)
    for folder in (paths.DRIFT, DOCS, *([paths.MONITORING] if reports.keys() & MONITORING else [])):
        shutil.copytree(folder, target / folder, ignore=shutil.ignore_patterns("*.md"))
    for file in (paths.MODEL_QUALITY, paths.EDA):
        shutil.copy(file, target / file)
    sources = [*FRONT, paths.MODEL_CARD, *sorted(DOCS.rglob("*.md"))]
    texts = {source: source.read_text(encoding="utf-8") for source in sources}
    docs = {
        source: Markdown(find_title(text, "upkeep")) for source, text in texts.items() if source != paths.MODEL_CARD
    }
    contents = render_markdown("index.md", reports=reports, docs=docs)
    for source, text in {**texts, Path("index.md"): contents}.items():
        page = (target / source).with_suffix(".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_render_page(text), encoding="utf-8")
    return f"{target}: {len(reports)} reports, {len(texts) - 1} pages of the docs"


def _render_page(text: str) -> str:
    from nbconvert.filters.markdown_mistune import markdown2html_mistune  # takes a second to import

    body = TO_MARKDOWN.sub(r"\1.html\2", markdown2html_mistune(text))
    body = ANCHOR.sub(lambda name: name[0].lower(), body)  # as links within the docs spell it
    return render_html("document.html", title=find_title(text, "upkeep"), content=body)
