"""Reconciled tables in; features, labels and splits out."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from typing import NamedTuple

import polars as pl

from upkeep.contract.dictionary import NEEDED, Dictionary, call_columns, load_dictionary
from upkeep.core import paths
from upkeep.core.files import write_json, write_whole
from upkeep.core.names import KEYS
from upkeep.core.parallel import map_plants
from upkeep.core.params import Dataset, Params
from upkeep.core.pieces import Frames, drop_oldest, recall
from upkeep.core.plants import list_plants, name_file, read_spans, table_file, write_table
from upkeep.features.definition import build_features, feature_names, fit_preparation
from upkeep.features.inputs import Preparation, Quantity, Vocabulary, read_records
from upkeep.features.labels import label_rows
from upkeep.features.leakage import (
    check_leakage,
    check_no_feature_separates,
    find_absent_machines,
    find_selection,
    fingerprint,
)
from upkeep.features.split import SPLITS, Boundaries, split_by_time, split_machines, thin_negatives, time_boundaries

CODE = ("contract", "core", "features", "stages/dataset.py")
ROWS_AT_ONCE = 200_000
COLUMNS = [*KEYS, "machine_model", "label", "hours_to_failure", "prevented", "weight"]  # before the features


class Tables(NamedTuple):
    """One plant's reconciled tables."""

    telemetry: pl.DataFrame
    events: pl.DataFrame
    machines: pl.DataFrame


class Built(NamedTuple):
    """One plant's rows by split, what was fitted for their features, and the labels of all rows."""

    splits: dict[str, pl.DataFrame]
    preparation: Preparation
    labels: pl.DataFrame


def run(params: Params) -> None:
    """Write each plant's ``train``, ``validation`` and ``test`` rows and what was fitted for them."""
    dictionary = load_dictionary(params.validate_.dictionary)
    plants = list_plants(paths.INTERIM / "telemetry", made_by="validate")
    start, end = read_spans(paths.INTERIM / "telemetry", plants).select(pl.min("first"), pl.max("last")).row(0)
    boundaries = time_boundaries(start, end, params.dataset.split)
    fleet = ((plant, _read_tables(plant, ["machine", "time"])) for plant in plants)
    vocabulary = find_vocabulary(fleet, boundaries, dictionary, params.dataset)
    shutil.rmtree(paths.PROCESSED, ignore_errors=True)  # it may hold plants that are gone
    sizes = map_plants(_build_plant, plants, params.parallel, vocabulary, boundaries, dictionary, params)
    write_json(paths.DATASET, sizes)
    drop_oldest(params.pieces)


def _build_plant(
    plant: str, vocabulary: Vocabulary, boundaries: Boundaries, dictionary: Dictionary, params: Params
) -> dict[str, dict[str, int | str | None]]:
    """Write one plant's rows; return each split's part of ``reports/dataset.json``."""
    tables = _read_tables(plant)
    splits, preparation, labels = build_splits(plant, tables, vocabulary, boundaries, dictionary, params)
    folder = paths.PROCESSED / name_file(plant)
    for name, rows in splits.items():
        write_table(rows, folder / f"{name}.parquet", plant)
    write_whole(folder / "preparation.json", f"{preparation.model_dump_json(indent=1)}\n".encode())
    doubts = find_selection(labels, params.dataset.horizon_hours)
    absent = find_absent_machines(set(tables.telemetry["machine"]), tables.machines, tables.events)
    return {
        name: {"rows": rows.height, "failing": int(rows["label"].sum()), "doubt": doubts.get(name, absent)}
        for name, rows in splits.items()
    }


