"""Names of any length and of any characters: what is no name is set aside, and repeated in short."""

import copy
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upkeep.contract.rules import is_name
from upkeep.core.errors import UpkeepError
from upkeep.core.names import MAX_NAME, check_name, shorten

ODD = ["a\nb", "a\x1b[31m", "a\x00", "a\x85", "a\u2028/merge", "\u202egnp.exe", "x" * (MAX_NAME + 1)]
PLAIN = ["", "Süd 1/a", "北京", "*", "<img onerror>", "zero\u200cwidth", "x" * MAX_NAME]


def is_refused(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(("name", "refused"), [*((name, True) for name in ODD), *((name, False) for name in PLAIN)])
def test_a_name_is_of_two_hundred_characters_that_can_be_printed(name: str, refused: bool) -> None:
    assert is_refused(name) == refused


@given(st.text(max_size=4) | st.integers(MAX_NAME - 1, MAX_NAME + 1).map(lambda length: "ä" * length))
def test_columns_and_single_names_are_judged_alike(name: str) -> None:
    assert pl.DataFrame({"name": [name]}).select(is_name(pl.col("name"))).item() != is_refused(name)


@given(st.text(st.characters()), st.integers(1, 50))
def test_what_is_shortened_fits_on_one_line_that_any_stream_takes(text: str, longest: int) -> None:
    line = shorten(text, longest)
    assert len(line) <= longest
    assert len(line.splitlines()) <= 1
    assert line.encode().decode() == line


def test_what_is_left_out_and_what_cannot_be_printed_is_seen() -> None:
    assert shorten("a" * 201) == "a" * 199 + "…"
    assert shorten("a\nb\x1b") == r"a\nb\x1b"
    assert shorten(1.5) == "1.5"


def test_a_place_of_whatever_type_steers_no_terminal() -> None:
    error = UpkeepError("gone", remedy="look", file=Path("a\x1b[2J\nb"))
    assert str(error).splitlines()[0] == r"gone [file=a\x1b[2J\nb]"


def test_an_error_repeats_nothing_at_any_length_and_keeps_its_lines() -> None:
    error = UpkeepError("first\nsecond" + "x" * 9000, remedy="r" * 9000, expected="e\x1b", plant="p" * 9000, batch=None)
    text = str(copy.copy(error))
    assert text == str(error)
    assert text.startswith("first\nsecondx")
    assert len(text) < 4 * 2000
    assert r"expected: e\x1b" in text
