"""NASA's C-MAPSS turbofan engines: each subset a plant, each engine a machine, each cycle an hour."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from upkeep.contract.dictionary import Table
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.core.secrets import expand_variables
from upkeep.core.types import Frozen
from upkeep.sources import Delivery, read_options
from upkeep.sources.batches import batch_of, first_day
from upkeep.sources.file_options import TableFiles
from upkeep.sources.opening import errors_named, read_content, unpack

SUBSETS = ("FD001", "FD002", "FD003", "FD004")

EPOCH = datetime(2000, 1, 3, tzinfo=UTC)  # a Monday, on which every engine is installed; its cycle 1 is an hour later

SETTINGS = ("altitude", "mach", "tra")
SENSORS = (
    *("t2", "t24", "t30", "t50", "p2", "p15", "p30", "nf", "nc", "epr", "ps30"),
    *("phi", "nrf", "nrc", "bpr", "farb", "htbleed", "nf_dmd", "pcnfr_dmd", "w31", "w32"),
)
COLUMNS = ("unit", "cycle", *SETTINGS, *SENSORS)
"""In the order of the files, names after table 2 of Saxena et al., PHM 2008."""

FAILURE_DELAY_HOURS = 1
"""From an engine's last cycle T to its failure, so that the row of cycle T still has a failure ahead of it.

The literature calls a row positive if its remaining life T - c is at most 30 cycles, the last row (0 left) included: 31
rows. A label looks for a failure in (t, t + horizon]. With the failure at T + 1 and a horizon of 31 hours that is
c < T + 1 <= c + 31, hence 0 <= T - c <= 30: the same rows.
"""


class CmapssOptions(Frozen):
    """``fetch.options`` of the source ``cmapss``."""

    folder: str


class Cmapss:
    """NASA's text files, plain or gzipped, of all subsets in a folder."""

    limits: Limits

    def __init__(self, options: Mapping[str, Any], batch_days: int) -> None:
        self._template = read_options(CmapssOptions, options, "cmapss").folder
        self._batch_days = batch_days

    def deliveries(self, until: date) -> Iterator[Delivery]:
        """List the deliveries of every subset in the folder."""
        folder = Path(expand_variables(self._template)).expanduser()
        subsets = [subset for subset in SUBSETS if _find_file(folder, f"train_{subset}")]
        if not subsets:
            raise UpkeepError(
                f"no C-MAPSS file in {self._template}",
                expected="train_FD001.txt, test_FD001.txt, RUL_FD001.txt or other subsets, plain or gzipped",
                remedy="correct fetch.options.folder in params.yaml, or set the variable in it",
            )
        first = pl.lit(first_day(EPOCH.date(), self._batch_days))
        for subset in subsets:
            for table, rows in read_subset(folder, subset, self.limits).items():
                batch = first if table == "machines" else batch_of(pl.col("time"), self._batch_days)
                parts = rows.with_columns(batch.alias("@batch")).partition_by("@batch", as_dict=True, include_key=False)
                for (day,), part in sorted(parts.items()):
                    if day <= until:
                        yield Delivery(table, subset.lower(), day, part.clone)


def read_subset(folder: Path, subset: str, limits: Limits) -> dict[Table, pl.DataFrame]:
    """Read one subset, such as ``FD001``, as the three tables.

    ``telemetry`` holds training and official test engines; ``events`` the end of each engine, which for a test engine
    is its last row plus the published remaining life; ``machines`` gives test engines the ``split`` ``test``.

    Raises UpkeepError if a file is missing or does not hold what NASA's holds.
    """
    rows, left = _read_engines(folder, subset, "train", limits), dict[str, int]()
    if _find_file(folder, f"test_{subset}"):
        test = _read_engines(folder, subset, "test", limits)
        engines = test["machine"].unique().sort()
        life = _read_numbers(folder, f"RUL_{subset}", 1, limits).to_series().cast(pl.Int64)  # in their order
        if len(life) != len(engines):
            raise _broken_file(f"RUL_{subset}", f"{len(life)} lines for {len(engines)} test engines")
        rows, left = pl.concat([rows, test]), dict(zip(engines, life, strict=True))
    ends = rows.group_by("machine", "split").agg(pl.col("time").max()).sort("machine")
    hours = pl.col("machine").replace_strict(left, default=0, return_dtype=pl.Int64) + FAILURE_DELAY_HOURS
    end = pl.col("time") + pl.duration(hours=hours)
    plant = pl.lit(subset.lower()).alias("plant")
    return {
        "telemetry": rows.select(plant, "machine", "time", *SETTINGS, *SENSORS),
        "events": ends.select(plant, "machine", end, kind=pl.lit("failure"), code=pl.lit("end_of_life")),
        "machines": ends.select(plant, "machine", "split", model=pl.lit("turbofan"), installed=pl.lit(EPOCH)),
    }


def _read_engines(folder: Path, subset: str, split: str, limits: Limits) -> pl.DataFrame:
    rows = _read_numbers(folder, f"{split}_{subset}", len(COLUMNS), limits)
    rows = rows.rename(dict(zip(rows.columns, COLUMNS, strict=True)))
    return rows.with_columns(
        machine=f"{split}-" + pl.col("unit").cast(pl.Int64).cast(pl.String).str.zfill(3),
        time=EPOCH + pl.duration(hours=pl.col("cycle").cast(pl.Int64)),
        split=pl.lit("test" if split == "test" else None, pl.String),
    ).drop("unit", "cycle")


def _read_numbers(folder: Path, name: str, width: int, limits: Limits) -> pl.DataFrame:
    """Read a file of space-separated numbers; the empty columns that trailing spaces make are left out."""
    path = _find_file(folder, name)
    if path is None:
        raise _broken_file(name, "the file is missing")
    reading = TableFiles.model_construct(path=str(path))
    with errors_named(reading, file=path):
        content, _ = unpack(read_content(reading, str(path), limits), str(path), limits)
        text = pl.read_csv(content, separator=" ", has_header=False, infer_schema=False)
        numbers = text[:, :width].cast(pl.Float64)
    if numbers.width < width or sum(numbers.null_count().row(0)):
        raise _broken_file(name, f"a line has fewer than {width} numbers")
    return numbers


def _find_file(folder: Path, name: str) -> Path | None:
    return next((path for suffix in (".txt", ".txt.gz") if (path := folder / f"{name}{suffix}").is_file()), None)


def _broken_file(name: str, fault: str) -> UpkeepError:
    remedy = "unpack NASA's archive again into fetch.options.folder"
    what = f"the C-MAPSS file {name}.txt cannot be used: {fault}"
    return UpkeepError(what, remedy=remedy, plant=name.split("_")[1].lower())
