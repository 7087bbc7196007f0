"""What is filled into the texts and pages of ``templates/``: whatever is no markup already is escaped."""

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
    """Return text without what nobody would see; Jinja escapes it then, unless it is markup."""
    return show_text(value) if type(value) is str else value


def set_commands(text: str) -> str:
    """Return a sentence with what stands between backticks in it set as code, as an error's remedy names commands."""
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
MARKDOWN = HTML.overlay(
    autoescape=False, finalize=markdown.format_value
)  # what `finalize` returns is escaped for Markdown
MARKDOWN.globals |= {"code": markdown.format_code, "interval": markdown.format_interval, "table": markdown.format_table}
FORMS = {"amount": "{:,.0f}", "share": "{:.0%}"}
MARKDOWN.filters |= {name: partial(markdown.format_known, form) for name, form in FORMS.items()}
MARKDOWN.filters["names"] = markdown.format_names


def render_html(template: str, **values: object) -> str:
    """Return a page of ``templates/`` with these values; ``page.html`` takes `content` as the HTML that it is."""
    return HTML.get_template(template).render(values)


def render_markdown(template: str, **values: object) -> Markdown:
    """Return a text of ``templates/`` with these values, written by :func:`~upkeep.reporting.markdown.format_value`."""
    return Markdown(MARKDOWN.get_template(template).render(values))
