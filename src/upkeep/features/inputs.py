"""The inputs of features: one plant's tables as arrays, and what was fitted on its training rows."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from upkeep.core.types import Floats, Frozen, Instant, Ints, RowLength, Single
from upkeep.features.conditions import Conditions

FAILURE = ("failure", None)  # a failure counts whatever failed


class Vocabulary(Frozen):
    """The names that features are made of: the same for all plants, so that one fleet-wide model can read them all.

    A plant that lacks a setting or a sensor has nulls there; `widths` are the widths of the settings' ranges. Codes and
    machine models are those seen in training rows; the position of a machine model is its ``model_code``. `inputs` are
    the settings that are features themselves, and `attributes` the machines' attributes that are: None for a number,
    and for a text the known values, whose position is the feature.
    """

    settings: list[str]
    widths: list[Single]
    sensors: list[str]
    error_codes: list[str]
    maintenance_codes: list[str]
    machine_models: list[str]
    inputs: list[str] = Field(default=[])
    attributes: dict[str, list[str] | None] = Field(default={})


class Baseline(Frozen):
    """A machine's level in its first hours on record, when it is taken to be healthy.

    `start` is its first instant on record, in microseconds since 1970, and `levels` the mean scaled reading per
    sensor, None where there was none.
    """

    start: Instant
    levels: list[Single | None]


class MachineRecord(Frozen):
    """A machine's static data; `installed` is in microseconds since 1970."""

    model: str | None = None
    installed: Instant | None = None
    attributes: dict[str, Single | str] = Field(default={})


UNKNOWN = MachineRecord()


class Quantity(Frozen):
    """What people call a column, and its unit."""

    name: str
    unit: str = ""


class Preparation(Frozen):
    """All that features need besides the rows; saved with the model.

    A machine without a baseline gets one from the rows at hand. `records` serve requests that do not describe their
    machines; `quantities`, by table and column, serve texts about features. `rows_every` is that of the data dictionary
    with which the rows were made.
    """

    vocabulary: Vocabulary
    conditions: Conditions
    baselines: dict[str, Baseline]
    records: dict[str, MachineRecord] = Field(default={})
    quantities: dict[str, dict[str, Quantity]] = Field(default={})
    rows_every: RowLength | None = Field(default=None, exclude_if=lambda every: every is None)


class Telemetry(NamedTuple):
    """One plant's readings, grouped by machine, each machine's in strictly increasing order of time.

    `starts` are the first row of each machine, then the number of rows, shape (n_machines + 1,); `time` is in
    microseconds since 1970, shape (n_rows,). `settings` and `readings` are in the vocabulary's order, shapes
    (n_rows, n_settings) and (n_rows, n_sensors), NaN where one is missing.
    """

    machines: Sequence[str]
    starts: Ints
    time: Ints
    settings: Floats
    readings: Floats

    def by_machine(self) -> Iterator[tuple[str, slice]]:
        """Yield each machine's name and its rows."""
        for name, (start, end) in zip(self.machines, pairwise(self.starts.tolist()), strict=True):
            yield name, slice(start, end)


class Events(NamedTuple):
    """What happened to one plant's machines, in any order, shape (n_events,) each.

    `machine` is a position in :attr:`Telemetry.machines`, `kind` one in :func:`event_kinds`.
    """

    machine: Ints
    time: Ints
    kind: Ints


def event_kinds(vocabulary: Vocabulary) -> dict[tuple[str, str | None], int]:
    """Return the position of each kind of event that has a feature, by kind and code."""
    kinds = [("error", code) for code in vocabulary.error_codes]
    kinds += [("maintenance", code) for code in vocabulary.maintenance_codes]
    return {kind: position for position, kind in enumerate([*kinds, FAILURE])}


def classify_events(
    events: Iterable[tuple[str, int, str, str | None]], machines: Sequence[str], vocabulary: Vocabulary
) -> Events:
    """Return events as arrays, without those of other machines and of kinds that have no feature.

    `events` are tuples of machine, time in microseconds, kind and code.
    """
    kinds, positions = event_kinds(vocabulary), {name: position for position, name in enumerate(machines)}
    found = [
        (positions[machine], time, known)
        for machine, time, kind, code in events
        if machine in positions and (known := kinds.get(FAILURE if kind == "failure" else (kind, code))) is not None
    ]
    return Events(*np.array(found, dtype=np.int64).reshape(-1, 3).T)


def read_tables(
    telemetry: pl.DataFrame, events: pl.DataFrame, machines: pl.DataFrame, vocabulary: Vocabulary
) -> tuple[Telemetry, Events, dict[str, MachineRecord]]:
    """Return one plant's validated tables as arrays; telemetry sorted by machine and time."""
    rows = read_telemetry(telemetry, vocabulary)
    happened = events.select("machine", pl.col("time").dt.timestamp("us"), "kind", "code").iter_rows()
    return rows, classify_events(happened, rows.machines, vocabulary), read_records(machines, vocabulary)


def read_telemetry(ordered: pl.DataFrame, vocabulary: Vocabulary) -> Telemetry:
    """Return telemetry, sorted by machine and time, as arrays."""
    runs = ordered["machine"].rle().struct.unnest()
    return Telemetry(
        machines=runs["value"].to_list(),
        starts=np.cumsum([0, *runs["len"]]),
        time=ordered["time"].dt.timestamp("us").to_numpy(),
        settings=read_matrix(ordered, vocabulary.settings),
        readings=read_matrix(ordered, vocabulary.sensors),
    )


def read_records(machines: pl.DataFrame, vocabulary: Vocabulary) -> dict[str, MachineRecord]:
    """Return each machine's static data."""
    installed = pl.col("installed").cast(pl.Datetime("us", "UTC")).dt.timestamp("us")
    attributes = [name for name in vocabulary.attributes if name in machines.columns]
    return {
        row["machine"]: MachineRecord(
            model=row["model"],
            installed=row["installed"],
            attributes={name: row[name] for name in attributes if row[name] is not None},
        )
        for row in machines.select("machine", "model", installed, *attributes).iter_rows(named=True)
    }


def read_matrix(frame: pl.DataFrame, columns: Sequence[str]) -> Floats:
    """Return columns as float64, shape (n_rows, n_columns), NaN for nulls and for a column that is missing or text."""
    matrix = np.full((frame.height, len(columns)), np.nan)
    for index, name in enumerate(columns):
        if name in frame.columns and frame.schema[name].is_numeric():
            matrix[:, index] = frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return matrix
