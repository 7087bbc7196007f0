"""The dictionary's rules for values of the right type, each for a column of a frame and for a single value."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from math import isinf
from typing import Any, NamedTuple

import polars as pl

from upkeep.contract.casting import CLOCK_RESET
from upkeep.contract.dictionary import BATCH, DTYPES, Column
from upkeep.core.names import MAX_NAME, UNPRINTABLE

EXPECTED = {
    "text": "text",
    "number": "a number, or null where there is none",
    "time": "a time such as 2025-01-06T13:00:00Z, between 1900 and 2200",
}
"""What a value of each type looks like, in messages."""

CLOCK_SLACK = timedelta(days=1)
"""How far past the end of its batch a row's time may lie: clocks run ahead, or are set to local time."""

LEAP = timedelta(days=366)  # a clock that is further off than a year lost the time

BATCH_BEGINS = pl.col(BATCH).cast(DTYPES["time"])  # the first instant of each row's batch

PRECEDENCE = {"null key": 0, "name too long": 1, "unprintable name": 1, "other plant": 2}
"""Which reason counts for a row of several faults; among all others it is the first column's."""


class Rule(NamedTuple):
    """The reason for which rows that are `broken` are set aside; `expected` and `breaks` explain a single value.

    `breaks` tells whether a known value breaks the rule; it is None where only a missing one does, or none by itself.
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
    """Return the rules for the values of one column."""
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


def list_table_rules(table: str, columns: Mapping[str, Column], plant: str, batch_days: int) -> list[Rule]:
    """Return the rules for a plant's rows of a table, in the order in which a row of several faults is judged."""
    rules = [rule for name, column in columns.items() for rule in list_rules(name, column)]
    rules.append(Rule("other plant", "plant", pl.col("plant") != plant))
    rules.sort(key=lambda rule: PRECEDENCE.get(rule.reason, len(PRECEDENCE)))
    if "time" in columns:
        # A clock that is years off would stretch the record, and with it the split by time, over years without data.
        earliest = pl.lit(CLOCK_RESET)
        if table == "telemetry":  # events may be reported late
            earliest = pl.max_horizontal(BATCH_BEGINS - LEAP, earliest)
        rules.append(Rule("clock was reset", "time", pl.col("time") < earliest))
        latest = BATCH_BEGINS + timedelta(days=batch_days) + CLOCK_SLACK
        rules.append(Rule("after its batch", "time", pl.col("time") > latest))
    return rules


def explain_misfits(rules: Sequence[Rule], values: Iterable[Any]) -> dict[Any, str]:
    """Return the distinct values that break a rule, each with what was expected in its place."""
    distinct, misfits = set(values), dict[Any, str]()
    for rule in reversed(rules):  # of several broken rules the first one counts
        breaks = rule.breaks
        if breaks is not None:
            misfits |= {value: rule.expected for value in distinct if value is not None and breaks(value)}
        elif None in distinct:
            misfits[None] = rule.expected
    return misfits
