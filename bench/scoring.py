"""Scoring in process: one machine, and 10,000 in one batch, against `pyfunc.predict`.

One machine: our scorer goes from 48 hours of telemetry to an answer with its warnings, the peer from prepared features
to a score. A batch: either side goes from tables to scores; the peer makes what readings tell with pandas, the rest is
unknown to it. Same model, same rows, same process.
"""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from bench import mlflow_model, scoring_pandas
from bench.measuring import ROOT, Row, interleave, run_module, take_seconds
from upkeep.core import paths
from upkeep.features.inputs import read_tables
from upkeep.model.scoring import Answer, Scorer, load_scorer

PLANT, FIRST = "porto", "M001"
HOURS = 48
COPIES, COPY = 1000, "-"
ROUNDS = 5
CALLS = 200  # of one machine's scoring, in each round

Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]  # telemetry, events, machines


def measure() -> list[Row]:
    """Return answers and machines a second, and whether both sides make the same features."""
    found = run_module("bench.scoring")
    alone = (
        f"medians of {ROUNDS} interleaved rounds of {CALLS} calls; ours makes features of {HOURS} h of telemetry and "
        "looks for reasons to doubt them, the peer gets features ready made"
    )
    rolling = (
        f"medians of {ROUNDS} interleaved rounds; {COPIES} copies of each machine of a plant, tables in memory on "
        "either side; the peer rolls at every row, as training must, with groupby().rolling(), takes the newest, and "
        "leaves out events and records"
    )
    fleet = "10,000 machines in one batch"
    return [
        Row("the scorer alone, one machine", found["one"], "answers/s", found["pyfunc"], "ratio >= 5", alone),
        Row(fleet, found["fleet"], "machines/s", found["pandas"], "ratio >= 5", rolling),
        Row(f"{fleet}, largest difference of features", found["difference"], "", target="ours <= 1e-5"),
    ]


def _measure() -> dict[str, float]:
    import mlflow

    scorer = load_scorer(ROOT / paths.MODELS / PLANT)
    plant = _read_newest()
    one = read_tables(*_each(plant, lambda table: table.filter(pl.col("machine") == FIRST)), scorer.vocabulary)
    features = scorer.score(*one)[0].features[None, :]
    with TemporaryDirectory() as folder:
        mlflow_model.save(scorer, features, Path(folder) / "model")
        pyfunc = mlflow.pyfunc.load_model(str(Path(folder) / "model"))
    ready = mlflow_model.to_frame(scorer, features)
    rates = _rates({"one": lambda: scorer.score(*one), "pyfunc": lambda: pyfunc.predict(ready)}, CALLS)
    fleet = _each(plant, _repeat)
    return rates | _score_fleet(fleet, _know(scorer, fleet[2]), pyfunc)


def _score_fleet(fleet: Tables, scorer: Scorer, pyfunc: Any) -> dict[str, float]:
    """Return the machines scored a second by ours and the peer, and how far features differ."""
    metadata = scorer.model.metadata
    telemetry, fitted = fleet[0].to_pandas(), scoring_pandas.lay_out(metadata.preparation)

    def prepare() -> pd.DataFrame:
        return scoring_pandas.build(telemetry, fitted, metadata.dataset)

    def score() -> list[Answer]:
        return scorer.score(*read_tables(*fleet, scorer.vocabulary))

    rates = _rates({"fleet": score, "pandas": lambda: pyfunc.predict(prepare().reindex(columns=metadata.features))}, 1)
    theirs, features = prepare(), np.array([answer.features for answer in score()])
    ours = features[:, [metadata.features.index(name) for name in theirs]]
    difference = _largest_difference(ours, theirs.to_numpy())
    return {name: fleet[2].height * rate for name, rate in rates.items()} | {"difference": difference}


def _read_newest() -> Tables:
    """Return a plant's newest hours as `validate` left them."""
    telemetry, events, machines = (
        pl.read_parquet(ROOT / paths.INTERIM / name / f"{PLANT}.parquet")
        for name in ("telemetry", "events", "machines")
    )
    recent = pl.col("time") > telemetry.select(pl.col("time").max() - timedelta(hours=HOURS)).item()
    return telemetry.filter(recent), events.filter(recent), machines


def _each(tables: Tables, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Tables:
    telemetry, events, machines = tables
    return change(telemetry), change(events), change(machines)


def _repeat(table: pl.DataFrame) -> pl.DataFrame:
    """Return the machines' rows over and over, each time under other names."""
    copies = pl.DataFrame({"copy": range(COPIES)})
    copied = table.join(copies, how="cross").with_columns(machine=pl.format(f"{{}}{COPY}{{}}", "machine", "copy"))
    return copied.drop("copy").sort("machine", maintain_order=True)


def _know(scorer: Scorer, machines: pl.DataFrame) -> Scorer:
    """Return a scorer that has seen the machines' copies in training."""
    preparation = scorer.model.metadata.preparation
    baselines = {name: preparation.baselines[name.partition(COPY)[0]] for name in machines["machine"]}
    metadata = scorer.model.metadata.model_copy(
        update={"preparation": preparation.model_copy(update={"baselines": baselines})}
    )
    return Scorer(scorer.model._replace(metadata=metadata), scorer.version)


def _rates(works: Mapping[str, Callable[[], object]], calls: int) -> dict[str, float]:
    """Return calls a second of each work, the median of interleaved rounds after a first call."""

    def call(work: Callable[[], object]) -> dict[str, float]:
        return {"rate": calls / take_seconds(lambda: [work() for _ in range(calls)])}

    for work in works.values():
        work()
    found = interleave(ROUNDS, {name: partial(call, work) for name, work in works.items()})
    return {name: each["rate"] for name, each in zip(works, found, strict=True)}


def _largest_difference(ours: NDArray[np.float32], theirs: NDArray[np.float64]) -> float:
    """Return the largest difference as a share of the value, of 1 at least; infinite where only one has a number."""
    if not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return float("inf")
    return float(np.nanmax(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))))


if __name__ == "__main__":
    print(json.dumps(_measure()))
