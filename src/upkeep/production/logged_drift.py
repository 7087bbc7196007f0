"""Whether the rows that live models score, and their probabilities, still look like the rows they learnt from.

Drift is a shift as in :mod:`upkeep.judging.drift`: a distance from the training rows that no window of them as long
ever had from the rest. A log of any size is read file by file, and only a sample of it is kept.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.parallel import map_plants
from upkeep.core.params import Drift, Params
from upkeep.core.plants import name_file, table_file
from upkeep.core.types import Floats
from upkeep.judging.drift import FEWEST_VALUES, Window, measure_shift, smallest_shift, usual_distance
from upkeep.model.explanation import READINGS
from upkeep.model.scoring import load_scorer
from upkeep.production.health import FINE, UNKNOWN, WATCH, Signal
from upkeep.production.outcomes import IS_SHOWN
from upkeep.scoring.prediction_log import SCHEMA, read_parts

PROBABILITY, ANSWERS = "probability", "its answers"
MOVED_SHARE = 0.5  # of the features made of one sensor; if more have drifted, the sensor has moved
LOGGED = ["plant", "machine", "time", "scored_at", "role", "source", "model_version", PROBABILITY, "features"]


class TrainingValues(NamedTuple):
    """What logged values are compared with: a training feature, by its `place`, or the probabilities if that is None.

    `distance` is the farthest that a window as long as the log's, or half the time of the values, got from the rest.
    """

    sensor: str
    place: int | None
    values: Floats
    distance: float


Learnt = tuple[str, list[TrainingValues]]  # a live model's version, and what it learnt from


def judge_predictions(plants: Sequence[str], params: Params, as_of: datetime) -> list[Signal]:
    """Return a signal for each plant whose model and training rows are here.

    An UpkeepError is raised if the log cannot be listed.
    """
    window = Window(as_of - params.drift.window_batches * timedelta(days=params.fetch.batch_days), as_of)
    at_hand = [plant for plant in plants if all(file.exists() for file in _list_files(plant))]
    found = map_plants(_read_learnt, at_hand, params.parallel, window, params.drift)
    live = {plant: each[0] for plant, each in found.items() if each}
    asked = sample_log(params.score.log, live, window, params.drift.sample_rows) if live else {}
    none = pl.DataFrame(schema={name: SCHEMA[name] for name in LOGGED})
    return [judge_plant(plant, each, asked.get(plant, none)) for plant, each in found.items()]


def _list_files(plant: str) -> tuple[Path, Path]:
    return paths.MODELS / name_file(plant) / paths.MODEL_METADATA, paths.PROCESSED / name_file(plant) / "train.parquet"


def _read_learnt(plant: str, window: Window, how: Drift) -> Learnt | None:
    """Return the version of a plant's model and what it learnt from; None if either cannot be read."""
    model, trained = _list_files(plant)
    try:
        scorer = load_scorer(model.parent)
        own = [(place, each) for place, each in enumerate(scorer.explainer.features) if each.kind in READINGS]
        rows = pl.read_parquet(trained, columns=["time", "weight", *(each.name for _, each in own)])
        judged = pl.scan_parquet(table_file(paths.PREDICTIONS, plant)).filter("chosen", pl.col("split") != "train")
        answers = judged.select("time", PROBABILITY, weight=pl.lit(1.0)).collect()
    except (UpkeepError, OSError, pl.exceptions.PolarsError):
        return None
    rows, answers = draw_rows(rows, how), draw_rows(answers, how)
    find = partial(find_usual, window=window)
    references = [TrainingValues(ANSWERS, None, *find(answers[PROBABILITY], answers["time"]))]
    references += [
        TrainingValues(scorer.explainer.quantity(each).name, place, *find(rows[each.name], rows["time"]))
        for place, each in own
    ]
    return scorer.version, references


def draw_rows(rows: pl.DataFrame, how: Drift) -> pl.DataFrame:
    """Draw ``drift.sample_rows`` rows by weight, with replacement; none if there are none."""
    share = rows["weight"].to_numpy() / rows["weight"].sum()
    return rows[np.random.default_rng(how.seed).choice(rows.height, how.sample_rows, p=share)] if rows.height else rows


def find_usual(values: pl.Series, times: pl.Series, window: Window) -> tuple[Floats, float]:
    """Return the known values, and the `distance` of a :class:`TrainingValues` made of them."""
    is_known = values.is_finite().fill_null(value=False)
    known, hours = values.filter(is_known).to_numpy(), times.filter(is_known).dt.epoch("s").to_numpy() / 3600
    span = np.ptp(hours) if hours.size else 0
    length = min((window.end - window.start) / timedelta(hours=1), span / 2)
    return known, usual_distance(known, hours, length, measure_shift) if length else 0.0


def sample_log(url: str, live: Mapping[str, str], window: Window, most: int) -> dict[str, pl.DataFrame]:
    """Return by plant the logged rows that its live model, given by version, scored in a window, at most `most`.

    They are chosen by a hash of machine and time, so that it does not matter how the log is cut into files.
    """
    kept: dict[str, pl.DataFrame] = {}
    is_recent = pl.col("scored_at").is_between(*window, closed="left")
    for _, rows in read_parts(url, window.start.date(), set(), LOGGED):
        drawn = rows.filter(IS_SHOWN, is_recent).with_columns(draw=pl.struct("machine", "time").hash())
        for (plant,), own in drawn.partition_by("plant", as_dict=True).items():
            if plant in live:
                both = [kept.get(plant, own.clear()), own.filter(model_version=live[plant])]
                kept[plant] = pl.concat(both).bottom_k(most, by="draw")
    return kept


def judge_plant(plant: str, learnt: Learnt | None, logged: pl.DataFrame) -> Signal:
    """Return whether the probabilities have drifted, or more than half of the features made of one sensor."""
    signal = partial(Signal, plant=plant, measure="predictions")
    if learnt is None:
        words = "its model or what that learnt from cannot be read"
        return signal(status=UNKNOWN, words=words, remedy="run `dvc checkout`")
    rows = []
    for sensor, place, usual, distance in learnt[1]:
        values = logged[PROBABILITY] if place is None else logged["features"].list.get(place, null_on_oob=True)
        newest = values.filter(values.is_finite()).to_numpy()
        if min(newest.size, usual.size) >= FEWEST_VALUES:
            # The distance between samples is larger by chance than that between what they are drawn from.
            limit = distance + smallest_shift(newest.size, usual.size)
            rows.append((sensor, measure_shift(newest, usual), limit))
    if not rows:
        words = f"{logged.height:,} recent predictions of its live model are logged: too few to be judged"
        return signal(status=UNKNOWN, words=words, remedy="run `upkeep score`")
    table = pl.DataFrame(rows, ["sensor", "score", "limit"], orient="row")
    excess = pl.col("score") / pl.col("limit")
    shares = table.group_by("sensor", maintain_order=True).agg((excess >= 1).mean().alias("share"))
    moved = shares.filter(pl.col("share") > MOVED_SHARE)["sensor"].to_list()
    words = "what its live model is asked and answers looks like what it learnt from"
    if moved:
        words = f"unlike what its live model learnt from: {', '.join(moved)}"
    _, score, limit = table.sort(excess, descending=True).row(0)
    return signal(status=WATCH if moved else FINE, words=words, value=score, limit=limit)
