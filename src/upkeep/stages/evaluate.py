"""Predictions and models in; metrics, the evaluation and the tables behind its plots out."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.names import KEYS
from upkeep.core.parallel import map_plants
from upkeep.core.params import Params
from upkeep.core.plants import list_plants, name_file, table_file
from upkeep.features.inputs import read_telemetry
from upkeep.judging.episodes import pick_alarms
from upkeep.judging.evaluation import PlantOutcomes, draw_curves, evaluate, judge_group, read_plant
from upkeep.judging.reports import (
    Alarm,
    AlarmReason,
    DatasetReport,
    GroupReport,
    read_report,
    write_curves,
    write_report,
)
from upkeep.model.explanation import rank_features
from upkeep.model.scoring import Scorer, load_scorer
from upkeep.model.storage import to_matrix

ALARMS_PER_PLANT = 5


class EvaluatedPlant(NamedTuple):
    """What a plant adds to the reports; without a saved model it has neither alarms nor rows of ``importance``."""

    outcomes: PlantOutcomes
    report: GroupReport
    curves: dict[str, pl.DataFrame]
    alarms: list[Alarm]


def run(params: Params) -> None:
    """Write ``reports/metrics.json`` and ``reports/evaluation``.

    An UpkeepError is raised if the lead time exceeds the horizon, so that no alarm could be in time.
    """
    lead, horizon = params.evaluate.lead_time_hours, params.dataset.horizon_hours
    if lead > horizon:
        raise UpkeepError(
            f"evaluate.lead_time_hours is {lead}, more than dataset.horizon_hours, {horizon}",
            remedy="correct either in params.yaml",
        )
    plants = list_plants(paths.PREDICTIONS, made_by="train")
    sizes = read_report(DatasetReport).root
    # Why plants' test rows may mislead, as the dataset stage found.
    doubts = {plant: doubt for plant, splits in sizes.items() if (doubt := splits["test"].doubt)}
    found = map_plants(_evaluate_plant, plants, params.parallel, params, doubts)
    outcomes = {name: own.outcomes for name, own in found.items()}
    reports = {name: own.report for name, own in found.items()}
    report = evaluate(outcomes, reports, params.evaluate, params.model.seed, doubts)
    alarms = [alarm for own in found.values() for alarm in own.alarms]
    unsaved = [plant for plant, own in found.items() if own.curves["importance"].is_empty()]
    notes = [f"{plant}: no saved model, so no reasons for alarms" for plant in unsaved]
    report = report.model_copy(update={"alarms": alarms, "notes": report.notes + notes})
    write_curves({name: pl.concat(own.curves[name] for own in found.values()) for name in found[plants[0]].curves})
    write_report(report)
    write_report(report.headline)


def _evaluate_plant(plant: str, params: Params, doubts: Mapping[str, str]) -> EvaluatedPlant:
    horizon = params.dataset.horizon_hours
    predictions = pl.scan_parquet(table_file(paths.PREDICTIONS, plant))
    outcomes = read_plant(predictions, params.evaluate, horizon)
    doubt = [doubts[plant]] if plant in doubts else []
    report = judge_group([outcomes], params.evaluate, params.model.seed, doubt)
    chosen = (
        predictions.filter("chosen", split="test").cast({"probability": pl.Float64}).sort("machine", "time").collect()
    )
    curves = draw_curves(plant, chosen, params.evaluate, horizon)
    folder = paths.MODELS / name_file(plant)
    # Only LightGBM models are saved; others are judged, but cannot be asked for reasons.
    if not (folder / paths.MODEL_METADATA).exists():
        return EvaluatedPlant(outcomes, report, curves | {"importance": rank_features("", [], [], [])}, [])
    scorer = load_scorer(folder)
    words = [scorer.explainer.name(feature) for feature in scorer.explainer.features]
    gains = [booster.feature_importance("gain") for booster in scorer.model.boosters]
    importance = rank_features(plant, scorer.model.metadata.features, words, gains)
    alarms = list(_explain_alarms(chosen, plant, scorer, horizon))
    return EvaluatedPlant(outcomes, report, curves | {"importance": importance}, alarms)


def _explain_alarms(chosen: pl.DataFrame, plant: str, scorer: Scorer, horizon_hours: float) -> Iterator[Alarm]:
    alarms = pick_alarms(chosen, horizon_hours, ALARMS_PER_PLANT).select(*KEYS, "probability", "hours_to_failure")
    theirs = pl.col("machine").is_in(alarms["machine"].implode())
    test = pl.scan_parquet(paths.PROCESSED / name_file(plant) / "test.parquet")
    rows = test.filter(theirs, pl.col("time").is_in(alarms["time"].implode())).collect()
    features = to_matrix(alarms.join(rows, on=KEYS, maintain_order="left"), scorer.model.metadata.features)
    scan = pl.scan_parquet(table_file(paths.INTERIM / "telemetry", plant))
    telemetry = scan.filter(theirs).collect().sort("machine", "time")
    window = timedelta(hours=max(scorer.model.metadata.dataset.windows_hours))
    for alarm, values in zip(alarms.iter_rows(named=True), features, strict=True):
        time = alarm["time"]
        seen = telemetry.filter(pl.col("time").is_between(time - window, time), machine=alarm["machine"])
        (readings,) = scorer.read(read_telemetry(seen, scorer.vocabulary))
        reasons = [AlarmReason(**reason) for reason in scorer.explain(values, readings)]
        yield Alarm(**alarm | {"time": time.isoformat()}, reasons=reasons)
