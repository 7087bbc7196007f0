"""`upkeep adopt`: look at deliveries, guess what they are, and draft the data dictionary and ``params.yaml``."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from upkeep.adopt.deliveries import is_database, look_at_database, look_at_files
from upkeep.adopt.describing import describe_machines, describe_telemetry
from upkeep.adopt.drafting import NO_NAME, draft_dictionary, draft_params, file_options, sql_options
from upkeep.adopt.labels import events_from_label, find_flags, find_labels, find_silent_labels
from upkeep.adopt.settings import suggest, suggest_rows
from upkeep.adopt.tables import NO_EVENTS, Tables, sort_tables
from upkeep.adopt.times import TIME_OPTIONS
from upkeep.adopt.words import tidy_names
from upkeep.contract.casting import CLOCK_RESET
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.names import KEYS, shorten
from upkeep.core.params import load_params
from upkeep.core.text import ALIKE, count_things, pair_alike

LABELLED = Path("data/references/labelled_events.csv")
"""Where failures are written that are known only from a label beside the readings."""
FEW_FAILURES = 12
"""With fewer, training, validation and test rows have too few of them each."""


class _Events(NamedTuple):
    """All events, the columns of telemetry that tell of failures, and the failures known from such a column only."""

    all: pl.DataFrame
    labels: list[str]
    labelled: pl.DataFrame | None
    notes: list[str]


def adopt(places: Sequence[str], *, force: bool) -> Iterator[str]:
    """Draft the dictionary and ``params.yaml`` for deliveries at these places; yield the lines to print about them.

    Raises UpkeepError if nothing there can be used or, unless `force` is set, files would be overwritten.
    """
    params = load_params()
    url = next(filter(is_database, places), None)
    if url and len(places) > 1:
        raise UpkeepError(
            f"a database is adopted alone, not beside {count_things(len(places) - 1, 'other place')}",
            remedy="adopt the database only, or export its tables as files and adopt all of these",
        )
    layouts, notes = (look_at_database(url, params.limits), []) if url else look_at_files(places, params.limits)
    yield from (f"note: {note}" for note in notes)  # before an error that they may explain
    tables, unused = sort_tables(layouts, params.limits)
    events = _find_events(tables, is_in_files=not url)
    telemetry = [part.rows for part in tables["telemetry"]]
    described = {
        "telemetry": describe_telemetry(telemetry, events.labels),
        "machines": describe_machines(tables["machines"]),
    }
    keys = _read_keys(tables)
    entries = {table: [name for name, (entry, _) in columns.items() if entry] for table, columns in described.items()}
    names = {table: tidy_names(columns) for table, columns in entries.items()}
    if url:
        options = sql_options(url, tables, names, str(keys["time"].dt.offset_by("-1d").dt.date().min()))
    else:
        options = file_options(tables, layouts, None if events.labelled is None else LABELLED, names)
    failures = events.all.filter(kind="failure")
    rows = suggest_rows(keys, failures) if telemetry else None
    settings = suggest(keys, failures, readings=bool(telemetry), rows_every=rows and rows[0])
    everywhere = [{*part.kept} - part.layout.partial for part in tables["telemetry"]]
    text = paths.PARAMS.read_text(encoding="utf-8")
    drafts = {
        params.validate_.dictionary: draft_dictionary(
            described, names, set.intersection(*everywhere) if everywhere else set(), rows
        ),
        paths.PARAMS: draft_params(text, "sql" if url else "files", options, settings),
    }
    if events.labelled is not None:
        drafts[LABELLED] = events.labelled.write_csv()
    yield from _tell_tables(tables, events.all)
    if left_out := [name or NO_NAME for name, (entry, _) in described["telemetry"].items() if entry is None]:
        yield f"left out, for reasons that the dictionary gives: {shorten(', '.join(left_out))}"
    doubts = _list_doubts(keys, events.all, entries["telemetry"], telemetry)
    yield from (f"note: {note}" for note in [*events.notes, *unused, *doubts])
    _write_drafts(drafts, places, force=force)
    yield f"written: {', '.join(map(str, drafts))}; each guess has its reason beside it"
    yield "next: dvc repro"


def _read_keys(tables: Tables) -> pl.DataFrame:
    """Return plant, machine and time of all readings, or else of all events; raises UpkeepError if none has a time."""
    keys = pl.concat([part.rows.select(KEYS) for part in tables["telemetry"] or tables["events"]]).drop_nulls()
    keys = keys.filter(pl.col("time") >= CLOCK_RESET)
    if keys.is_empty():
        raise UpkeepError(f"no time is of {CLOCK_RESET.year} or later", remedy="deliver the readings with their times")
    return keys


def _find_events(tables: Tables, *, is_in_files: bool) -> _Events:
    """Return the events of tables; failures that only a label tells of are among them if it is in files."""
    telemetry = [part.rows for part in tables["telemetry"]]
    events = pl.concat([NO_EVENTS, *(part.rows for part in tables["events"])])
    known = "failure" in events["kind"]
    labels = [name for rows in telemetry for name in find_labels(rows.drop(KEYS), failures_known=known)]
    if known or not labels:
        return _Events(events, labels, None, [])
    label, labelled, remedy = labels[0], None, "make a view of when it sets in, and adopt again"
    if is_in_files:
        labelled = pl.concat([events_from_label(rows, label) for rows in telemetry if label in rows.columns])
        events = pl.concat([events, labelled.drop("code")])
        remedy = f"{LABELLED} is made from it, and from new data when you adopt again"
    note = f"when machines failed, only the column {shorten(label)} tells: {remedy}"
    return _Events(events, labels, labelled, [note])


def _tell_tables(tables: Tables, happened: pl.DataFrame) -> Iterator[str]:
    """Yield a description of each table: its files, rows and span, and what its columns are taken for."""
    for table, parts in tables.items():
        for part in parts:
            times = part.rows["time"].drop_nulls().sort().dt.strftime("%Y-%m-%d %H:%M")
            span = f", {times[0]} to {times[-1]} UTC" if times.len() else ""
            machines = count_things(part.rows.select("plant", "machine").n_unique(), "machine")
            yield f"{table}: {part.layout.name}, {count_things(part.rows.height, 'row')} of {machines}{span}"
            for ours, (reason, column, value) in part.guesses.items():
                if ours not in ("kinds", "pivot", *TIME_OPTIONS):  # the time's reason has these
                    told = "the path" if ours in part.placeholders.values() else column or value
                    yield f"  {ours}: {shorten(told)}, {reason}"
    counts = happened.group_by("kind").len().sort("kind").iter_rows()
    yield f"events by kind: {', '.join(f'{kind} {count:,}' for kind, count in counts) or 'none are known'}"


def _list_doubts(
    keys: pl.DataFrame, happened: pl.DataFrame, columns: Iterable[str], telemetry: Sequence[pl.DataFrame]
) -> Iterator[str]:
    """Yield doubts about `keys`, if they are those of telemetry, about names and about failures."""
    if telemetry and (repeated := keys.height - keys.n_unique()):
        yield (
            f"{count_things(repeated, 'row')} with machine and time of another: "
            "if they are of several machines, name the column that tells these apart in fetch.options"
        )
    for kind, names in {"plants": keys["plant"].unique(), "columns": columns}.items():
        for first, second in pair_alike(names):
            yield f"{kind} {shorten(first)} and {shorten(second)} {ALIKE}"
    failures = happened.filter(kind="failure")
    known = failures.join(keys, on=["plant", "machine"], how="semi").height
    if failures.is_empty():
        readings = [rows.drop(KEYS) for rows in telemetry]
        silent = dict.fromkeys(name for rows in readings for name in find_silent_labels(rows))
        flags = dict.fromkeys(name for rows in readings for name in find_flags(rows))
        yield from (f"{shorten(name)} says of no row that the machine failed" for name in silent)
        other = f"; or if {shorten(' or '.join(flags))} marks failures by 1, call it failure" if flags else ""
        yield f"without failures there are reports on the data but no model: deliver when machines failed{other}"
    elif not known:
        failed, read = (shorten("/".join(rows.select("plant", "machine").row(0)), 80) for rows in (failures, keys))
        yield f"no machine has readings and failures: {read} has the ones, {failed} the others; use one name in all"
    elif known < FEW_FAILURES:
        yield f"{count_things(known, 'failure')} to learn from and to judge by: few; a dozen is a start"


def _write_drafts(drafts: Mapping[Path, str], places: Sequence[str], *, force: bool) -> None:
    there = [str(file) for file in drafts if file.exists()]
    if there and not force:
        raise UpkeepError(
            f"nothing is written, since {' and '.join(there)} are there already",
            remedy=f"type: upkeep adopt {shlex.join(places)} --force; settings that the data does not decide stay",
        )
    for file, text in drafts.items():
        write_whole(file, text.encode())
