"""What the dictionary says of a column's values, once they are of its type: each rule for frames and for one value."""

import re
from collections.abc import Callable, Iterable, Sequence
from math import isinf
from typing import Any, NamedTuple

import polars as pl

from upkeep.contract.dictionary import Column
from upkeep.core.names import MAX_NAME, UNPRINTABLE

EXPECTED = {
    "text": "text",
    "number": "a number, or null where there is none",
    "time": "a time such as 2025-01-06T13:00:00Z, between 1900 and 2200",
}
"""What a value of each type looks like, for people."""


class Rule(NamedTuple):
    """Why a row is set aside for a column, and which rows are; then what was expected, and which known values are not.

    `breaks` is None where only a missing value breaks the rule, or none by itself does.
    """

    reason: str
    column: str
    broken: pl.Expr
    expected: str = ""
    breaks: Callable[[Any], object] | None = None


def is_name(value: pl.Expr) -> pl.Expr:
    """Tell which texts may be the name of a plant, a machine or a code."""
    return (value.str.len_chars() <= MAX_NAME) & ~value.str.contains(UNPRINTABLE)


def list_rules(name: str, column: Column) -> list[Rule]:
    """Return the rules that the values of one column must hold."""
    rules, value = list[Rule](), pl.col(name)

    def add(reason: str, broken: pl.Expr, expected: str, breaks: Callable[[Any], object] | None) -> None:
        rules.append(Rule(reason, name, broken, expected, breaks))

    if column.role == "key":
        add("null key", value.is_null(), EXPECTED[column.type], None)
    if column.type == "text" and column.input is not False:
        is_long = value.str.len_chars() > MAX_NAME
        add("name too long", is_long, f"at most {MAX_NAME} characters", lambda name: len(name) > MAX_NAME)
        is_odd, odd = value.str.contains(UNPRINTABLE), re.compile(UNPRINTABLE)
        add("unprintable name", is_odd, "no control characters and no line breaks", odd.search)
    if column.type == "number":
        add("not a number", value.is_infinite(), EXPECTED["number"], isinf)
    if (known := column.values) is not None:
        add("unknown value", ~value.is_in(known), f"one of {', '.join(known)}", lambda value: value not in known)
    if column.range is not None:
        low, high = column.range
        span = f"{low:g} to {high:g}{f' {column.unit}' if column.unit else ''}"
        add("out of range", ~value.is_between(low, high), span, lambda value: not low <= value <= high)
    return rules


def explain_misfits(rules: Sequence[Rule], values: Iterable[Any]) -> dict[Any, str]:
    """Return those of the distinct values that break a rule, each with what was expected in its place."""
    distinct, misfits = set(values), dict[Any, str]()
    for rule in reversed(rules):  # the first one that is broken counts
        breaks = rule.breaks
        if breaks is not None:
            misfits |= {value: rule.expected for value in distinct if value is not None and breaks(value)}
        elif None in distinct:
            misfits[None] = rule.expected
    return misfits
