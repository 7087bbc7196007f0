"""Scores newer rows by a saved model: a model's folder and one plant's tables in, predictions out."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.features.definition import build_features
from upkeep.features.inputs import Vocabulary
from upkeep.model.scoring import load_scorer
from upkeep.model.storage import Metadata, SavedModel, predict

ROW = ["machine", "time"]

Tables = Iterable[pl.DataFrame | pl.LazyFrame]
"""One plant's reconciled telemetry, events and machines: frames, or scans of the files in ``data/interim``."""


def rescore(folder: Path, rows: pl.DataFrame, tables: Tables, present: Metadata) -> pl.DataFrame:
    """Return one plant's labelled rows with the predictions of the saved model in a folder, by machine and time.

    `rows` are like those in ``data/predictions``; their ``candidate``, ``chosen``, ``probability`` and ``alarm`` are
    replaced, or added. For rows that the model's own run judged, the bits are those that ``train`` stored. Columns and
    units of the tables are compared with those of `present`, a model of today's. Raises an UpkeepError if the model is
    damaged, of another plant, or cannot read these tables.
    """
    model = load_scorer(folder).model
    _require_same_tables(model.metadata, present)
    return predict_rows(model, rows, tables)


def predict_rows(model: SavedModel, rows: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Return rows with a model's predictions, sorted by machine and time; see :func:`rescore`."""
    ordered, metadata = rows.sort(ROW), model.metadata
    back = timedelta(hours=max(*metadata.dataset.windows_hours, metadata.dataset.baseline_hours))
    own = pl.col("machine").is_in(rows["machine"].unique().implode())
    is_near = pl.col("time") >= rows.select(pl.col("time").min() - back).to_series()
    # A machine without a baseline in the model needs its first rows for one.
    has_baseline = pl.col("machine").is_in(list(metadata.preparation.baselines))
    telemetry, events, machines = (table.lazy().filter(own) for table in tables)
    near = telemetry.filter(is_near | ~has_baseline).collect()
    features = build_features(near, events.collect(), machines.collect(), metadata.preparation, metadata.dataset)
    features = ordered.select(ROW).join(features, on=ROW, how="inner", maintain_order="left")
    if lost := ordered.height - features.height:
        what, remedy = f"{lost} rows to be scored are not in the telemetry", "run `dvc repro`: they are of other data"
        raise UpkeepError(what, remedy=remedy, plant=metadata.plant)
    probability = pl.Series(predict(model, features), dtype=pl.Float64)
    return ordered.with_columns(
        candidate=pl.lit(metadata.scope),
        chosen=pl.lit(value=True),
        probability=probability.cast(pl.Float32),  # which it is in already
        alarm=probability >= metadata.threshold,
    )


def _require_same_tables(model: Metadata, present: Metadata) -> None:
    """Raise an UpkeepError if the model would misread these tables."""
    was, now = (_describe_tables(side, model.preparation.vocabulary) for side in (model, present))
    if differing := [f"{name} was {was[name]}, and is {now[name]}" for name in was if was[name] != now[name]]:
        raise UpkeepError(
            f"the model cannot read these tables: {'; '.join(differing)}",
            remedy="change what tables mean in one merge request, and the batches in another",
            plant=model.plant,
        )


def _describe_tables(metadata: Metadata, read: Vocabulary) -> dict[str, object]:
    """Return what must be the same for a model to read tables, by name; of columns those that `read` names."""
    preparation = metadata.preparation
    found: dict[str, object] = {
        "plant": metadata.plant,
        "rows_every of the data dictionary": preparation.rows_every,
        "validate.near_duplicate_seconds": metadata.near_duplicate_seconds,
    }
    for table, names in {"telemetry": [*read.settings, *read.sensors], "machines": read.attributes}.items():
        known = preparation.quantities.get(table, {})
        for name in names:
            found[f"column {table}.{name}"] = f"in {known[name].unit or 'no unit'}" if name in known else "not there"
    return found