def build_splits(
    plant: str, tables: Tables, vocabulary: Vocabulary, boundaries: Boundaries, dictionary: Dictionary, params: Params
) -> Built:
    """Label one plant's rows, split them and make their features; an UpkeepError is raised if one of these leaks."""
    how, splits, fingerprints = params.dataset, {}, {}
    split = _assign_split(tables, boundaries, dictionary, how)
    fitted = _recall_preparation(tables.telemetry.filter(split == "train"), tables, vocabulary, params)
    known = {"records": read_records(tables.machines, vocabulary), "quantities": _name_quantities(dictionary, plant)}
    preparation = fitted.model_copy(update=known | {"rows_every": dictionary.rows_every})
    labels = label_rows(tables.telemetry, tables.events, how, timedelta(microseconds=dictionary.row_length))
    labels = labels.with_columns(weight=pl.lit(1.0), split=split)
    models = tables.machines.select("machine", machine_model="model")
    for name in SPLITS:
        labelled = labels.filter(split=name)
        kept = thin_negatives(labelled, how.negatives_kept, how.split.seed) if name == "train" else labelled
        found = _recall_features(name, labelled, kept, tables, preparation, params)
        rows = kept.join(models, on="machine", how="left", maintain_order="left")
        splits[name] = rows.with_columns(plant=pl.lit(plant)).select(COLUMNS).hstack(found["features"])
        fingerprints[name] = found["fingerprints"]
    check_leakage(fingerprints, timedelta(hours=how.horizon_hours), how.split.by, readings=bool(vocabulary.sensors))
    return Built(splits, preparation, labels)


def _recall_preparation(training: pl.DataFrame, tables: Tables, vocabulary: Vocabulary, params: Params) -> Preparation:
    """Return what is fitted on training rows and on each machine's first hours, without the records of machines."""
    opening = pl.col("time").min().over("machine") + timedelta(hours=params.dataset.baseline_hours)
    record = tables.telemetry.filter(pl.col("time") < opening)

    def make() -> Frames:
        fitted = fit_preparation(training, record, vocabulary, params.dataset)
        return {"fitted": pl.DataFrame({"json": [fitted.model_dump_json()]})}

    kept = recall(params.pieces, CODE, [training, record, vocabulary, params.dataset], make)["fitted"].item()
    return Preparation.model_validate_json(kept)


def _recall_features(
    split: str, labelled: pl.DataFrame, kept: pl.DataFrame, tables: Tables, preparation: Preparation, params: Params
) -> Frames:
    """Return the ``features`` of a split's kept rows, in their order, and the ``fingerprints`` of all labelled.

    They are computed from nothing but what those rows can know, so that later batches leave a finished split as it is.
    """
    known = find_known(labelled, tables, params.dataset)
    machines = set(known.telemetry["machine"])
    baselines = {name: level for name, level in preparation.baselines.items() if name in machines}
    usual = preparation.model_copy(update={"baselines": baselines, "records": {}, "quantities": {}})
    outcomes = [rows.select("machine", "time", "label") for rows in (labelled, kept)]

    def make() -> Frames:
        names, built = feature_names(usual.vocabulary, params.dataset), list[Frames]()
        for part in _part_machines(*known, *outcomes):
            features = build_features(*Tables(*part[:3]), usual, params.dataset)
            rows, chosen = (own.join(features, on=["machine", "time"], maintain_order="left") for own in part[3:])
            built.append({"features": chosen.select("label", *names), "fingerprints": fingerprint(rows, names)})
        found = {name: pl.concat(part[name] for part in built) for name in built[0]}
        if split == "train":
            check_no_feature_separates(found["features"], names, params.dataset.max_single_feature_auc)
        return found | {"features": found["features"].select(names)}

    return recall(params.pieces, CODE, [split, *known, *outcomes, usual, params.dataset], make)


