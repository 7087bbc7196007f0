"""`upkeep score`: score the source's newest batches; predictions go to log and table, alarms to the planner's system.

Errors name the stage ``score``, even those that the code of ``fetch`` and ``validate`` raises.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl

from upkeep.contract.dictionary import Dictionary, load_dictionary
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import locked
from upkeep.core.params import Params
from upkeep.core.plants import name_file
from upkeep.core.threads import call_within
from upkeep.model.scoring import load_scorer
from upkeep.model.storage import find_models
from upkeep.model.trial import find_faults
from upkeep.scoring.alerts import Receiver, follow_episodes, open_receiver, read_watches, send_alarms, write_watches
from upkeep.scoring.newest import Scored, describe_scores, score_newest
from upkeep.scoring.prediction_log import SCHEMA, write_part
from upkeep.scoring.prediction_table import write_predictions
from upkeep.sources import Delivery, Key
from upkeep.sources.batches import first_day
from upkeep.sources.excess import find_excess, refuse_excess
from upkeep.sources.interim import check_deliveries, write_tables
from upkeep.sources.registry import list_deliveries
from upkeep.sources.sql import open_engine
from upkeep.sources.store import store_batches

FOLDER = paths.LOCAL / "score"
EARLIER = paths.LOCAL / "score_until"  # a folder apart, since outcomes are learnt from the tables in the other one
ALARMS = FOLDER / "alarms.json"

CHALLENGER_SECONDS = 60.0  # for one plant; a slower challenger is left out of this run

logger = logging.getLogger(__name__)


def run(params: Params, now: datetime, until: date | None = None) -> None:
    """Score each machine's newest row at an instant, and deliver the result.

    With `until` the rows are those up to the batch of that day, and the result is only printed: nobody was told then.
    An UpkeepError is raised at once if the source cannot be listed, and at the end if a plant cannot be scored or a
    receiver cannot be reached.
    """
    try:
        _raise_summary(_score(params, now, until))
    except UpkeepError as error:
        raise error.at(stage="score") from error


def _score(params: Params, now: datetime, until: date | None) -> list[UpkeepError]:
    folder, settings = FOLDER, params.score
    if until:
        folder, settings = EARLIER, settings.model_copy(update=dict.fromkeys(("table", "webhook", "shadow")))
    database = open_engine(settings.table.url, "score.table.url") if settings.table else None
    receiver = open_receiver(settings.webhook) if settings.webhook else None
    problems: list[UpkeepError] = []
    fetch = params.fetch.model_copy(update={"until": first_day(until or now.date(), params.fetch.batch_days)})
    params = params.model_copy(update={"fetch": fetch, "score": settings})
    with locked(folder / "lock"):
        scored = _score_plants(params, folder, now, problems)
        if scored:
            print(describe_scores(scored))  # noqa: T201  # the tables are what this command is for
        if until or not scored:
            return problems
        predictions = pl.concat([plant.predictions for plant in scored.values()])
        # Each receiver by itself: one that cannot be reached must not stop the others.
        with _collecting(problems):
            for plant in scored.values():
                _log(settings.log, plant)
        if database and settings.table:
            with _collecting(problems):
                write_predictions(database, settings.table, predictions)
        if receiver:
            with _collecting(problems):
                _send_new_alarms(receiver, predictions)
    return problems


def _score_plants(params: Params, folder: Path, now: datetime, problems: list[UpkeepError]) -> dict[str, Scored]:
    """Score plant by plant up to ``fetch.until``; add the errors of plants that cannot be scored to `problems`."""
    dictionary = load_dictionary(params.validate_.dictionary)
    models = find_models(paths.MODELS)
    faults = find_faults(models.values())
    challengers = _find_challengers(params.score.shadow)
    plants: dict[str, dict[Key, list[Delivery]]] = {plant: {} for plant in models}
    for key, deliveries in list_deliveries(params.fetch, params.limits).items():
        plants.setdefault(key[1], {})[key] = deliveries
    newest = max(batch for listed in plants.values() for table, _, batch in listed if table == "telemetry")
    since = newest - timedelta(days=params.score.history_batches * params.fetch.batch_days)
    scored = {}
    for plant, listed in sorted(plants.items()):
        with _collecting(problems, plant=plant):
            model = models.get(plant, paths.MODELS / name_file(plant))
            if model in faults:
                raise faults[model]
            scorer = load_scorer(model)
            dictionary.require_rows(scorer.model.metadata.preparation.rows_every, plant)
            tables = _read_plant(plant, listed, since, dictionary, params, folder / name_file(plant))
            silence = timedelta(hours=params.score.silent_hours)
            asked = partial(score_newest, tables, since=since, silence=silence, now=now)
            scored[plant] = asked(scorer, "champion")
            if plant in challengers:
                _log_challenger(challengers[plant], asked, params.score.log)
    return scored


def _find_challengers(folder: Path | None) -> dict[str, Path]:
    """Return the folders of the challenger's working models by plant; log a warning about the others."""
    models = find_models(folder) if folder else {}
    if folder and not models:
        logger.warning("%s, score.shadow in params.yaml, holds no model", folder)
    faults = find_faults(models.values())
    for fault in faults.values():
        logger.warning("the challenger is not run: %s", fault)
    return {plant: model for plant, model in models.items() if model not in faults}


