"""What a run consists of in; a row of the experiment log and a run in MLflow out."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from upkeep.core import paths
from upkeep.core.files import locked, read_json, write_json
from upkeep.core.params import Params
from upkeep.core.secrets import mask_secrets
from upkeep.judging.reports import REMEDY, DataQuality, DriftReport, Evaluation, Headline, read_report
from upkeep.reporting.experiments import Groups, Run, append_row, code_version, describe_row, hash_files
from upkeep.reporting.tracking import DATABASE, SQLITE, KeptRun, keep_run, send_pending

PENDING = paths.LOCAL / "pending"
OUTPUTS = (
    paths.METRICS,
    paths.EVALUATION,
    paths.TRAINING,
    paths.DATA_QUALITY,
    paths.DRIFT,
    paths.EDA,
    paths.MODEL_QUALITY,
    paths.MODEL_CARD,
    paths.MODELS,
)
OF_NO_STAGE = {"gate", "monitor", "parallel", "pieces", "production", "retrain", "score"}  # settings without a result

logger = logging.getLogger(__name__)


def run(params: Params) -> None:
    """Write ``reports/run.json``, add a row to ``reports/experiments.csv`` and send what waits to MLflow."""
    content = _describe_run(params)
    write_json(paths.RUN, {"run": content.key, **content.model_dump()})
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row = describe_row(content, now, code_version(Path()), [path.as_posix() for path in OUTPUTS if path.exists()])
    logged = append_row(paths.EXPERIMENTS, row, paths.LOCAL / "experiments.lock")
    kept = KeptRun(key=content.key, date=logged["date"], commit=logged["commit"], content=content)
    checkout = find_checkout()
    # MLflow knows a database by its address for as long as the process lives, wherever that has moved.
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{(checkout / DATABASE).absolute()}"
    with locked(checkout / paths.LOCAL / "pending.lock"):
        keep_run(checkout / PENDING, kept, [*OUTPUTS, paths.RUN])
        for warning in send_pending(checkout / PENDING, uri):
            logger.warning(warning)


def find_checkout() -> Path:
    """Return the checkout that keeps runs: `dvc exp run --temp` and its queue work in a copy that is deleted later."""
    root = Path(os.environ.get("DVC_ROOT", ""))
    return root if root / ".dvc/tmp/exps" in Path.cwd().parents else Path()


def _describe_run(params: Params) -> Run:
    files = sorted(file for file in paths.MODELS.rglob("*") if file.is_file())
    saved = [read_json(file, remedy=REMEDY) for file in files if file.name == paths.MODEL_METADATA]
    drift, quality = read_report(DriftReport).root, read_report(DataQuality).plants
    return Run(
        model={
            "name": params.record.experiment,
            "kind": params.model.kind,
            "plants": {model["plant"]: {name: model.get(name) for name in ("kind", "scope")} for model in saved},
            "bytes": sum(file.stat().st_size for file in files),
            "md5": hash_files(files, paths.MODELS),
        },
        description=params.record.description,
        parameters=mask_secrets(params.model_dump(mode="json", by_alias=True, exclude=OF_NO_STAGE)),
        data={split: _measure_split(split) for split in ("train", "validation", "test")},
        metrics={
            split: Groups.model_validate(found.model_dump(exclude_unset=True))
            for split, found in (("test", read_report(Headline)), ("validation", read_report(Evaluation).validation))
        },
        drift={plant: found.model_dump(include={"drifted", "share"}) for plant, found in drift.items()},
        data_quality={plant: found.model_dump(exclude_unset=True)["tables"] for plant, found in quality.items()},
    )


def _measure_split(split: str) -> dict[str, Any]:
    files = sorted(paths.PROCESSED.glob(f"*/{split}.parquet"))
    return {
        "rows": sum(pl.scan_parquet(file).select(pl.len()).collect().item() for file in files),
        "bytes": sum(file.stat().st_size for file in files),
        "md5": hash_files(files, paths.PROCESSED),
    }
