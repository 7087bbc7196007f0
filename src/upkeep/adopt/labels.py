"""Columns of telemetry that tell whether a machine has failed, and the events that they make."""

import polars as pl

from upkeep.adopt.times import share_of
from upkeep.adopt.words import MOST_KINDS, WORDS, has_word, kind_of, names_one
from upkeep.core.names import KEYS, shorten

RARE = 0.05  # share of rows that a mark of failures is set in, at most


def find_labels(rows: pl.DataFrame, *, failures_known: bool = False) -> list[str]:
    """Return the columns of telemetry that tell whether a machine has failed, the clearest one first.

    With `failures_known` from elsewhere, a column about alarms or faults is a reading like others.
    """
    grades = {name: _grade_label(name, rows[name]) for name in rows.columns}
    found = {name: grade for name, grade in grades.items() if grade is not None and not (failures_known and grade > 1)}
    return sorted(found, key=lambda name: found[name])


def find_flags(rows: pl.DataFrame) -> list[str]:
    """Return columns of 0 and 1 that may mark failures: those called a flag or status, and those that are rarely 1."""
    flags = [name for name in rows.columns if kind_of(name) is None and _grade_label("failure", rows[name]) is not None]
    return [name for name in flags if has_word(name, "flag") or share_of(_is_failed(rows[name].cast(pl.String))) < RARE]


def find_silent_labels(rows: pl.DataFrame) -> list[str]:
    """Return columns that by their name and values would mark failures, if there had been any."""
    named = [name for name in rows.columns if kind_of(name) == "failure" and rows[name].count()]
    return [name for name in named if _list_values(rows[name]) <= {*WORDS["clear"]}]


def events_from_label(rows: pl.DataFrame, label: str) -> pl.DataFrame:
    """Return a failure where a label begins, and maintenance where the machine is healthy again.

    `rows` have ``plant``, ``machine``, ``time`` and the label; the events have ``kind`` and ``code`` besides.
    """
    rows = rows.sort(KEYS)
    text = rows[label].cast(pl.String)
    failed = _is_failed(text)
    healthy = text.is_in(text.filter(~failed).drop_nulls().mode().sort().head(1).to_list())
    down = pl.when(failed).then(statement=True).when(healthy).then(statement=False)
    states = rows.select(*KEYS, down=down).with_columns(pl.col("down").forward_fill().over("plant", "machine"))
    states = states.with_columns(pl.col("down").fill_null(value=False))
    turns = states.filter(pl.col("down") != pl.col("down").shift(fill_value=False).over("plant", "machine"))
    words = pl.DataFrame(
        {"down": [True, False], "kind": ["failure", "maintenance"], "code": [shorten(label), "healthy again"]}
    )
    return turns.join(words, on="down", maintain_order="left").drop("down")


def _is_failed(text: pl.Series) -> pl.Series:
    """Return where a label means that the machine has failed: 1, true, or a word for it."""
    text = text.str.strip_chars().str.to_lowercase()
    words = [value for value in text.drop_nulls().unique().to_list() if kind_of(value) == "failure"]
    return text.is_in(words or WORDS["set"]).fill_null(value=False)


def _grade_label(name: str, column: pl.Series) -> int | None:
    """Return how clearly a column marks failures, 0 being clearest; None if it does not, or marks most rows."""
    if not 2 <= column.drop_nulls().n_unique() <= MOST_KINDS or share_of(_is_failed(column.cast(pl.String))) > 0.5:
        return None
    values = _list_values(column)
    if any(kind_of(value) == "failure" for value in values):
        return 0
    if not values <= {*WORDS["set"], *WORDS["clear"]}:
        return None
    return 1 if names_one(name, "ahead", "ahead_too") else {"failure": 0, "error": 2}.get(kind_of(name) or "")


def _list_values(column: pl.Series) -> set[str]:
    return {str(value).strip().lower() for value in column.drop_nulls().unique()}
