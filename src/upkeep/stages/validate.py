"""Raw deliveries in; clean tables, the quarantine and a report of the data's quality out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, get_args

import polars as pl

from upkeep.contract.dictionary import Dictionary, load_dictionary
from upkeep.contract.findings import find_missing_batches
from upkeep.contract.reconcile import Delivered
from upkeep.contract.validation import Checked, Excess, Rules, add_missing_machines, check_table, find_excess
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.parallel import map_plants
from upkeep.core.params import Params, Validate
from upkeep.sources import Table
from upkeep.sources.store import RawFile, check_file, read_manifest

TABLES: tuple[Table, ...] = get_args(Table)

ROW_GROUP_ROWS = 250_000
"""Stated, because Polars' own choice may depend on the number of threads, and so would the bytes."""


class Outcome(NamedTuple):
    """A plant's part of the report, and its tables with too much in quarantine."""

    quality: dict[str, Any]
    excesses: dict[str, Excess]


def run(params: Params) -> None:
    """Write clean tables and the quarantine, per plant, and ``reports/data_quality.json``.

    Raises
    ------
    UpkeepError
        If a raw file is damaged, or more than ``validate.max_quarantined_share`` of a table is in quarantine; then all
        is written nevertheless, so that the quarantine can be looked at.
    """
    dictionary = load_dictionary(params.validate_.dictionary)
    files = _by_plant(read_manifest().files)
    newest = max(file.batch for deliveries in files.values() for file in deliveries)
    _remove_other_plants(files)
    outcomes = map_plants(_validate, files, params.parallel, files, newest, dictionary, params)
    quality = {plant: outcome.quality for plant, outcome in outcomes.items()}
    paths.REPORTS.mkdir(exist_ok=True)
    paths.DATA_QUALITY.write_text(json.dumps({"plants": quality}, indent=1) + "\n", encoding="utf-8")
    refuse_excess({plant: outcome.excesses for plant, outcome in outcomes.items()}, paths.QUARANTINE, params.validate_)


def _by_plant(files: Iterable[RawFile]) -> dict[str, list[RawFile]]:
    plants: dict[str, list[RawFile]] = {}
    for file in files:
        plants.setdefault(file.plant, []).append(file)
    if not plants:
        raise UpkeepError(
            "there is no raw data",
            expected="at least one batch of one plant",
            remedy="check fetch.until and fetch.options in params.yaml, then run `dvc repro fetch`",
            stage="validate",
            file=paths.MANIFEST,
        )
    return dict(sorted(plants.items()))


def _validate(
    plant: str, files: Mapping[str, Sequence[RawFile]], newest: date, dictionary: Dictionary, params: Params
) -> Outcome:
    checked = check_deliveries(plant, files[plant], paths.RAW, dictionary, params)
    write_tables(plant, checked, paths.INTERIM)
    batches = [file.batch for file in files[plant] if file.table == "telemetry"]
    findings = find_missing_batches("telemetry", batches, newest, params.fetch.batch_days)
    findings += (finding for table in TABLES for finding in checked[table].findings)
    quality = {"tables": {table: _count_rows(checked[table]) for table in TABLES}, "findings": findings}
    excesses = {table: find_excess(checked[table], params.validate_.max_quarantined_share) for table in TABLES}
    return Outcome(quality, {table: excess for table, excess in excesses.items() if excess})


def check_deliveries(
    plant: str, files: Sequence[RawFile], raw: Path, dictionary: Dictionary, params: Params
) -> dict[Table, Checked]:
    """Hold a plant's raw files, which are in the folder `raw`, against the data dictionary, table by table.

    Raises
    ------
    UpkeepError
        If a file is damaged.
    """
    knobs = params.validate_
    rules = Rules(params.fetch.batch_days, knobs.near_duplicate_seconds, knobs.outage_hours, knobs.stuck_hours)
    return {
        table: check_table(
            table,
            plant,
            (_read(raw, file) for file in files if file.table == table),
            dictionary.columns(table, plant),
            rules,
        )
        for table in TABLES
    }


def _read(raw: Path, file: RawFile) -> Delivered:
    check_file(raw, file)
    path = raw / file.file
    try:
        return Delivered(file.batch, file.delivery, pl.read_parquet(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UpkeepError(
            f"a raw file cannot be read: {error}",
            expected="a Parquet file",
            remedy=f"run `dvc checkout` to restore it, or delete {raw} and fetch again",
            stage="validate",
            plant=file.plant,
            table=file.table,
            batch=file.batch,
            file=path,
        ) from error


def write_tables(plant: str, checked: Mapping[Table, Checked], interim: Path) -> dict[str, pl.DataFrame]:
    """Write a plant's clean tables and its quarantine to the folder `interim`; return the clean ones."""
    clean: dict[str, pl.DataFrame] = {table: checked[table].clean for table in TABLES}
    clean["machines"] = add_missing_machines(clean["machines"], clean["telemetry"])
    for table, rows in clean.items():
        _write(rows, interim / table / f"{plant}.parquet")
    quarantined = pl.concat([checked[table].quarantined for table in TABLES])
    _write(quarantined, interim / paths.QUARANTINE.name / f"{plant}.parquet")
    return clean


def _write(rows: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.rechunk().write_parquet(path, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def _remove_other_plants(plants: Iterable[str]) -> None:
    # The next stage takes every file it finds for a plant; what an earlier run left of another plant must not be there.
    wanted = {f"{plant}.parquet" for plant in plants}
    for folder in (*(paths.INTERIM / table for table in TABLES), paths.QUARANTINE):
        for path in folder.glob("*.parquet"):
            if path.name not in wanted:
                path.unlink()


def _count_rows(checked: Checked) -> dict[str, Any]:
    reasons = checked.quarantined["reason"].value_counts().sort("reason")
    return {
        "rows_in": checked.rows_in,
        "clean": checked.clean.height,
        "duplicates": checked.duplicates,
        "quarantined": dict(reasons.iter_rows()),
    }


def refuse_excess(excesses: Mapping[str, Mapping[str, Excess]], quarantine: Path, params: Validate) -> None:
    """Raise the worst excess of the plants' tables, if there is any, and count the others.

    Raises
    ------
    UpkeepError
        Naming plant, table, batch and column of what fills the quarantine most.
    """
    found = [(excess, plant, table) for plant, tables in excesses.items() for table, excess in tables.items()]
    if not found:
        return
    worst, plant, table = max(found, key=lambda item: item[0].share)
    others = f"; {len(found) - 1} more of the plants' tables hold too much" if len(found) > 1 else ""
    raise UpkeepError(
        f"{worst.share:.1%} of the rows are in quarantine, most of them, {worst.rows}, as '{worst.reason}'{others}",
        expected=f"at most {params.max_quarantined_share:.1%}, validate.max_quarantined_share in params.yaml",
        remedy=f"look at {quarantine / plant}.parquet; mend the source, the data dictionary or that share",
        stage="validate",
        plant=plant,
        table=table,
        batch=worst.batch,
        column=worst.column,
    )
