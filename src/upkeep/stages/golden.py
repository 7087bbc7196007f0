"""Reconciled tables and models in; requests, and the answers that the service must give to them, out.

The answers are computed from each machine's whole history, as in training; a request holds no more than a client would
send. A deployment goes ahead only if the new container gives the same answers to the last digit.
"""

import logging
import shutil
from datetime import timedelta
from typing import Any

import polars as pl

from upkeep.contract.dictionary import NEEDED
from upkeep.core import paths
from upkeep.core.files import write_json
from upkeep.core.names import KEYS
from upkeep.core.parallel import map_plants
from upkeep.core.params import Params
from upkeep.core.plants import name_file, table_file
from upkeep.features.definition import build_features
from upkeep.model.scoring import Scorer, load_scorer
from upkeep.model.storage import find_models, predict

REQUESTS = 4  # machines per plant, spread evenly from the least to the most at risk

logger = logging.getLogger(__name__)

TIMES = pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")


def run(params: Params) -> None:
    """Write ``models/golden``, a file per plant."""
    plants = list(find_models(paths.MODELS))
    if not plants:  # `train` has said why
        logger.warning("no model is saved, so there is nothing for the service to answer")
    shutil.rmtree(paths.GOLDEN, ignore_errors=True)
    paths.GOLDEN.mkdir(parents=True)
    map_plants(_write_requests, plants, params.parallel)


def _write_requests(plant: str) -> None:
    scorer = load_scorer(paths.MODELS / name_file(plant))
    telemetry, events, machines = (
        pl.read_parquet(table_file(paths.INTERIM / table, plant)) for table in ("telemetry", "events", "machines")
    )
    file, metadata = paths.GOLDEN / f"{name_file(plant)}.json", scorer.model.metadata
    if telemetry.is_empty():  # the plant's machines are on record only, and ask nothing yet
        write_json(file, [])
        return
    newest = pl.concat(
        build_features(rows, events.filter(machine=name), machines, metadata.preparation, metadata.dataset).tail(1)
        for (name,), rows in telemetry.group_by("machine")
    )
    scored = newest.select(KEYS).with_columns(probability=predict(scorer.model, newest)).sort("probability", "machine")
    chosen = sorted({round(index * (scored.height - 1) / (REQUESTS - 1)) for index in range(REQUESTS)})
    requests = [_make_request(scorer, row, telemetry, events) for row in scored[chosen].iter_rows(named=True)]
    write_json(file, requests)


def _make_request(scorer: Scorer, row: dict[str, Any], telemetry: pl.DataFrame, events: pl.DataFrame) -> dict[str, Any]:
    metadata = scorer.model.metadata
    since = row["time"] - timedelta(hours=max(metadata.dataset.windows_hours))
    own = pl.col("machine") == row["machine"]
    readings = telemetry.filter(own, pl.col("time") > since)
    happened = events.filter(own, pl.col("time") <= row["time"]).sort("time")
    # Features count errors within the windows, and of all other events look back to the newest of each kind.
    happened = pl.concat(
        [
            happened.filter(pl.col("kind") == "error", pl.col("time") > since),
            happened.filter(pl.col("kind") != "error").group_by("kind", "code", maintain_order=True).last(),
        ],
        how="diagonal",
    ).sort("time", "kind", "code")
    table = pl.concat([readings, happened.select(*NEEDED["events"])], how="diagonal").with_columns(TIMES)
    split = {"columns": table.columns, "data": [list(values) for values in table.iter_rows()]}
    probability = float(row["probability"])
    answer = {
        "plant": row["plant"],
        "machine": row["machine"],
        "time": row["time"].isoformat(),
        "probability": probability,
        "alarm": probability >= metadata.threshold,
        "threshold": metadata.threshold,
        "model_version": scorer.version,
    }
    return {"request": {"dataframe_split": split}, "answer": answer}
