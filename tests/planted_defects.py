"""Where the simulator spoils its deliveries, told from what its plants send, collect and deliver."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, NamedTuple

import polars as pl

from upkeep.simulator.source import LARGE, LONGEST_DELAY, REGIME_DRIFT, Plant, SimulatorOptions
from upkeep.sources.batches import batches_between, first_day

DEFECTS = {
    **dict.fromkeys(("kind", "table", "plant"), pl.String),
    **dict.fromkeys(("batch", "delivered"), pl.Date),
    **dict.fromkeys(("machine", "column"), pl.String),
    "rows": pl.Int64,
}


class Defect(NamedTuple):
    """Where the simulator spoilt a delivery.

    Attributes
    ----------
    batch, delivered
        First day of the batch whose rows it concerns, and of that which it shows in (None: they never arrive).
    machine, column
        None where it concerns several machines, or whole rows.
    rows
        How many rows were lost, changed, added or moved. A batch that is sent twice repeats its defects uncounted.
    """

    kind: str
    table: str
    plant: str
    batch: date
    delivered: date | None
    machine: str | None
    column: str | None
    rows: int


def planted_defects(options: Mapping[str, Any], until: date, batch_days: int = 7) -> pl.DataFrame:
    """Return where batches up to that of `until` are spoilt, a row per :class:`Defect`."""
    chosen = SimulatorOptions.model_validate(options)
    start = first_day(chosen.start, batch_days)
    numbers = range(len(batches_between(start, until, batch_days)))
    plants = [Plant(name, chosen, start, batch_days, len(numbers) + LONGEST_DELAY) for name in chosen.plants]
    found = [defect for plant in plants for number in numbers for defect in _defects_of_batch(plant, number)]
    return pl.DataFrame(found, schema=DEFECTS, orient="row")


def _defects_of_batch(plant: Plant, number: int) -> Iterator[Defect]:
    day, next_day, sent = plant.day(number), plant.day(number + 1), plant._send(number)
    whole = Defect("", "telemetry", plant.name, day, day, None, None, sent.height)
    if plant._happens("missing_batch", number):
        yield whole._replace(kind="missing_batch", delivered=None)
        return
    in_time, late, due = plant._hold_back(number)
    yield from _compare(whole, plant, number, in_time, sent)
    if plant.arrives(number):
        collected, delivered = plant._collect(number), plant.read("telemetry", number)
        if "humidity_pct" not in delivered.columns:
            yield whole._replace(kind="vanished_column", column="humidity_pct", rows=collected.height)
        if (collected["temperature_c"].median() or 0) > 70:
            yield whole._replace(kind="unit_change", column="temperature_c", rows=collected.height)
        yield from _compare(whole, plant, number, collected, delivered)
    for kind in set(LARGE) - {"missing_batch"}:
        if plant._happens(kind, number):
            yield whole._replace(kind=kind, delivered=next_day)
    if number == REGIME_DRIFT and plant.fleet.has_changed("regime", number):
        yield whole._replace(kind="regime_drift")
    if late.height:
        yield whole._replace(kind="late_rows", delivered=plant.day(due), machine=late["machine"][0], rows=late.height)
    events = plant.read("events", number)
    if twice := events.height - events.unique().height:
        yield whole._replace(kind="exact_duplicate", table="events", rows=twice)


def _compare(whole: Defect, plant: Plant, number: int, before: pl.DataFrame, after: pl.DataFrame) -> Iterator[Defect]:
    """Yield a column that is new, and what one of the small defects did to the rows."""
    for column in set(after.columns) - set(before.columns):
        yield whole._replace(kind="new_column", column=column)
    small = whole._replace(kind=plant._small(number))
    if before.height > after.height:
        lost = before.join(after, on=["machine", "time"], how="anti")
        yield small._replace(machine=lost["machine"][0], rows=lost.height)
        return
    if before.height < after.height:
        yield small._replace(rows=after.height - before.height)
        return
    for column in before.columns:
        is_changed = before[column].cast(pl.String).ne_missing(after[column].cast(pl.String))
        if is_changed.any():
            machine = after.filter(is_changed)["machine"][0] if small.kind in ("null_sensor", "stuck_sensor") else None
            yield small._replace(machine=machine, column=column, rows=is_changed.sum())
