"""A saved model asked about rows newer than itself: a model's folder and one plant's tables in, predictions out."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.types import Floats
from upkeep.features.definition import build_features
from upkeep.features.inputs import Preparation, Vocabulary
from upkeep.model.labelled_rows import CHUNK_ROWS
from upkeep.model.scoring import load_scorer
from upkeep.model.storage import Metadata, SavedModel, predict

ROW = ["machine", "time"]


class PlantTables(NamedTuple):
    """One plant's reconciled tables, of any time: frames, or scans of the files in ``data/interim``."""

    telemetry: pl.DataFrame | pl.LazyFrame
    events: pl.DataFrame | pl.LazyFrame
    machines: pl.DataFrame | pl.LazyFrame


def rescore(folder: Path, rows: pl.DataFrame, tables: PlantTables, present: Metadata) -> pl.DataFrame:
    """Return one plant's labelled rows with what the saved model in a folder says of them, sorted by machine and time.

    `rows` are such as those in ``data/predictions``; their ``candidate``, ``chosen``, ``probability`` and ``alarm`` are
    replaced, or added. For rows that the model was judged on by its own run the bits are those that ``train`` stored.
    `present` describes a model of today's tables, by which columns and units are compared. Features are built of some
    machines at a time, so memory holds those of 65,536 rows of telemetry, or of one machine if it has more.

    Raises an UpkeepError if the model is damaged, of another plant, or cannot read these tables.
    """
    model = load_scorer(folder).model
    _require_same_tables(model.metadata, present)
    return ask_model(model, rows, tables)


def ask_model(model: SavedModel, rows: pl.DataFrame, tables: PlantTables) -> pl.DataFrame:
    """Return rows with what a model says of them, sorted by machine and time; see :func:`rescore`."""
    ordered = rows.sort(ROW)
    probability = pl.Series(chain.from_iterable(_score(model, ordered, tables)), dtype=pl.Float64)
    return ordered.with_columns(
        candidate=pl.lit(model.metadata.scope),
        chosen=pl.lit(value=True),
        probability=probability.cast(pl.Float32),  # which it is in already
        alarm=probability >= model.metadata.threshold,
    )


def _score(model: SavedModel, rows: pl.DataFrame, tables: PlantTables) -> Iterator[Floats]:
    """Yield the probabilities of rows, sorted by machine and time, of some machines after the other."""
    metadata = model.metadata
    back = timedelta(hours=max(*metadata.dataset.windows_hours, metadata.dataset.baseline_hours))
    # Of a machine that the model has no baseline of, the beginning is one.
    known = pl.col("machine").is_in(list(metadata.preparation.baselines))
    earliest = rows.select(pl.col("time").min() - back).to_series()
    telemetry = tables.telemetry.lazy().filter((pl.col("time") >= earliest) | ~known)
    for own in _group_machines(rows, telemetry):
        theirs = pl.col("machine").is_in(own["machine"].unique().implode())
        readings, events, machines = (
            table.lazy().filter(theirs).collect() for table in (telemetry, tables.events, tables.machines)
        )
        features = build_features(readings, events, machines, metadata.preparation, metadata.dataset)
        features = own.select(ROW).join(features, on=ROW, how="inner", maintain_order="left")
        if features.height < own.height:
            raise UpkeepError(
                f"{own.height - features.height} rows to be scored are not in the telemetry",
                remedy="run `dvc repro`: they are of other data",
                plant=metadata.plant,
            )
        yield predict(model, features)


def _group_machines(rows: pl.DataFrame, telemetry: pl.LazyFrame) -> list[pl.DataFrame]:
    """Part rows by machines, as many as have their telemetry in memory at a time, in their order."""
    sizes = telemetry.group_by("machine").len().collect()
    machines = rows.select(pl.col("machine").unique().sort())
    machines = machines.join(sizes, on="machine", how="left", maintain_order="left")
    size = pl.col("len").fill_null(0).cast(pl.Int64)
    parts = machines.select("machine", part=(size.cum_sum() - size) // CHUNK_ROWS)
    return rows.join(parts, on="machine", maintain_order="left").partition_by("part", maintain_order=True)


def _require_same_tables(model: Metadata, present: Metadata) -> None:
    """Raise an UpkeepError if the model would take these tables for what they are not."""
    before, now = model.preparation, present.preparation
    units = [_find_units(side, before.vocabulary) for side in (before, now)]
    compared = {
        "plant": (model.plant, present.plant),
        "rows_every of the data dictionary": (before.rows_every, now.rows_every),
        "validate.near_duplicate_seconds": (model.near_duplicate_seconds, present.near_duplicate_seconds),
        **{f"column {name}": (units[0][name], units[1][name]) for name in units[0]},
    }
    differing = [f"{name} was {was}, and is {found}" for name, (was, found) in compared.items() if was != found]
    if differing:
        raise UpkeepError(
            f"the model cannot read these tables: {'; '.join(differing)}",
            remedy="change what tables mean in one merge request, and the batches in another",
            plant=model.plant,
        )


def _find_units(preparation: Preparation, read: Vocabulary) -> dict[str, str]:
    """Return what is on record of the columns that are read."""
    names = {"telemetry": [*read.settings, *read.sensors], "machines": read.attributes}
    known = {table: preparation.quantities.get(table, {}) for table in names}
    return {
        f"{table}.{name}": f"in {known[table][name].unit or 'no unit'}" if name in known[table] else "not there"
        for table, own in names.items()
        for name in own
    }
