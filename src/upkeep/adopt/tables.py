"""Layouts sorted into our three tables, their rows read as such, and the events in them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import polars as pl

from upkeep.adopt.columns import Guess, Part, find_roles, is_id
from upkeep.adopt.deliveries import Layout
from upkeep.adopt.labels import find_labels
from upkeep.adopt.matching import as_names, find_constants, is_static, known_names, match_parts
from upkeep.adopt.sniffing import read_numbers
from upkeep.adopt.times import in_zone, quartiles
from upkeep.adopt.words import MOST_KINDS, has_word, is_kept, kind_of, names_one, words_of
from upkeep.contract.dictionary import DTYPES, EVENTS, TABLES, Table
from upkeep.core.errors import UpkeepError
from upkeep.core.names import KEYS, shorten
from upkeep.core.params import Limits
from upkeep.sources.bounds import check_shape
from upkeep.sources.file_options import Kind

PURPOSE = "upkeep learns from machines' readings over time which of them will fail soon"
NO_EVENTS = EVENTS.to_frame().select(*KEYS, "kind")
MOST_CODES = 500

Tables = dict[Table, list[Part]]


def sort_tables(layouts: Sequence[Layout], limits: Limits) -> tuple[Tables, list[str]]:
    """Return the layouts of each table, and a note about each one that is left out.

    Raises UpkeepError if there are neither readings with times nor failures of machines, or a row per instant would
    take more than `limits` allow.
    """
    looked = match_parts([find_roles(layout) for layout in layouts])
    largest = max((part.layout.rows.height for part in looked if part.clock and part.measured), default=0)
    which, doubts = _leave_plants([(part, _choose_table(part, largest)) for part in looked])
    which, nameless = _leave_nameless(which)
    read_as = partial(_as_table, constants=find_constants(looked), limits=limits)
    tables: Tables = {table: [] for table in TABLES}
    unlike = [part for part, table in which if table is None]
    notes = [*doubts, *nameless, *(f"{part.layout.name} is left out: {_explain_omission(part)}" for part in unlike)]
    used = [part for part, table in which if table]
    if len(plants := known_names(used, in_paths=True)["plant"]) > 1:
        lack = f"does not tell the plant, and other tables name {len(plants)}: add a column that names it"
        notes += [f"{part.layout.name} {lack}" for part in used if "plant" not in part.columns]
    telemetry = [part for part, table in which if table == "telemetry"]
    machines = known_names(looked)["machine"]
    for part in (part for part in telemetry if "machine" not in part.columns):
        sensors = [*part.measured, *(part.layout.rows[part.pivot[0]].unique().drop_nulls() if part.pivot else ())]
        if len(named := sorted(name for name in machines if any(name in sensor for sensor in sensors))) > 1:
            what = f"sensors of {part.layout.name} are named after machines: {shorten(', '.join(named))}"
            raise UpkeepError(what, remedy="deliver a row per machine and time, with a column that names the machine")
    for part in sorted(telemetry, key=lambda part: -part.layout.rows.height * len(part.measured)):
        others_too = " or, if they are of two machines, add a column that names the machine to both"
        remedy = "join the two" + ("" if "machine" in part.columns else others_too)
        notes += _add_part(
            read_as("telemetry", part), tables["telemetry"], KEYS, f"its times are in {{}} already; {remedy}"
        )
    zone = tables["telemetry"][0].options.get("time_zone") if tables["telemetry"] else None
    facts = [read_as("machines", part, zone=zone) for part, table in which if table == "machines"]
    for part in sorted(facts, key=lambda part: -part.rows.width):
        told = "its machines are in {} already; join the two"
        notes += _add_part(part, tables["machines"], ["plant", "machine"], told)
    for part, table in which:
        if table == "events":
            tables[table].append(_as_events(read_as(table, part, zone=zone)))
    is_told = any("machine" in part.columns and "failure" in part.rows["kind"] for part in tables["events"])
    if not tables["telemetry"] and not is_told:
        raise _no_telemetry([part.layout for part in looked if part.clock], layouts)
    return tables, notes


def _add_part(part: Part, others: list[Part], keys: Sequence[str], told: str) -> list[str]:
    """Add a part to others of its table; if one of these has rows with its keys, return a note that it is left out."""
    most = 0.05 * part.rows.height
    for other in others:
        if part.rows.join(other.rows, on=keys, how="semi").height > most:
            return [f"{part.layout.name} is left out: rows of {told.format(other.layout.name)}"]
    others.append(part)
    return []


def _choose_table(part: Part, largest: int) -> Table | None:
    """Return which table a layout is; `largest` is the number of rows of the largest one with times and numbers."""
    rows, clock, name, machine = part.layout.rows, part.clock, part.layout.file_name, part.columns.get("machine")
    key = [column for column in (part.columns.get("plant"), machine) if column]
    if machine and is_static(part) and rows.select(key).n_unique() >= 0.95 * rows.height:
        return "machines"
    if clock is None:
        return None
    steps = quartiles(_read_keys(part))
    is_even = steps is not None and steps[2] <= 2 * steps[0]  # the times of readings are, those of events are not
    told = kind_of(name) is not None or has_word(name, "log")
    is_long = part.pivot and (not told or has_word(part.pivot[0], "sensor"))
    if is_long or (part.measured and is_even and find_labels(rows.select(part.text))):
        return "telemetry"
    names_kinds = any(_share_of_kinds(rows[column]) for column in part.text)
    if not part.measured and is_even and not told and not names_kinds:  # such as numbers with their units
        return None
    speaks = len(part.measured) <= 2 and names_kinds
    small = rows.height <= 0.2 * largest and (told or len(part.layout.paths) == 1)
    repeats = any(1 < rows[column].n_unique() <= rows.height / 2 for column in part.text)
    # Else they are readings of another rate.
    small &= told or names_kinds or len(part.measured) <= 2 or (repeats and not is_even)
    if not part.measured or small or speaks or (told and not is_even):
        return "events" if part.text or part.measured or kind_of(name) else None
    return "telemetry"


def _leave_plants(which: Sequence[tuple[Part, Table | None]]) -> tuple[list[tuple[Part, Table | None]], list[str]]:
    """Return layouts and their tables, plants being facts where none but the machines' table names them; and notes."""
    told = [(part, table) for part, table in which if "plant" in part.columns and table]
    several = any(part.layout.rows[part.columns["plant"]].n_unique() > 1 for part, _ in told)
    if not several or any(table != "machines" for _, table in told):
        return [*which], []
    kept, notes = [], []
    for part, table in which:
        if table != "machines" or "plant" not in part.columns:
            kept.append((part, table))
            continue
        column, rest = part.columns["plant"], {ours: guess for ours, guess in part.guesses.items() if ours != "plant"}
        kept.append((replace(part, guesses=rest, text=[*part.text, column]), table))
        found = f"only {part.layout.name} names plants, by {shorten(column)}"
        notes.append(f"{found}: readings and events need it, too, to tell them apart")
    return kept, notes


