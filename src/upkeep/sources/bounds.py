"""Bounds on a delivered table, checked before it is read: a file of a megabyte can expand to gigabytes."""

from collections.abc import Iterator
from typing import IO

import polars as pl

from upkeep.contract.dictionary import BROKEN_LINE
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Limits

VALUE_BYTES = 16  # memory that Polars needs for a text besides its characters, and at most for a number
CHUNK_BYTES = 16_000_000  # read at a time


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


def read_bounded(stream: IO[bytes], limits: Limits) -> bytes:
    """Return the content of a stream, which may never end; raises UpkeepError once it is too large."""
    size, chunks = 0, list[bytes]()
    while chunk := stream.read(CHUNK_BYTES):
        size += len(chunk)
        check_size(size, limits)
        chunks.append(chunk)
    return b"".join(chunks)


def measure(rows: pl.DataFrame) -> int:
    """Return the bytes of memory that rows take, each with texts of its own, which Parquet may store only once."""
    texts = (_measure_texts(leaf) for column in rows.iter_columns() for leaf in _list_leaves(column))
    return VALUE_BYTES * rows.height * rows.width + sum(int(sizes.sum()) for sizes in texts)


def bound_values(rows: pl.DataFrame, limits: Limits) -> pl.DataFrame:
    """Return rows without values that are too long: a row with such a value becomes a broken line that says so.

    Raises UpkeepError if the rows together are too large.
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
    """Return the bytes of each text of a column; an empty series if it holds no texts."""
    match column.dtype:
        case pl.Binary():
            return column.bin.size()
        case pl.String() | pl.Categorical() | pl.Enum():
            return column.cast(pl.String).str.len_bytes()
    return pl.Series(dtype=pl.UInt32)


def _list_leaves(column: pl.Series) -> Iterator[pl.Series]:
    """Yield the columns of plain values of which lists and structs consist."""
    match column.dtype:
        case pl.Struct():
            for field in column.struct.unnest().iter_columns():
                yield from _list_leaves(field)
        case pl.List() | pl.Array():
            yield from _list_leaves(column.explode())
        case _:
            yield column
