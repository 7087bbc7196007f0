"""Reconciled tables in; features, labels and splits out."""

import shutil
from datetime import datetime, timedelta
from itertools import chain
from typing import NamedTuple

import polars as pl

from upkeep.contract.dictionary import Dictionary, call_columns, load_dictionary
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_json
from upkeep.core.parallel import map_plants
from upkeep.core.params import Dataset, Params
from upkeep.core.plants import list_plants, name_file, table_file, write_table
from upkeep.features.definition import KEYS, build_features, fit_preparation
from upkeep.features.inputs import Quantity, Vocabulary
from upkeep.features.labels import label_rows
from upkeep.features.leakage import check_leakage
from upkeep.features.sampling import find_absent_machines, find_selection
from upkeep.features.split import SPLITS, Boundaries, split_by_time, split_machines, thin_negatives, time_boundaries


class Tables(NamedTuple):
    """One plant's reconciled tables."""

    telemetry: pl.DataFrame
    events: pl.DataFrame
    machines: pl.DataFrame


def run(params: Params) -> None:
    """Write each plant's ``train``, ``validation`` and ``test`` rows and what was fitted for them."""
    dictionary = load_dictionary(params.validate_.dictionary)
    plants = list_plants(paths.INTERIM / "telemetry", made_by="validate")
    boundaries = time_boundaries(*_read_span(), params.dataset.split)
    vocabulary = find_vocabulary(plants, boundaries, dictionary, params.dataset)
    shutil.rmtree(paths.PROCESSED, ignore_errors=True)  # it may hold plants that are gone
    sizes = map_plants(_build, plants, params.parallel, vocabulary, boundaries, dictionary, params.dataset)
    write_json(paths.DATASET, sizes)


def _build(
    plant: str, vocabulary: Vocabulary, boundaries: Boundaries, dictionary: Dictionary, params: Dataset
) -> dict[str, dict[str, int | str | None]]:
    """Write one plant's rows; return how many rows and failing rows each split holds, and why these may mislead."""
    tables = _read_tables(plant)
    split = _assign_split(tables, boundaries, dictionary, params)
    training = tables.telemetry.filter(split == "train")
    quantities = _quantities(dictionary, plant)
    preparation = fit_preparation(training, tables.telemetry, tables.machines, vocabulary, params, quantities)
    features = build_features(*tables, preparation, params)
    labels = label_rows(tables.telemetry, tables.events, params).with_columns(split=split)
    models = tables.machines.select("machine", machine_model="model")
    rows = labels.join(models, on="machine", how="left", maintain_order="left")
    rows = rows.join(features, on=["machine", "time"], maintain_order="left")
    names = [name for name in features.columns if name not in KEYS]
    columns = [*KEYS, "machine_model", "label", "hours_to_failure", "weight", *names]
    splits = {name: rows.filter(split=name).with_columns(weight=pl.lit(1.0)).select(columns) for name in SPLITS}
    horizon, readings = timedelta(hours=params.horizon_hours), bool(vocabulary.sensors)
    check_leakage(splits, names, horizon, params.split.by, params.max_single_feature_auc, readings=readings)
    splits["train"] = thin_negatives(splits["train"], params.negatives_kept, params.split.seed)
    folder = paths.PROCESSED / name_file(plant)
    for name, frame in splits.items():
        write_table(frame, folder / f"{name}.parquet", plant)
    (folder / "preparation.json").write_text(preparation.model_dump_json(indent=1) + "\n", encoding="utf-8")
    doubts = find_selection(labels, params.horizon_hours)
    absent = find_absent_machines(set(tables.telemetry["machine"]), tables.machines, tables.events)
    return {
        name: {"rows": frame.height, "failing": int(frame["label"].sum()), "doubt": doubts.get(name, absent)}
        for name, frame in splits.items()
    }


def _read_tables(plant: str) -> Tables:
    return Tables(*(pl.read_parquet(table_file(paths.INTERIM / table, plant)) for table in Tables._fields))


