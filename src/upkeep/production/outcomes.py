"""What came of each alarm episode and of each failure, as far as it is known: docs/outcomes.md defines the classes.

Episodes are those of :mod:`upkeep.judging.episodes`, per machine and role; here a maintenance or failure ends them,
too. A row that the same model scored more than once counts once, with its highest probability, which people were
shown. What was told too late to act on caught no failure, whatever time its row is of. A challenger's alarms are shown
to nobody: what a visit's `alarm_at` says is ignored for them, and only failures that the challenger's predictions cover
are counted.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from upkeep.contract.dictionary import ALARM_AT, DEFECT, DTYPES, EVENTS, FINDING, NOTHING
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.features.labels import find_repairs, join_nearest
from upkeep.judging.episodes import find_episodes, judge_failures, read_timeline
from upkeep.scoring.prediction_log import WAS_SERVICED, complete

KEY = ["kind", "plant", "machine", "at", "role", "model_version"]
"""What identifies an episode or failure; the ledger has a row for each time that something was learnt of it."""

LEDGER = pl.Schema(
    {
        **dict.fromkeys(("kind", "plant", "machine"), pl.String()),
        "at": DTYPES["time"],
        **dict.fromkeys(("role", "model_version"), pl.String()),
        **dict.fromkeys(("probability", "threshold"), pl.Float64()),
        "outcome": pl.String(),
        **dict.fromkeys(("settled_at", "known_at"), DTYPES["time"]),
    }
)
"""docs/outcomes.md explains them. `model_version` is null of a failure if no model was in force while a warning would
have been in time, and `settled_at` is null while an outcome is pending."""

OF_ALARMS = ("pending", "failed", "survived", "defect_found", "nothing_found", "no_code", "censored", "void")
OF_FAILURES = ("caught", "missed", "not_covered")

SAID = ["probability", "threshold", "alarm"]
SAID_BY = ["role", "machine"]
JUDGED = ["plant", *SAID_BY, "time", "scored_at", "model_version", *SAID, "source", "serviced_at"]  # of the log

IS_SHOWN = (pl.col("role").fill_null("champion") == "champion") & (pl.col("source") != "smoke")
"""Which rows of the prediction log people were shown."""

TOLD_AT = pl.max_horizontal("time", "scored_at")
"""When people were told; a row may lie in the hour that is being scored."""

INSTANT = timedelta(microseconds=1)


def is_in_time(horizon: timedelta) -> pl.Expr:
    """Return which rows of the prediction log people were told before their horizon was over."""
    return pl.col("time") + horizon > TOLD_AT


def judge_outcomes(
    predictions: pl.DataFrame, events: pl.DataFrame, telemetry_ends: pl.DataFrame, params: Params, known_at: datetime
) -> pl.DataFrame:
    """Return what is known of each episode and failure of all plants: rows of `LEDGER`, sorted by their keys.

    `predictions` are rows of the prediction log (`JUDGED`; a null role is a champion's), `events` those of the clean
    tables, both in any order; `telemetry_ends` holds plant, machine and ``known_until``, its newest reading. A
    challenger's failures are those that its predictions cover. An UpkeepError is raised if rows do not add up.
    """
    parts = [LEDGER.to_frame()]
    for plant in sorted({*predictions["plant"], *events["plant"]}):
        said, happened, ends = (table.filter(plant=plant) for table in (predictions, events, telemetry_ends))
        parts.append(_settle_plant(plant, said, happened, ends, params))
    return pl.concat(parts).with_columns(known_at=pl.lit(known_at, DTYPES["time"])).sort(KEY)


def _settle_plant(
    plant: str, predictions: pl.DataFrame, events: pl.DataFrame, ends: pl.DataFrame, params: Params
) -> pl.DataFrame:
    failures = events.filter(kind="failure").select("machine", at="time").unique().sort("machine", "at")
    horizon = timedelta(hours=params.dataset.horizon_hours)
    rows = _join_predictions(predictions, events, failures, horizon, params)
    episodes = _find_alarms(rows, params.dataset.horizon_hours)
    answered = episodes.join(_find_visits(events, episodes, horizon), on="episode", how="left")
    parts = [_settle_alarms(answered, ends, params), _settle_failures(rows, failures, params)]
    judged = pl.concat(complete(part.lazy().with_columns(plant=pl.lit(plant)), LEDGER) for part in parts).collect()
    sums = {
        "alarms": (episodes.filter(pl.col("last") < pl.col("at") + horizon)["alarms"].sum(), rows["alarm"].sum()),
        "episodes": (judged.filter(kind="alarm").height, episodes.height),
        "failures": (judged.filter(kind="failure", role="champion").height, failures.height),
        "keys": (judged.n_unique(KEY), judged.height),
        "outcomes": (judged["outcome"].is_in([*OF_ALARMS, *OF_FAILURES]).sum(), judged.height),
    }
    if wrong := [f"{found} of {there} {what}" for what, (found, there) in sums.items() if found != there]:
        remedy = "keep the prediction log and data/interim as they are, and report this as a fault of upkeep"
        raise UpkeepError(f"outcomes do not add up: {', '.join(wrong)} are judged", remedy=remedy, plant=plant)
    return judged


def _join_predictions(
    predictions: pl.DataFrame, events: pl.DataFrame, failures: pl.DataFrame, horizon: timedelta, params: Params
) -> pl.DataFrame:
    """Return each prediction once, with its machine's next failure, its latest service, and whether it is void."""
    warns_nobody = (pl.col("source") == "smoke") | WAS_SERVICED | ~is_in_time(horizon)
    said = predictions.select(JUDGED, told_at=TOLD_AT, warns_nobody=warns_nobody)
    said = said.with_columns(pl.col("role").fill_null("champion"))
    said = said.sort("warns_nobody", *SAID, "told_at", descending=[False, True, False, True, False])
    rows = said.unique([*SAID_BY, "time", "model_version"], keep="first", maintain_order=True)
    services = events.filter(pl.col("kind") != "error").select("machine", service="time").unique()
    repairs = find_repairs(events.unique(["machine", "time", "kind"]), params.dataset)
    ahead = failures.select("machine", next_failure="at").sort("next_failure")
    rows = join_nearest(rows.sort("time"), services.sort("service"), left_on="time", right_on="service")
    rows = join_nearest(rows, repairs.sort("failure"), left_on="time", right_on="failure")
    rows = join_nearest(
        rows, ahead, left_on="time", right_on="next_failure", strategy="forward", allow_exact_matches=False
    )
    return rows.with_columns(
        hours_to_failure=(pl.col("next_failure") - pl.col("time")).dt.total_microseconds() / 3.6e9,
        prevented=pl.lit(value=False),  # only failures that happened are covered
        is_void=pl.col("warns_nobody") | (pl.col("time") < pl.col("repaired")).fill_null(value=False),
    ).sort(*SAID_BY, "is_void", "service", "time", "model_version")


def _find_alarms(rows: pl.DataFrame, horizon_hours: float) -> pl.DataFrame:
    """Return a row per episode, numbered: when its alarms began and ended, and the failure that followed, if any."""
    # Episodes end at a change of plant or machine; here also at a change of role or validity, and at each service.
    parted = rows.with_columns(plant=pl.struct("role", "is_void"), machine=pl.struct("machine", "service"))
    starts, _ = find_episodes(read_timeline(parted, horizon_hours), rows["alarm"].to_numpy())
    number = np.searchsorted(starts, np.arange(rows.height), side="right")
    follows = pl.col("hours_to_failure") <= horizon_hours
    return (
        rows.with_columns(episode=pl.Series(number, dtype=pl.Int64))
        .filter("alarm")
        .group_by("episode", maintain_order=True)
        .agg(
            pl.col(*SAID_BY, "is_void", "model_version", "threshold").first(),
            pl.col("probability").max(),
            at=pl.col("time").first(),
            last=pl.col("time").last(),
            alarms=pl.len(),
            failed_at=pl.col("next_failure").filter(follows).min(),
        )
    )


def _find_visits(events: pl.DataFrame, episodes: pl.DataFrame, horizon: timedelta) -> pl.DataFrame:
    """Return the visit that answers each episode which has one: the first with a finding, else the first."""
    visits = complete(events.filter(kind="maintenance").lazy(), EVENTS).collect()
    # A visit answers the newest episode before the alarm that it names, or else before itself.
    names = pl.when(role="champion").then(ALARM_AT)
    asked = visits.join(episodes.select("role").unique(), how="cross").select(
        *SAID_BY, FINDING, visited_at="time", names=names, before=pl.coalesce(names, pl.col("time") - INSTANT)
    )
    answered = episodes.filter(~pl.col("is_void")).select(*SAID_BY, "episode", "at", "last").sort("at")
    found = asked.sort("before").join_asof(
        answered, left_on="before", right_on="at", by=SAID_BY, check_sortedness=False
    )
    ends = pl.coalesce("names", pl.col("visited_at") - horizon)
    answers = found.filter(ends <= pl.col("last")).sort(pl.col(FINDING).is_null(), "visited_at", FINDING)
    return answers.group_by("episode").agg(pl.col("visited_at", FINDING).first())


def _settle_alarms(episodes: pl.DataFrame, ends: pl.DataFrame, params: Params) -> pl.DataFrame:
    """Return each episode's outcome by the first rule that applies, and when what decided it happened."""
    until, last = pl.col("known_until"), pl.col("last")
    end = last + timedelta(hours=params.dataset.horizon_hours)
    newest = pl.lit(ends["known_until"].max(), DTYPES["time"])
    coded = pl.col(FINDING).replace_strict({DEFECT: "defect_found", NOTHING: "nothing_found"}, default="no_code")
    rules = [
        (pl.col("is_void"), pl.lit("void"), pl.col("at")),
        (pl.col("failed_at").is_not_null(), pl.lit("failed"), pl.col("failed_at")),
        (pl.col("visited_at").is_not_null(), coded, pl.col("visited_at")),
        (end <= until, pl.lit("survived"), end),
        (until < newest - timedelta(hours=params.score.silent_hours), pl.lit("censored"), until),
        (pl.lit(value=True), pl.lit("pending"), pl.lit(None)),
    ]
    known = episodes.join(ends.select("machine", "known_until"), on="machine", how="left")
    return known.with_columns(until.fill_null(last)).with_columns(
        kind=pl.lit("alarm"),
        outcome=pl.coalesce(pl.when(holds).then(outcome) for holds, outcome, _ in rules),
        settled_at=pl.coalesce(pl.when(holds).then(at) for holds, _, at in rules),
    )


def _settle_failures(rows: pl.DataFrame, failures: pl.DataFrame, params: Params) -> pl.DataFrame:
    """Return each failure's outcome for the champion, and for a challenger of those that its predictions cover."""
    lead, horizon = params.evaluate.lead_time_hours, params.dataset.horizon_hours
    parts = []
    for role in sorted({"champion", *rows["role"]}):
        said = rows.filter(~pl.col("is_void"), role=role)
        in_time = said.filter(pl.col("told_at") <= pl.col("next_failure") - timedelta(hours=lead))
        covered = judge_failures(in_time, lead, horizon).select("machine", "failed_at", "caught", "peak")
        in_force = said.sort("told_at", "model_version", "threshold").select("told_at", "model_version", "threshold")
        parts.append(
            failures.with_columns(failed_at=pl.col("at").dt.round("1s"), too_late=pl.col("at") - timedelta(hours=lead))
            .join(covered, on=["machine", "failed_at"], how="left" if role == "champion" else "inner")
            .sort("too_late")
            .join_asof(in_force, left_on="too_late", right_on="told_at")
            .with_columns(role=pl.lit(role))
        )
    caught, missed, not_covered = map(pl.lit, OF_FAILURES)
    warned = pl.when("caught").then(caught).otherwise(missed)
    return pl.concat(parts).with_columns(
        kind=pl.lit("failure"),
        probability="peak",
        outcome=pl.when(pl.col("caught").is_null()).then(not_covered).otherwise(warned),
        settled_at="at",
    )