def _part_machines(*tables: pl.DataFrame) -> Iterator[list[pl.DataFrame]]:
    """Yield all tables' rows of a few machines, then of the next ones: about `ROWS_AT_ONCE` rows of the first table.

    Features of all rows at once take several times the memory of those that are kept, since training rows are thinned.
    """
    sizes = tables[0].group_by("machine").len().sort("machine")
    parts = sizes.select("machine", part=pl.col("len").cum_sum() // ROWS_AT_ONCE)
    cut = [
        table.join(parts, on="machine", maintain_order="left").partition_by("part", as_dict=True, include_key=False)
        for table in tables
    ]
    for part in sorted(cut[0]) or [()]:  # without any rows, too, there are features: no rows of them
        yield [own.get(part, table.clear()) for own, table in zip(cut, tables, strict=True)]


def find_known(labelled: pl.DataFrame, tables: Tables, params: Dataset) -> Tables:
    """Return what these rows' features are computed from: telemetry from the widest window on, and earlier events.

    A baseline's hours are a window, too. What visits found is left out: it may be known late, and serves labels only.
    """
    if labelled.is_empty():
        return Tables(*(table.clear() for table in tables))
    first, last = labelled.select(first=pl.col("time").min(), last=pl.col("time").max()).row(0)
    back = timedelta(hours=max(*params.windows_hours, params.baseline_hours))
    own = pl.col("machine").is_in(labelled["machine"].unique().implode())
    return Tables(
        tables.telemetry.filter(own, pl.col("time").is_between(first - back, last)),
        tables.events.filter(own, pl.col("time") <= last).select(*NEEDED["events"]),
        tables.machines.filter(own),
    )


def _read_tables(plant: str, columns: Sequence[str] | None = None) -> Tables:
    telemetry, *others = (pl.scan_parquet(table_file(paths.INTERIM / table, plant)) for table in Tables._fields)
    return Tables(*pl.collect_all([telemetry.select(columns or pl.all()), *others]))


def _name_quantities(dictionary: Dictionary, plant: str) -> dict[str, dict[str, Quantity]]:
    """Return the name in words and the unit of each column that features are made of, by table."""
    tables = {table: dictionary.row_columns(table, plant) for table in ("telemetry", "machines")}
    return {
        table: {
            name: Quantity(name=called, unit=columns[name].unit or "") for name, called in call_columns(columns).items()
        }
        for table, columns in tables.items()
    }


def _assign_split(tables: Tables, boundaries: Boundaries, dictionary: Dictionary, params: Dataset) -> pl.Expr:
    """Return an expression over ``machine`` and ``time`` that gives a row's split."""
    if params.split.by != "machine":
        return split_by_time(boundaries, timedelta(hours=params.horizon_hours))
    pins = [pl.col(name) == "test" for name in dictionary.names("machines", "split")]
    pinned = set(tables.machines.filter(pl.any_horizontal(pl.lit(value=False), *pins))["machine"])
    assigned = split_machines(tables.telemetry["machine"].unique().to_list(), pinned, params.split)
    return pl.col("machine").replace_strict(assigned, default=None)


def find_vocabulary(
    fleet: Iterable[tuple[str, Tables]], boundaries: Boundaries, dictionary: Dictionary, params: Dataset
) -> Vocabulary:
    """Collect the names that occur in training rows of any plant, given with its tables."""
    errors, maintenance, models = set[str](), set[str](), set[str]()
    plants, machines = list[str](), list[pl.DataFrame]()
    for plant, tables in fleet:
        plants.append(plant)
        split = _assign_split(tables, boundaries, dictionary, params)
        events = tables.events.filter(split == "train").drop_nulls("code")
        errors |= set(events.filter(kind="error")["code"])
        maintenance |= set(events.filter(kind="maintenance")["code"])
        known = tables.machines.join(tables.telemetry.filter(split == "train"), on="machine", how="semi")
        models |= set(known["model"].drop_nulls())
        machines.append(known.select(*dictionary.attributes(plant)))
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
        attributes=_find_attributes(pl.concat(machines, how="diagonal"), plants, dictionary),
    )


def _find_attributes(machines: pl.DataFrame, plants: list[str], dictionary: Dictionary) -> dict[str, list[str] | None]:
    """Return the texts of each attribute, None for a number; one that a single machine has would name the machine."""
    columns = {name: column for plant in plants for name, column in dictionary.attributes(plant).items()}
    return {
        name: None
        if column.type == "number"
        else machines.group_by(name).len().filter(pl.col("len") > 1)[name].drop_nulls().sort().to_list()
        for name, column in columns.items()
    }


def measure_settings(dictionary: Dictionary, plants: list[str]) -> dict[str, float]:
    """Return the width of each setting's range, from the lowest that any plant allows to the highest."""
    bounds: dict[str, list[float]] = {}
    for plant in plants:
        for name, column in dictionary.columns("telemetry", plant).items():
            if column.role == "setting" and column.range:
                bounds.setdefault(name, []).extend(column.range)
    return {name: max(ends) - min(ends) for name, ends in bounds.items()}
