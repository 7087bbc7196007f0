"""Health of the sources: what each plant, sensor and address delivered last, held against what is usual for it.

What is usual is learnt from its own earlier batches, up to their outer fence: three times the distance between the
quartiles beyond the upper one (Tukey, Exploratory Data Analysis, 1977). A few weeks that went wrong do not move it.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import AwareDatetime

from upkeep.core.params import Fetch, Params
from upkeep.core.text import count_things
from upkeep.core.types import Frozen
from upkeep.judging.reports import DataQuality, Figure, PlantQuality, Report
from upkeep.sources.batches import batch_of, first_day
from upkeep.sources.manifest import RawFile

Status = Literal["fine", "watch", "act", "unknown"]

LEAST_HISTORY = 8
"""Earlier batches, or requests, without which nobody can say what is usual."""

FAILURES_TO_ACT = 3
"""Requests that failed in a row."""

SLACK_SECONDS = 1.0
"""By which an answer may be slower than is usual."""

MEASURES = {
    "gaps": ("of the usual rows are missing", 0.05),
    "duplicates": ("of the delivered rows are copies, or late ones of other batches", 0.02),
    "quarantine": ("of the delivered rows are in quarantine", 0.01),
    "missing": ("of the rows have no value", 0.02),
    "broken": ("of the delivered values are in quarantine", 0.01),
    "late files": ("files came after the first", 0.5),
}
"""What is measured of each batch, in words; a smaller excess over what is usual matters to nobody."""

CHANGES = {
    "unit_converted": "units",
    "extra_column": "columns",
    "unread_file": "failures",
    "unreadable_times": "failures",
}
"""Findings of ``validate`` that a planner should hear of while they are new, and the measure that they count as."""


class Signal(Report):
    """One thing that was looked at; `plant` is empty where it is about the fleet, `place` the sensor or address.

    `limit` is up to where `value` is usual, None if too little is known. `remedy` is what to do, or the command that
    makes known what is not. `since` is when this status began.
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
        """What makes it the same thing in another run."""
        return self.plant, self.measure, self.place


class Seen(Frozen):
    """When a plant's batch of telemetry was first seen with this checksum; empty where it is only listed."""

    plant: str
    batch: date
    sha256: str = ""
    at: AwareDatetime


class Poll(Frozen):
    """One request to a source: how long its answer took, and what was wrong with it."""

    name: str
    at: AwareDatetime
    seconds: float
    fault: str = ""


class Delivered(NamedTuple):
    """What there is of one plant's telemetry: files, clean rows, sensors, quarantine, and what validate found.

    `listed` are the batches that the source has, whether or not they are fetched, and `seen` when they came.
    """

    listed: Sequence[date]
    seen: Sequence[Seen]
    files: Sequence[RawFile]
    telemetry: pl.LazyFrame
    sensors: Sequence[str]
    quarantined: pl.DataFrame
    quality: PlantQuality


def find_limit(earlier: Sequence[float] | pl.Series) -> float | None:
    """Return up to where a value is usual, given earlier ones: their outer fence; None if they are too few."""
    if len(earlier) < LEAST_HISTORY:
        return None
    low, high = np.quantile(earlier, (0.25, 0.75))
    return float(high + 3 * (high - low))


def judge_plant(plant: str, found: Delivered, fetch: Fetch, as_of: datetime) -> list[Signal]:
    """Return what there is to say of a plant's deliveries and sensors; a plant without telemetry is unknown."""
    batches = sorted({*found.listed, *(file.batch for file in found.files)})
    if not batches:
        words = "no telemetry has been delivered yet"
        return [Signal(plant=plant, measure="freshness", status="unknown", words=words, remedy="dvc repro fetch")]
    signals = [_judge_arrival(batches, found.seen, fetch, as_of)]
    if found.files:
        newest, measures = max(file.batch for file in found.files), measure_batches(found, fetch.batch_days)
        for sensor in found.sensors:
            having = measures.filter(pl.col("value") < 1, measure="missing", place=sensor)["batch"].to_list()
            if having:
                signals.append(_judge_sensor(sensor, judge_freshness(having, newest, fetch.batch_days)))
        signals += _judge_measures(measures, newest)
        signals += _judge_findings(found.quality, sorted({file.batch for file in found.files}))
        signals += _judge_rewritten(found.seen, newest - timedelta(days=fetch.reread_batches * fetch.batch_days), as_of)
    return [signal.model_copy(update={"plant": plant}) for signal in signals]


def _judge_sensor(sensor: str, signal: Signal) -> Signal:
    """Have somebody look at a sensor that says nothing: the plant has others, and can be scored."""
    if signal.status != "act":
        return signal.model_copy(update={"place": sensor})
    remedy = "mend the sensor, or take it out of the data dictionary"
    return signal.model_copy(update={"place": sensor, "status": "watch", "remedy": remedy})


