"""A sensor that was delivered in another unit, found by its values and brought back to the dictionary's."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
import polars as pl

from upkeep.contract.dictionary import Column, Unit
from upkeep.core.types import Floats

OWN = Unit(factor=1.0)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL_IQR = 1.349
"""Interquartile range of a normal distribution, in standard deviations."""

FAR = 1.0
"""In spreads of an earlier delivery: values on average further than this from it are unlike it ..."""
CLOSER = 8.0
"""... and are in another unit if that brings them this many times closer."""


class Spread(NamedTuple):
    """How one column's values are spread in the delivery with this number.

    `quantiles` are those at :data:`QUANTILES`, `in_range` is the share of values, per unit, that the range allows.
    """

    number: int
    batch: date
    quantiles: Floats
    in_range: dict[str | None, float]


def find_units(
    rows: pl.DataFrame, delivery: str, batches: Sequence[date], column: str, entry: Column
) -> dict[int, str]:
    """Tell which deliveries of a column are in which other unit of the dictionary; those in its own are left out.

    `rows` are all of a plant, with the number of the delivery in the column `delivery`; `batches` holds the batch of
    each delivery, which may be compared with earlier ones only.
    """
    found: dict[int, str] = {}
    history: list[tuple[date, Floats]] = []
    for candidate in _describe(rows, delivery, batches, column, entry):
        earlier = [quantiles for batch, quantiles in history if batch < candidate.batch]
        unit = _choose_unit(candidate, earlier, entry.also)
        if unit is not None:
            found[candidate.number] = unit
        history.append((candidate.batch, _convert(candidate.quantiles, entry.also[unit] if unit else OWN)))
    return found


def convert_column(delivery: str, column: str, units: Mapping[int, str], entry: Column) -> pl.Expr:
    """Return the column in its own unit, given the other units that :func:`find_units` found."""
    number, value = pl.col(delivery), pl.col(column)
    factors = {index: entry.also[unit].factor for index, unit in units.items()}
    offsets = {index: entry.also[unit].offset for index, unit in units.items()}
    converted = value * number.replace_strict(factors, default=1.0) + number.replace_strict(offsets, default=0.0)
    return pl.when(number.is_in(list(units))).then(converted).otherwise(value).alias(column)


def _describe(rows: pl.DataFrame, delivery: str, batches: Sequence[date], column: str, entry: Column) -> list[Spread]:
    value = pl.col(column)
    low, high = entry.range or (-np.inf, np.inf)
    units: list[tuple[str | None, Unit]] = [(None, OWN), *entry.also.items()]
    shares = {name: (value * unit.factor + unit.offset).is_between(low, high).mean() for name, unit in units}
    described = (
        rows.lazy()
        .select(delivery, column)
        .filter(value.is_finite())
        .group_by(delivery)
        .agg(
            *(value.quantile(quantile, "linear").alias(f"quantile {quantile}") for quantile in QUANTILES),
            *(share.alias(f"share {name}") for name, share in shares.items()),
        )
        .sort(delivery)
        .collect()
    )
    return [
        Spread(
            row[delivery],
            batches[row[delivery]],
            np.array([row[f"quantile {quantile}"] for quantile in QUANTILES]),
            {name: row[f"share {name}"] for name in shares},
        )
        for row in described.iter_rows(named=True)
    ]


def _convert(quantiles: Floats, unit: Unit) -> Floats:
    converted: Floats = np.sort(quantiles * unit.factor + unit.offset)  # a negative factor turns the order round
    return converted


def _choose_unit(candidate: Spread, earlier: Sequence[Floats], also: Mapping[str, Unit]) -> str | None:
    if earlier:
        # The ranges of two units often overlap (70 can be °C or °F), so what the plant sent before tells more. The most
        # similar delivery counts, not the mean: a plant that has been seen idle and running may be either again.
        past = np.array(earlier)
        spread = float(np.median(past[:, 3] - past[:, 1])) / NORMAL_IQR
        distance = {unit: _distance(_convert(candidate.quantiles, also[unit]), past) for unit in also}
        nearest = min(distance, key=lambda unit: distance[unit])
        own = _distance(candidate.quantiles, past)
        if own > FAR * spread and own > CLOSER * distance[nearest] and candidate.in_range[nearest] > 0.5:
            return nearest
    if candidate.in_range[None] >= 0.5:
        return None
    likely = max(also, key=lambda unit: candidate.in_range[unit])
    return likely if candidate.in_range[likely] > 0.5 else None


def _distance(quantiles: Floats, past: Floats) -> float:
    return float(np.abs(past - quantiles).mean(axis=1).min())
