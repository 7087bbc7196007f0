"""Turns a request's table into the arrays that scoring takes; a bad machine does not affect the others.

Rows are judged as `validate` judges a delivery, by their plant's data dictionary. A value of the wrong type makes its
machine unanswerable. A reading that is out of range or in the future is left out with a warning; of duplicates the
first counts.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import chain
from time import time_ns
from typing import Any

import numpy as np
import orjson
import polars as pl

from upkeep.contract.casting import CLOCK_RESET
from upkeep.contract.dictionary import Dictionary
from upkeep.contract.reduction import cut_cells, reduce_numbers
from upkeep.contract.rules import CLOCK_SLACK, EXPECTED, explain_misfits, list_rules
from upkeep.contract.units import find_unit
from upkeep.core.names import KEYS, shorten
from upkeep.core.types import Booleans, Floats, Ints
from upkeep.features.inputs import Events, MachineRecord, Telemetry, classify_events, event_kinds
from upkeep.model.scoring import Caution
from upkeep.model.storage import Metadata
from upkeep.scoring.prediction_log import Happening
from upkeep.serving.protocol import Error, Refused, cite
from upkeep.serving.table import MOST_MACHINES, RequestTable

NAMES_SHOWN = 5
CLOCK_SLACK_MICROSECONDS = CLOCK_SLACK // timedelta(microseconds=1)
CLOCK_RESET_MICROSECONDS = int(CLOCK_RESET.timestamp()) * 1_000_000
ANY = (float(np.finfo(np.float64).min), float(np.finfo(np.float64).max))
"""The range of a column that states none: all that is finite."""

OF_MACHINES = ("model", "installed")
"""Columns of the machines table that a request may have, beside attributes that are features."""


class Unusable(Exception):  # noqa: N818  # as `Refused`
    """Why a machine is not answered: the row, its column and what is expected there; or `what`, without a column."""

    def __init__(self, row: int, column: str | None, expected: str, what: str = "") -> None:
        self.row, self.column, self.expected, self.what = row, column, expected, what


class Contract:
    """The data dictionary's and the model's rules for one plant's requests.

    `statistics` are the columns that only reduced rows have. An UpkeepError is raised if the model was trained on
    rows of another length than the dictionary says.
    """

    def __init__(self, metadata: Metadata, dictionary: Dictionary) -> None:
        dictionary.require_rows(metadata.preparation.rows_every, metadata.plant)
        self.vocabulary = metadata.preparation.vocabulary
        self.codes = frozenset(event_kinds(self.vocabulary))
        self.tables = {table: dictionary.row_columns(table, metadata.plant) for table in dictionary.tables}
        self.statistics = self.tables["telemetry"].keys() - dictionary.columns("telemetry", metadata.plant).keys()
        self.known = frozenset(name for columns in self.tables.values() for name in columns)
        telemetry, machines = self.tables["telemetry"], self.tables["machines"]
        attributes = [name for name in self.vocabulary.attributes if name in machines and name not in telemetry]
        self.tables["machines"] = {name: machines[name] for name in (*OF_MACHINES, *attributes)}
        self.numbers = {name: column for name, column in telemetry.items() if column.type == "number"}
        self._low, self._high = np.array([column.range or ANY for column in self.numbers.values()]).reshape(-1, 2).T
        self.row_length = dictionary.row_length
        self._near_seconds = 0 if self.row_length else metadata.near_duplicate_seconds
        self.rules = {
            (table, name): list_rules(name, column)
            for table, columns in self.tables.items()
            for name, column in columns.items()
        }
        self.rules |= {("telemetry", name): [] for name in self.numbers}  # out of range, a number costs its row only

    def choose_readings(self, time: Ints, values: Floats) -> tuple[Ints, Floats, list[Caution]]:
        """Return one machine's valid readings, in order of time, and warnings about the others.

        `time` is in microseconds, shape (n_rows,); `values` are the columns of `numbers`, shape (n_rows, n_numbers).
        """
        cautions = self._restore_units(values) if self._is_outside(values).any() else []
        outside = self._is_outside(values)
        bad = outside.any(axis=1)
        believed = np.flatnonzero(~bad)
        _, first = np.unique(time[believed] // (self._near_seconds * 1_000_000 or 1), return_index=True)
        if bad.any():
            cautions.append(self._warn_of_values(values, outside))
        if repeated := len(believed) - len(first):
            when = f"within the same {self._near_seconds} s" if self._near_seconds else "at the same instant"
            cautions.append(_leave_out("duplicate_rows", repeated, "time", f"the machine has one {when} already"))
        kept = believed[first]
        return time[kept], values[kept], cautions

    def reduce(self, time: Ints, values: Floats) -> tuple[Ints, Floats]:
        """Reduce one machine's readings, in order of time, to rows as `validate` does."""
        cells = cut_cells(time, self.row_length)
        readings = {name: of for name, of in zip(self.numbers, values.T, strict=True) if name not in self.statistics}
        reduced = reduce_numbers(readings, self.tables["telemetry"], cells)
        return cells.ends, np.array([reduced[name] for name in self.numbers]).reshape(-1, len(cells.ends)).T

    def _is_outside(self, values: Floats) -> Booleans:
        outside: Booleans = (values < self._low) | (values > self._high)
        return outside

    def _restore_units(self, values: Floats) -> list[Caution]:
        """Convert columns in another unit, in place, as `validate` does with a plant's first delivery."""
        cautions = []
        for index, (name, column) in enumerate(self.numbers.items()):
            unit = find_unit(pl.Series(values[:, index]), column, [])[0] if column.also else None
            if unit:
                values[:, index] = column.also[unit].convert(values[:, index])
                message = f"{name} came in {unit} instead of {column.unit or 'its own unit'}: converted"
                cautions.append(Caution(code="unit_converted", message=message, column=name))
        return cautions

    def _warn_of_values(self, values: Floats, outside: Booleans) -> Caution:
        row, place = np.argwhere(outside)[0]
        name, column = list(self.numbers.items())[place]
        value, (low, high) = float(values[row, place]), column.range or ANY
        unit = f" {column.unit}" if column.unit else ""
        fits = [name for name, other in column.also.items() if low <= other.convert(value) <= high]
        why = f"{name} is {value:g}, outside {low:g} to {high:g}{unit}{f'; it would fit in {fits[0]}' if fits else ''}"
        return _leave_out("out_of_range", int(outside.any(axis=1).sum()), name, why)