def _leave_nameless(which: Sequence[tuple[Part, Table | None]]) -> tuple[list[tuple[Part, Table | None]], list[str]]:
    """Return layouts and their tables without those that name no machine beside readings of several; and notes."""
    fleet = known_names([part for part, table in which if table == "telemetry"], in_paths=True)["machine"]
    if len(fleet) < 2:
        return [*which], []
    kept = [(part, table) for part, table in which if table is None or "machine" in part.columns]
    lost = [part.layout.name for part, table in which if table and "machine" not in part.columns]
    lack = f"is left out: it does not tell the machine, and the readings name {len(fleet)}: add a column that names it"
    return kept, [f"{name} {lack}" for name in lost]


def _as_table(
    table: Table, part: Part, *, constants: Mapping[str, Guess], limits: Limits, zone: str | None = None
) -> Part:
    """Return a part as one of our tables, with its times and numbers read; local times are those of `zone`."""
    clock = part.clock
    if clock and clock.is_local and zone:
        clock = in_zone(clock, zone, ", as telemetry is")
    guesses = {**constants, **part.guesses}
    part = replace(part, clock=clock, guesses=guesses)
    if clock:
        guesses["installed" if table == "machines" else "time"] = Guess(clock.reason, clock.column)
        guesses |= {option: Guess(clock.reason, value=value) for option, value in clock.options.items()}
    delivered = part.layout.rows
    read = [
        *read_numbers(delivered.select(part.measured), part.layout.reading.get("decimal")),
        *delivered.select(part.text),
    ]
    rows = _read_keys(part).with_columns(column for column in read if column.name not in KEYS)
    if part.pivot and table == "telemetry":
        name, value = part.pivot
        told = f"each row holds one value, of what {shorten(name)} names"
        for unit in (text for text in part.text if has_word(text, "unit_column") and text != name):
            if rows.group_by(name).agg(pl.col(unit).drop_nulls().n_unique())[unit].max() > 1:  # type: ignore[operator]
                what = f"a sensor of {part.layout.name} has values of several units, as {shorten(unit)} tells"
                raise UpkeepError(what, remedy="deliver each sensor in one unit, or name it after its unit")
        guesses["pivot"] = Guess(told, value={"name": name, "value": value})
        check_shape(rows.select(KEYS).n_unique(), rows[name].n_unique(), limits)
        others = rows.drop(name, value).unique(KEYS, keep="first", maintain_order=True)
        rows = rows.pivot(on=name, index=KEYS, values=value, aggregate_function="first")
        rows = rows.join(others, on=KEYS, how="left", nulls_equal=True, maintain_order="left")
    models = (name for name in part.text if names_one(name, "model"))
    model = min(models, key=lambda name: "model" not in words_of(name), default=None)
    if model and table == "machines":
        guesses["model"] = Guess("by its name", model)
        rows = rows.drop(model)
    return replace(part, rows=rows)


