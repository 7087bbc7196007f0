"""`upkeep adopt`: look at deliveries, guess what they are, and draft the data dictionary and parameters for them."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import polars as pl

from upkeep.adopt.columns import KEYS, Part
from upkeep.adopt.database import is_database, look_at_database, sql_options
from upkeep.adopt.describing import describe_machines, describe_telemetry
from upkeep.adopt.drafting import draft_dictionary, draft_params
from upkeep.adopt.events import NO_EVENTS, events_from_label, find_labels
from upkeep.adopt.options import file_options
from upkeep.adopt.settings import Setting, count_short_histories, suggest
from upkeep.adopt.sniffing import look_at_files
from upkeep.adopt.tables import Tables, sort_tables
from upkeep.adopt.words import tidy_names
from upkeep.contract.dictionary import TABLES
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.params import load_params

LABELLED = Path("data/references/labelled_events.csv")
"""Where failures are written that only a label beside the readings tells of."""
FEW_FAILURES = 12
"""With fewer, a split into training, validation and test rows has too few of them to learn from and to judge by."""


def adopt(places: Sequence[str], *, force: bool) -> Iterator[str]:
    """Draft the dictionary and ``params.yaml`` for deliveries at these places; yield what to tell about it.

    Raises UpkeepError if nothing there can be used or, unless `force` is set, files would be overwritten.
    """
    params = load_params()
    dictionary = params.validate_.dictionary
    url = places[0] if is_database(places[0]) else None
    layouts, notes = (look_at_database(url), []) if url else look_at_files(places, params.limits)
    tables = sort_tables(layouts)
    happened = pl.concat([NO_EVENTS, *(part.rows.select(NO_EVENTS.columns) for part in tables.events)])
    known = "failure" in happened["kind"]
    labels = [name for part in tables.telemetry for name in find_labels(part.rows.drop(KEYS), failures_known=known)]
    labelled = NO_EVENTS
    if labels and not known:
        having = [part.rows for part in tables.telemetry if labels[0] in part.rows.columns]
        labelled = labelled if url else pl.concat([events_from_label(rows, labels[0]) for rows in having])
        remedy = "make a view of when it sets in" if url else f"{LABELLED} is made from it: adopt again with new data"
        notes.append(f"failures are told by the column {labels[0]} only; {remedy}")
    happened = pl.concat([happened, labelled.select(happened.columns)])
    keys = pl.concat([part.rows.select(KEYS) for part in tables.telemetry or tables.events]).drop_nulls()
    described = describe_telemetry([part.rows for part in tables.telemetry], labels) if tables.telemetry else {}
    machines = describe_machines(tables.machines)
    names = tidy_names(name for name, (entry, _) in {**described, **machines}.items() if entry)
    if url:
        options = sql_options(url, tables, names, str(keys["time"].dt.date().min()))
    else:
        options = file_options(tables, layouts, LABELLED if labelled.height else None, names)
    settings = suggest(keys, happened.filter(kind="failure"), readings=bool(tables.telemetry))
    text = paths.PARAMS.read_text(encoding="utf-8")
    drafts = {
        dictionary: draft_dictionary(described, machines, names, _partial(tables.telemetry)),
        paths.PARAMS: draft_params(text, "sql" if url else "files", options, settings),
        **({LABELLED: labelled.write_csv()} if labelled.height else {}),
    }
    yield from _tell(tables, happened)
    doubts = _doubts(keys, happened, settings if tables.telemetry else [])
    yield from (f"note: {note}" for note in [*notes, *tables.notes, *doubts])
    _write(drafts, places, force=force)
    yield f"written: {', '.join(map(str, drafts))}; each guess has its reason beside it"
    yield "next: dvc repro"


def _partial(telemetry: Sequence[Part]) -> set[str]:
    """Return the columns that not every file of telemetry has."""
    known = {name for part in telemetry for name in part.kept}
    return {name for name in known if any(name in part.layout.partial or name not in part.kept for part in telemetry)}


def _tell(tables: Tables, happened: pl.DataFrame) -> Iterator[str]:
    """Yield what is which table, and how much there is of it."""
    for table in TABLES:
        for part in cast(list[Part], getattr(tables, table)):
            times = part.rows["time"].drop_nulls().sort().dt.strftime("%Y-%m-%d %H:%M")
            span = f", {times[0]} to {times[-1]} UTC" if times.len() else ""
            machines = part.rows.select("plant", "machine").n_unique()
            yield f"{table}: {part.layout.name}, {part.rows.height:,} rows of {machines} machines{span}"
            yield from (f"  {name}: {reason}" for name, reason in part.reasons.items())
    counts = happened.group_by("kind").len().sort("kind").iter_rows()
    yield f"what happened: {', '.join(f'{count} {kind}' for kind, count in counts) or 'nothing is known'}"


def _doubts(keys: pl.DataFrame, happened: pl.DataFrame, settings: Sequence[Setting]) -> Iterator[str]:
    """Yield what is doubtful about telemetry, if there are `settings` for it, and about failures."""
    if settings and (repeated := keys.height - keys.n_unique()):
        yield f"{repeated:,} rows are of an instant that is there already: which column tells machines apart?"
    short, hours = count_short_histories(keys, settings) if settings else (0, 0)
    if short:
        yield f"{short} machines tell little: they have less history than a horizon and the longest window, {hours:g} h"
    strange = happened.join(keys, on=["plant", "machine"], how="anti")
    if strange.height:
        names = strange["machine"].unique().sort().head(3).to_list()
        yield f"{strange.height} events are of machines without telemetry, such as {', '.join(names)}"
    failures = happened.filter(kind="failure").join(keys, on=["plant", "machine"], how="semi").height
    if not failures:
        yield "without failures there are reports on the data but no model: deliver when machines failed"
    elif failures < FEW_FAILURES:
        yield f"{failures} failures are few to learn from and to judge by; a dozen is the least"


def _write(drafts: Mapping[Path, str], places: Sequence[str], *, force: bool) -> None:
    there = [str(file) for file in drafts if file.exists()]
    if there and not force:
        raise UpkeepError(
            f"nothing is written, since {' and '.join(there)} are there already",
            remedy=f"type: upkeep adopt {shlex.join(places)} --force; it leaves the other settings as they are",
        )
    for file, text in drafts.items():
        write_whole(file, text.encode())
