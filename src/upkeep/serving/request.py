"""A request's table as the arrays that scoring takes, machine by machine; one bad machine does not cost the others.

What cannot be read is a fault of its machine, which is then not answered. What can be read but not believed, such as a
reading out of its range, is left out with a word to the caller, as `validate` sets such rows aside.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import orjson

from upkeep.contract.dictionary import Column, Dictionary
from upkeep.core.types import Floats
from upkeep.features.inputs import Events, Record, Telemetry, Vocabulary, classify_events, event_kinds
from upkeep.model.scoring import Caution
from upkeep.serving.columns import Refusal, TypedColumns, show
from upkeep.serving.table import Refused, Table

NAMES_SHOWN = 5
CLOCK_SLACK_US = 86_400_000_000
"""Clocks run ahead, or are set to local time; a row beyond would hide all later ones from the page."""

KEYS = ("plant", "machine", "time")
ANY = (float(np.finfo(np.float64).min), float(np.finfo(np.float64).max))
"""The range of a column that states none: all that is finite."""


class Fault(NamedTuple):
    """Why a machine is not answered, and the row that tells it."""

    plant: str | None
    machine: str | None
    row: int
    column: str | None
    what: str
    expected: str


class PlantRequest(NamedTuple):
    """What is asked of one plant's model.

    Attributes
    ----------
    cautions
        Per machine, what was left out of its rows.
    inputs
        Per machine its rows as sent, in JSON, for the prediction log.
    """

    rows: Telemetry
    events: Events
    records: dict[str, Record]
    cautions: list[list[Caution]]
    inputs: list[str]


class Contract(NamedTuple):
    """What one plant's requests are held against.

    Attributes
    ----------
    numbers
        The numeric columns of telemetry.
    low, high
        Their ranges, shape (n_columns,).
    kinds
        Of events; empty: any.
    codes
        Kinds and codes of events that the model tells apart.
    known
        Every column that the dictionary has in any table.
    """

    vocabulary: Vocabulary
    numbers: dict[str, Column]
    low: Floats
    high: Floats
    kinds: list[str]
    codes: frozenset[tuple[str, str | None]]
    known: frozenset[str]


class Outside(NamedTuple):
    """A value out of its column's range."""

    column: str
    value: float
    entry: Column


class Accepted(NamedTuple):
    """A machine that can be answered: all its rows, and those of telemetry in order of time."""

    machine: str
    rows: Sequence[int]
    telemetry: list[int]
    record: Record
    cautions: list[Caution]


def read_contract(plant: str, vocabulary: Vocabulary, dictionary: Dictionary) -> Contract:
    """Return what requests of a plant are held against."""
    telemetry = dictionary.columns("telemetry", plant)
    numbers = {name: entry for name, entry in telemetry.items() if entry.type == "number"}
    low, high = np.array([entry.range or ANY for entry in numbers.values()]).reshape(-1, 2).T
    kinds = dictionary.columns("events", plant)["kind"].values or []
    known = frozenset(name for table in dictionary.tables for name in dictionary.columns(table, plant))
    return Contract(vocabulary, numbers, low, high, kinds, frozenset(event_kinds(vocabulary)), known)


