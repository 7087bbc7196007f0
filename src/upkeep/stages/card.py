"""All reports in; the model card out."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.judging.acceptance import check_floors
from upkeep.judging.reports import Headline, read_report
from upkeep.reporting.card import Evidence, write_card


def run(params: Params) -> None:
    """Write ``reports/model_card.md``."""
    evidence = Evidence(
        quality=_read(paths.DATA_QUALITY),
        training=_read(paths.TRAINING),
        evaluation=_read(paths.EVALUATION / "evaluation.json"),
        drift=_read(paths.DRIFT / "drift.json"),
        models={file.parent.name: _read(file) for file in sorted(paths.MODELS.glob("*/model.json"))},
        period={file.stem: _period(file) for file in sorted((paths.INTERIM / "telemetry").glob("*.parquet"))},
        checks=check_floors(read_report(Headline), params.evaluate.floors),
    )
    paths.MODEL_CARD.write_text(write_card(evidence, params), encoding="utf-8")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UpkeepError(
            f"a report cannot be read: {error}",
            expected="the output of an earlier stage",
            remedy="run `dvc repro`",
            stage="card",
            file=file,
        ) from error


def _period(file: Path) -> tuple[date, date]:
    time = pl.col("time").dt.date()
    first, last = pl.scan_parquet(file).select(first=time.min(), last=time.max()).collect().row(0)
    return first, last
