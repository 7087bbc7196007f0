"""A run to be sent to MLflow, with its files, and what has arrived of it."""

from pathlib import Path

from upkeep.reporting.experiments import Run
from upkeep.reporting.tracking import KeptRun, keep_run

PENDING = Path(".upkeep/pending")
REPORT = Path("reports/metrics.json")
MODEL = Path("models/plants/lyon/model.json")
FACTS = {"commit": "abc", "until": "2025-12-22", "image": "registry.example.com/upkeep@sha256:123"}
CONTENT = {
    "model": {"name": "fleet", "kind": "lightgbm", "plants": {"lyon": {"scope": "plant"}}},
    "description": "first try",
    "parameters": {"model": {"seed": 7, "long": "x" * 7000}, **{f"parameter_{i}": i for i in range(150)}},
    "data": {},
    "metrics": {
        "test": {
            "overall": {"brier": 0.25, "roc_auc": None},
            "plants": {"lyon": {"brier": 0.5}, "porto": {"brier": 0.1}},
        },
        "validation": {"overall": {"brier": 0.3}, "plants": {}},
    },
    "drift": {},
    "data_quality": {},
}


def write_outputs():
    """Write what a run leaves in the current folder."""
    for file in (REPORT, MODEL):
        file.parent.mkdir(parents=True)
        file.write_text("first")


def keep(key="k1", date="2025-03-01T00:00:00+00:00"):
    run = KeptRun(key=key, date=date, commit="abc", content=Run.model_validate(CONTENT))
    keep_run(PENDING, run, [REPORT, MODEL.parent, Path("reports/absent")])


def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs(uri):
    experiment = client(uri).get_experiment_by_name("fleet")
    return client(uri).search_runs([experiment.experiment_id]) if experiment else []


def parents(uri):
    return [run for run in runs(uri) if "mlflow.parentRunId" not in run.data.tags]
