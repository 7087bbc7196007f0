"""A request's table as the arrays that scoring takes, machine by machine; one bad machine does not cost the others.

Rows are judged as `validate` judges a delivery, each by the data dictionary of its own plant. A value that cannot be
brought to its type costs its machine the answer, with the reason. A row that is not to be believed, such as a reading
out of its range, is left out with a word to the caller; of readings that are one, the first counts.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from time import time_ns
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl

from upkeep.contract.dictionary import DELIVERY, Column, Dictionary
from upkeep.contract.dictionary import Table as TableName
from upkeep.contract.rules import EXPECTED, ValueRule, explain_misfits, list_rules
from upkeep.contract.units import convert_column, find_units
from upkeep.contract.validation import CLOCK_SLACK
from upkeep.core.names import shorten
from upkeep.core.types import Booleans, Floats, Ints
from upkeep.features.inputs import Events, MachineRecord, Telemetry, Vocabulary, classify_events, event_kinds
from upkeep.model.scoring import Caution
from upkeep.model.storage import Metadata
from upkeep.serving.protocol import Error, Refused, show
from upkeep.serving.table import Table

NAMES_SHOWN = 5
CLOCK_SLACK_MICROSECONDS = CLOCK_SLACK // timedelta(microseconds=1)
KEYS = ("plant", "machine", "time")
ANY = (float(np.finfo(np.float64).min), float(np.finfo(np.float64).max))
"""The range of a column that states none: all that is finite."""

OF_MACHINES = ("model", "installed")
"""What of the table of machines a request may say."""


class Unusable(Exception):  # noqa: N818  # as `Refused`
    """Why a machine is not answered: the row that tells it, its column, what was found there and what was expected."""


class Accepted(NamedTuple):
    """A machine that can be answered: all its rows, its readings in order of time, and what was done to them."""

    machine: str
    rows: Sequence[int]
    time: Ints
    values: Floats
    record: MachineRecord
    cautions: list[Caution]


class Judged(NamedTuple):
    """By row, the first column for which `validate` would refuse it and what was expected; and of unknown columns."""

    misfits: Mapping[int, tuple[str, str]]
    unknown: Sequence[Caution]


class PlantRequest(NamedTuple):
    """What is asked of one plant's model; per machine, `cautions` and, for the prediction log, its rows as JSON."""

    rows: Telemetry
    events: Events
    records: dict[str, MachineRecord]
    cautions: list[list[Caution]]
    inputs: list[str]


class Contract(NamedTuple):
    """What one plant's requests are held against.

    `known` are all columns of the data dictionary, `rules` what costs a machine its answer. `numbers` are telemetry's
    numeric columns and `low` and `high` their ranges, shape (n_numbers,). Rows of one machine within the same
    `near_duplicate_microseconds` are one reading; `codes` are the events that the model tells apart.
    """

    tables: Mapping[TableName, Mapping[str, Column]]
    known: frozenset[str]
    rules: Mapping[TableName, Mapping[str, Sequence[ValueRule]]]
    vocabulary: Vocabulary
    numbers: Mapping[str, Column]
    low: Floats
    high: Floats
    near_duplicate_microseconds: int
    codes: frozenset[tuple[str, str | None]]


def read_contract(metadata: Metadata, dictionary: Dictionary) -> Contract:
    """Return what requests of a model's plant are held against."""
    tables = {table: dictionary.columns(table, metadata.plant) for table in dictionary.tables}
    known = frozenset(name for columns in tables.values() for name in columns)
    vocabulary = metadata.preparation.vocabulary
    attributes = [name for name in vocabulary.attributes if name not in tables["telemetry"]]
    tables["machines"] = {name: tables["machines"][name] for name in (*OF_MACHINES, *attributes)}
    rules = {
        table: {name: list_rules(name, column) for name, column in columns.items()} for table, columns in tables.items()
    }
    numbers = {name: column for name, column in tables["telemetry"].items() if column.type == "number"}
    low, high = np.array([column.range or ANY for column in numbers.values()]).reshape(-1, 2).T
    near = metadata.near_duplicate_seconds * 1_000_000
    for name in numbers:
        rules["telemetry"][name] = []  # a reading out of its range is left out, its machine is answered
    return Contract(tables, known, rules, vocabulary, numbers, low, high, near, frozenset(event_kinds(vocabulary)))