def _quantities(dictionary: Dictionary, plant: str) -> dict[str, dict[str, Quantity]]:
    """Return what people call the columns that features are made of, by table, and their units."""
    tables = {table: dictionary.columns(table, plant) for table in ("telemetry", "machines")}
    return {
        table: {
            name: Quantity(name=called, unit=columns[name].unit or "") for name, called in call_columns(columns).items()
        }
        for table, columns in tables.items()
    }


def _read_span() -> tuple[datetime, datetime]:
    """Return the first and the last instant of the whole fleet's telemetry."""
    time = pl.col("time")
    telemetry = pl.scan_parquet(paths.INTERIM / "telemetry" / "*.parquet")
    start, end = telemetry.select(start=time.min(), end=time.max()).collect().row(0)
    return start, end


def _assign_split(tables: Tables, boundaries: Boundaries, dictionary: Dictionary, params: Dataset) -> pl.Expr:
    """Return the expression that tells a row's split from its ``machine`` and ``time``."""
    if params.split.by != "machine":
        return split_by_time(boundaries, timedelta(hours=params.horizon_hours))
    pins = [pl.col(name) == "test" for name in dictionary.names("machines", "split")]
    pinned = set(tables.machines.filter(pl.any_horizontal(pl.lit(value=False), *pins))["machine"])
    assigned = split_machines(tables.telemetry["machine"].unique().to_list(), pinned, params.split)
    return pl.col("machine").replace_strict(assigned, default=None)


def find_vocabulary(plants: list[str], boundaries: Boundaries, dictionary: Dictionary, params: Dataset) -> Vocabulary:
    """Collect the names that training rows of any plant know."""
    errors, maintenance, models = set[str](), set[str](), set[str]()
    machines = []
    for plant in plants:
        tables = _read_tables(plant)
        split = _assign_split(tables, boundaries, dictionary, params)
        events = tables.events.filter(split == "train").drop_nulls("code")
        errors |= set(events.filter(kind="error")["code"])
        maintenance |= set(events.filter(kind="maintenance")["code"])
        known = tables.machines.join(tables.telemetry.filter(split == "train"), on="machine", how="semi")
        models |= set(known["model"].drop_nulls())
        machines.append(known)
    widths = measure_settings(dictionary, plants)
    sensors = (dictionary.names("telemetry", "sensor", plant) for plant in plants)
    return Vocabulary(
        settings=list(widths),
        widths=list(widths.values()),
        sensors=list(dict.fromkeys(chain.from_iterable(sensors))),
        error_codes=sorted(errors),
        maintenance_codes=sorted(maintenance),
        machine_models=sorted(models),
        inputs=[name for name in widths if dictionary.all_columns("telemetry")[name].input],
        attributes=_attributes(pl.concat(machines, how="diagonal"), plants, dictionary),
    )


def _attributes(machines: pl.DataFrame, plants: list[str], dictionary: Dictionary) -> dict[str, list[str] | None]:
    """Return the attributes that are features; a text that one machine alone has names the machine, not its kind."""
    columns = {name: column for plant in plants for name, column in dictionary.attributes(plant).items()}
    return {
        name: None
        if column.type == "number"
        else machines.group_by(name).len().filter(pl.col("len") > 1)[name].drop_nulls().sort().to_list()
        for name, column in columns.items()
    }


def measure_settings(dictionary: Dictionary, plants: list[str]) -> dict[str, float]:
    """Return the width of each setting's range, from the lowest that any plant allows to the highest.

    An UpkeepError is raised if a setting has no range.
    """
    bounds: dict[str, list[float]] = {}
    for plant in plants:
        columns = dictionary.columns("telemetry", plant)
        for name in dictionary.names("telemetry", "setting", plant):
            own = columns[name].range
            if own is None:
                raise UpkeepError(
                    "a setting has no range, by which distances between operating conditions are measured",
                    remedy="add range: [lowest, highest] to the data dictionary",
                    stage="dataset",
                    plant=plant,
                    table="telemetry",
                    column=name,
                )
            bounds.setdefault(name, []).extend(own)
    return {name: max(ends) - min(ends) for name, ends in bounds.items()}
