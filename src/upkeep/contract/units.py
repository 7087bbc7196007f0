"""A sensor that was delivered in another unit, found by its values and brought back to the dictionary's."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl

from upkeep.contract.dictionary import DELIVERY, Column, Unit
from upkeep.core.types import Floats

OWN = Unit(factor=1.0)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL_IQR = 1.349
"""Interquartile range of a normal distribution, in standard deviations."""

FAR = 1.0
"""In spreads of an earlier delivery: values on average further than this from it are unlike it ..."""
CLOSER = 8.0
"""... and are in another unit if that brings them this many times closer."""


def find_units(rows: pl.DataFrame, batches: Sequence[date], column: str, entry: Column) -> dict[int, str]:
    """Tell which deliveries of a column are in which other unit of the dictionary; those in its own are left out.

    `rows` are all of a plant, `batches` holds the batch of each delivery, which may be compared with earlier ones only.
    """
    found: dict[int, str] = {}
    history: list[tuple[date, Floats]] = []
    for number, quantiles, in_range in _summarise_deliveries(rows, column, entry):
        earlier = [past for batch, past in history if batch < batches[number]]
        unit = _choose_unit(quantiles, in_range, earlier, entry.also)
        if unit is not None:
            found[number] = unit
        history.append((batches[number], _convert_quantiles(quantiles, entry.also[unit] if unit else OWN)))
    return found


def convert_column(column: str, units: Mapping[int, str], entry: Column) -> pl.Expr:
    """Return the column in its own unit, given the other units that :func:`find_units` found."""
    number, value = pl.col(DELIVERY), pl.col(column)
    factors = {index: entry.also[unit].factor for index, unit in units.items()}
    offsets = {index: entry.also[unit].offset for index, unit in units.items()}
    converted = value * number.replace_strict(factors, default=1.0) + number.replace_strict(offsets, default=0.0)
    return pl.when(number.is_in(list(units))).then(converted).otherwise(value).alias(column)


def _summarise_deliveries(
    rows: pl.DataFrame, column: str, entry: Column
) -> Iterator[tuple[int, Floats, dict[str | None, float]]]:
    """Yield each delivery's number, its values' :data:`QUANTILES`, and the share that the range allows in each unit."""
    value = pl.col(column)
    low, high = entry.range or (-np.inf, np.inf)
    shares = [(value * unit.factor + unit.offset).is_between(low, high).mean() for unit in (OWN, *entry.also.values())]
    described = (
        rows.select(DELIVERY, column)
        .filter(value.is_finite())
        .group_by(DELIVERY)
        .agg(
            quantiles=pl.concat_list(value.quantile(quantile, "linear") for quantile in QUANTILES),
            shares=pl.concat_list(shares),
        )
        .sort(DELIVERY)
    )
    for number, quantiles, in_range in described.iter_rows():
        yield number, np.array(quantiles), dict(zip((None, *entry.also), in_range, strict=True))


def _convert_quantiles(quantiles: Floats, unit: Unit) -> Floats:
    converted: Floats = np.sort(quantiles * unit.factor + unit.offset)  # a negative factor turns the order round
    return converted


def _choose_unit(
    quantiles: Floats, in_range: Mapping[str | None, float], earlier: Sequence[Floats], also: Mapping[str, Unit]
) -> str | None:
    if earlier:
        # The ranges of two units often overlap (70 can be °C or °F), so what the plant sent before tells more. The most
        # similar delivery counts, not the mean: a plant that has been seen idle and running may be either again.
        past = np.array(earlier)
        spread = float(np.median(past[:, 3] - past[:, 1])) / NORMAL_IQR
        distance = {unit: _nearest_distance(_convert_quantiles(quantiles, also[unit]), past) for unit in also}
        nearest = min(distance, key=lambda unit: distance[unit])
        own = _nearest_distance(quantiles, past)
        if own > FAR * spread and own > CLOSER * distance[nearest] and in_range[nearest] > 0.5:
            return nearest
    if in_range[None] >= 0.5:
        return None
    likely = max(also, key=lambda unit: in_range[unit])
    return likely if in_range[likely] > 0.5 else None


def _nearest_distance(quantiles: Floats, past: Floats) -> float:
    return float(np.abs(past - quantiles).mean(axis=1).min())
