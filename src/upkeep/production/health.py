"""Health of the sources: what each plant, sensor and address delivered last, compared with what is usual for it.

Usual is what its own earlier batches stayed within: up to three interquartile ranges above their upper quartile, the
outer fence (Tukey 1977, Exploratory Data Analysis). A few bad weeks do not move it.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np
import polars as pl
from pydantic import AwareDatetime

from upkeep.core.names import shorten
from upkeep.core.params import Fetch, Params
from upkeep.core.text import count_things
from upkeep.judging.reports import Figure, PlantQuality, Report
from upkeep.sources.batches import batch_of, first_day
from upkeep.sources.manifest import RawFile

Status = Literal["act", "watch", "unknown", "fine"]
ACT, WATCH, UNKNOWN, FINE = ORDER = get_args(Status)  # the worst first
LEAST_HISTORY = 8  # earlier batches, or requests, that are needed to say what is usual
FAILURES_TO_ACT = 3  # requests that failed in a row
LONGEST = 400  # characters of what another command said
SLACK_SECONDS = 1.0  # by which an answer may be slower than usual
MEASURES = {
    "gaps": ("of the usual rows are missing", 0.05),
    "duplicates": ("of the delivered rows are copies, or late ones of other batches", 0.02),
    "quarantine": ("of the delivered rows are in quarantine", 0.01),
    "missing": ("of the rows have no value", 0.02),
    "broken": ("of the delivered values are in quarantine", 0.01),
}
"""Shares that are measured of each batch, in words, and by how much one may exceed what is usual."""

CHANGES = {"unit_converted": "units", "extra_column": "columns"}
"""Findings of ``validate`` that planners are told of while they are new, and their measures."""


class Signal(Report):
    """One thing that was looked at, of a plant or, if `plant` is empty, of the fleet; `place` is a sensor or address.

    `value` is usual up to `limit`, which is None while too little is known. `remedy` is what to do about it, or the
    command that finds out what is unknown. `since` is when this status began.
    """

    plant: str = ""
    measure: str
    place: str = ""
    status: Status
    words: str
    value: Figure = None
    limit: Figure = None
    remedy: str = ""
    since: AwareDatetime | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies it from run to run."""
        return self.plant, self.measure, self.place

    @property
    def name(self) -> str:
        """What was looked at, as a planner calls it."""
        return self.place or self.measure


class Arrival(Report):
    """When a plant's batch of telemetry was first seen, in the source or in ``data/raw``."""

    plant: str
    batch: date
    at: AwareDatetime


class Poll(Report):
    """One request to a source: how long it took, and what went wrong, if anything."""

    name: str
    at: AwareDatetime
    seconds: float
    fault: str = ""


class PlantDeliveries(NamedTuple):
    """One plant's telemetry: its files, clean rows, sensors and quarantine, and what ``validate`` reports of it."""

    files: Sequence[RawFile]
    telemetry: pl.LazyFrame
    sensors: Sequence[str]
    quarantined: pl.DataFrame
    quality: PlantQuality


def find_limit(earlier: Sequence[float]) -> float | None:
    """Return the outer fence of earlier values, up to which a value is usual; None if they are too few."""
    if len(earlier) < LEAST_HISTORY:
        return None
    low, high = np.quantile(earlier, (0.25, 0.75))
    return float(high + 3 * (high - low))


def judge_arrival(
    batches: Sequence[date], seen: Sequence[Arrival], fetch: Fetch, as_of: datetime, *, is_listed: bool
) -> Signal:
    """Judge whether a plant's newest batch is late, given its batches in order and when each was first `seen`.

    Only batches that ended after the first look tell how late is usual. What the source would have is not known
    unless it `is_listed`.
    """
    step, first_look = timedelta(days=fetch.batch_days), min((each.at for each in seen), default=as_of)
    came = {each.batch: each.at for each in seen}
    ended = {batch: datetime.combine(batch + step, time(), UTC) for batch in batches if batch in came}
    delays = [(came[batch] - end) / timedelta(hours=1) for batch, end in ended.items() if end > first_look]
    limit = find_limit(delays[:-1])
    due = first_day((as_of - timedelta(hours=limit or 0)).date(), fetch.batch_days) - step
    found = judge_freshness(batches, max(due, batches[-1]), fetch.batch_days)
    if not is_listed and found.status != FINE:
        words = f"unknown, since the source cannot be listed; {found.words}"
        found = found.model_copy(update={"status": UNKNOWN, "words": words, "remedy": "mend the source first"})
    if not delays:
        return found
    words = f"{found.words}; it came {max(delays[-1], 0):.0f} h after its end"
    return found.model_copy(update={"words": words, "value": delays[-1], "limit": limit})


