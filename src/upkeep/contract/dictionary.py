"""The data dictionary: what each column means, and so what a delivery must hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import polars as pl
from pydantic import Field, model_validator

from upkeep.core.errors import UpkeepError
from upkeep.core.names import KEYS, Name, shorten
from upkeep.core.objects import read_object
from upkeep.core.types import Frozen, RowLength, measure_rows

Table = Literal["telemetry", "events", "machines"]
TABLES: tuple[Table, ...] = get_args(Table)
Role = Literal["key", "setting", "sensor", "attribute", "split"]

DTYPES: dict[str, pl.DataType] = {
    "text": pl.String(),
    "number": pl.Float64(),
    "time": pl.Datetime("us", "UTC"),
}

NEEDED = {
    "telemetry": {"plant": "text", "machine": "text", "time": "time"},
    "events": {"plant": "text", "machine": "text", "time": "time", "kind": "text", "code": "text"},
    "machines": {"plant": "text", "machine": "text", "model": "text", "installed": "time"},
}
"""The columns that every table must have, by type: its keys, and what features are made of."""

FINDING, ALARM_AT = "finding", "alarm_at"
OPTIONAL = {"events": {FINDING: "text", ALARM_AT: "time"}}
"""Columns that a table may have: what a visit found, and when the alarm episode that it answers began."""
EVENTS = pl.Schema({name: DTYPES[kind] for name, kind in (NEEDED["events"] | OPTIONAL["events"]).items()})
DEFECT, NOTHING = FINDINGS = ("defect", "nothing")  # what a visit can have found; null if nobody reported it
VISITS = pl.Schema(
    {
        "id": pl.String(),
        "plant": pl.String(),
        "machine": pl.String(),
        "visited_at": DTYPES["time"],
        ALARM_AT: DTYPES["time"],
        FINDING: pl.String(),
        "said_at": DTYPES["time"],
        "said_by": pl.String(),
    }
)
"""Visits as planners report them on the service's page. Plant, machine and `visited_at` identify a visit, whose newest
report counts. `id` is that of the request; `said_by` names its token, null where the service asks for none."""

LONGEST_NAME = 60  # characters: a longer meaning does not serve as a name within a sentence

STATISTICS = {"std": "spread of", "min": "lowest", "max": "highest", "last": "last", "count": "readings of"}
"""What a row of reduced readings holds of each sensor besides its mean, in words."""
SENSED = ("std", "count")  # the statistics that are sensors themselves, and so become features

RESERVED = "@"  # columns that start with this are upkeep's own, while it works
ROW, DELIVERY, BATCH, REASON, COLUMN = "@row", "@delivery", "@batch", "@reason", "@column"
"""A row's number in its delivery, the delivery's number, the batch, and reason and column of a fault."""
BROKEN_LINE, DECIMAL = "@broken_line", "@decimal"
"""What a source adds to its rows: a line that holds no row, as it stands, and the decimal sign of numbers in text."""


class Unit(Frozen):
    """Another unit that a column is sometimes delivered in: ``value * factor + offset`` is in its own unit."""

    factor: float
    offset: float = 0.0

    def convert(self, values: Any) -> Any:
        """Return values of this unit in the column's own."""
        return values * self.factor + self.offset


