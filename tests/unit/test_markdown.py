import pytest

from upkeep.reporting.markdown import (
    Markdown,
    format_code,
    format_interval,
    format_list,
    format_table,
    format_value,
)


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
    ],
)
def test_text_formats_nothing(text: str, shown: str) -> None:
    assert format_value(text) == shown
    assert format_list([text]) == f"- {shown}\n"
    assert format_value(Markdown(text)) == text


def test_code_cannot_end_early_or_break_its_line() -> None:
    assert format_code("a`b\nc") == "`a'b c`"


def test_an_interval_that_is_not_known_is_left_out() -> None:
    assert format_interval(0.7, None) == "0.70"
