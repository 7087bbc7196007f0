"""Predictions and models in; metrics, the evaluation and the tables behind its plots out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from upkeep.core import paths
from upkeep.core.params import Params
from upkeep.core.plants import list_plants, name_file, table_file
from upkeep.judging.episodes import pick_alarms
from upkeep.judging.evaluation import draw_curves, evaluate
from upkeep.judging.reports import Alarm, Reason, write_report
from upkeep.model.explanation import find_reasons, rank_features
from upkeep.model.storage import SavedModel, contributions, find_models, load_model

ALARMS_PER_PLANT = 5
NO_FEATURES = pl.DataFrame(schema={"plant": pl.String, "feature": pl.String, "gain": pl.Float64})
KEYS = ["plant", "machine", "time"]
ALARM_COLUMNS = [*KEYS, "probability", "hours_to_failure"]


def run(params: Params) -> None:
    """Write ``reports/metrics.json`` and ``reports/evaluation``."""
    horizon = params.dataset.horizon_hours
    predictions = _read_predictions()
    report = evaluate(predictions, params.evaluate, horizon, params.model.seed)
    tables = draw_curves(predictions, params.evaluate, horizon)
    # Only LightGBM models are saved; others are judged, but cannot be asked for reasons.
    models = {plant: load_model(folder) for plant, folder in find_models(paths.MODELS).items() if plant in predictions}
    alarms = [
        alarm
        for plant, model in models.items()
        for alarm in _explain_alarms(predictions[plant], paths.PROCESSED / name_file(plant), model, horizon)
    ]
    notes = [f"{plant}: no saved model, so no reasons for alarms" for plant in predictions if plant not in models]
    report = report.model_copy(update={"alarms": alarms, "notes": report.notes + notes})
    ranked = [
        rank_features(
            model.metadata.features, [booster.feature_importance("gain") for booster in model.boosters]
        ).select(pl.lit(plant).alias("plant"), pl.all())
        for plant, model in models.items()
    ]
    tables["importance"] = pl.concat([NO_FEATURES, *ranked])
    paths.EVALUATION.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_csv(paths.EVALUATION / f"{name}.csv")
    write_report(report)
    write_report(report.headline)


def _read_predictions() -> dict[str, pl.DataFrame]:
    plants = list_plants(paths.PREDICTIONS, made_by="train")
    files = {plant: table_file(paths.PREDICTIONS, plant) for plant in plants}
    return {plant: pl.read_parquet(file).cast({"probability": pl.Float64}) for plant, file in files.items()}


def _explain_alarms(
    predictions: pl.DataFrame, processed: Path, model: SavedModel, horizon_hours: float
) -> Iterator[Alarm]:
    chosen = predictions.filter("chosen", split="test").sort("machine", "time")
    alarms = pick_alarms(chosen, horizon_hours, ALARMS_PER_PLANT).select(ALARM_COLUMNS)
    rows = pl.read_parquet(processed / "test.parquet")
    rows = alarms.select(KEYS).join(rows, on=KEYS, maintain_order="left")
    names = model.metadata.features
    values = rows.select(pl.col(names).cast(pl.Float64).fill_null(np.nan)).to_numpy()
    described = alarms.with_columns(pl.col("time").dt.to_string("iso:strict")).to_dicts()
    for alarm, known, shap in zip(described, values, contributions(model, rows), strict=True):
        yield Alarm(**alarm, reasons=[Reason(**reason) for reason in find_reasons(names, known, shap)])