class Column(Frozen):
    """One column of a table.

    ``setting`` columns hold the conditions under which a machine ran, ``sensor`` columns how it responded, and
    ``attribute`` columns static facts about it; a ``split`` column pins machines to the test set. `input` says whether
    the value itself is a feature; by default attributes of machines are, and settings are not.
    """

    meaning: str
    label: Name | None = Field(default=None, description="what planners call it, in a word or two")
    type: Literal["text", "number", "time"] = "number"
    role: Role
    required: bool = True
    unit: Name | None = None
    range: Annotated[list[float] | None, Field(min_length=2, max_length=2)] = None
    values: list[Name] | None = None
    also: dict[Name, Unit] = Field(default={})
    input: bool | None = None

    @model_validator(mode="after")
    def _check_sense(self) -> Self:
        faults = {
            "range and also are for numbers": self.type != "number" and bool(self.range or self.also),
            "values are for text": self.type != "text" and self.values is not None,
            "a range is [lowest, highest]": self.range is not None and not self.range[0] < self.range[1],
            "a key is always required": self.role == "key" and not self.required,
            "settings and sensors are numbers": self.role in ("setting", "sensor") and self.type != "number",
            "a setting needs a range, by which operating conditions differ": self.role == "setting" and not self.range,
            "input is for settings and attributes": self.input is not None
            and self.role not in ("setting", "attribute"),
            "a factor of 0 would lose the value": any(unit.factor == 0 for unit in self.also.values()),
        }
        if broken := [rule for rule, holds in faults.items() if holds]:
            raise ValueError("; ".join(broken))
        return self

    @property
    def dtype(self) -> pl.DataType:
        """The column's Polars type."""
        return DTYPES[self.type]


class Dictionary(Frozen):
    """All tables, and where plants differ from them; readings faster than `rows_every` are reduced to such rows."""

    rows_every: RowLength | None = None
    tables: dict[Table, dict[Name, Column]]
    plants: dict[Name, dict[Table, dict[Name, Column]]] = Field(default={})

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        types: dict[str, str] = {}
        for plant in (None, *self.plants):
            where = f" of plant {plant}" if plant else ""
            for table in NEEDED:
                _check_columns(table, self.columns(table, plant), where)
            for name, column in self.attributes(plant).items():
                if types.setdefault(name, column.type) != column.type:
                    raise ValueError(f"the attribute {name} of machines is {types[name]}, but {column.type}{where}")
            if doubled := self.columns("telemetry", plant).keys() & self._statistics(plant):
                raise ValueError(f"rows_every makes columns{where} that the table telemetry has: {', '.join(doubled)}")
        return self

    @property
    def row_length(self) -> int:
        """How long a row of reduced readings is, in microseconds; 0 if rows are as they were delivered."""
        return measure_rows(self.rows_every)

    def columns(self, table: str, plant: str | None = None) -> dict[str, Column]:
        """Return the columns of one table, with those of a plant in place of the general ones."""
        own = self.plants.get(plant, {}) if plant else {}
        return {**self.tables.get(table, {}), **own.get(table, {})}  # type: ignore[call-overload]  # a plain str is a fine key to look up

    def require_rows(self, trained_every: str | None, plant: str) -> None:
        """Raise an UpkeepError if readings are not reduced as those that the plant's model was trained on."""
        if self.rows_every != trained_every:
            raise UpkeepError(
                f"the data dictionary says rows_every: {self.rows_every or 'nothing'}",
                expected=f"{trained_every or 'nothing'}, as when the model was trained",
                remedy="restore the dictionary, or train again: `dvc repro`",
                plant=plant,
            )

    def row_columns(self, table: str, plant: str | None = None) -> dict[str, Column]:
        """Return the columns of one table's rows: those delivered, then the statistics of reduced readings."""
        return self.columns(table, plant) | (self._statistics(plant) if table == "telemetry" else {})

    def _statistics(self, plant: str | None) -> dict[str, Column]:
        if self.rows_every is None:
            return {}
        columns = self.columns("telemetry", plant)
        called = call_columns(columns)
        found = {}
        for sensor in (name for name, column in columns.items() if column.role == "sensor"):
            for statistic, word in STATISTICS.items():
                meaning = shorten(f"{word} {called[sensor]} within {self.rows_every}")
                role: Role = "sensor" if statistic in SENSED else "attribute"
                unit = None if statistic == "count" else columns[sensor].unit
                column = Column(meaning=meaning, label=meaning, role=role, required=False, unit=unit)
                found[name_statistic(sensor, statistic)] = column
        return found

    def all_columns(self, table: str) -> dict[str, Column]:
        """Return the columns that one table has in any plant."""
        return {
            name: column for plant in (None, *self.plants) for name, column in self.row_columns(table, plant).items()
        }

    def attributes(self, plant: str | None = None) -> dict[str, Column]:
        """Return the columns of the machines table that are features besides the model and the age."""
        columns = self.columns("machines", plant)
        own = {name: column for name, column in columns.items() if column.role == "attribute" and column.type != "time"}
        return {name: column for name, column in own.items() if name != "model" and column.input is not False}

    def names(self, table: str, role: Role, plant: str | None = None) -> list[str]:
        """Return the names of one table's columns that have this role, in the dictionary's order."""
        return [name for name, column in self.row_columns(table, plant).items() if column.role == role]

    def readings(self, plant: str | None = None) -> list[str]:
        """Return the names of telemetry's settings, then of its sensors."""
        return [*self.names("telemetry", "setting", plant), *self.names("telemetry", "sensor", plant)]