def read_request(
    table: RequestTable, contracts: Mapping[str, Contract]
) -> "tuple[dict[str, PlantRequest], list[Error]]":
    """Return a request for each plant's model, and an error for each machine that cannot be answered.

    `Refused` is raised if a key column is missing or there is no row.
    """
    machines = _group_rows(table)
    plants: dict[str, PlantRequest] = {}
    errors: list[Error] = []
    for (plant, machine), rows in machines.items():
        table.check_time()
        try:
            if plant not in contracts:
                raise Unusable(rows[0], "plant", f"one of {', '.join(contracts)}")
            if machine is None:
                raise Unusable(rows[0], "machine", "the machine's name")
            if plant not in plants:
                plants[plant] = PlantRequest(table, contracts[plant])
            plants[plant].take(machine, rows)
        except Unusable as reason:
            row, column = reason.row, reason.column
            what = reason.what if column is None else f"{column} is {cite(table.columns[column][row])}"
            whose = (plant and shorten(plant), machine and shorten(machine))
            errors.append(Error(table.point(row, column), what, reason.expected, *whose, row, column))
    return {plant: asked for plant, asked in plants.items() if asked.records}, errors


def _group_rows(table: RequestTable) -> dict[tuple[Any, Any], list[int]]:
    """Return row numbers by plant and machine, either of which may be None."""
    for name in KEYS:
        if name not in table.columns:
            raise Refused(400, f"there is no column {name!r}", f"the columns {', '.join(KEYS)} and the sensors' own")
    if not table.n_rows:
        raise Refused(400, "there is no row", "the last hours of at least one machine")
    names = (table.read(name, "text").values for name in ("plant", "machine"))
    machines: dict[tuple[Any, Any], list[int]] = {}
    for row, key in enumerate(zip(*names, strict=True)):
        machines.setdefault(key, []).append(row)
        if len(machines) > MOST_MACHINES:
            what = f"there are more than {MOST_MACHINES} machines"
            raise Refused(413, what, "fewer at a time", table.point(row, "machine"))
    return machines


