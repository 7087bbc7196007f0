"""The ledger of outcomes: what was learnt of each episode and failure, and when; rows are added, never changed.

What was known on a day is the newest row of each key up to that day. An episode or failure that the events no longer
show, such as one whose time was corrected, is withdrawn by a row of its own.
"""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import polars as pl

from upkeep.contract.casting import EARLIEST, LATEST
from upkeep.contract.dictionary import EVENTS, load_dictionary
from upkeep.contract.rules import is_name
from upkeep.core import paths
from upkeep.core.files import locked
from upkeep.core.params import Params
from upkeep.core.plants import list_plants, table_file
from upkeep.production.outcomes import INSTANT, JUDGED, KEY, LEDGER, OF_ALARMS, OF_FAILURES, judge_outcomes
from upkeep.scoring.prediction_log import SCHEMA, Log, complete, name_rows, read_parts, write_part
from upkeep.scoring.score import FOLDER as SCORED

WITHDRAWN = "withdrawn"
IS_OUTCOME = {
    "kind": pl.col("kind").is_in(["alarm", "failure"]),
    "role": pl.col("role").is_not_null(),
    "outcome": pl.col("outcome").is_in([*OF_ALARMS, *OF_FAILURES, WITHDRAWN]),
    **{name: pl.col(name).is_not_null() & is_name(pl.col(name)) for name in ("plant", "machine")},
    **{name: pl.col(name).is_between(EARLIEST, LATEST) for name in ("at", "known_at")},
}
"""What holds of each row that upkeep writes; others who share the folder may write anything."""

OUTCOMES = Log("outcomes", LEDGER, IS_OUTCOME, "known_at", ())
EPISODE = [name for name in KEY if name != "model_version"]
LEARNT = [name for name in LEDGER if name != "known_at"]
LAST = pl.lit(LATEST, LEDGER["at"])


def read_ledger(url: str) -> pl.DataFrame:
    """Return all rows of the ledger at an address; an UpkeepError is raised if it cannot be listed."""
    return pl.concat([LEDGER.to_frame(), *(rows for _, rows in read_parts(url, date.min, set(), log=OUTCOMES))])


def as_known(ledger: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Return what was known at an instant: a row per key, sorted by key."""
    newest = ledger.filter(pl.col("known_at") <= at).sort("known_at", *LEARNT).unique(KEY, keep="last")
    return newest.filter(pl.col("outcome") != WITHDRAWN).sort(KEY)


def find_news(
    ledger: pl.DataFrame,
    predictions: pl.DataFrame,
    events: pl.DataFrame,
    telemetry_ends: pl.DataFrame,
    params: Params,
    known_at: datetime,
) -> pl.DataFrame:
    """Return the rows to add to a ledger: outcomes that are new or have changed, and withdrawals.

    Tables are those of :func:`upkeep.production.outcomes.judge_outcomes`. What they no longer cover stays as it is:
    plants without readings, failures before ``fetch.since``, and outcomes of predictions that have been removed.
    """
    state = as_known(ledger, known_at)
    kept, remembered = _find_kept(state, predictions, telemetry_ends, params)
    logged = pl.concat([predictions.select(JUDGED), remembered])
    judged = judge_outcomes(logged, events, telemetry_ends, params, known_at)
    now = pl.concat([kept, judged.join(kept, on=EPISODE, how="anti")])
    news = now.join(state, on=LEARNT, how="anti", nulls_equal=True)
    gone = state.join(now, on=KEY, how="anti", nulls_equal=True)
    gone = gone.with_columns(outcome=pl.lit(WITHDRAWN), known_at=pl.lit(known_at, LEDGER["known_at"]))
    return pl.concat([news, gone]).sort(KEY)


def _find_kept(
    state: pl.DataFrame, predictions: pl.DataFrame, telemetry_ends: pl.DataFrame, params: Params
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the outcomes that stay as they are and, as predictions, the alarms whose predictions were removed."""
    is_alarm, is_read = pl.col("kind") == "alarm", pl.col("plant").is_in(telemetry_ends["plant"].implode())
    said = predictions.with_columns(pl.col("role").fill_null("champion"), at="time", kind=pl.lit("alarm"))
    removed = state.filter(is_alarm).join(said, on=KEY, how="anti")
    # A model that is known from before the first prediction shows that earlier predictions were removed.
    begin = pl.col("begin").fill_null(LAST)
    known_from = pl.col("at").filter(pl.col("model_version").is_not_null()).min().over("plant")
    failures = state.join(said.group_by("plant").agg(begin=pl.col("at").min()), on="plant", how="left")
    is_cut = (known_from < begin) & (pl.col("at") - timedelta(hours=params.dataset.horizon_hours) < begin)
    since = datetime.combine(params.fetch.since or date.min, time(), UTC)
    kept = [
        state.filter(~is_read),
        removed.filter(is_read, pl.col("outcome") != "pending"),
        failures.filter(is_cut | (pl.col("at") < since)).filter(is_read, ~is_alarm).drop("begin"),
    ]
    remembered = removed.filter(pl.col("outcome") != "void")
    remembered = remembered.with_columns(
        time="at", scored_at="at", alarm=True, source=pl.lit("ledger"), serviced_at=pl.lit(None, LEDGER["at"])
    ).select(JUDGED)
    return pl.concat(kept), remembered


def record_outcomes(params: Params, now: datetime) -> pl.DataFrame:
    """Add what is new to the ledger of ``params.yaml``, and return what is known now.

    An UpkeepError is raised if the log or the ledger cannot be listed or written, or there are no tables.
    """
    with locked(paths.LOCAL / "outcomes" / "lock"):
        ledger = read_ledger(params.production.ledger)
        # Another run may have written while this one waited, or another machine's clock may be ahead.
        known_at = max([now, *(ledger["known_at"].top_k(1) + INSTANT)])
        parts = read_parts(params.score.log, date.min, set(), JUDGED)
        predictions = pl.concat([SCHEMA.to_frame().select(JUDGED), *(rows for _, rows in parts)])
        news = find_news(ledger, predictions, *_read_tables(params), params, known_at)
        if news.height:
            name = f"outcomes-{known_at:%H%M%S%f}-{name_rows(news)}"
            write_part(params.production.ledger, name, news, OUTCOMES)
    return as_known(pl.concat([ledger, news]), known_at)


def _read_tables(params: Params) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return events, and when each machine's readings end, from the newer tables of pipeline and `upkeep score`."""
    row_length = timedelta(microseconds=load_dictionary(params.validate_.dictionary).row_length)
    found: dict[str, tuple[datetime, pl.DataFrame, Path]] = {}
    for folder in [*sorted(SCORED.glob("*/interim")), paths.INTERIM]:
        for plant in list_plants(folder / "telemetry"):
            readings = pl.scan_parquet(table_file(folder / "telemetry", plant)).group_by("plant", "machine")
            ends = readings.agg(known_until=pl.col("time").max() - row_length).collect()
            newest = max([datetime.min.replace(tzinfo=UTC), *ends["known_until"]])
            if plant not in found or newest > found[plant][0]:
                found[plant] = (newest, ends, table_file(folder / "events", plant))
    if not found:
        list_plants(paths.INTERIM / "telemetry", made_by="validate")
    events = pl.concat(complete(pl.scan_parquet(file), EVENTS) for _, _, file in found.values())
    return events.collect(), pl.concat(ends for _, ends, _ in found.values())
