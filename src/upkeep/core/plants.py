"""Files and folders by plant: how they are named, and how a plant's own name is found again in its file."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import polars as pl

from upkeep.core.errors import UpkeepError
from upkeep.core.files import TEMPORARY

PLAIN = re.compile(r"[a-z0-9_][a-z0-9_-]{0,49}", re.ASCII)  # the same on every file system, and not taken for an option

LONGEST = 50  # characters of a name in that of its file: at most 200 bytes of UTF-8, of 255 that file systems allow

DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.ASCII)  # device names of Windows, whatever their ending
OTHER_FILES = {"index", "lock"}  # files that stand beside the plants' own
ROW_GROUP_ROWS = 250_000  # stated, as Polars' own choice, and so the bytes, depend on how rows were put together
KEY = "plant"  # the key of a Parquet file's metadata for a plant's name that differs from the file's


def name_file(plant: str) -> str:
    """Return the name of a plant's file or folder, without an ending.

    A short name of a-z, 0-9, _ and - stays as it is. Any other keeps its letters and digits, followed by a dot and a
    hash of it, so that no two plants share a file, even where case or two encodings of é make no difference.
    """
    if PLAIN.fullmatch(plant) and not DEVICES.fullmatch(plant) and plant not in OTHER_FILES:
        return plant
    letters = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", plant))[:LONGEST].strip("_")
    return f"{letters or '_'}.{hashlib.sha256(plant.encode(errors='surrogatepass')).hexdigest()[:8]}"


def table_file(folder: Path, plant: str) -> Path:
    """Return the path of a plant's table in a folder of one Parquet file per plant."""
    return folder / f"{name_file(plant)}.parquet"


def write_table(rows: pl.DataFrame, file: Path, plant: str) -> None:
    """Write a plant's table, atomically, such that :func:`list_plants` finds the plant's name; folders are made.

    Equal rows give equal bytes.
    """
    metadata = None if name_file(plant) == plant else {KEY: plant}
    half = file.with_name(f".{file.name}.{uuid4().hex[:8]}{TEMPORARY}")
    rows.write_parquet(half, row_group_size=ROW_GROUP_ROWS, metadata=metadata, mkdir=True)
    half.replace(file)  # a worker given up for lost may write it as well, and be killed meanwhile


def read_spans(folder: Path, plants: Sequence[str]) -> pl.DataFrame:
    """Return the first and the last time in each plant's table of a folder: ``plant``, ``first``, ``last``."""
    span = {"first": pl.min("time"), "last": pl.max("time")}
    scans = [pl.scan_parquet(table_file(folder, plant)).select(plant=pl.lit(plant), **span) for plant in plants]
    return pl.concat(pl.collect_all(scans))


def list_plants(folder: Path, files: str = "*.parquet", *, made_by: str | None = None) -> list[str]:
    """Return the names of the plants whose tables are in a folder and match the pattern `files`.

    Raises UpkeepError if there is none, if `made_by` names the stage that should have made them.
    """
    found = sorted(folder.glob(files))
    if made_by and not found:
        raise UpkeepError(f"{folder} holds no plant", remedy=f"run `upkeep {made_by}` first, or all: `dvc repro`")
    called = [file.relative_to(folder).parts[0].removesuffix(".parquet") for file in found]
    return sorted(pl.read_parquet_metadata(file).get(KEY, name) for file, name in zip(found, called, strict=True))