def _judge_arrival(batches: Sequence[date], seen: Sequence[Seen], fetch: Fetch, as_of: datetime) -> Signal:
    """Judge by when batches came whether the newest is late; only those that ended under watch tell how late."""
    step, first_look = timedelta(days=fetch.batch_days), min((each.at for each in seen), default=as_of)
    came = {each.batch: each.at for each in sorted(seen, key=lambda each: each.at, reverse=True)}
    ended = {batch: datetime.combine(batch + step, time(), UTC) for batch in batches if batch in came}
    delays = [(came[batch] - end) / timedelta(hours=1) for batch, end in ended.items() if end > first_look]
    limit = find_limit(delays[:-1])
    due = first_day((as_of - timedelta(hours=limit or 0)).date(), fetch.batch_days) - step
    signal = judge_freshness(batches, max(due, batches[-1]), fetch.batch_days)
    if signal.status != "fine":
        remedy = "ask the plant why its deliveries stopped; nothing newer can be scored"
        signal = signal.model_copy(update={"remedy": remedy})
    if not delays:
        return signal
    words = f"{signal.words}; it came {max(delays[-1], 0):.0f} h after its end"
    return signal.model_copy(update={"words": words, "value": delays[-1], "limit": limit})


def judge_freshness(batches: Sequence[date], due: date, batch_days: int) -> Signal:
    """Judge by the batches that hold something, in order, whether what is due by now is there.

    It is fresh, late or stale (missing for longer than usual, and for longer than twice that), or recovered: the newest
    batch is there, and before it more were missing than usual.
    """
    numbers = [batch.toordinal() // batch_days for batch in batches]
    steps = [after - before for before, after in pairwise(numbers)]
    limit = find_limit(steps)
    lag = due.toordinal() // batch_days - numbers[-1]
    usual = max(1.0, limit or 1.0)
    if lag < usual:
        state: str = "recovered" if steps and steps[-1] > usual else "fresh"
        status: Status = "fine"
    elif limit is None:
        state, status = "unknown", "unknown"
    elif lag < 2 * usual:
        state, status = "late", "watch"
    else:
        state, status = "stale", "act"
    ago = f"nothing since the batch of {batches[-1]}, {count_things(lag, 'batch')} ago"
    words = f"{state}: {ago if lag else f'the batch of {batches[-1]} is there'}"
    return Signal(measure="freshness", status=status, words=words, value=float(lag), limit=limit)


def measure_batches(found: Delivered, batch_days: int) -> pl.DataFrame:
    """Return :data:`MEASURES` of each batch of a plant: batch, measure, place (a sensor, or none) and value.

    What is measured of the clean rows goes by their time, so late rows of a batch count as copies in the one that they
    came with. Where rows are reduced, copies cannot be told.
    """
    sensors = list(found.sensors)
    of_batch = {"batch": [file.batch for file in found.files], "delivered": [file.rows for file in found.files]}
    delivered = pl.DataFrame(of_batch, schema={"batch": pl.Date, "delivered": pl.Int64})
    delivered = delivered.group_by("batch").agg(pl.col("delivered").sum(), files=pl.len()).sort("batch")
    clean = found.telemetry.group_by(batch=batch_of(pl.col("time"), batch_days)).agg(
        rows=pl.len().cast(pl.Int64),
        **{f"missing/{sensor}": pl.col(sensor).null_count() / pl.len() for sensor in sensors},
    )
    broken = (
        found.quarantined.filter(table="telemetry")
        .group_by(pl.col("batch").str.to_date())
        .agg(
            quarantined=pl.len().cast(pl.Int64),
            **{f"broken/{sensor}": (pl.col("column") == sensor).sum() for sensor in sensors},
        )
    )
    joined = delivered.join(clean.collect(), on="batch", how="left").join(broken, on="batch", how="left")
    joined = joined.with_columns(
        pl.col("rows", "^broken/.*$", "quarantined").fill_null(0), pl.col("^missing/.*$").fill_null(1.0)
    )
    rows, sent, quarantined = pl.col("rows"), pl.col("delivered"), pl.col("quarantined")
    is_reduced = found.quality.tables["telemetry"].reduced_to is not None
    shares = joined.sort("batch").select(
        "batch",
        pl.col("^missing/.*$"),
        pl.col("^broken/.*$") / sent,
        **{"gaps/": 1 - rows / rows.median(), "quarantine/": quarantined / sent, "late files/": pl.col("files") - 1.0},
        **({} if is_reduced else {"duplicates/": (sent - quarantined - rows) / sent}),
    )
    measured = shares.unpivot(index="batch", variable_name="name").with_columns(pl.col("value").fill_nan(0).clip(0))
    parts = pl.col("name").str.splitn("/", 2).struct
    return measured.select("batch", measure=parts.field("field_0"), place=parts.field("field_1"), value="value")


def _judge_measures(measures: pl.DataFrame, newest: date) -> list[Signal]:
    signals = []
    for (measure, place), rows in measures.sort("batch").group_by("measure", "place", maintain_order=True):
        words, slack = MEASURES[str(measure)]
        value, limit = float(rows["value"][-1]), find_limit(rows["value"][:-1])
        shown = f"{value:.0f} {words}" if measure == "late files" else f"{value:.1%} {words}"
        if limit is None:
            status, usual = "unknown", f"what is usual is known after {LEAST_HISTORY} batches"
        else:
            status = "watch" if value > limit + slack else "fine"
            usual = f"usual is up to {limit:.0f}" if measure == "late files" else f"usual is up to {min(limit, 1):.1%}"
        words = f"{shown} in the batch of {newest}; {usual}"
        signals.append(Signal(measure=measure, place=place, status=status, words=words, value=value, limit=limit))
    return signals


def _judge_findings(quality: PlantQuality, batches: Sequence[date]) -> list[Signal]:
    """Tell of units and columns that became others; what has been so for long, or ever since, is usual by now."""
    since, signals = batches[-LEAST_HISTORY:][0], []
    for finding in quality.findings:
        began, ended = finding.get("from"), finding.get("to")
        is_undated = began is None and finding["kind"] in ("unread_file", "unreadable_times")
        is_new = (
            began
            and ended
            and ended[:10] >= str(batches[-1])
            and max(str(since), str(batches[1 % len(batches)])) <= began[:10]
        )
        if finding["kind"] in CHANGES and (is_undated or is_new):
            words = f"{finding['detail']}" + (f", since {began[:10]}" if began else "")
            measure, place = CHANGES[str(finding["kind"])], finding.get("column") or ""
            signals.append(Signal(measure=measure, place=place, status="watch", words=words))
    return signals


def _judge_rewritten(seen: Sequence[Seen], since: date, as_of: datetime) -> list[Signal]:
    """Tell of files that this run found with another checksum; those of batches that are read again may be so."""
    known = {each.batch for each in seen if each.sha256 and each.at < as_of}
    again = sorted({each.batch for each in seen if each.sha256 and each.at == as_of and each.batch in known})
    if not again:
        return []
    old = [batch for batch in again if batch <= since]
    words = f"{count_things(len(again), 'batch')} rewritten since the last run, the oldest that of {again[0]}"
    return [Signal(measure="rewritten", status="watch" if old else "fine", words=words, value=float(len(again)))]


def judge_polls(name: str, polls: Sequence[Poll]) -> Signal:
    """Judge a source by how long it took to answer, the newest request last, and by which of them failed."""
    own = sorted((poll for poll in polls if poll.name == name), key=lambda poll: poll.at)
    if not own:
        return Signal(
            measure="requests", place=name, status="unknown", words="never asked yet", remedy="upkeep monitor"
        )
    took = [poll.seconds for poll in own if not poll.fault]
    failed = next((row for row, poll in enumerate(reversed(own)) if not poll.fault), len(own))
    share = f"{sum(bool(poll.fault) for poll in own)} of {count_things(len(own), 'request')} failed"
    if failed:
        status: Status = "act" if failed >= FAILURES_TO_ACT else "watch"
        state = f"{'stale' if status == 'act' else 'late'}: {own[-1].fault}"
        limit = find_limit(took)
    else:
        limit = find_limit(took[:-1])
        is_slow = limit is not None and took[-1] > limit + SLACK_SECONDS
        status = "watch" if is_slow else "fine"
        state = "recovered" if own[-2:-1] and own[-2].fault else "fresh"
        usual = (
            f"usual is up to {limit:.1f} s" if limit is not None else f"what is usual is known after {LEAST_HISTORY}"
        )
        state = f"{state}: answered in {took[-1]:.1f} s; {usual}"
    value = None if failed else took[-1]
    return Signal(measure="requests", place=name, status=status, words=f"{state}; {share}", value=value, limit=limit)


def explain_retraining(until: date, arrived: Sequence[date], quality: DataQuality | None, params: Params) -> str:
    """Say in one sentence why no model was trained again; `arrived` are the complete batches after that of `until`."""
    most, shares = params.validate_.max_quarantined_share, dict[str, float]()
    for plant, found in quality.plants.items() if quality else ():
        for table, rows in found.tables.items():
            shares[f"{table} of {plant}"] = sum(rows.quarantined.values()) / max(rows.rows_in, 1)
    worst = max(shares, key=shares.__getitem__, default="")
    if worst and shares[worst] > most:
        return (
            f"Not trained again: {shares[worst]:.1%} of the {worst} are in quarantine, "
            f"validate.max_quarantined_share allows {most:.1%}."
        )
    if not arrived:
        return f"Not trained again: {params.fetch.source} has no complete batch after that of {until}."
    new = f"{count_things(len(arrived), 'new batch')} up to that of {arrived[-1]}"
    if len(arrived) < params.retrain.new_batches:
        return f"Not trained again: {new}, retrain.new_batches asks for {params.retrain.new_batches}."
    return f"Not trained on {new} yet: `upkeep retrain` does, or says why the gate keeps the champion."