def read_request(table: Table, contracts: Mapping[str, Contract]) -> tuple[dict[str, PlantRequest], list[Fault]]:
    """Return what is asked of each plant's model, and the machines that cannot be answered.

    Raises
    ------
    Refused
        If a key column is missing or there is no row.
    """
    for name in KEYS:
        if name not in table.columns:
            raise Refused(400, f"there is no column {name!r}", f"the columns {', '.join(KEYS)} and the sensors' own")
    columns = TypedColumns(table)
    if not columns.n_rows:
        raise Refused(400, "there is no row", "the last hours of at least one machine")
    groups: dict[tuple[str | None, str | None], list[int]] = {}
    for row, key in enumerate(zip(columns.plant, columns.machine, strict=True)):
        groups.setdefault(key, []).append(row)
    plants: dict[str, list[Accepted]] = {}
    faults: list[Fault] = []
    named = {plant for plant, _ in groups}
    outside = {plant: _find_outside(columns, contract) for plant, contract in contracts.items() if plant in named}
    for (plant, machine), rows in groups.items():
        if plant is None or machine is None or plant not in contracts:
            refusal = columns.refusals.get(rows[0]) or _doubt_key(plant, machine, contracts)
            faults.append(Fault(plant, machine, rows[0], *refusal))
            continue
        found = _read_machine(plant, machine, rows, columns, outside[plant], contracts[plant])
        if isinstance(found, Fault):
            faults.append(found)
        else:
            plants.setdefault(plant, []).append(found)
    return {plant: _combine(accepted, columns, contracts[plant]) for plant, accepted in plants.items()}, faults


def _doubt_key(plant: str | None, machine: str | None, plants: Iterable[str]) -> Refusal:
    if plant is None:
        return Refusal("plant", "the row names no plant", f"one of {', '.join(plants)}")
    if machine is None:
        return Refusal("machine", "the row names no machine", "the machine's name")
    return Refusal("plant", f"there is no model of plant {show(plant)}", f"one of {', '.join(plants)}")


def _find_outside(columns: TypedColumns, contract: Contract) -> dict[int, Outside]:
    """Return the rows with a value out of the dictionary's range, and the first such value of each."""
    values = np.stack([columns.number(name) for name in contract.numbers], axis=1)
    entries = list(contract.numbers.items())
    outside: dict[int, Outside] = {}
    for row, column in np.argwhere((values < contract.low) | (values > contract.high)).tolist():
        name, entry = entries[column]
        outside.setdefault(row, Outside(name, float(values[row, column]), entry))
    return outside


def _read_machine(
    plant: str,
    machine: str,
    rows: Sequence[int],
    columns: TypedColumns,
    outside: Mapping[int, Outside],
    contract: Contract,
) -> Accepted | Fault:
    record = Record(model=_first(columns.model, rows), installed=columns.installed(rows))
    for row in rows:
        if row in columns.refusals:
            return Fault(plant, machine, row, *columns.refusals[row])
        kind = columns.kind[row]
        if kind is not None and contract.kinds and kind not in contract.kinds:
            return Fault(plant, machine, row, "kind", f"kind is {show(kind)}", f"one of {', '.join(contract.kinds)}")
    telemetry, left_out = _choose_rows(rows, columns, outside)
    if not telemetry:
        what = "; ".join(caution["message"] for caution in left_out) or "there is no row of telemetry"
        return Fault(plant, machine, rows[0], None, what, "the machine's readings of the last hours")
    cautions = [*_doubt_columns(columns.table, contract), *_doubt_events(rows, columns, contract), *left_out]
    return Accepted(machine, rows, telemetry, record, cautions)


def _choose_rows(
    rows: Sequence[int], columns: TypedColumns, outside: Mapping[int, Outside]
) -> tuple[list[int], list[Caution]]:
    """Return a machine's rows of telemetry that can be believed, in order of time, and what is said of the others."""
    chosen: dict[int | None, int] = {}
    bad: list[Outside] = []
    repeated = ahead = 0
    latest = time.time_ns() // 1000 + CLOCK_SLACK_US
    for row in rows:
        if columns.kind[row] is not None:
            continue
        if row in outside:
            bad.append(outside[row])
        elif (columns.time[row] or 0) > latest:
            ahead += 1
        elif chosen.setdefault(columns.time[row], row) != row:
            repeated += 1
    cautions = [_doubt_values(bad)] if bad else []
    if ahead:
        message = f"{ahead} rows left out: their time is more than a day ahead"
        cautions.append({"code": "future_rows", "message": message, "column": "time"})
    if repeated:
        message = f"{repeated} rows left out: the machine has one at the same instant already"
        cautions.append({"code": "duplicate_rows", "message": message, "column": "time"})
    return [row for _, row in sorted(chosen.items())], cautions