class PlantRequest:
    """A request to one plant's model: `records`, `rows` and `events` of its machines; `happened` are all its events.

    Each machine has `cautions` for the caller and `inputs`, its rows as JSON, for the prediction log.
    """

    def __init__(self, table: RequestTable, contract: Contract) -> None:
        self.records: dict[str, MachineRecord] = {}
        self.cautions: list[list[Caution]] = []
        self.inputs: list[str] = []
        self._table, self._contract = table, contract
        self._kinds, self._codes = (table.read(name, "text").values for name in ("kind", "code"))
        self._times = table.read("time", "time").values
        self._misfits = self._find_misfits()
        unknown = [name for name in table.columns if name not in contract.known]
        what = "the data dictionary has no column"
        self._unknown = _ignore("unknown_column", what, list(map(cite, unknown)), next(iter(unknown), ""))
        self._readings: list[tuple[Ints, Floats]] = []
        self.happened: dict[Happening, None] = {}

    def take(self, machine: str, rows: Sequence[int]) -> None:
        """Add one machine; `Unusable` is raised if it cannot be answered."""
        for row in rows:
            if row in self._misfits:
                raise Unusable(row, *self._misfits[row])
        latest = time_ns() // 1000 + CLOCK_SLACK_MICROSECONDS
        believed = [row for row in rows if CLOCK_RESET_MICROSECONDS <= self._times[row] <= latest]
        telemetry = [row for row in believed if self._kinds[row] is None]
        time = np.array([self._times[row] for row in telemetry], dtype=np.int64)
        values = self._table.numbers(tuple(self._contract.numbers))[telemetry]
        time, values, cautions = self._contract.choose_readings(time, values)
        if ahead := sum(self._times[row] > latest for row in rows):
            cautions.append(_leave_out("future_rows", ahead, "time", "their time is more than a day ahead"))
        if reset := len(rows) - len(believed) - ahead:
            cautions.append(_leave_out("past_rows", reset, "time", f"their time is before {CLOCK_RESET.year}"))
        if not len(time):
            what = "; ".join(caution["message"] for caution in cautions) or "there is no row of telemetry"
            raise Unusable(rows[0], None, "the machine's readings of the last hours", what)
        is_reduced = self._contract.row_length and not self._contract.statistics & self._table.columns.keys()
        if is_reduced:
            time, values = self._contract.reduce(time, values)
        happened = [
            (machine, self._times[row], kind, self._codes[row])
            for row in believed
            if (kind := self._kinds[row]) is not None
        ]
        self.records[machine] = self._read_record(rows)
        self._readings.append((time, values))
        self.happened.update(dict.fromkeys(happened))  # once each, as `validate` leaves them
        sent = {(kind, code) for _, _, kind, code in happened if kind in ("error", "maintenance")}
        unseen = sorted(f"{kind} {cite(code)}" for kind, code in sent - self._contract.codes)
        ignored = _ignore("unknown_code", "training saw no", unseen, "code")
        self.cautions.append([*self._unknown, *ignored, *cautions])
        self.inputs.append(self._write_inputs(rows, (time, values) if is_reduced else None))

    @property
    def rows(self) -> Telemetry:
        """The added machines' readings."""
        times, values = (np.concatenate(arrays) for arrays in zip(*self._readings, strict=True))
        readable = np.column_stack([values, np.full(len(values), np.nan)])
        places = {name: place for place, name in enumerate(self._contract.numbers)}
        vocabulary = self._contract.vocabulary
        return Telemetry(
            machines=list(self.records),
            starts=np.cumsum([0, *(len(time) for time, _ in self._readings)]),
            time=times,
            settings=readable[:, [places.get(name, -1) for name in vocabulary.settings]],
            readings=readable[:, [places.get(name, -1) for name in vocabulary.sensors]],
        )

    @property
    def events(self) -> Events:
        """The added machines' events, without duplicates."""
        return classify_events(self.happened, list(self.records), self._contract.vocabulary)

    def _find_misfits(self) -> dict[int, tuple[str, str]]:
        """Return by row the first column that `validate` would reject, and what it expects there."""
        misfits: dict[int, tuple[str, str]] = {}
        unread = self._table.read("kind", "text").failed
        for (section, name), rules in self._contract.rules.items():
            if name not in self._table.columns:
                continue
            wanted = self._contract.tables[section][name].type
            values, failed = self._table.read(name, wanted)
            found = [(row, EXPECTED[wanted]) for row in failed]
            if wrong := rules and explain_misfits(rules, values):
                found += [(row, wrong[value]) for row, value in enumerate(values) if value in wrong]
            for row, expected in found:
                is_reading = self._kinds[row] is None and row not in unread
                if section in ("machines", "telemetry" if is_reading else "events"):
                    misfits.setdefault(row, (name, expected))
        return misfits

    def _read_record(self, rows: Sequence[int]) -> MachineRecord:
        """Return the machine's record; the newest value counts, as in `validate`."""
        given = {}
        for name, column in self._contract.tables["machines"].items():
            values = self._table.read(name, column.type).values
            given[name] = next((values[row] for row in reversed(rows) if values[row] is not None), None)
        model, installed = (given.pop(name) for name in OF_MACHINES)
        attributes = {name: value for name, value in given.items() if value is not None}
        return MachineRecord(model=model, installed=installed, attributes=attributes)

    def _write_inputs(self, rows: Sequence[int], reduced: tuple[Ints, Floats] | None) -> str:
        """Return rows as JSON, readings as reduced, without unknown columns, which could be many times as large."""
        known = {name: values for name, values in self._table.columns.items() if name in self._contract.known}
        # Lists and objects are never read, and may be nested deeper than orjson writes.
        said = [{name: of[row] for name, of in known.items() if not isinstance(of[row], list | dict)} for row in rows]
        if reduced:
            events = [one for row, one in zip(rows, said, strict=True) if self._kinds[row] is not None]
            readings = (one for row, one in zip(rows, said, strict=True) if self._kinds[row] is None)
            newest = {name: value for one in readings for name, value in one.items() if value is not None}
            times = np.datetime_as_string(reduced[0].view("datetime64[us]"), unit="s", timezone="UTC").tolist()
            said = events + [
                newest | {"time": time} | dict(zip(self._contract.numbers, values, strict=True))
                for time, values in zip(times, reduced[1].tolist(), strict=True)
            ]
        columns = list(dict.fromkeys(chain.from_iterable(said)))
        content = {"columns": columns, "data": [[one.get(name) for name in columns] for one in said]}
        return orjson.dumps(content).decode()


def _leave_out(code: str, count: int, column: str, why: str) -> Caution:
    return Caution(code=code, message=f"{count} rows left out: {why}", column=column)


def _ignore(code: str, what: str, names: Sequence[str], column: str) -> list[Caution]:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    message = f"{what} {', '.join(names[:NAMES_SHOWN])}{more}: ignored"
    return [Caution(code=code, message=message, column=column)] if names else []