def judge_freshness(batches: Sequence[date], due: date, batch_days: int, sensor: str = "") -> Signal:
    """Judge whether a plant, or a sensor, has values in the batch that is `due`, given those in which it has, in order.

    It is fresh, late (missing for longer than usual), stale (for more than twice as long), or recovered: there again
    after a gap longer than usual.
    """
    numbers = [batch.toordinal() // batch_days for batch in batches]
    steps = [after - before for before, after in pairwise(numbers)]
    limit, lag = find_limit(steps), due.toordinal() // batch_days - numbers[-1]
    usual = max(1.0, limit or 1.0)
    remedy = "ask the plant why its deliveries stopped; nothing newer can be scored"
    if sensor:
        remedy = "mend the sensor, or take it out of the data dictionary"
    if lag < usual:
        state, status, remedy = "recovered" if steps and steps[-1] > usual else "fresh", FINE, ""
    elif limit is None:
        state, status = "unknown", UNKNOWN
    elif lag < 2 * usual:
        state, status = "late", WATCH
    else:  # without a sensor the plant can be scored
        state, status = "stale", WATCH if sensor else ACT
    ago = f"nothing since the batch of {batches[-1]}, {count_things(lag, 'batch')} ago"
    return Signal(
        measure="freshness",
        place=sensor,
        status=status,
        words=f"{state}: {ago if lag else f'the batch of {batches[-1]} is there'}",
        value=float(lag),
        limit=limit,
        remedy=remedy,
    )


def judge_deliveries(found: PlantDeliveries, batch_days: int) -> Iterator[Signal]:
    """Yield signals of a plant's batches, of which there is at least one, and of its sensors.

    A sensor that never had a value is not judged for freshness. A changed unit or column is told while the change is
    new, and not if it holds since the first batch.
    """
    batches, measures = sorted({file.batch for file in found.files}), measure_batches(found, batch_days)
    having = measures.filter(pl.col("value") < 1, measure="missing").group_by("place", maintain_order=True)
    for (sensor,), rows in having:
        yield judge_freshness(rows["batch"].to_list(), batches[-1], batch_days, str(sensor))
    for (measure, place), rows in measures.group_by("measure", "place", maintain_order=True):
        yield _judge_measure(str(measure), str(place), rows["value"].to_list(), batches[-1])
    since = max(batches[-LEAST_HISTORY:][0], batches[1 % len(batches)])
    for finding in found.quality.findings:
        began, ended = (finding[end] or "" for end in ("from", "to"))
        if finding["kind"] in CHANGES and began[:10] >= str(since) and ended[:10] >= str(batches[-1]):
            words, place = f"{finding['detail']}, since {began[:10]}", finding["column"] or ""
            yield Signal(measure=CHANGES[finding["kind"]], place=place, status=WATCH, words=words)


def _judge_measure(measure: str, place: str, shares: Sequence[float], newest: date) -> Signal:
    what, slack = MEASURES[measure]
    value, limit = shares[-1], find_limit(shares[:-1])
    status = UNKNOWN if limit is None else WATCH if value > limit + slack else FINE
    usual = f"known after {LEAST_HISTORY} batches" if limit is None else f"up to {min(limit, 1):.1%}"
    words = f"{value:.1%} {what} in the batch of {newest}; usual is {usual}"
    return Signal(measure=measure, place=place, status=status, words=words, value=value, limit=limit)


def measure_batches(found: PlantDeliveries, batch_days: int) -> pl.DataFrame:
    """Return :data:`MEASURES` of each batch of a plant: batch, measure, place (a sensor, or none) and value.

    Clean rows are counted in the batch of their time, so late rows count as copies in the batch that they came with.
    Where rows are reduced, copies cannot be counted.
    """
    sent = pl.DataFrame([(file.batch, file.rows) for file in found.files], ["batch", "sent"], orient="row")
    missing = {f"missing/{sensor}": pl.col(sensor).null_count() / pl.len() for sensor in found.sensors}
    broken = {f"broken/{sensor}": (pl.col("column") == sensor).sum() for sensor in found.sensors}
    lost = found.quarantined.filter(table="telemetry").group_by(pl.col("batch").str.to_date())
    clean = found.telemetry.group_by(batch=batch_of(pl.col("time"), batch_days))
    joined = (
        sent.group_by("batch")
        .agg(pl.col("sent").sum())
        .join(clean.agg(rows=pl.len().cast(pl.Int64), **missing).collect(), on="batch", how="left")
        .join(lost.agg(lost=pl.len().cast(pl.Int64), **broken), on="batch", how="left")
        .with_columns(pl.col("rows", "lost", *broken).fill_null(0), *(pl.col(name).fill_null(1.0) for name in missing))
    )
    is_reduced = found.quality.tables["telemetry"].reduced_to is not None
    shares = joined.sort("batch").select(
        "batch",
        *missing,
        *(pl.col(name) / pl.col("sent") for name in broken),
        ((pl.col("sent") - pl.col("lost") - pl.col("rows")) / pl.col("sent")).alias("duplicates/"),
        (pl.col("lost") / pl.col("sent")).alias("quarantine/"),
        (1 - pl.col("rows") / pl.col("rows").median()).alias("gaps/"),
    )
    measured = shares.drop("duplicates/" if is_reduced else []).unpivot(index="batch", variable_name="name")
    name = pl.col("name").str.splitn("/", 2).struct
    value = pl.col("value").fill_nan(0).clip(0, 1)
    return measured.select("batch", measure=name.field("field_0"), place=name.field("field_1"), value=value)


def judge_polls(name: str, polls: Sequence[Poll]) -> Signal:
    """Judge a source by its `polls`, the newest last: whether it answered, and how fast."""
    faults = [poll.fault for poll in polls]
    took = [poll.seconds for poll in polls if not poll.fault]
    share = f"{sum(map(bool, faults))} of {count_things(len(faults), 'request')} failed"
    if faults[-1]:
        is_stale = sum(map(bool, faults[-FAILURES_TO_ACT:])) == FAILURES_TO_ACT
        words = f"{'stale' if is_stale else 'late'}: {faults[-1]}; {share}"
        return Signal(measure="requests", place=name, status=ACT if is_stale else WATCH, words=words)
    limit = find_limit(took[:-1])
    status = WATCH if limit is not None and took[-1] > limit + SLACK_SECONDS else FINE
    usual = f"known after {LEAST_HISTORY} answers" if limit is None else f"up to {limit:.1f} s"
    state = "recovered" if any(faults[-2:]) else "fresh"
    words = f"{state}: answered in {took[-1]:.1f} s, usual is {usual}; {share}"
    return Signal(measure="requests", place=name, status=status, words=words, value=took[-1], limit=limit)


def explain_retraining(arrived: Sequence[date], params: Params, said: str) -> str:
    """Return one sentence on why no model was trained again, such as that the gate kept the champion.

    `arrived` are the complete batches after that of ``fetch.until``, `said` is how `upkeep retrain` ended last.
    """
    if not arrived:
        return f"Not trained again: {params.fetch.source} has no complete batch after that of {params.fetch.until}."
    new = f"{count_things(len(arrived), 'new batch')} up to that of {arrived[-1]}"
    if params.retrain.policy == "evidence" and len(arrived) < params.retrain.new_batches:
        return f"Not trained again: {new}, retrain.new_batches asks for {params.retrain.new_batches}."
    last = f"`upkeep retrain` said last: {shorten(' '.join(said.split()), LONGEST)}" if said else "run `upkeep retrain`"
    return f"Not trained on {new} yet: {last}"
