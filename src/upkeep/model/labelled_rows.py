"""Labelled rows as training reads them: columns of all, features of a chunk at a time."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from upkeep.core.pieces import name_piece
from upkeep.core.types import Floats32
from upkeep.model.storage import to_matrix

CHUNK_ROWS = 65_536


class LabelledRows:
    """One plant's rows of one split, as the dataset stage writes them: a frame, or the scan of a file.

    `features` are the columns after ``weight``.
    """

    def __init__(self, rows: pl.DataFrame | pl.LazyFrame) -> None:
        self._rows = rows.lazy()
        columns = self._rows.collect_schema().names()
        self.features = columns[columns.index("weight") + 1 :]
        self.height = int(self._rows.select(pl.len()).collect().item())

    @cached_property
    def checksum(self) -> str:
        """What tells these rows' features, labels and weights from others."""
        return name_piece([], (rows.select("label", "weight", *self.features) for rows in self.chunks()))

    @property
    def starts(self) -> range:
        """The first row of each chunk; there is one at least."""
        return range(0, max(self.height, 1), CHUNK_ROWS)

    def read(self, *columns: str) -> pl.DataFrame:
        """Return some columns of all rows."""
        return self._rows.select(columns).collect()

    def read_chunk(self, start: int) -> pl.DataFrame:
        """Return all columns of the chunk that starts with this row."""
        return self._rows.slice(start, CHUNK_ROWS).collect()

    def chunks(self) -> Iterator[pl.DataFrame]:
        """Read one chunk after the other."""
        return map(self.read_chunk, self.starts)


class Chunk(lgb.Sequence):  # type: ignore[misc]  # LightGBM ships no types
    """Features that LightGBM reads when it bins them, so that it holds a byte a value and never all at once."""

    batch_size = CHUNK_ROWS

    def __init__(self, read: Callable[[], Floats32], rows: int) -> None:
        self._read, self._rows = read, rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int | slice | list[int]) -> NDArray[Any]:
        rows = self._read()[index]
        return rows.astype(np.float64) if rows.ndim == 1 else rows  # LightGBM samples in double precision


def join_features(tables: Sequence[LabelledRows]) -> Floats32 | list[lgb.Sequence]:
    """Return the features of all tables: an array if they are one chunk, else what LightGBM reads chunk by chunk."""
    read = lru_cache(maxsize=1)(_read_matrix)  # LightGBM samples one row after the other
    chunks = [(table, start) for table in tables for start in table.starts]
    if len(chunks) == 1:
        return read(*chunks[0])
    return [Chunk(partial(read, table, start), min(table.height - start, CHUNK_ROWS)) for table, start in chunks]


def _read_matrix(table: LabelledRows, start: int) -> Floats32:
    return to_matrix(table.read_chunk(start), table.features)