def _check_columns(table: str, columns: Mapping[str, Column], where: str) -> None:
    """Raise a ValueError if a table lacks a column, or one has the wrong type, role, values or name."""
    types = {name: column.type for name, column in columns.items()}
    expected = NEEDED[table] | {name: kind for name, kind in OPTIONAL.get(table, {}).items() if name in columns}
    lacking = [f"{name} ({kind})" for name, kind in expected.items() if types.get(name) != kind]
    keys = (name for name in KEYS if name in NEEDED[table])
    if lacking := lacking or [f"role: key for {name}" for name in keys if columns[name].role != "key"]:
        raise ValueError(f"the table {table}{where} needs {', '.join(lacking)}")
    if table == "events" and FINDING in columns and {*(columns[FINDING].values or ())} != {*FINDINGS}:
        raise ValueError(f"{FINDING} of the table events{where} needs values: [{', '.join(FINDINGS)}]")
    # A row of a request holds columns of all tables, so that a name of one table is taken in the others.
    others = {name for needed in NEEDED.values() for name in needed} - set(NEEDED[table])
    if taken := [name for name in columns if name in others or is_reserved(name)]:
        raise ValueError(
            f"the table {table}{where} uses reserved names: {', '.join(taken)}; give such columns others "
            f"here and in fetch.options.{table}.columns, as in my_name: '{taken[0]}', or in the query"
        )


def name_statistic(sensor: str, statistic: str) -> str:
    """Return the name of the column that holds a statistic of a sensor's reduced readings."""
    return f"{sensor}.{statistic}"


def is_reserved(name: str) -> bool:
    """Tell whether a name is one of upkeep's temporary columns, or a pattern to Polars."""
    return name == "*" or name.startswith(RESERVED) or (name.startswith("^") and name.endswith("$"))


def names_in_words(columns: Mapping[str, Column]) -> dict[str, str]:
    """Return each column's name in words, without its unit: ``vibration_mm_s`` is ``vibration``."""
    units = {name: (column.unit or "").replace("%", "pct").replace("°", "") for name, column in columns.items()}
    endings = {name: "_" + unit.lower().replace("/", "_") for name, unit in units.items()}
    return {name: name.removesuffix(ending).replace("_", " ") for name, ending in endings.items()}


def call_columns(columns: Mapping[str, Column]) -> dict[str, str]:
    """Return what people call each column: its label, or its meaning if that is short, or its own name in words."""
    names = names_in_words(columns)
    for name, column in columns.items():
        meaning = " ".join(column.meaning.split())
        if column.label:
            names[name] = column.label
        elif 0 < len(meaning) <= LONGEST_NAME:
            names[name] = meaning if meaning[:2].isupper() else meaning[0].lower() + meaning[1:]
    return names


def load_dictionary(path: Path) -> Dictionary:
    """Read a data dictionary; raises UpkeepError if the file is missing or does not hold a valid one."""
    remedy = "correct the file as docs/guide.md describes it, or validate.dictionary in params.yaml"
    return read_object(Dictionary, path, what="the data dictionary", remedy=remedy)
