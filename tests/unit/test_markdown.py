from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from upkeep.core.text import show_text
from upkeep.reporting.markdown import (
    Markdown,
    format_code,
    format_interval,
    format_list,
    format_table,
    format_value,
)
from upkeep.reporting.templates import render_html, render_markdown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not known"),
        (12345, "12,345"),
        (12345.6, "12,346"),
        (999.7, "1,000"),
        (0.12345, "0.123"),
        (True, "yes"),
        ("a|b", "a\\|b"),
        (Markdown("`a|b`"), "`a\\|b`"),
        ("two\nlines", "two lines"),
    ],
)
def test_a_cell_is_written_for_a_reader(value: object, shown: str) -> None:
    assert format_table(["x"], [[value]]).splitlines()[2] == f"| {shown} |"


def test_only_columns_of_numbers_are_aligned_right() -> None:
    rows = [["lyon", 1], ["porto", None]]
    assert format_table(["a|b"], []).startswith("| a\\|b |\n")
    assert format_table(["plant", "rows_in"], rows).splitlines()[:2] == ["| plant | rows in |", "| :-- | --: |"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**bold** [link](x)", r"\*\*bold\*\* \[link\](x)"),
        ("<script>", r"\<script>"),
        ("load_pct is 5 % & more", "load_pct is 5 % & more"),
        ("_a_ &lt; $x$", r"\_a\_ \&lt; \$x\$"),
        ("# no heading", r"\# no heading"),
        ("- 1 item", r"\- 1 item"),
        ("-1.5 below 1.5", "-1.5 below 1.5"),
        ("1. item", r"1\. item"),
        (r"C:\(x\)", r"C:&#92;(x&#92;)"),
        ("see https://x.org, www.x.org", r"see https\://x.org, www\.x.org"),
        ("/merge", r"\/merge"),
        ("ask @all of #12, !3 or :tada: at 12:30", r"ask \@all of \#12, \!3 or \:tada: at 12:30"),
        ("\x1b[2J \u202eabc", r"&#92;x1b\[2J &#92;u202eabc"),
        ("two\n\n/lines", "two /lines"),
    ],
)
def test_text_formats_nothing(text: str, shown: str) -> None:
    assert format_value(text) == shown
    assert format_list([text]) == f"- {shown}\n"
    assert format_value(Markdown(text)) == text


@pytest.mark.parametrize(
    ("text", "code"), [("a`b\nc", "`a'b c`"), ("a\\|b", r"<code>a&#92;\|b</code>"), ("", "<code></code>")]
)
def test_code_cannot_end_early_or_break_its_line(text: str, code: str) -> None:
    assert format_code(text) == code


class Outline(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[object] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.text += data


SLOTS = {
    "a cell": lambda name: format_table(["plant", "rows"], [[name, 1], [2, name]]),
    "a list": lambda name: format_list([name, f"{name}: drifted"]),
    "code": lambda name: format_table(["sensor"], [[format_code(name)]]),
    "a line": lambda name: render_markdown("failure.md", **FAILED | {"job": name, "places": {"plant": name}}),
    "a heading": lambda name: f"## {format_value(name)}\n\n{format_value(name)} has drifted.",
    "a page": lambda name: render_html("document.html", title=name, content=""),
}
FAILED = {"failure": None, "log": "the log", "commit": "abc", "branch": None}
PIECES = [*"<>&\"'`*_|\\[](){}#+-=~$!:/@%^.1 \n\t\r\0\x1b\u2028\u202e", "<img src=x onerror=alert(1)>", "</script>"]
PIECES += [
    "&lt;",
    "http://x.y",
    "www.x.y",
    "![](x)",
    "1. ",
    "- [ ] ",
    "```",
    "| - |",
    "$$",
    "\\(",
    "\\begin{a}",
    "\n: ",
    "---",
]
NAMES = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)


@pytest.mark.parametrize("slot", SLOTS.values(), ids=SLOTS)
@given(name=NAMES)
@example(name="<img src=x onerror=alert(1)>")
@example(name="- a")
def test_a_name_adds_no_element_and_no_cell_and_reads_as_it_is(slot: Callable[[str], str], name: str) -> None:
    found, plain = (Outline(markdown2html_mistune(slot(text))) for text in (name, "plain"))
    assert found.elements == plain.elements
    expected = plain.text.replace("plain", show_text(name))
    read = [text.replace("`", "'").split() for text in (found.text, expected)]
    assert "".join(read[0]) == "".join(read[1])


def test_an_interval_that_is_not_known_is_left_out() -> None:
    assert format_interval(0.7, None) == "0.70"
