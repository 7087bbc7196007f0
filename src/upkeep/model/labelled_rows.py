"""Labelled rows as training reads them: single columns of all rows, all features of a chunk of rows."""

from collections.abc import Callable, Iterator
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
GOLDEN = (5**0.5 - 1) / 2  # its multiples are spread evenly, and in step with no hour of the day or day of the week


class LabelledRows:
    """Rows of one split, of one plant or several, as the dataset stage writes them: frames, or scans of files.

    `features` are the columns after ``weight``, which all plants share. If there are more rows than about `most`, so
    many are taken of them, evenly.
    """

    def __init__(self, *plants: pl.DataFrame | pl.LazyFrame, most: int | None = None) -> None:
        self._plants = [rows.lazy() for rows in plants]
        columns = self._plants[0].collect_schema().names()
        self.features = columns[columns.index("weight") + 1 :]
        self._heights = self._count_rows()
        if most and sum(self._heights) > most:
            is_taken = pl.col("@row").cast(pl.Float64) * GOLDEN % 1 < most / sum(self._heights)
            self._plants = [rows.with_row_index("@row").filter(is_taken).drop("@row") for rows in self._plants]
            self._heights = self._count_rows()
        self.height = sum(self._heights)

    def _count_rows(self) -> list[int]:
        return [int(rows.select(pl.len()).collect().item()) for rows in self._plants]

    @cached_property
    def checksum(self) -> str:
        """A checksum of these rows' features, labels and weights."""
        return name_piece([], (rows.select("label", "weight", *self.features) for rows in self.chunks()))

    def read(self, *columns: str) -> pl.DataFrame:
        """Return some columns of all rows."""
        return pl.concat(rows.select(columns).collect() for rows in self._plants)

    def chunks(self) -> Iterator[pl.DataFrame]:
        """Read one chunk after the other; each plant has at least one."""
        return (chunk.collect() for chunk, _ in self._cut())

    def read_features(self) -> Floats32 | list[lgb.Sequence]:
        """Return the features of all rows: an array if they are one chunk, else chunks for LightGBM to read."""
        read = lru_cache(maxsize=1)(self._read_matrix)  # LightGBM asks for one row after the other to sample them
        chunks = [Chunk(partial(read, number), rows) for number, (_, rows) in enumerate(self._cut())]
        return read(0) if len(chunks) == 1 else chunks

    def _read_matrix(self, number: int) -> Floats32:
        return to_matrix(self._cut()[number][0].collect(), self.features)

    def _cut(self) -> list[tuple[pl.LazyFrame, int]]:
        return [
            (rows.slice(start, CHUNK_ROWS), min(height - start, CHUNK_ROWS))
            for rows, height in zip(self._plants, self._heights, strict=True)
            for start in range(0, max(height, 1), CHUNK_ROWS)
        ]


class Chunk(lgb.Sequence):  # type: ignore[misc]  # LightGBM ships no types
    """Features that LightGBM reads as it bins them, so that it holds a byte a value and no chunk but one."""

    batch_size = CHUNK_ROWS

    def __init__(self, read: Callable[[], Floats32], rows: int) -> None:
        self._read, self._rows = read, rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int | slice | list[int]) -> NDArray[Any]:
        rows = self._read()[index]
        return rows.astype(np.float64) if rows.ndim == 1 else rows  # LightGBM samples in double precision
