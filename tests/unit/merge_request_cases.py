"""Both sides of a merge request in small: reports as the stages write them, with made predictions behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from parameters import SHIPPED, changed
from prediction_cases import HORIZON, evaluate_rows, how, machine

from upkeep.core.params import Params
from upkeep.gitlab.gate import Verdict, reach_verdict
from upkeep.gitlab.note import Review
from upkeep.gitlab.snapshot import Snapshot
from upkeep.judging.acceptance import Check
from upkeep.judging.reports import DataQuality, DriftReport, Evaluation, Sanity
from upkeep.releases.succession import Succession, judge_succession
from upkeep.sources.manifest import Manifest, RawFile

PASSED = Check("average_precision", "at least 0.5", "0.71", True)
FAILED = Check("failures_caught", "at least 0.6", "0.4", False)
TIMES = {"train": 16.3, "evaluate": 3.0}

OUT_OF_RANGE = {"out of range": 10}
GOOD = {25: 0.9, 26: 0.8}
BLIND: dict[int, float] = {}
NO_FLOORS: Mapping[str, float] = {}


def params() -> Params:
    return SHIPPED.model_copy(update={"evaluate": how(), "dataset": changed(SHIPPED.dataset, horizon_hours=HORIZON)})


def plant(name: str, alarms: Mapping[int, float] = GOOD, machines: int = 6) -> pl.DataFrame:
    """A plant of machines of which every other fails; those that stay healthy raise no alarm."""
    rows = [
        machine(f"m{number}", fails_at=30 if number % 2 else None, alarms=alarms if number % 2 else {})
        for number in range(machines)
    ]
    return pl.concat(rows).with_columns(plant=pl.lit(name))


def delivered(plants: list[str], *batches: str) -> Manifest:
    """The manifest of one telemetry file per plant and batch."""
    common = {"table": "telemetry", "delivery": 1, "rows": 168, "bytes": 1, "file": ""}
    files = [
        RawFile(**common, plant=name, batch=batch, sha256=f"{name}{batch}") for name in plants for batch in batches
    ]
    return Manifest(source="files", options_sha256="", files=files)


def fetched(path: str, until: str = "2025-02-24") -> dict[str, str]:
    """The parameters of a fleet whose deliveries lie there."""
    return {"fetch.source": "files", "fetch.until": until, "fetch.options.path": path}


def drift(**drifted: Sequence[str]) -> DriftReport:
    """What `drift` found of plants, each given by the columns that drifted."""
    found = {"current_rows": 1, "reference_rows": 1, "window": {"from": "", "to": ""}, "notes": []}
    column = {"method": "wasserstein", "score": 0.3, "threshold": 0.2, "drifted": True}
    own = {"load_pct": column | {"drifted": False}}
    return DriftReport.model_validate(
        {
            name: found | {"drifted": bool(columns), "share": 1.0, "columns": own | dict.fromkeys(columns, column)}
            for name, columns in drifted.items()
        }
    )


def quality(**quarantined: Mapping[str, int]) -> DataQuality:
    """What `validate` set aside of plants' telemetry, by reason."""
    counts = {"rows_in": 1000, "clean": 990, "duplicates": {}}
    tables = {name: {"telemetry": {**counts, "quarantined": reasons}} for name, reasons in quarantined.items()}
    return DataQuality.model_validate(
        {"plants": {name: {"tables": table, "findings": []} for name, table in tables.items()}}
    )


def beyond_chance(report: Evaluation) -> Evaluation:
    """A report whose models beat references that are not among its candidates."""
    sanity = {"sanity": Sanity(base_rate=0.1, average_precision={"class_prior": 0.1}, faults=[])}
    plants = {name: group.model_copy(update=sanity) for name, group in report.plants.items()}
    return report.model_copy(update={"overall": report.overall.model_copy(update=sanity), "plants": plants})


def snapshot(name: str = "this branch", *plants: pl.DataFrame, **changes: object) -> Snapshot:
    """One side; a plant is its predictions."""
    predictions = {rows["plant"][0]: rows for rows in plants or (plant("lyon"), plant("porto"))}
    report = beyond_chance(evaluate_rows(predictions, how()))
    names = sorted(predictions)
    given: dict[str, Any] = {
        "params": fetched("deliveries"),
        "metrics": report.headline,
        "evaluation": report,
        "drift": drift(**dict.fromkeys(names, ())),
        "quality": quality(**dict.fromkeys(names, OUT_OF_RANGE)),
        "manifest": delivered(names, "2025-01-06"),
        "predictions": predictions,
    }
    return Snapshot(name, **{**given, **changes})


def succeeded(
    champion: Snapshot | None, challenger: Snapshot, missed: Mapping[str, float] = NO_FLOORS, **limits: float
) -> Succession:
    told = params().model_copy(update={"gate": changed(SHIPPED.gate, **{"min_failures": 1, **limits})})
    return judge_succession(champion.predictions if champion else {}, challenger.predictions, told, missed)


def judged(champion: Snapshot | None, challenger: Snapshot, checks=(PASSED,), faults=(), floors=NO_FLOORS) -> Verdict:
    return reach_verdict(champion, challenger, succeeded(champion, challenger, floors), checks, floors, faults)


def review(champion: Snapshot | None, challenger: Snapshot, checks=(PASSED,), times=TIMES) -> Review:
    figures = succeeded(champion, challenger).figures
    return Review(champion, challenger, figures, judged(champion, challenger, checks), checks, times)
