"""`upkeep monitor`: how each plant stands, told by two pages, in JSON, and to the webhook."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from functools import partial
from typing import TypeVar

import polars as pl
from pydantic import ValidationError

from upkeep.contract.dictionary import Dictionary, load_dictionary
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import locked, read_json, read_text, write_json, write_whole
from upkeep.core.names import shorten
from upkeep.core.params import Params, Webhook
from upkeep.core.plants import table_file
from upkeep.core.text import align_rows, count_things, show_lines
from upkeep.judging.reports import DataQuality, DriftReport, PlantQuality, read_report
from upkeep.production import health
from upkeep.production.expectations import judge_expectations
from upkeep.production.health import ACT, ORDER, UNKNOWN, Arrival, PlantDeliveries, Poll, Signal
from upkeep.production.logged_drift import judge_predictions
from upkeep.production.polling import HISTORY, poll, read_history
from upkeep.production.standing import Monitoring, judge_drift, summarise_signals
from upkeep.reporting.templates import render_html
from upkeep.scoring.alerts import Episode, Watch, open_receiver, send_alarms
from upkeep.sources.batches import first_day
from upkeep.sources.manifest import RawFile, read_manifest
from upkeep.sources.registry import list_deliveries

REPORT = paths.MONITORING / "monitoring.json"
PLANNER, ENGINEER = paths.MONITORING / "index.html", paths.MONITORING / "engineer.html"

Found = TypeVar("Found")


class NotKnownError(UpkeepError):
    """Nobody has to act, but something needed is unknown; jobs list `code` under ``allow_failure: exit_codes``."""

    code = os.EX_UNAVAILABLE


def run(params: Params, as_of: datetime) -> None:
    """Write ``reports/monitoring`` and tell the webhook what is new.

    Raises an UpkeepError if somebody has to act or the webhook does not answer, else a NotKnownError if something
    needed is unknown.
    """
    with locked(HISTORY.with_name("lock")):
        monitoring = _look(params, _read_former(), as_of)
        write_json(REPORT, monitoring.model_dump(mode="json"))
        for template, file in {"monitoring_planner.html": PLANNER, "monitoring_engineer.html": ENGINEER}.items():
            write_whole(file, render_html(template, monitoring=monitoring, order=ORDER).encode())
        standings = {plant or "shared": standing for plant, standing in monitoring.standings.items()}
        rows = [
            {"plant": plant, "status": each.status, "since": str(each.since.date()), "because": "; ".join(each.why[:2])}
            for plant, each in standings.items()
        ]
        print(show_lines(align_rows(rows)))  # noqa: T201  # what the command is for
        fault = None
        try:
            if params.monitor.webhook:
                _tell_webhook(monitoring, params.monitor.webhook, params.monitor.told_after)
        except UpkeepError as error:
            fault = error
    acting = [plant for plant, standing in standings.items() if standing.status == ACT]
    unknown = [signal for signal in monitoring.signals if signal.status == UNKNOWN]
    if acting:
        what = f"somebody has to act: {', '.join(acting)}: {standings[acting[0]].why[0]}"
        raise UpkeepError(f"{what}; {fault.what}" if fault else what, remedy=f"see {ENGINEER}")
    if fault:
        raise fault
    if unknown:
        what = f"{count_things(len(unknown), 'thing')} not known, the first: {unknown[0].words}"
        raise NotKnownError(what, remedy=f"{unknown[0].remedy or 'wait until more is known'}; see {ENGINEER}")


def _look(params: Params, before: Monitoring | None, as_of: datetime) -> Monitoring:
    signals: list[Signal] = []
    manifest = _read(read_manifest, "deliveries", signals)
    quality = _read(partial(read_report, DataQuality), "data quality", signals) or DataQuality(plants={})
    drift = _read(partial(read_report, DriftReport), "drift", []) or DriftReport({})  # each plant has a signal of it
    files = [file for file in manifest.files if file.table == "telemetry"] if manifest else []
    (asked, listed), known = _ask_source(params, as_of), read_history()
    if asked.fault:
        listed = {(each.plant, each.batch) for each in known.seen}
    batches = sorted({(file.plant, file.batch) for file in files} | listed)
    polls = [asked, *(poll(source.name, source.url, as_of) for source in params.monitor.watch)]
    history = known.add(polls, [Arrival(plant=plant, batch=batch, at=as_of) for plant, batch in batches], as_of)
    write_whole(HISTORY, history.model_dump_json(indent=1, exclude_defaults=True).encode())
    plants, dictionary = sorted({plant for plant, _ in batches}), load_dictionary(params.validate_.dictionary)
    for plant in plants:
        seen = [each for each in history.seen if each.plant == plant]
        own_batches = [batch for of, batch in batches if of == plant]
        found = [health.judge_arrival(own_batches, seen, params.fetch, as_of, is_listed=not asked.fault)]
        own = [file for file in files if file.plant == plant]
        if own and plant in quality.plants:
            found += _judge_tables(plant, own, quality.plants[plant], dictionary, params.fetch.batch_days)
        signals += [signal.model_copy(update={"plant": plant}) for signal in found]
        signals.append(judge_drift(plant, drift.root.get(plant)))
    for name in (each.name for each in polls):
        signals.append(health.judge_polls(name, [each for each in history.polls if each.name == name]))
    signals += judge_expectations(plants, drift, params, as_of)
    signals += _read(partial(judge_predictions, plants, params, as_of), "predictions", signals) or []
    said = read_text(paths.RETRAINING) if paths.RETRAINING.exists() else ""
    untrained = sorted({batch for _, batch in listed if batch > params.fetch.until})
    retraining = health.explain_retraining(untrained, params, said)
    monitoring = summarise_signals(signals, before, retraining, plants, as_of)
    published = os.environ.get("CI_PAGES_URL")
    return monitoring.model_copy(update={"page": f"{published}/{PLANNER}" if published else None})


def _read(read: Callable[[], Found], what: str, signals: list[Signal]) -> Found | None:
    """Return what is read; None, with a signal added that says why, if it cannot be."""
    try:
        return read()
    except UpkeepError as error:
        signals.append(Signal(measure=what, status=UNKNOWN, words=error.what, remedy=error.remedy))
        return None


def _ask_source(params: Params, as_of: datetime) -> tuple[Poll, set[tuple[str, date]]]:
    """List plants and complete batches of telemetry in ``fetch.source``, without reading them, and how that went."""
    newest = first_day(as_of.date(), params.fetch.batch_days) - timedelta(days=params.fetch.batch_days)
    # Findings are in a log, which would be read from end to end for nothing.
    fetch, started = params.fetch.model_copy(update={"until": newest, "findings": None}), time.monotonic()
    listed, fault = set[tuple[str, date]](), ""
    try:
        listed = {(key.plant, key.batch) for key in list_deliveries(fetch, params.limits) if key.table == "telemetry"}
    except UpkeepError as error:
        fault = error.what
    return Poll(name=fetch.source, at=as_of, seconds=round(time.monotonic() - started, 3), fault=fault), listed


def _judge_tables(
    plant: str, files: Sequence[RawFile], quality: PlantQuality, dictionary: Dictionary, batch_days: int
) -> list[Signal]:
    telemetry = pl.scan_parquet(table_file(paths.INTERIM / "telemetry", plant))
    try:
        columns = telemetry.collect_schema().names()
        sensors = [name for name in dictionary.names("telemetry", "sensor", plant) if name in columns]
        quarantined = pl.read_parquet(table_file(paths.QUARANTINE, plant))
        return [*health.judge_deliveries(PlantDeliveries(files, telemetry, sensors, quarantined, quality), batch_days)]
    except (OSError, pl.exceptions.PolarsError) as error:
        words = f"its tables cannot be read: {shorten(error)}"
        return [Signal(measure="tables", status=UNKNOWN, words=words, remedy="run `dvc repro validate`")]


def _read_former() -> Monitoring | None:
    """Return the last run's report; None if there is none, or it is of another version."""
    with suppress(ValidationError):
        return Monitoring.model_validate(read_json(REPORT, remedy="delete the file")) if REPORT.exists() else None
    return None


def _tell_webhook(monitoring: Monitoring, webhook: Webhook, told_after: int) -> None:
    """Tell the webhook what is new, as alarms are told; raises an UpkeepError if it does not accept all."""
    receiver, watches = open_receiver(webhook, "monitor.webhook"), {}
    for plant, standing in monitoring.list_news(told_after).items():
        alarm = {"plant": plant, "machine": None, "status": standing.status, "why": standing.why}
        alarm["episode"] = standing.since.isoformat()
        episode = Episode(start=standing.since, alarm=alarm, accepted=False)
        watches[plant] = Watch(time=monitoring.as_of, episode=episode)
    answered, faults = send_alarms(receiver, watches)
    accepted = [plant for plant, watch in answered.items() if watch.episode and watch.episode.accepted]
    write_json(REPORT, monitoring.mark_told(accepted).model_dump(mode="json"))
    if faults:
        remedy = "check monitor.webhook in params.yaml and the receiver; the next run tells it again"
        raise UpkeepError(f"the webhook at {receiver.address} was not told: {faults[0]}", remedy=remedy)
