"""What happened: which kind of event rows tell of, and failures that a label beside the readings tells of."""

from typing import Any, NamedTuple

import polars as pl

from upkeep.adopt.times import share_of
from upkeep.adopt.words import Kind, has_word, kind_of, knows_ahead

NO_EVENTS = pl.DataFrame(
    schema={"plant": pl.String, "machine": pl.String, "time": pl.Datetime("us", "UTC"), "kind": pl.String}
)
MOST_KINDS = 30
MOST_CODES = 500
SET, CLEAR = ("1", "1.0", "true"), ("0", "0.0", "-1", "-1.0", "false")


class Happened(NamedTuple):
    """How rows tell kind and code: ``columns`` (ours: theirs), constants, ``kinds``, why each; and each row's kind."""

    columns: dict[str, str]
    options: dict[str, Any]
    reasons: dict[str, str]
    kinds: pl.Series


def find_kinds(name: str, rows: pl.DataFrame, text: list[str]) -> Happened:
    """Return how a table of events tells what happened: by a column, by its file's `name`, or not at all."""
    constant = kind_of(name)
    found = Happened({}, {}, {}, pl.repeat(constant or "error", rows.height, dtype=pl.String, eager=True))
    column = max(text, key=lambda column: _speaking(rows[column]), default=None)
    if column and _tells_more(column, rows[column], constant):
        told = {str(value): kind_of(str(value)) for value in rows[column].drop_nulls().unique().sort()}
        found.columns["kind"] = column
        found.options["kinds"] = {value: kind or "error" for value, kind in told.items()}
        unclear = ", ".join(value for value, kind in told.items() if kind is None)
        taken = f"; taken for errors, since nothing tells: {unclear}" if unclear else ""
        found.reasons["kinds"] = f"by their words{taken}"
        found = found._replace(kinds=rows[column].cast(pl.String).replace(found.options["kinds"]))
    else:
        found.options["kind"] = constant or "error"
        nothing = "taken for errors: nothing tells what kind of events these are"
        found.reasons["kind"] = f"by the name {name}" if constant else nothing
    codes = [other for other in text if other != found.columns.get("kind") and rows[other].n_unique() <= MOST_CODES]
    code = min(codes, key=lambda other: not has_word(other, "code"), default=found.columns.get("kind"))
    if code:
        found.columns["code"] = code
    else:
        found.options["code"] = found.options["kind"]
    found.reasons["code"] = "the text that tells which" if code else "no column tells which"
    return found


def find_labels(rows: pl.DataFrame, *, failures_known: bool = False) -> list[str]:
    """Return the columns of telemetry that say whether a machine has failed, the plainest one first.

    With `failures_known` from elsewhere, a column that speaks of alarms or faults is a reading like others.
    """
    grades = {name: _label_grade(name, rows[name]) for name in rows.columns}
    found = {name: grade for name, grade in grades.items() if grade is not None and not (failures_known and grade > 1)}
    return sorted(found, key=lambda name: found[name])


def is_failed(column: pl.Series) -> pl.Series:
    """Return where a label says that the machine has failed: 1 or true, or a word for it."""
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    words = [value for value in text.drop_nulls().unique().to_list() if kind_of(value) == "failure"]
    return text.is_in(words or SET).fill_null(value=False)


def events_from_label(rows: pl.DataFrame, label: str) -> pl.DataFrame:
    """Return a failure where a label sets in, and maintenance where the machine is healthy again.

    `rows` have ``plant``, ``machine``, ``time`` and the label; the events have ``kind`` and ``code`` besides.
    """
    ordered = rows.sort("plant", "machine", "time")
    label_text = ordered[label].cast(pl.String)
    healthy = label_text.is_in([label_text.drop_nulls().mode().sort()[0]])
    marked = ordered.select("plant", "machine", "time", failed=is_failed(ordered[label]), healthy=healthy)
    seen = pl.when("failed").then(statement=True).when("healthy").then(statement=False)
    states = marked.with_columns(down=seen.forward_fill().over("plant", "machine").fill_null(value=False))
    turns = states.with_columns(before=pl.col("down").shift(fill_value=False).over("plant", "machine"))
    return turns.filter(pl.col("down") != pl.col("before")).select(
        "plant",
        "machine",
        "time",
        kind=pl.when("down").then(pl.lit("failure")).otherwise(pl.lit("maintenance")),
        code=pl.when("down").then(pl.lit(label)).otherwise(pl.lit("healthy again")),
    )


def _kinds_in(column: pl.Series) -> list[Kind | None]:
    """Return the kind of event that each of a column's different values tells of; none for too many values."""
    values = column.drop_nulls().unique().cast(pl.String)
    return [kind_of(value) for value in values] if values.len() <= MOST_CODES else []


def _speaking(column: pl.Series) -> float:
    """Return the share of a column's different values that tell a kind of event."""
    kinds = _kinds_in(column)
    return sum(kind is not None for kind in kinds) / max(len(kinds), 1)


def _tells_more(name: str, column: pl.Series, constant: Kind | None) -> bool:
    """Tell whether a column tells the kinds of events, and more of them than the name of their file."""
    more = constant is None or (has_word(name, "kind") and not {*_kinds_in(column)} <= {constant, None})
    return more and column.n_unique() <= MOST_KINDS and _speaking(column) >= 0.5


def _label_grade(name: str, column: pl.Series) -> int | None:
    """Return how plainly a column tells of failures, 0 being the plainest; None if it does not, or of most rows."""
    values = {str(value).strip().lower() for value in column.drop_nulls().unique()}
    if not 2 <= len(values) <= MOST_KINDS or share_of(is_failed(column)) > 0.5:
        return None
    if any(kind_of(value) == "failure" for value in values):
        return 0
    if not values <= {*SET, *CLEAR}:
        return None
    if knows_ahead(name):
        return 1
    return {"failure": 0, "error": 2}.get(kind_of(name) or "")
