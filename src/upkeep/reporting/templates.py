"""Renders the texts and pages of ``templates/``; values that are not markup already are escaped."""

import html
import re
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.filters import do_mark_safe

from upkeep.core.text import show_text
from upkeep.reporting import markdown
from upkeep.reporting.markdown import Markdown


def show_value(value: object) -> object:
    """Return a value with invisible characters of text shown as codes; Jinja then escapes text that is no markup."""
    return show_text(value) if type(value) is str else value


def set_commands(text: str) -> str:
    """Return a sentence as HTML, with the commands that it has between backticks as code."""
    return do_mark_safe(re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(show_text(text))))


LOADER = FileSystemLoader(Path(__file__).with_name("templates"))
HTML = Environment(
    loader=LOADER,
    autoescape=True,
    finalize=show_value,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
HTML.filters["commands"] = set_commands
# What `finalize` returns is escaped for Markdown.
MARKDOWN = HTML.overlay(autoescape=False, finalize=markdown.format_value)
MARKDOWN.globals |= {"code": markdown.format_code, "interval": markdown.format_interval, "table": markdown.format_table}
FORMS = {"amount": "{:,.0f}", "share": "{:.0%}"}
MARKDOWN.filters |= {name: partial(markdown.format_known, form) for name, form in FORMS.items()}
MARKDOWN.filters["names"] = markdown.format_names


def render_html(template: str, **values: object) -> str:
    """Return a page of ``templates/`` with these values; the `content` of ``page.html`` is HTML already."""
    return HTML.get_template(template).render(values)


def render_markdown(template: str, **values: object) -> Markdown:
    """Return a text of ``templates/``; :func:`~upkeep.reporting.markdown.format_value` writes the values."""
    return Markdown(MARKDOWN.get_template(template).render(values))
