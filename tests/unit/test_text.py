"""Words for the terminal: names that were meant, and commands to type."""

import pytest

from upkeep.core.text import command_to_read_again, nearest_name, pair_alike


@pytest.mark.parametrize(
    ("name", "names", "meant"),
    [
        ("001", ["1", "2"], "1"),
        ("PRESS-1", ["press-1", "press-2"], "press-1"),
        ("press 01", ["press-1", "press-11"], "press-1"),
        ("pres_1", ["press-1"], "press-1"),
        ("M-7", ["7", "8"], "7"),
        ("7", ["press-7"], "press-7"),
        ("NORTH", ["north", "south"], "north"),
        ("Süd", ["SÜD"], "SÜD"),
        ("Su\u0308d", ["Süd"], "Süd"),
        ("7.0", ["7", "70"], "7"),
        ("press-1", ["press-2", "pump-1"], None),
        ("7", ["press-7", "pump-7"], None),
        ("south", ["north"], None),
        ("7", [], None),
    ],
)
def test_a_name_is_taken_for_another_only_if_their_numbers_are_the_same(name, names, meant) -> None:
    assert nearest_name(name, names) == meant


def test_a_command_to_type_holds_for_names_with_blanks() -> None:
    command = "`upkeep fetch --again --plant 'hall 1' --batch 2025-01-06`, then `dvc repro`"
    assert command_to_read_again("hall 1", "2025-01-06") == command
    assert command_to_read_again() == "`upkeep fetch --again`, then `dvc repro`"


def test_names_that_are_spelt_alike_are_paired_with_the_first_of_them():
    assert list(pair_alike(["b", "A 01", "a-1", "a11", "#", "-", "a1"])) == [("A 01", "a-1"), ("A 01", "a1")]
