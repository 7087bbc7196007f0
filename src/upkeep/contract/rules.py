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


class ValueRule(NamedTuple):
    """Why a row is set aside, what was expected, and which values break it: as an expression, and of one that is known.

    `breaks` is None where only a missing value breaks the rule.
    """

    reason: str
    expected: str
    broken: pl.Expr
    breaks: Callable[[Any], object] | None


def is_name(value: pl.Expr) -> pl.Expr:
    """Tell which texts may be the name of a plant, a machine or a code."""
    return (value.str.len_chars() <= MAX_NAME) & ~value.str.contains(UNPRINTABLE)


def list_rules(name: str, column: Column) -> list[ValueRule]:
    """Return the rules that the values of one column must hold."""
    value = pl.col(name)
    rules = []
    if column.role == "key":
        rules.append(ValueRule("null key", EXPECTED[column.type], value.is_null(), None))
    if column.type == "text" and column.input is not False:
        longest, unprintable = f"at most {MAX_NAME} characters", re.compile(UNPRINTABLE).search
        too_long = value.str.len_chars() > MAX_NAME
        rules.append(ValueRule("name too long", longest, too_long, lambda name: len(name) > MAX_NAME))
        is_odd = value.str.contains(UNPRINTABLE)
        rules.append(ValueRule("unprintable name", "no control characters and no line breaks", is_odd, unprintable))
    if column.type == "number":
        rules.append(ValueRule("not a number", EXPECTED["number"], value.is_infinite(), isinf))
    if (known := column.values) is not None:
        listed = f"one of {', '.join(known)}"
        rules.append(ValueRule("unknown value", listed, ~value.is_in(known), lambda value: value not in known))
    if column.range is not None:
        low, high = column.range
        span = f"{low:g} to {high:g}{f' {column.unit}' if column.unit else ''}"
        outside = ~value.is_between(low, high)
        rules.append(ValueRule("out of range", span, outside, lambda value: not low <= value <= high))
    return rules


def explain_misfits(rules: Sequence[ValueRule], values: Iterable[Any]) -> dict[Any, str]:
    """Return those of the distinct values that break a rule, each with what was expected in its place."""
    distinct, misfits = set(values), dict[Any, str]()
    for rule in reversed(rules):  # the first one that is broken counts
        breaks = rule.breaks
        if breaks is not None:
            misfits |= {value: rule.expected for value in distinct if value is not None and breaks(value)}
        elif None in distinct:
            misfits[None] = rule.expected
    return misfits
