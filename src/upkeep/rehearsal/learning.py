"""Models of simulated plants, trained and judged by the stages' own functions, in memory."""

from collections.abc import Mapping
from typing import NamedTuple

import lightgbm as lgb
import polars as pl

from upkeep.contract.dictionary import Dictionary
from upkeep.core.params import Params
from upkeep.features.split import time_boundaries
from upkeep.model.storage import SavedModel
from upkeep.model.training import Splits, train_fleet, train_plant
from upkeep.releases.rescoring import predict_rows
from upkeep.releases.succession import find_newer, judge_succession
from upkeep.stages.dataset import Tables, build_splits, find_vocabulary
from upkeep.stages.train import describe_model

Known = Mapping[str, Tables]  # what is known of each plant


class TrainedFleet(NamedTuple):
    """By plant: the model, machine and time of its training rows, and its predictions as ``train`` writes them."""

    models: dict[str, SavedModel]
    trained: dict[str, pl.DataFrame]
    predictions: dict[str, pl.DataFrame]


def train_models(known: Known, version: str, dictionary: Dictionary, params: Params) -> TrainedFleet:
    """Train as the stages `dataset` and `train` do; a TooLittleDataError is raised if that takes more history."""
    times = pl.concat(tables.telemetry.select("time") for tables in known.values())
    first, last = times.select(first=pl.col("time").min(), last=pl.col("time").max()).row(0)
    boundaries = time_boundaries(first, last, params.dataset.split)
    vocabulary = find_vocabulary(known.items(), boundaries, dictionary, params.dataset)
    built = {
        plant: build_splits(plant, tables, vocabulary, boundaries, dictionary, params)
        for plant, tables in known.items()
    }
    splits = {plant: Splits(**rows.splits) for plant, rows in built.items()}
    fleet, found = train_fleet(splits, params), TrainedFleet({}, {}, {})
    for plant, rows in splits.items():
        selection = train_plant(rows, fleet, params, references=False)
        metadata, texts = describe_model(plant, selection, built[plant].preparation, params, version)
        found.models[plant] = SavedModel(metadata, tuple(lgb.Booster(model_str=text) for text in texts))
        found.trained[plant] = built[plant].splits["train"].select("machine", "time")
        chosen = selection.candidates[selection.chosen].predictions
        found.predictions[plant] = chosen.with_columns(chosen=pl.lit(value=True))
    return found


def may_follow(challenger: TrainedFleet, champion: TrainedFleet, known: Known, params: Params) -> bool:
    """Return whether the gate lets the challenger ship, judged on the newest rows, which neither was trained on."""
    before = {}
    for plant, own in challenger.predictions.items():
        judged, model = champion.predictions[plant], champion.models[plant]
        newer = predict_rows(model, find_newer(judged, own), known[plant])
        before[plant] = pl.concat([judged, newer], how="diagonal_relaxed")
    return judge_succession(before, challenger.predictions, params).decision == "promote"
