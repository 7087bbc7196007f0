"""Predictions and models in; metrics, the evaluation and the tables behind its plots out."""

from collections.abc import Iterator
from datetime import timedelta

import polars as pl

from upkeep.core import paths
from upkeep.core.files import read_json
from upkeep.core.params import Params
from upkeep.core.plants import list_plants, name_file, table_file
from upkeep.features.inputs import read_telemetry
from upkeep.judging.episodes import pick_alarms
from upkeep.judging.evaluation import draw_curves, evaluate
from upkeep.judging.reports import REMEDY, Alarm, AlarmReason, write_curves, write_report
from upkeep.model.explanation import rank_features
from upkeep.model.scoring import Scorer, load_scorer
from upkeep.model.storage import find_models, to_matrix

ALARMS_PER_PLANT = 5
KEYS = ["plant", "machine", "time"]
ALARM_COLUMNS = [*KEYS, "probability", "hours_to_failure"]


def run(params: Params) -> None:
    """Write ``reports/metrics.json`` and ``reports/evaluation``."""
    horizon = params.dataset.horizon_hours
    predictions = _read_predictions()
    report = evaluate(predictions, params.evaluate, horizon, params.model.seed, _read_doubts())
    tables = draw_curves(predictions, params.evaluate, horizon)
    # Only LightGBM models are saved; others are judged, but cannot be asked for reasons.
    models = find_models(paths.MODELS)
    scorers = {plant: load_scorer(folder) for plant, folder in models.items() if plant in predictions}
    alarms = [
        alarm
        for plant, scorer in scorers.items()
        for alarm in _explain_alarms(predictions[plant], plant, scorer, horizon)
    ]
    notes = [f"{plant}: no saved model, so no reasons for alarms" for plant in predictions if plant not in scorers]
    report = report.model_copy(update={"alarms": alarms, "notes": report.notes + notes})
    tables["importance"] = pl.concat([rank_features("", [], [], []), *map(_rank, scorers.values())])
    write_curves(tables)
    write_report(report)
    write_report(report.headline)


def _read_predictions() -> dict[str, pl.DataFrame]:
    plants = list_plants(paths.PREDICTIONS, made_by="train")
    files = {plant: table_file(paths.PREDICTIONS, plant) for plant in plants}
    return {plant: pl.read_parquet(file).cast({"probability": pl.Float64}) for plant, file in files.items()}


def _read_doubts() -> dict[str, str]:
    """Return why plants' test rows may mislead, as the dataset stage found."""
    sizes = read_json(paths.DATASET, remedy=REMEDY)
    return {plant: splits["test"]["doubt"] for plant, splits in sizes.items() if splits["test"].get("doubt")}


def _rank(scorer: Scorer) -> pl.DataFrame:
    """Return the features of a plant's model by what they count."""
    explainer, model = scorer.explainer, scorer.model
    words = [explainer.name(feature) for feature in explainer.features]
    gains = [booster.feature_importance("gain") for booster in model.boosters]
    return rank_features(model.metadata.plant, model.metadata.features, words, gains)


def _explain_alarms(predictions: pl.DataFrame, plant: str, scorer: Scorer, horizon_hours: float) -> Iterator[Alarm]:
    chosen = predictions.filter("chosen", split="test").sort("machine", "time")
    alarms = pick_alarms(chosen, horizon_hours, ALARMS_PER_PLANT).select(ALARM_COLUMNS)
    rows = pl.read_parquet(paths.PROCESSED / name_file(plant) / "test.parquet")
    rows = alarms.select(KEYS).join(rows, on=KEYS, maintain_order="left")
    features = to_matrix(rows, scorer.model.metadata.features)
    telemetry = pl.read_parquet(table_file(paths.INTERIM / "telemetry", plant)).sort("machine", "time")
    window = timedelta(hours=max(scorer.model.metadata.dataset.windows_hours))
    for alarm, values in zip(alarms.iter_rows(named=True), features, strict=True):
        time = alarm["time"]
        seen = telemetry.filter(pl.col("time").is_between(time - window, time), machine=alarm["machine"])
        (readings,) = scorer.read(read_telemetry(seen, scorer.vocabulary))
        reasons = [AlarmReason(**reason) for reason in scorer.explain(values, readings)]
        yield Alarm(**alarm | {"time": time.isoformat()}, reasons=reasons)
