"""Files at any address that fsspec can open: read within bounds, decompressed, and named in errors."""

import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from upkeep.core.addresses import open_address
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits
from upkeep.core.secrets import expand_all, expand_variables, hide_variables
from upkeep.sources import bounds
from upkeep.sources.file_options import TableFiles

ENDING = re.compile(r"\.(?:parquet|pq|(?P<text>csv|tsv|txt)(?:\.(?P<packed>gz|bz2|xz|zst))?)$", re.IGNORECASE)
ENDINGS = ".parquet, .pq, .csv, .tsv or .txt, the last three also with .gz, .bz2, .xz or .zst"

MAGIC = re.compile(rb"(?P<gz>\x1f\x8b)|(?P<bz2>BZh[1-9]1AY&SY)|(?P<xz>\xfd7zXZ\0)|(?P<zst>\x28\xb5\x2f\xfd)")
"""How compressed files begin, whatever their names end in."""
ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"7z\xbc\xaf")
"""How ZIP archives begin, spreadsheets among them, and older spreadsheets, and other archives."""
PARQUET = b"PAR1"
"""How a Parquet file begins and ends."""

UNPACK: dict[str, Callable[[IO[bytes]], Any]] = {
    "gz": gzip.open,
    "bz2": lambda packed: pa.CompressedInputStream(packed, "bz2"),  # Python's bz2 ignores a damaged second stream
    "xz": lzma.open,
    "zst": lambda packed: pa.CompressedInputStream(packed, "zstd"),
}


def find_place(reading: TableFiles) -> tuple[Any, str]:
    """Return the file system of a reading's ``path``, and the path in it."""
    return open_address(expand_variables(reading.path), **expand_all(reading.storage_options))


def read_content(reading: TableFiles, path: str, limits: Limits) -> bytes:
    """Return a file's content; raises UpkeepError if it is not a regular file, or larger than `limits` allow."""
    file_system, _ = find_place(reading)
    found = file_system.info(path)
    if found["type"] != "file":  # a pipe or a device may never end
        raise UpkeepError(
            "the path leads to no file, but to a pipe, a socket or a device",
            remedy="move it away, or put the file in its place",
        )
    bounds.check_size(found.get("size") or 0, limits)
    with file_system.open(path, "rb") as stream:
        return bounds.read_bounded(stream, limits)


def unpack(content: bytes, path: str, limits: Limits) -> tuple[bytes, bool]:
    """Return a file's content decompressed, and whether it is text.

    Both are decided by how it begins, or else by the file's ending. Raises UpkeepError if it is damaged, an archive, or
    larger than `limits` allow.
    """
    ending, begins = ENDING.search(path.lower()), MAGIC.match(content)
    packed = begins.lastgroup if begins else ending and ending["packed"]
    if packed and not content.startswith(ARCHIVES):
        try:
            with UNPACK[packed](BytesIO(content)) as stream:
                content = bounds.read_bounded(stream, limits)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _unreadable_file(error) from error
    if content.startswith(ARCHIVES) or MAGIC.match(content):
        what = "the file is an archive, a spreadsheet or packed twice, whatever its name ends in"
        raise UpkeepError(what, remedy="unpack it, or export the sheet as CSV")
    is_parquet = content.startswith(PARQUET) and content.endswith(PARQUET)
    return content, bool(ending and ending["text"]) and not is_parquet


def read_parquet(content: bytes, limits: Limits) -> pl.DataFrame:
    """Return the rows of a Parquet file, with extension types as their storage types.

    Raises UpkeepError if they exceed `limits`, by the file's footer, which is read first.
    """
    try:
        footer = pq.read_metadata(BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable_file(error) from error
    bounds.check_columns(footer.num_columns, limits)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    values = sum(group.column(number).num_values for group in groups for number in range(footer.num_columns))
    unpacked = sum(group.total_byte_size for group in groups)
    bounds.check_size(unpacked + bounds.VALUE_BYTES * max(values, footer.num_rows * footer.num_columns), limits)
    rows = pl.read_parquet(BytesIO(content), hive_partitioning=False)
    extensions = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.BaseExtension)]
    rows = rows.with_columns(pl.col(extensions).ext.storage()) if extensions else rows
    return bounds.bound_values(rows.with_columns(map(_as_text_if_utf8, rows.select(pl.selectors.binary()))), limits)


def _as_text_if_utf8(column: pl.Series) -> pl.Series:
    """Return binary as text if it is UTF-8: files of Impala and of old versions of Spark do not mark text as such."""
    try:
        return column.cast(pl.String)
    except pl.exceptions.ComputeError:
        return column


def _unreadable_file(error: BaseException) -> UpkeepError:
    what = f"the file is damaged, or holds a type that cannot be read: {error}"
    return UpkeepError(what, remedy="export it again, or move it away")


@contextmanager
def errors_named(reading: TableFiles, **where: Any) -> Iterator[None]:
    """Turn errors of Polars and of fsspec's file systems into UpkeepErrors that name the file and hide secrets."""
    try:
        yield
    except UpkeepError as error:
        raise error.at(**where) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _unreadable_file(error).at(**where) from error
    except Exception as error:  # every file system behind fsspec raises errors of its own
        fault = f"{type(error).__name__}: {error}"
        options = map(str, reading.storage_options.values())
        raise UpkeepError(
            f"{reading.path} cannot be read: {hide_variables(fault, reading.path, *options)}",
            remedy="check the path, the network, the rights and storage_options",
            **where,
        ) from None
