"""Which layout is which of our three tables, and how it is read as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import polars as pl

from upkeep.adopt.columns import Roles, find_roles
from upkeep.adopt.events import find_kinds, find_labels, kinds_of
from upkeep.adopt.sniffing import Layout, read_number
from upkeep.adopt.times import in_zone, quartiles
from upkeep.adopt.words import has_word, kind_of, names_one
from upkeep.contract.dictionary import DTYPES, Table
from upkeep.core.errors import UpkeepError

KEYS = ("plant", "machine", "time")
PURPOSE = "upkeep learns from machines' readings over time which of them will fail soon"


@dataclass(frozen=True)
class Part:
    """One layout as one of our tables: how to read it, why so, and its rows under our names.

    `columns` and `placeholders` tell ours: theirs, those of the path; `options` what else the source needs.
    """

    layout: Layout
    roles: Roles
    columns: dict[str, str]
    placeholders: dict[str, str]
    options: dict[str, Any]
    reasons: dict[str, str]
    rows: pl.DataFrame = field(repr=False)

    @property
    def kept(self) -> list[str]:
        """The delivered names of what the rows hold besides their keys."""
        return [name for name in self.rows.columns if name not in KEYS]


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
    looked = [(layout, find_roles(layout)) for layout in layouts]
    largest = max((layout.rows.height for layout, roles in looked if roles.clock and roles.measured), default=0)
    kinds = [_which(layout, roles, largest) for layout, roles in looked]
    telemetry = [pair for pair, kind in zip(looked, kinds, strict=True) if kind == "telemetry"]
    telemetry.sort(key=lambda pair: -pair[0].rows.height * len(pair[1].measured))
    tables = Tables([], [], [], [])
    for layout, roles in telemetry:
        part = _as_part("telemetry", layout, roles)
        if any(_shares_instants(part.rows, other.rows) for other in tables.telemetry):
            other = tables.telemetry[0].layout.name
            tables.notes.append(f"{layout.name} is left out: rows of its times are in {other} already; join the two")
        else:
            tables.telemetry.append(part)
    for (layout, roles), kind in zip(looked, kinds, strict=True):
        if kind == "events":
            tables.events.append(_as_events(_as_part("events", layout, _in_same_zone(roles, tables), tables.telemetry)))
        elif kind == "machines":
            tables.machines.append(_as_machines(_as_part("machines", layout, roles, tables.telemetry)))
        elif kind is None:
            tables.notes.append(f"{layout.name} is left out: it has neither a time per row nor a row per machine")
    failures = [part for part in tables.events if part.roles.machine and "failure" in part.rows["kind"]]
    if not tables.telemetry and not failures:
        raise _refuse(looked)
    return tables


def _in_same_zone(roles: Roles, tables: Tables) -> Roles:
    """Return roles with local times read by the clock that telemetry is read by."""
    zone = tables.telemetry[0].options.get("time_zone") if tables.telemetry else None
    if roles.clock and roles.clock.is_local and zone and "time_zone" not in roles.clock.options:
        return roles._replace(clock=in_zone(roles.clock, zone, "local, as telemetry is"))
    return roles


def _which(layout: Layout, roles: Roles, largest: int) -> Table | None:
    """Return which table a layout is, `largest` being the rows of the largest that has times and numbers."""
    rows, clock, name = layout.rows, roles.clock, PurePath(layout.paths[0]).name
    static = clock is None or has_word(clock.column, "installed")
    if roles.machine and static and rows[roles.machine].n_unique() >= 0.95 * rows.height:
        return "machines"
    if clock is None:
        return None
    if roles.pivot or (roles.measured and find_labels(rows.select(roles.text)) and _is_regular(layout, roles)):
        return "telemetry"
    told = kind_of(name) is not None or has_word(name, "log")
    small = rows.height <= 0.2 * largest and (told or len(layout.paths) == 1)
    speaks = len(roles.measured) <= 2 and any(_speaks(rows[column]) for column in roles.text)
    if not roles.measured or small or speaks or (told and not _is_regular(layout, roles)):
        return "events" if roles.text or roles.measured else None
    return "telemetry"


def _speaks(column: pl.Series) -> bool:
    return any(kind_of(str(value)) for value in column.drop_nulls().unique().sort().head(50))


def _is_regular(layout: Layout, roles: Roles) -> bool:
    """Tell whether the time from row to row is much the same, as that of readings is and that of events is not."""
    steps = quartiles(_read_rows(layout, roles, {}).select(KEYS))
    return steps is not None and steps[2] <= 2 * steps[0]


def _as_part(table: Table, layout: Layout, roles: Roles, telemetry: Sequence[Part] = ()) -> Part:
    """Return one layout as one of our tables, its times and numbers read.

    A plant or machine that it does not tell is the one that all `telemetry` is of.
    """
    options: dict[str, Any] = {}
    columns, placeholders, reasons = dict[str, str](), dict[str, str](), dict[str, str]()
    for ours, theirs in (("plant", roles.plant), ("machine", roles.machine)):
        if theirs is None:
            known = {value for part in telemetry for value in part.rows[ours].unique()}
            options[ours] = known.pop() if len(known) == 1 else f"{ours}-1"
            reasons[ours] = f"no column tells the {ours}, so all rows are of one; give it its name"
        else:
            (placeholders if theirs.startswith("{") else columns)[ours] = theirs
            reasons[ours] = roles.reasons[theirs]
    rows = _read_rows(layout, roles, options)
    if roles.clock:
        columns["installed" if table == "machines" else "time"] = roles.clock.column
        reasons["installed" if table == "machines" else "time"] = roles.clock.reason
        options |= roles.clock.options
    if roles.pivot and table == "telemetry":
        name, value = roles.pivot
        options["pivot"] = {"name": name, "value": value}
        reasons["pivot"] = f"each row holds one value, of what {name} names"
        rows = rows.pivot(on=name, index=KEYS, values=value, aggregate_function="first")
    return Part(layout, roles, columns, placeholders, options, reasons, rows)


def _read_rows(layout: Layout, roles: Roles, constants: Mapping[str, str]) -> pl.DataFrame:
    """Return ``plant``, ``machine`` and ``time`` under our names, and all else under its own, numbers as numbers."""
    rows, decimal = layout.rows, layout.reading.get("decimal", ".")
    numbers = [read_number(pl.col(name), decimal if rows[name].dtype == pl.String else ".") for name in roles.measured]
    found = {
        ours: pl.col(theirs).cast(pl.String).str.strip_chars() if theirs else pl.lit(constants.get(ours, ours))
        for ours, theirs in (("plant", roles.plant), ("machine", roles.machine))
    }
    times = roles.clock.times if roles.clock else pl.lit(None, DTYPES["time"])
    others = [name for name in (*roles.measured, *roles.text) if name not in KEYS]
    return rows.with_columns(numbers).select(*others, **found, time=times)


def _as_events(part: Part) -> Part:
    happened = find_kinds(PurePath(part.layout.paths[0]).name, part.rows, part.kept)
    rows = part.rows.select(*KEYS, kind=kinds_of(part.rows, happened))
    return replace(
        part,
        columns={**part.columns, **happened.columns},
        options={**part.options, **happened.options},
        reasons={**part.reasons, **happened.reasons},
        rows=rows,
    )


def _as_machines(part: Part) -> Part:
    model = next((name for name in part.roles.text if names_one(name, "model")), None)
    if model is None:
        return part
    columns, reasons = {**part.columns, "model": model}, {**part.reasons, "model": "by its name"}
    return replace(part, columns=columns, reasons=reasons, rows=part.rows.drop(model))


def _shares_instants(rows: pl.DataFrame, others: pl.DataFrame) -> bool:
    return rows.join(others, on=KEYS, how="semi").height > 0.05 * rows.height


def _refuse(looked: Sequence[tuple[Layout, Roles]]) -> UpkeepError:
    layout = max((layout for layout, _ in looked), key=lambda layout: layout.rows.height)
    if not any(roles.clock for _, roles in looked):
        return UpkeepError(
            f"no column of {layout.name} holds a date and time: {PURPOSE}, so it needs times",
            expected="a time in each row, and sensors' values at that time",
            remedy="deliver the readings with their times; rows that are single cases are for a plain classifier",
        )
    timed = ", ".join(layout.name for layout, roles in looked if roles.clock)
    return UpkeepError(
        f"nothing in {timed} looks like telemetry or like machines' failures: {PURPOSE}",
        expected="a table with a machine, a time and sensors' values; or at least one of failures, by machine and time",
        remedy="add the readings to the folder",
    )
