"""Entries of measured columns in the data dictionary: sensor, setting or attribute, with unit and range."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from upkeep.adopt.columns import Part, is_id
from upkeep.adopt.sniffing import MOSTLY
from upkeep.adopt.times import share_of
from upkeep.adopt.words import MOST_KINDS, has_word, is_kept, kind_of, names_one, unit_of, words_of
from upkeep.core.errors import UpkeepError
from upkeep.core.names import KEYS, MAX_NAME, shorten

COUNTING = {"unnamed", "index", "row", "no", "nr", "0"}
"""Words in the names of columns that number the rows."""
FEW_LEVELS, STEP_ROWS = 12, 3.0  # levels of a setting at most, and rows for which it keeps one, in the median
ROOM = 0.5  # that a range leaves on either side, in widths from the 0.1 % to the 99.9 % quantile
LARGEST = 3.4e38  # number that a feature can hold; an infinity, or garbage beyond it, tells nothing of the range
EXTREME = 10.0  # widths beyond which values are taken for faulty and lie outside the range


class Described(NamedTuple):
    """A column's entry in the dictionary, None if it is left out, and the reason."""

    entry: dict[str, Any] | None
    reason: str


def describe_telemetry(parts: Sequence[pl.DataFrame], labels: Sequence[str]) -> dict[str, Described]:
    """Describe each column of telemetry except its keys; `labels` are those that tell of failures.

    Raises UpkeepError if there is telemetry, but no column of it holds numbers that change over time.
    """
    if not parts:
        return {}
    rows = pl.concat(parts, how="diagonal_relaxed").sort(KEYS)
    machines = rows.select(pl.struct("plant", "machine").alias("machine"))
    described = {name: describe(name, machines.with_columns(rows[name])) for name in rows.drop(KEYS).columns}
    described |= dict.fromkeys(labels, Described(None, "tells whether the machine has failed"))
    entries = [entry for entry, _ in described.values() if entry]
    if not entries:
        raise UpkeepError(
            "no column of numbers changes over time, so there is nothing to learn from",
            remedy="deliver the sensors' readings",
        )
    if not any(entry["role"] == "sensor" for entry in entries):
        for entry in entries:
            entry["role"] = "sensor"
            entry.pop("input", None)
    return described


def describe_machines(parts: Sequence[Part]) -> dict[str, Described]:
    """Describe each column of the machines table except its keys, the model and the date of installation."""
    columns = [part.rows[name] for part in parts for name in filter(is_kept, part.kept)]
    kinds = {column.name: "number" if column.dtype.is_numeric() else "text" for column in columns}
    why = "a fact about the machine"
    return {name: Described({"type": kind, "role": "attribute"}, why) for name, kind in kinds.items()}


def describe(name: str, rows: pl.DataFrame) -> Described:
    """Describe one column; `rows` have ``machine`` and the column, in order of machine and time."""
    is_usable = pl.col(name).abs() <= LARGEST if rows[name].dtype.is_numeric() else pl.col(name).is_not_null()
    known = rows.filter(is_usable)
    values = known[name]
    if reason := _explain_omission(name, values):
        return Described(None, reason)
    steps = known.select(pl.col(name).diff().over("machine")).to_series().drop_nulls()
    is_even = share_of(steps == steps.median()) > MOSTLY
    is_each = known.n_unique() > MOSTLY * rows.height and bool((values % 1 == 0).all())
    if words_of(name) <= COUNTING and (is_each or is_even):
        return Described(None, "numbers the rows")
    role, why = _choose_role(name, known)
    unit = unit_of(name)
    entry: dict[str, Any] = {"role": role, **({"unit": unit} if unit else {})}
    if role == "setting":
        entry["input"] = True  # it may be a sensor of few levels after all
    if role == "sensor" and steps.len() > 10 and share_of(steps >= 0) > 0.999 and values.n_unique() > FEW_LEVELS:
        return Described(entry, "a counter that only grows, so no range")
    entry["range"], ordered = choose_range(values, unit), values.sort()
    outside = int((~values.is_between(*entry["range"])).sum())
    beyond = f"; {outside} of {values.len()} values lie outside the range" if outside else ""
    return Described(entry, f"{why}; {ordered[0]:g} to {ordered[-1]:g} here{beyond}")


def _explain_omission(name: str, values: pl.Series) -> str | None:
    if not is_kept(name):
        return f"its name has more than {MAX_NAME} characters, or some that nobody sees"
    if values.is_empty():
        return "empty"
    numbers = values.cast(pl.String).cast(pl.Float64, strict=False)
    if is_id(values) and numbers.count() == values.len():
        return "numbers things"
    if not values.dtype.is_numeric():
        words = values.filter(numbers.is_null())
        return f"text, such as {shorten((words if words.len() else values)[0], 40)}"
    is_class = kind_of(name) == "failure" and values.n_unique() <= MOST_KINDS and bool((values % 1 == 0).all())
    if is_class or any(names_one(name, group, "ahead_too") for group in ("ahead", "forecast")):
        return "its name says that it knows the outcome"
    return f"always {values[0]:g}" if values.n_unique() == 1 else None


def choose_range(values: pl.Series, unit: str | None) -> list[float]:
    """Return a range around the quantiles and the plausible values beyond them, widened and rounded outwards."""
    ordered = values.sort()
    usual = [float(ordered[round(share * (ordered.len() - 1))]) for share in (0.001, 0.999)]
    least = max(1e-9 * max(map(abs, usual)), 1e-300)  # the least width at which values of this size differ
    width = max(usual[1] - usual[0], least) if usual[0] < usual[1] else max(abs(usual[1]), 1.0)
    near = ordered.filter(ordered.is_between(usual[0] - EXTREME * width, usual[1] + EXTREME * width))
    if unit == "%" and near[0] >= 0 and near[-1] <= 100:
        return [0, 100]
    step = 10.0 ** math.floor(math.log10(width))
    low, high = math.floor((near[0] - ROOM * width) / step), math.ceil((near[-1] + ROOM * width) / step)
    if near[0] >= 0 and not (unit or "").startswith("°"):
        low = max(low, 0)
    bounds = [float(f"{bound * step:.12g}") for bound in (low, high)]
    return [int(bound) if bound == int(bound) else bound for bound in bounds]


def _choose_role(name: str, known: pl.DataFrame) -> tuple[str, str]:
    if known.group_by("machine").agg(pl.col(name).n_unique())[name].max() == 1:
        return "attribute", "one value per machine"
    runs = known.select(pl.struct("machine", name).rle().struct.field("len")).to_series()
    levels, lasting = known[name].n_unique(), float(runs.median() or 0)  # type: ignore[arg-type]  # a number
    if has_word(name, "setting") and levels <= known.height / 10:
        return "setting", "by its name"
    if levels <= FEW_LEVELS and has_word(name, "driven"):
        return "setting", f"by its name and its {levels} levels"
    if levels <= FEW_LEVELS and lasting >= STEP_ROWS and runs.len() > levels:
        return "setting", f"{levels} levels, each kept for {lasting:g} rows in the median"
    return "sensor", "by behaviour"
