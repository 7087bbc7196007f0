"""How large a delivered table may be, found out before it is read: a megabyte of file can stand for gigabytes."""

from collections.abc import Iterator
from io import BytesIO
from typing import IO

import polars as pl
import pyarrow.parquet as pq

from upkeep.contract.dictionary import BROKEN_LINE
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits

VALUE_BYTES = 16
"""What Polars takes for a text besides its letters, and at most for a number."""
CHUNK_BYTES = 16_000_000
"""Read at a time."""
SEPARATORS = ",;\t|"
"""Of CSV files; which one is meant may not be known yet."""


def check_size(size: int, limits: Limits) -> None:
    """Raise an UpkeepError if a table takes more bytes of memory than it may."""
    if size > limits.table_mb * 10**6:
        raise UpkeepError(
            f"the table takes more memory than the {limits.table_mb:,} MB of limits.table_mb in params.yaml",
            remedy="deliver it in parts, by time; or raise the limit, if it is meant to be so large",
        )


def check_columns(count: int, limits: Limits) -> None:
    """Raise an UpkeepError if a table has more columns than it may."""
    if count > limits.columns:
        raise UpkeepError(
            f"the table has {count:,} columns, more than the {limits.columns:,} of limits.columns in params.yaml",
            remedy="check its header and separator; or raise the limit, if there are so many sensors",
        )


def check_shape(rows: int, columns: int, limits: Limits) -> None:
    """Raise an UpkeepError if a table of this shape has more columns, or takes more memory, than it may."""
    check_columns(columns, limits)
    check_size(VALUE_BYTES * rows * columns, limits)


def read_chunks(stream: IO[bytes], limits: Limits) -> Iterator[bytes]:
    """Yield what a stream holds, which may never end; raises UpkeepError once it is too much."""
    size = 0
    while chunk := stream.read(CHUNK_BYTES):
        size += len(chunk)
        check_size(size, limits)
        yield chunk


def read_text(stream: IO[bytes], separator: str, limits: Limits) -> bytes:
    """Return what the stream of a text file holds; raises UpkeepError as soon as its table is too large."""
    marks = [mark.encode() for mark in {*SEPARATORS, separator}]
    size, chunks = 0, list[bytes]()
    for chunk in read_chunks(stream, limits):
        values = max(map(chunk.count, marks)) + max(chunk.count(b"\n"), chunk.count(b"\r"))
        size += len(chunk) + VALUE_BYTES * values
        check_size(size, limits)
        chunks.append(chunk)
    return b"".join(chunks)


def check_footer(content: bytes, limits: Limits) -> None:
    """Raise an UpkeepError if the table of a Parquet file is too large by what its footer says."""
    footer = pq.read_metadata(BytesIO(content))
    check_columns(footer.num_columns, limits)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    values = sum(group.column(number).num_values for group in groups for number in range(footer.num_columns))
    unpacked = sum(group.total_byte_size for group in groups)
    check_size(unpacked + VALUE_BYTES * max(values, footer.num_rows * footer.num_columns), limits)


def measure(rows: pl.DataFrame) -> int:
    """Return how many bytes of memory rows take once each has texts of its own, which Parquet may hold once for all."""
    texts = (_measure_texts(leaf) for column in rows.iter_columns() for leaf in _list_leaves(column))
    return VALUE_BYTES * rows.height * rows.width + sum(int(sizes.sum()) for sizes in texts)


def bound_values(rows: pl.DataFrame, limits: Limits) -> pl.DataFrame:
    """Return rows whose values are none too long: a row with one that is becomes a broken line, which says so.

    Raises UpkeepError if all of them together are too large.
    """
    check_size(measure(rows), limits)
    longest, told = 1000 * limits.value_kb, []
    for column in rows.iter_columns():
        is_long = (_measure_texts(column) > longest).fill_null(False)
        if is_long.any():
            rows = rows.with_columns(pl.select(pl.when(~is_long).then(column)).to_series().alias(column.name))
            told.append(pl.when(is_long).then(pl.lit(f"{column.name}: a value of more than {longest:,} bytes")))
    return rows.with_columns(pl.coalesce(told).alias(BROKEN_LINE)) if told else rows


def _measure_texts(column: pl.Series) -> pl.Series:
    """Return the bytes of each text of a column; none if it holds no texts."""
    match column.dtype:
        case pl.String():
            return column.str.len_bytes()
        case pl.Binary():
            return column.bin.size()
        case pl.Categorical() | pl.Enum():
            return column.cat.len_bytes()
    return pl.Series(dtype=pl.UInt32)


def _list_leaves(column: pl.Series) -> Iterator[pl.Series]:
    """Yield the columns of plain values that lists and structs consist of."""
    if isinstance(column.dtype, pl.Struct):
        for field in column.struct.unnest().iter_columns():
            yield from _list_leaves(field)
    elif isinstance(column.dtype, pl.List | pl.Array):
        yield from _list_leaves(column.explode())
    else:
        yield column
