"""From ``data/raw`` to ``data/interim``: a plant's deliveries checked against the dictionary, and written as tables."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from upkeep.contract.dictionary import TABLES, Dictionary, Table
from upkeep.contract.reconcile import Delivered
from upkeep.contract.validation import Checked, add_missing_machines, check_table
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.core.pieces import Recall, make_anew
from upkeep.core.plants import table_file, write_table
from upkeep.sources import FileSource
from upkeep.sources.manifest import RawFile, empty_manifest
from upkeep.sources.registry import open_source
from upkeep.sources.store import scan_delivery


def check_deliveries(
    plant: str,
    files: Sequence[RawFile],
    raw: Path,
    dictionary: Dictionary,
    params: Params,
    recall: Recall = make_anew,
) -> dict[Table, Checked]:
    """Check a plant's deliveries, which lie in the folder `raw`, against the data dictionary, table by table.

    Raises UpkeepError if a file is damaged, or has changed since it was fetched.
    """
    scan, how = partial(scan_delivery, raw), None
    if params.fetch.mode == "reference" and isinstance(source := open_source(params.fetch, params.limits), FileSource):
        scan, how = partial(_read_pinned, source), (empty_manifest(params.fetch), params.limits)
    checked = {}
    for table in TABLES:
        own = [file for file in files if file.table == table]
        delivered = [Delivered(file.batch, file.delivery, partial(scan, file), (file, how)) for file in own]
        columns, every = dictionary.columns(table, plant), dictionary.row_length if table == "telemetry" else 0
        checked[table] = check_table(
            table, plant, delivered, columns, params.validate_, params.fetch.batch_days, every, recall
        )
    return checked


def _read_pinned(source: FileSource, file: RawFile) -> pl.LazyFrame:
    if not file.references:
        raise UpkeepError("a delivery is not pinned", remedy="run `dvc repro fetch`", **file.key._asdict())
    return source.read_pinned(file.key, file.references).lazy()


def write_tables(plant: str, checked: Mapping[Table, Checked], interim: Path) -> dict[str, pl.DataFrame]:
    """Write a plant's clean tables and its quarantine to the folder `interim`; return the clean ones."""
    clean: dict[str, pl.DataFrame] = {table: checked[table].clean for table in TABLES}
    clean["machines"] = add_missing_machines(clean["machines"], clean["telemetry"])
    quarantined = pl.concat([checked[table].quarantined for table in TABLES])
    for name, rows in {**clean, paths.QUARANTINE.name: quarantined}.items():
        write_table(rows, table_file(interim / name, plant), plant)
    return clean
