"""Which layout is which of our three tables, and how it is read as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import polars as pl

from upkeep.adopt.columns import KEYS, Part, find_roles, read_numbers
from upkeep.adopt.events import find_kinds, find_labels
from upkeep.adopt.sniffing import Layout
from upkeep.adopt.times import in_zone, quartiles
from upkeep.adopt.words import has_word, kind_of, names_one
from upkeep.contract.dictionary import DTYPES, Table
from upkeep.core.errors import UpkeepError

PURPOSE = "upkeep learns from machines' readings over time which of them will fail soon"


@dataclass(frozen=True)
class Tables:
    """The parts of each table, and what could not be told or used."""

    telemetry: list[Part]
    events: list[Part]
    machines: list[Part]
    notes: list[str]


def sort_tables(layouts: Sequence[Layout]) -> Tables:
    """Tell which layout is which table.

    Raises UpkeepError if there are neither readings with times nor failures of machines.
    """
    looked = [find_roles(layout) for layout in layouts]
    largest = max((part.layout.rows.height for part in looked if part.clock and part.measured), default=0)
    sorted_out = [(part, _which(part, largest)) for part in looked]
    tables = Tables([], [], [], [])
    telemetry = [part for part, table in sorted_out if table == "telemetry"]
    for part in sorted(telemetry, key=lambda part: -part.layout.rows.height * len(part.measured)):
        read = _as_table("telemetry", part, looked, None)
        if any(_shares_instants(read.rows, other.rows) for other in tables.telemetry):
            name, other = part.layout.name, tables.telemetry[0].layout.name
            tables.notes.append(f"{name} is left out: rows of its times are in {other} already; join the two")
        else:
            tables.telemetry.append(read)
    zone = tables.telemetry[0].options.get("time_zone") if tables.telemetry else None
    for part, table in sorted_out:
        if table == "events":
            tables.events.append(_as_events(_as_table("events", part, looked, zone)))
        elif table == "machines":
            tables.machines.append(_as_table("machines", part, looked, zone))
        elif table is None:
            tables.notes.append(f"{part.layout.name} is left out: it has neither a time per row nor a row per machine")
    if not tables.telemetry and not any(part.machine and "failure" in part.rows["kind"] for part in tables.events):
        raise _refuse(looked)
    return tables


def _which(part: Part, largest: int) -> Table | None:
    """Return which table a layout is, `largest` being the rows of the largest that has times and numbers."""
    rows, clock, name = part.layout.rows, part.clock, PurePath(part.layout.paths[0]).name
    static = clock is None or has_word(clock.column, "installed")
    if part.machine and static and rows[part.machine].n_unique() >= 0.95 * rows.height:
        return "machines"
    if clock is None:
        return None
    if part.pivot or (part.measured and find_labels(rows.select(part.text)) and _is_even(part)):
        return "telemetry"
    told = kind_of(name) is not None or has_word(name, "log")
    small = rows.height <= 0.2 * largest and (told or len(part.layout.paths) == 1)
    speaks = len(part.measured) <= 2 and any(_speaks(rows[column]) for column in part.text)
    if not part.measured or small or speaks or (told and not _is_even(part)):
        return "events" if part.text or part.measured else None
    return "telemetry"


def _speaks(column: pl.Series) -> bool:
    return any(kind_of(str(value)) for value in column.drop_nulls().unique().sort().head(50))


def _is_even(part: Part) -> bool:
    """Tell whether the time from row to row is much the same, as that of readings is and that of events is not."""
    steps = quartiles(_read_rows(part, {}).select(KEYS))
    return steps is not None and steps[2] <= 2 * steps[0]


def _as_table(table: Table, part: Part, looked: Sequence[Part], zone: str | None) -> Part:
    """Return one layout as one of our tables, its times and numbers read.

    A plant or machine that it does not tell is the only one that all `looked` at tell of; local times are of `zone`.
    """
    if part.clock and part.clock.is_local and zone and "time_zone" not in part.clock.options:
        part = replace(part, clock=in_zone(part.clock, zone, ", as telemetry is"))
    options, columns, reasons = dict[str, Any](), dict[str, str](), dict[str, str]()
    for ours, theirs in (("plant", part.plant), ("machine", part.machine)):
        if theirs is None:
            named = [
                other.layout.rows[told].drop_nulls().unique() for other in looked if (told := getattr(other, ours))
            ]
            known = {value for values in named for value in values.cast(pl.String).str.strip_chars()}
            options[ours] = known.pop() if len(known) == 1 else f"{ours}-1"
            reasons[ours] = f"no column tells the {ours}, so all rows are of one; give it its name"
        else:
            columns |= {} if theirs.startswith("{") else {ours: theirs}
            reasons[ours] = part.reasons[theirs]
    rows = _read_rows(part, options)
    if part.clock:
        time = "installed" if table == "machines" else "time"
        columns[time], reasons[time] = part.clock.column, part.clock.reason
        options |= part.clock.options
    if part.pivot and table == "telemetry":
        name, value = part.pivot
        options["pivot"] = {"name": name, "value": value}
        reasons["pivot"] = f"each row holds one value, of what {name} names"
        rows = rows.pivot(on=name, index=KEYS, values=value, aggregate_function="first")
    model = next((name for name in part.text if names_one(name, "model")), None)
    if model and table == "machines":
        columns["model"], reasons["model"] = model, "by its name"
        rows = rows.drop(model)
    return replace(part, columns=columns, options=options, reasons=reasons, rows=rows)


def _read_rows(part: Part, constants: Mapping[str, str]) -> pl.DataFrame:
    """Return ``plant``, ``machine`` and ``time`` under our names, and all else under its own, numbers as numbers."""
    rows, decimal = part.layout.rows, part.layout.reading.get("decimal", ".")
    numbers = [read_numbers(rows[name], decimal) for name in part.measured]
    found = {
        ours: pl.col(theirs).cast(pl.String).str.strip_chars() if theirs else pl.lit(constants.get(ours, ours))
        for ours, theirs in (("plant", part.plant), ("machine", part.machine))
    }
    times = part.clock.times if part.clock else pl.lit(None, DTYPES["time"])
    others = [name for name in (*part.measured, *part.text) if name not in KEYS]
    return rows.with_columns(numbers).select(*others, **found, time=times)


def _as_events(part: Part) -> Part:
    happened = find_kinds(PurePath(part.layout.paths[0]).name, part.rows, part.kept)
    return replace(
        part,
        columns=part.columns | happened.columns,
        options=part.options | happened.options,
        reasons=part.reasons | happened.reasons,
        rows=part.rows.select(*KEYS, kind=happened.kinds),
    )


def _shares_instants(rows: pl.DataFrame, others: pl.DataFrame) -> bool:
    return rows.join(others, on=KEYS, how="semi").height > 0.05 * rows.height


def _refuse(looked: Sequence[Part]) -> UpkeepError:
    timed = [part.layout.name for part in looked if part.clock]
    if not timed:
        layout = max((part.layout for part in looked), key=lambda layout: layout.rows.height)
        return UpkeepError(
            f"no column of {layout.name} holds a date and time: {PURPOSE}, so it needs times",
            expected="a time in each row, and sensors' values at that time",
            remedy="deliver the readings with their times; rows that are single cases are for a plain classifier",
        )
    return UpkeepError(
        f"nothing in {', '.join(timed)} looks like telemetry or like machines' failures: {PURPOSE}",
        expected="a table with a machine, a time and sensors' values; or at least one of failures, by machine and time",
        remedy="add the readings to the folder",
    )