def _read_keys(part: Part) -> pl.DataFrame:
    """Return ``plant``, ``machine`` and ``time`` of each row, as far as they are known yet."""
    keys = {}
    for ours in ("plant", "machine"):
        guess = part.guesses.get(ours, Guess("", value=ours))
        keys[ours] = as_names(part.layout.rows[guess.column]) if guess.column else pl.lit(guess.value)
    return part.layout.rows.select(**keys, time=part.clock.times if part.clock else pl.lit(None, DTYPES["time"]))


def _as_events(part: Part) -> Part:
    """Return a table of events with each row's kind: by a column, by the file's name, or else an error."""
    name, rows, constant = part.layout.file_name, part.rows, kind_of(part.layout.file_name)
    kinds = pl.repeat(constant or "error", rows.height, dtype=pl.String, eager=True)
    guesses = {**part.guesses}
    few = [column for column in part.kept if rows[column].n_unique() <= MOST_KINDS]
    column = max(few, key=lambda column: _share_of_kinds(rows[column]), default=None)
    if column and _names_kinds(column, rows[column], constant):
        values = map(str, rows[column].drop_nulls().unique().sort())
        told = {value: kind_of(value) for value in filter(is_kept, values)}
        unclear = ", ".join(shorten(value, 40) for value, kind in told.items() if kind is None)
        other = constant or "error"
        why = f"by its words{unclear and f'; taken for {other}, since nothing tells: {unclear}'}"
        known = {value: kind or other for value, kind in told.items()}
        guesses |= {"kind": Guess(why, column), "kinds": Guess(why, value=known)}
        kinds = rows[column].cast(pl.String).replace_strict(known, default=other)
    else:
        nothing = "taken for errors: nothing tells what kind of event these are"
        guesses["kind"] = Guess(f"by the name {shorten(name)}" if constant else nothing, value=constant or "error")
    kind = guesses["kind"]
    named = [other for other in part.kept if has_word(other, "code")]
    texts = [other for other in part.kept if other not in part.measured and not is_id(rows[other])]
    codes = [*named, *sorted(texts, key=lambda other: not has_word(other, "kind"))]
    fits = (other for other in codes if other != kind.column and rows[other].n_unique() <= MOST_CODES)
    code = min(fits, key=lambda other: rows[other].n_unique() == rows.height, default=kind.column)  # no order's number
    guesses["code"] = (
        Guess("the text that tells which", code) if code else Guess("no column tells which", value=kind.value)
    )
    return replace(part, guesses=guesses, rows=rows.select(*KEYS, kind=kinds))


def _list_kinds(column: pl.Series) -> list[Kind | None]:
    """Return the kind of event that each distinct value of a column names; of many values, the first ones'."""
    return [kind_of(str(value)) for value in column.drop_nulls().unique().sort().head(MOST_CODES)]


def _share_of_kinds(column: pl.Series) -> float:
    """Return the share of a column's distinct values that name a kind of event."""
    kinds = _list_kinds(column)
    return sum(kind is not None for kind in kinds) / max(len(kinds), 1)


def _names_kinds(name: str, column: pl.Series, constant: Kind | None) -> bool:
    """Tell whether a column names the kinds of events, and more of them than the file's name does."""
    return not {*_list_kinds(column)} <= {constant, None} and (constant is None or has_word(name, "kind"))


def _no_telemetry(timed: Sequence[Layout], layouts: Sequence[Layout]) -> UpkeepError:
    unread = [told for layout in layouts if (told := _show_unread_time(layout, f" of {layout.name}"))]
    if timed:
        names = ", ".join(layout.name for layout in timed)
        what = f"nothing in {names} looks like telemetry or like machines' failures"
        remedy = "add the readings; or call a file of failures failures.csv, and name machines in a column"
    elif unread:
        what = unread[0]
        remedy = "deliver ISO 8601, such as 2025-01-06T13:00:00Z; rows that are single cases are for a plain classifier"
    else:
        what = f"no column of {max(layouts, key=lambda layout: layout.rows.height).name} holds a date and time"
        remedy = "deliver the readings with their times; rows that are single cases are for a plain classifier"
    expected = "a table with a machine, a time and sensors' values; or one of failures, by machine and time"
    return UpkeepError(f"{what}: {PURPOSE}", expected=expected, remedy=remedy)


def _explain_omission(part: Part) -> str:
    unread = None if part.clock else _show_unread_time(part.layout)
    return unread or "it has neither numbers and a time per row nor a row per machine"


def _show_unread_time(layout: Layout, where: str = "") -> str | None:
    """Return what a column that is called a time holds instead of one that can be read, if there is such a column."""
    name = next((name for name in layout.rows.columns if has_word(name, "time")), None)
    if name is None:
        return None
    first = shorten(next(iter(layout.rows[name].drop_nulls()), "nothing"), 40)
    return f"the column {shorten(name)}{where} holds no date and time that can be read, but {first}"