def _doubt_values(bad: Sequence[Outside]) -> Caution:
    column, value, entry = bad[0]
    low, high = entry.range or ANY
    unit = f" {entry.unit}" if entry.unit else ""
    fits = [name for name, other in entry.also.items() if low <= value * other.factor + other.offset <= high]
    guess = f"; it would fit in {fits[0]}" if fits else ""
    message = f"{len(bad)} rows left out: {column} is {value:g}, outside {low:g} to {high:g}{unit}{guess}"
    return {"code": "out_of_range", "message": message, "column": column}


def _doubt_columns(table: Table, contract: Contract) -> list[Caution]:
    unknown = [name for name in table.columns if name not in contract.known]
    cautions: list[Caution] = [
        {
            "code": "unknown_column",
            "message": f"the data dictionary has no column {show(name)}: ignored",
            "column": name,
        }
        for name in unknown[:NAMES_SHOWN]
    ]
    if len(unknown) > NAMES_SHOWN:  # each machine's answer repeats them
        message = f"nor has it {len(unknown) - NAMES_SHOWN} more: ignored"
        cautions.append({"code": "unknown_column", "message": message, "column": None})
    return cautions


def _doubt_events(rows: Sequence[int], columns: TypedColumns, contract: Contract) -> list[Caution]:
    sent = {(kind, columns.code[row]) for row in rows if (kind := columns.kind[row]) in ("error", "maintenance")}
    unknown = sorted(f"{kind} {show(code)}" for kind, code in sent - contract.codes)
    if not unknown:
        return []
    more = f" and {len(unknown) - NAMES_SHOWN} more" if len(unknown) > NAMES_SHOWN else ""
    message = f"training saw no {', '.join(unknown[:NAMES_SHOWN])}{more}: ignored"
    return [{"code": "unknown_code", "message": message, "column": "code"}]


def _combine(accepted: Sequence[Accepted], columns: TypedColumns, contract: Contract) -> PlantRequest:
    """Return the machines of one plant as arrays."""
    vocabulary = contract.vocabulary
    order = [row for found in accepted for row in found.telemetry]
    telemetry = Telemetry(
        machines=[found.machine for found in accepted],
        starts=np.cumsum([0, *(len(found.telemetry) for found in accepted)]),
        time=np.array([columns.time[row] for row in order], dtype=np.int64),
        settings=_gather(columns, vocabulary.settings, order),
        readings=_gather(columns, vocabulary.sensors, order),
    )
    happened = [
        (found.machine, columns.time[row] or 0, kind, columns.code[row])
        for found in accepted
        for row in found.rows
        if (kind := columns.kind[row]) is not None
    ]
    return PlantRequest(
        rows=telemetry,
        # Once each, as `validate` leaves them: a repeated delivery is not a second error.
        events=classify_events(dict.fromkeys(happened), telemetry.machines, vocabulary),
        records={found.machine: found.record for found in accepted},
        cautions=[found.cautions for found in accepted],
        inputs=[_write_inputs(columns.table, found.rows) for found in accepted],
    )


def _gather(columns: TypedColumns, names: Sequence[str], order: Sequence[int]) -> Floats:
    return np.array([columns.number(name)[order] for name in names]).reshape(len(names), len(order)).T


def _first(values: Sequence[str | None], rows: Sequence[int]) -> str | None:
    return next((values[row] for row in rows if values[row] is not None), None)


def _write_inputs(table: Table, rows: Sequence[int]) -> str:
    columns = list(table.columns.values())
    data = [[column[row] for column in columns] for row in rows]
    content = {"columns": list(table.columns), "data": data}
    try:
        return orjson.dumps(content).decode()
    except orjson.JSONEncodeError:  # it reads values nested deeper than it writes
        content["data"] = [[None if isinstance(value, list | dict) else value for value in row] for row in data]
        return orjson.dumps(content).decode()