def _log_challenger(model: Path, asked: Callable[..., Scored], log: str) -> None:
    try:
        _log(log, call_within(CHALLENGER_SECONDS, lambda: asked(load_scorer(model), "challenger")))
    except Exception as error:
        logger.warning("the challenger %s was not scored: %s", model, error)


def _read_plant(
    plant: str,
    listed: Mapping[Key, list[Delivery]],
    since: date,
    dictionary: Dictionary,
    params: Params,
    folder: Path,
) -> dict[str, pl.DataFrame]:
    """Fetch the batches that scoring one plant needs into a folder, validate them and return the clean tables.

    Of telemetry these are the batches from `since` on and the first ones: a unit is recognised only beside earlier
    values, and °F from a plant that has always delivered it would else look like hot machines. The share in quarantine
    is that of the newer batches, so that old good ones cannot hide a broken new one.
    """
    raw, interim = folder / "raw", folder / "interim"
    opening = sorted(batch for table, _, batch in listed if table == "telemetry")[: params.score.history_batches]

    def is_wanted(key: Key) -> bool:
        table, _, batch = key
        return batch <= params.fetch.until and (table != "telemetry" or batch >= since or batch in opening)

    files = store_batches(listed, params.fetch, raw, is_wanted).files
    checked = check_deliveries(plant, files, raw, dictionary, params)
    tables = write_tables(plant, checked, interim)
    readings = checked["telemetry"]
    checked["telemetry"] = replace(
        readings,
        rows_in=sum(file.rows for file in files if file.table == "telemetry" and file.batch >= since),
        quarantined=readings.quarantined.filter(pl.col("batch") >= since.isoformat()),
    )
    excess = find_excess(plant, checked, params.validate_, interim / paths.QUARANTINE.name)
    refuse_excess(excess, params.validate_, raw)
    return tables


def _log(log: str, scored: Scored) -> None:
    rows = scored.predictions
    write_part(log, rows["id"][0].partition("/")[0], rows.select(SCHEMA.names()))


def _send_new_alarms(receiver: Receiver, predictions: pl.DataFrame) -> None:
    watches = follow_episodes(read_watches(ALARMS), predictions.iter_rows(named=True))
    # Stored before sending: after a crash an episode must keep its start, and so its Idempotency-Key.
    write_watches(ALARMS, watches)
    watches, faults = send_alarms(receiver, watches)
    write_watches(ALARMS, watches)
    if faults:
        raise UpkeepError(
            f"{receiver.address} did not accept {len(faults)} alarm(s); the first: {faults[0]}",
            remedy="check score.webhook in params.yaml and the receiver; the next `upkeep score` sends them again",
        )


@contextmanager
def _collecting(problems: list[UpkeepError], **where: object) -> Iterator[None]:
    try:
        yield
    except UpkeepError as error:
        problems.append(error.at(**where))


def _raise_summary(problems: Sequence[UpkeepError]) -> None:
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    for problem in problems:
        logger.error("%s", problem.at(stage="score"))
    plants = ", ".join(str(problem.where["plant"]) for problem in problems if "plant" in problem.where)
    raise UpkeepError(
        f"{len(problems)} problems, each of which stands above; plants not scored: {plants or 'none'}",
        remedy="mend them, then run `upkeep score` again: it repeats nothing that was accepted",
    )
