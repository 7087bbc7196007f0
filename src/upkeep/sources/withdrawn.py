"""Events that the source took back after they were stored, such as a failure that was none or came at another time."""

from collections.abc import Iterable

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.contract.dictionary import EVENTS, NEEDED
from upkeep.contract.findings import Finding, report
from upkeep.core.names import shorten
from upkeep.core.text import command_to_read_again, count_things
from upkeep.sources import Key

IDENTITY = {name: kind for name, kind in NEEDED["events"].items() if name != "plant"}
"""What tells one event of a plant from another, and its types."""
NO_EVENTS = EVENTS.to_frame().select(*IDENTITY)


def list_events(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what identifies each event of a delivery: ``machine``, ``time``, ``kind`` and ``code``."""
    read = rows.select(
        cast_column(name, rows.schema[name], kind).value.alias(name)
        for name, kind in IDENTITY.items()
        if name in rows.columns
    )
    return pl.concat([NO_EVENTS, read], how="diagonal").drop_nulls(["machine", "time"])


def find_withdrawn(key: Key, stored: Iterable[pl.DataFrame], offered: Iterable[pl.DataFrame]) -> list[Finding]:
    """Report events of a batch that are `stored` but no longer `offered`, both as of :func:`list_events`."""
    held, there = (pl.concat([NO_EVENTS, *events]) for events in (stored, offered))
    gone = held.unique(maintain_order=True).join(there, on=held.columns, how="anti", nulls_equal=True)
    if gone.is_empty():
        return []
    first = gone.row(0, named=True)
    shown = f"{first['kind']} of {first['machine']} at {first['time']:%Y-%m-%d %H:%M:%S}"
    command = command_to_read_again(key.plant, key.batch, drop_vanished=there.is_empty())
    detail = f"{count_things(gone.height, 'event')} of plant {key.plant} did not come again, such as {shorten(shown)}"
    return [report("withdrawn_event", key.table, f"{detail}; to use them no longer type {command}", batch=key.batch)]