def read_request(table: Table, contracts: Mapping[str, Contract]) -> tuple[dict[str, PlantRequest], list[Error]]:
    """Return what is asked of each plant's model, and which machines cannot be answered.

    `Refused` is raised if a key column is missing or there is no row.
    """
    for name in KEYS:
        if name not in table.columns:
            raise Refused(400, f"there is no column {name!r}", f"the columns {', '.join(KEYS)} and the sensors' own")
    if not table.n_rows:
        raise Refused(400, "there is no row", "the last hours of at least one machine")
    plants, names = (table.read(name, "text").values for name in ("plant", "machine"))
    machines: dict[tuple[str | None, str | None], list[int]] = {}
    for row, key in enumerate(zip(plants, names, strict=True)):
        machines.setdefault(key, []).append(row)
        if len(machines) > table.limits.machines:
            what = f"there are more than {table.limits.machines} machines (UPKEEP_MAX_MACHINES)"
            raise Refused(413, what, "fewer machines at a time", table.point(row, "machine"))
    judged = {plant: _judge_table(table, contracts[plant]) for plant in contracts.keys() & set(plants)}
    accepted: dict[str, list[Accepted]] = {}
    errors: list[Error] = []
    for (plant, machine), rows in machines.items():
        table.check_time()
        try:
            if plant is None or machine is None or plant not in contracts:
                raise _explain_key(plant, rows[0], table, contracts)
            found = _read_machine(machine, rows, table, contracts[plant], judged[plant])
            accepted.setdefault(plant, []).append(found)
        except Unusable as reason:
            row, column, what, expected = reason.args
            whose = (plant and shorten(plant), machine and shorten(machine))
            errors.append(Error(table.point(row, column), what, expected, *whose, row, column))
    return {plant: _combine(found, table, contracts[plant]) for plant, found in accepted.items()}, errors


def _explain_key(plant: str | None, row: int, table: Table, contracts: Mapping[str, Contract]) -> Unusable:
    """Return what is wrong with a row of no known plant or of no machine."""
    expected = {"plant": f"one of {', '.join(contracts)}", "machine": "the machine's name"}
    name = "machine" if plant in contracts else "plant"
    values, failed = table.read(name, "text")
    if row in failed:
        what = f"{name} is {show(table.columns[name][row])}"
    else:
        what = f"the row names no {name}" if values[row] is None else f"there is no model of plant {show(plant)}"
    return Unusable(row, name, what, expected[name])


def _judge_table(table: Table, contract: Contract) -> Judged:
    """Return what is said of a request's columns and rows, before they are taken machine by machine."""
    table.check_time()
    kinds, failed = table.read("kind", "text")
    misfits: dict[int, tuple[str, str]] = {}
    for section, entries in contract.tables.items():
        sent = {name: entry for name, entry in entries.items() if name in table.columns}
        for name, entry in sent.items():
            for row, expected in _check_column(name, entry, contract.rules[section][name], table):
                own = "telemetry" if kinds[row] is None and row not in failed else "events"
                if section in (own, "machines"):
                    misfits.setdefault(row, (name, expected))
    unknown = [name for name in table.columns if name not in contract.known]
    cautions = []
    if unknown:
        message = f"the data dictionary has no column {_list_some(list(map(show, unknown)))}: ignored"
        cautions.append(_caution("unknown_column", unknown[0], message))
    return Judged(misfits, cautions)


def _check_column(name: str, entry: Column, rules: Sequence[ValueRule], table: Table) -> list[tuple[int, str]]:
    """Return the rows whose value is of another type or breaks a rule, and what was expected there."""
    values, failed = table.read(name, entry.type)
    misfits = [(row, EXPECTED[entry.type]) for row in failed]
    wrong = explain_misfits(rules, values)
    if wrong:
        misfits += [(row, wrong[value]) for row, value in enumerate(values) if value in wrong]
    return misfits


def _read_machine(machine: str, rows: Sequence[int], table: Table, contract: Contract, judged: Judged) -> Accepted:
    for row in rows:
        if row in judged.misfits:
            column, expected = judged.misfits[row]
            raise Unusable(row, column, f"{column} is {show(table.columns[column][row])}", expected)
    kinds, times = table.read("kind", "text").values, table.read("time", "time").values
    telemetry = [row for row in rows if kinds[row] is None]
    values = table.numbers(tuple(contract.numbers))[telemetry]
    time = np.array([times[row] for row in telemetry], dtype=np.int64)
    converted: list[Caution] = []
    if _is_outside(values, contract).any():
        converted = _restore_units(values, contract)
    kept, left_out = _choose_rows(time, values, contract)
    if not len(kept):
        what = "; ".join(caution["message"] for caution in left_out) or "there is no row of telemetry"
        raise Unusable(rows[0], None, what, "the machine's readings of the last hours")
    unknown = [*judged.unknown, *_warn_of_codes(rows, table, contract)]
    models, installed = table.read("model", "text").values, table.read("installed", "time").values
    given = {
        name: _last(table.read(name, column.type).values, rows)
        for name, column in contract.tables["machines"].items()
        if name not in OF_MACHINES
    }
    attributes = {name: value for name, value in given.items() if value is not None}
    record = MachineRecord(model=_last(models, rows), installed=_last(installed, rows), attributes=attributes)
    return Accepted(machine, rows, time[kept], values[kept], record, [*unknown, *converted, *left_out])


def _last(values: Sequence[Any], rows: Sequence[int]) -> Any:
    """Return the newest value, which counts as in `validate`; None if there is none."""
    return next((values[row] for row in reversed(rows) if values[row] is not None), None)


def _is_outside(values: Floats, contract: Contract) -> Booleans:
    outside: Booleans = (values < contract.low) | (values > contract.high)
    return outside


