"""The reports and the docs as a web site that needs no server of its own: GitLab Pages, or any folder."""

import re
import shutil
from html import escape
from pathlib import Path

from upkeep.core import paths
from upkeep.core.errors import UpkeepError

STYLE = Path(__file__).with_name("notebook.css").read_text(encoding="utf-8")
PROSE = ".anchor-link { display: none; } th, td { text-align: left; }"
"""A table of the docs holds words, where a notebook's holds figures."""

DOCS = Path("docs")
FRONT = (Path("README.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md"))
REPORTS = {
    "Model quality": paths.MODEL_QUALITY,
    "Model card": paths.MODEL_CARD,
    "Data": paths.EDA,
    "Drift": paths.DRIFT / "index.html",
}
TO_MARKDOWN = re.compile(r'(href="(?![a-z]+:)[^"]+)\.md(["#])')
ANCHOR = re.compile(r'(?<= id=")[^"]+')
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def build_pages(target: Path) -> str:
    """Write the site to `target`, which is made anew, and return what is in it.

    Raises
    ------
    UpkeepError
        If a report is missing.
    """
    missing = [str(report) for report in REPORTS.values() if not report.exists()]
    if missing:
        raise UpkeepError(
            f"{', '.join(missing)} missing",
            expected="the reports of a run",
            remedy="run `dvc repro`, or `dvc pull model_quality card eda drift`",
            file=missing[0],
        )
    shutil.rmtree(target, ignore_errors=True)
    for folder in (paths.DRIFT, DOCS):
        shutil.copytree(folder, target / folder, ignore=shutil.ignore_patterns("*.md"))
    for file in (paths.MODEL_QUALITY, paths.EDA):
        shutil.copy(file, target / file)
    pages = [*FRONT, paths.MODEL_CARD, *sorted(DOCS.rglob("*.md"))]
    for page in pages:
        (target / page).parent.mkdir(parents=True, exist_ok=True)
        (target / page).with_suffix(".html").write_text(_render(page.read_text(encoding="utf-8")), encoding="utf-8")
    (target / "index.html").write_text(_render(_contents(pages)), encoding="utf-8")
    return f"{target}: {len(REPORTS)} reports, {len(pages) - 1} pages of the docs"


def _contents(pages: list[Path]) -> str:
    reports = [f"- [{title}]({path.as_posix()})" for title, path in REPORTS.items()]
    docs = [f"- [{_title(page)}]({page.as_posix()})" for page in pages if page != paths.MODEL_CARD]
    return "\n".join(["# upkeep", "", "## Reports of the newest models", "", *reports, "", "## Docs", "", *docs])


def _title(page: Path) -> str:
    found = TITLE.search(page.read_text(encoding="utf-8"))
    return found[1] if found else page.stem


def _render(text: str) -> str:
    from nbconvert.filters.markdown_mistune import markdown2html_mistune  # takes a second to import

    body = TO_MARKDOWN.sub(r"\1.html\2", markdown2html_mistune(text))
    body = ANCHOR.sub(lambda name: name[0].lower(), body)  # as links within the docs spell it
    found = TITLE.search(text)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(found[1] if found else 'upkeep')}</title><style>{STYLE}{PROSE}</style>"
        f"</head><body><main>\n{body}\n</main></body></html>\n"
    )
