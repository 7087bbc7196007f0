"""Scores each machine's newest row, finds silent machines, and describes both for the terminal."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import NamedTuple

import polars as pl

from upkeep.contract.dictionary import NEEDED
from upkeep.core.errors import UpkeepError
from upkeep.core.text import align_columns
from upkeep.features.inputs import read_tables
from upkeep.model.scoring import Scorer
from upkeep.scoring.prediction_log import STANDS, ModelRole, as_log_rows, as_prediction, find_services, name_rows

URGENT = 5
SILENT = 20  # machines that are named at most
MINUTE = "%Y-%m-%d %H:%M"


class Scored(NamedTuple):
    """One plant's scores.

    `predictions` has a row per machine: the columns of the prediction log, ``reasons`` in words, and ``horizon_hours``
    of the alarm. `silent` are the machines without a recent row, with the time of their last one if it is known.
    """

    predictions: pl.DataFrame
    silent: dict[str, datetime | None]


def score_newest(
    tables: Mapping[str, pl.DataFrame],
    scorer: Scorer,
    role: ModelRole,
    *,
    since: date,
    silence: timedelta,
    now: datetime,
) -> Scored:
    """Score one plant's machines at their newest rows, from its validated tables; an UpkeepError if there is no row.

    Telemetry is complete from the day `since` on. A machine is silent if its last row is older than the plant's newest
    by more than `silence`. `now` is in UTC.
    """
    window = timedelta(hours=max(scorer.model.metadata.dataset.windows_hours))
    begin = datetime.combine(since, time(), UTC)
    seen = tables["telemetry"].filter(pl.col("time") >= begin).group_by("machine").agg(last=pl.col("time").max())
    # Windows must not reach back before the complete telemetry.
    recent = _find_recent(seen, begin + window, silence)
    telemetry = tables["telemetry"].join(recent, on="machine", how="semi").sort("machine", "time")
    events = tables["events"].join(recent, on="machine", how="semi")
    answers = scorer.score(*read_tables(telemetry, events, tables["machines"], scorer.vocabulary))
    inputs, scored_at = _write_inputs(telemetry, events, window), int(now.timestamp() * 1_000_000)
    happened = events.select("machine", pl.col("time").dt.timestamp("us"), "kind", "code").iter_rows()
    services = find_services(happened, scorer.model.metadata.dataset.max_repair_hours)
    told = partial(as_prediction, scorer=scorer, identity="", source="batch", scored_at=scored_at, role=role)
    logged = as_log_rows(
        [told(each, inputs=inputs[each.machine], service=services.get(each.machine)) for each in answers]
    )
    reasons = [[reason["words"] for reason in scorer.explain(answer.features, answer.readings)] for answer in answers]
    predictions = _number(logged).with_columns(
        reasons=pl.Series(reasons, dtype=pl.List(pl.String)),
        horizon_hours=pl.lit(scorer.model.metadata.dataset.horizon_hours),
    )
    silent = tables["machines"].join(recent, on="machine", how="anti").join(seen, on="machine", how="left")
    return Scored(predictions, dict(silent.select("machine", "last").iter_rows()))


def _find_recent(seen: pl.DataFrame, earliest: datetime, silence: timedelta) -> pl.DataFrame:
    """Return the machines whose last row is neither before `earliest` nor more than `silence` before the plant's."""
    recent = seen.filter(pl.col("last") >= earliest, pl.col("last") >= pl.col("last").max() - silence)
    if recent.is_empty():
        raise UpkeepError(
            f"there is no recent telemetry of this plant, no row from {earliest:%Y-%m-%d %H:%M} on",
            remedy="look at what the plant delivers; `upkeep score --until DATE` scores an earlier day",
            table="telemetry",
        )
    return recent


def _write_inputs(telemetry: pl.DataFrame, events: pl.DataFrame, window: timedelta) -> dict[str, str]:
    """Return by machine the rows of its newest features as JSON, in the form of a request."""
    within = telemetry.filter(pl.col("time") > pl.col("time").max().over("machine") - window)
    rows = pl.concat([within, events.select(*NEEDED["events"])], how="diagonal")
    rows = rows.with_columns(pl.selectors.datetime().dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ"))
    return {
        str(machine): json.dumps({"columns": own.columns, "data": own.rows()}, separators=(",", ":"))
        for (machine,), own in rows.partition_by("machine", as_dict=True).items()
    }


def _number(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return predictions with ids; the same predictions on the same day have the same ids, and are logged once."""
    day = pl.col("scored_at").dt.date()
    said = day, "plant", "machine", "time", "probability", "model_version", "serviced_at"  # the page reads a name once
    key = name_rows(predictions.select(said))
    kind = pl.when(role="challenger").then(pl.lit("challenger")).otherwise(pl.lit("batch"))
    return predictions.with_columns(id=pl.format("{}-{}/{}", kind, pl.lit(key), pl.int_range(pl.len())))


def describe_scores(scored: Mapping[str, Scored]) -> str:
    """Return the plants, the most urgent machines and the silent ones as tables."""
    plants = [(name, *_count_machines(plant)) for name, plant in scored.items()]
    tables = [
        align_columns(("plant", "data until", "scored", "alarms", "silent", "warnings"), plants),
        align_columns(("most urgent", "data until", "probability", "", "because"), _rank(scored)),
    ]
    silent = [
        (f"{name} {machine}", f"{last:{MINUTE}}" if last else "long before")
        for name, plant in scored.items()
        for machine, last in sorted(plant.silent.items())
    ]
    if silent:
        others = [(f"and {len(silent) - SILENT} more", "")] if len(silent) > SILENT else []
        tables.append(align_columns(("silent", "no data since"), silent[:SILENT] + others))
    return "\n\n".join(tables)


def _count_machines(plant: Scored) -> tuple[str, ...]:
    rows = plant.predictions
    counts = (rows.height, rows.filter(STANDS).height, len(plant.silent), rows["warnings"].list.len().sum())
    return str(rows["time"].dt.strftime(MINUTE).max()), *map(str, counts)


def _rank(scored: Mapping[str, Scored]) -> list[tuple[str, ...]]:
    rows = pl.concat([plant.predictions for plant in scored.values()]).with_columns(stands=STANDS)
    urgent = rows.sort("stands", "probability", "plant", "machine", descending=[True, True, False, False]).head(URGENT)
    return [
        (
            f"{row['plant']} {row['machine']}",
            f"{row['time']:{MINUTE}}",
            f"{row['probability']:.1%}",
            "alarm" if row["stands"] else "failed or serviced" if row["alarm"] else "",
            next(iter(row["reasons"]), "nothing raises it"),
        )
        for row in urgent.iter_rows(named=True)
    ]