def _restore_units(values: Floats, contract: Contract) -> list[Caution]:
    """Convert, in place, columns that came in another unit, as `validate` does with a plant's first delivery."""
    cautions: list[Caution] = []
    for index, (name, entry) in enumerate(contract.numbers.items()):
        if not entry.also:
            continue
        rows = pl.DataFrame({DELIVERY: 0, name: values[:, index]})
        units = find_units(rows, [date.min], name, entry)
        if units:
            values[:, index] = rows.select(convert_column(name, units, entry)).to_series()
            message = f"{name} came in {units[0]} instead of {entry.unit or 'its own unit'}: converted"
            cautions.append(_caution("unit_converted", name, message))
    return cautions


def _choose_rows(time: Ints, values: Floats, contract: Contract) -> tuple[Ints, list[Caution]]:
    """Return the positions of the readings that count, in order of time, and what is said of the others."""
    outside = _is_outside(values, contract)
    bad = outside.any(axis=1)
    latest = time_ns() // 1000 + CLOCK_SLACK_MICROSECONDS
    ahead = ~bad & (time > latest)
    believed = np.flatnonzero(~bad & ~ahead)
    near = contract.near_duplicate_microseconds
    _, first = np.unique(time[believed] // (near or 1), return_index=True)
    cautions = [_warn_of_values(values, outside, contract)] if bad.any() else []
    if n_ahead := int(ahead.sum()):
        message = f"{n_ahead} rows left out: their time is more than a day ahead"
        cautions.append(_caution("future_rows", "time", message))
    if repeated := len(believed) - len(first):
        when = f"within the same {near // 1_000_000} s" if near else "at the same instant"
        message = f"{repeated} rows left out: the machine has one {when} already"
        cautions.append(_caution("duplicate_rows", "time", message))
    return believed[first], cautions


def _warn_of_values(values: Floats, outside: Booleans, contract: Contract) -> Caution:
    row, column = np.argwhere(outside)[0]
    name, entry = list(contract.numbers.items())[column]
    value = float(values[row, column])
    low, high = entry.range or ANY
    unit = f" {entry.unit}" if entry.unit else ""
    fits = [name for name, other in entry.also.items() if low <= value * other.factor + other.offset <= high]
    guess = f"; it would fit in {fits[0]}" if fits else ""
    message = f"{int(outside.any(axis=1).sum())} rows left out: {name} is {value:g}, "
    message += f"outside {low:g} to {high:g}{unit}{guess}"
    return _caution("out_of_range", name, message)


def _warn_of_codes(rows: Sequence[int], table: Table, contract: Contract) -> list[Caution]:
    """Tell of codes that training does not know."""
    kinds, codes = (table.read(name, "text").values for name in ("kind", "code"))
    sent = {(kind, codes[row]) for row in rows if (kind := kinds[row]) in ("error", "maintenance")}
    unknown = sorted(f"{kind} {show(code)}" for kind, code in sent - contract.codes)
    return [_caution("unknown_code", "code", f"training saw no {_list_some(unknown)}: ignored")] if unknown else []


def _list_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"


def _caution(code: str, column: str | None, message: str) -> Caution:
    return {"code": code, "message": message, "column": column}


def _combine(accepted: Sequence[Accepted], table: Table, contract: Contract) -> PlantRequest:
    """Return the machines of one plant as arrays."""
    values = np.concatenate([found.values for found in accepted])
    readable = np.column_stack([values, np.full(len(values), np.nan)])
    places = {name: place for place, name in enumerate(contract.numbers)}
    telemetry = Telemetry(
        machines=[found.machine for found in accepted],
        starts=np.cumsum([0, *(len(found.time) for found in accepted)]),
        time=np.concatenate([found.time for found in accepted]),
        settings=readable[:, [places.get(name, -1) for name in contract.vocabulary.settings]],
        readings=readable[:, [places.get(name, -1) for name in contract.vocabulary.sensors]],
    )
    kinds, codes = (table.read(name, "text").values for name in ("kind", "code"))
    times = table.read("time", "time").values
    happened = [
        (found.machine, times[row], kinds[row], codes[row])
        for found in accepted
        for row in found.rows
        if kinds[row] is not None
    ]
    return PlantRequest(
        rows=telemetry,
        # Once each, as `validate` leaves them: a repeated delivery is not a second error.
        events=classify_events(dict.fromkeys(happened), telemetry.machines, contract.vocabulary),
        records={found.machine: found.record for found in accepted},
        cautions=[found.cautions for found in accepted],
        inputs=[_write_inputs(table, found.rows, contract) for found in accepted],
    )


def _write_inputs(table: Table, rows: Sequence[int], contract: Contract) -> str:
    """Return a machine's rows as JSON, without the columns that nobody knows, which could be many times as large."""
    delivered = {name: values for name, values in table.columns.items() if name in contract.known}
    data = [[values[row] for values in delivered.values()] for row in rows]
    content = {"columns": list(delivered), "data": data}
    try:
        return orjson.dumps(content).decode()
    except orjson.JSONEncodeError:  # it reads values nested deeper than it writes
        content["data"] = [[None if isinstance(value, list | dict) else value for value in row] for row in data]
        return orjson.dumps(content).decode()
