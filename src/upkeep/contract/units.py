"""Sensors that are delivered in another unit: found by their values, and converted to the dictionary's unit."""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl

from upkeep.contract.dictionary import Column, Unit
from upkeep.contract.findings import Finding, report_runs
from upkeep.core.types import Floats

OWN = Unit(factor=1.0)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL_IQR = 1.349  # interquartile range of a normal distribution, in standard deviations

FAR = 1.0  # in spreads of an earlier delivery: values on average further than this from it are unlike it ...
CLOSER = 8.0  # ... and are in another unit if that brings them this many times closer.


class Units:
    """The unit of each delivery so far, for a plant's columns that come in several units.

    `seen` holds, by column and number of the delivery: its batch, its unit if that is not the column's own, and the
    quantiles of its values in the column's own unit, if there were any.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = {name: column for name, column in columns.items() if column.also}
        self.seen: dict[str, dict[int, tuple[str, str | None, list[float] | None]]] = {
            name: {} for name in self._columns
        }

    def restore(self, rows: pl.DataFrame, number: int, batch: date) -> pl.DataFrame:
        """Return the rows of the next delivery, which has this number, in the dictionary's units."""
        for name, column in self._columns.items():
            seen, day = self.seen[name], batch.isoformat()
            # A delivery is compared with those of earlier batches only.
            earlier = [np.array(quantiles) for its_day, _, quantiles in seen.values() if quantiles and its_day < day]
            unit, quantiles = find_unit(rows[name], column, earlier)
            if unit:
                rows = rows.with_columns(column.also[unit].convert(pl.col(name)))
            seen[number] = day, unit, None if quantiles is None else quantiles.tolist()
        return rows

    def report(self, table: str, batches: Sequence[date]) -> list[Finding]:
        """Report what was converted; `batches` holds the batch of each delivery."""
        findings: list[Finding] = []
        for name, seen in self.seen.items():
            for unit in sorted({unit for _, unit, _ in seen.values() if unit}):
                numbers = [number for number, (_, its_unit, _) in seen.items() if its_unit == unit]
                detail = f"{unit} instead of {self._columns[name].unit or 'its own unit'}"
                findings += report_runs("unit_converted", table, name, numbers, batches, detail)
        return findings


def find_unit(values: pl.Series, column: Column, earlier: Sequence[Floats]) -> tuple[str | None, Floats | None]:
    """Return which other unit a delivery's values are in, and their :data:`QUANTILES` in the column's own unit.

    The unit is None if it is the column's own, and the quantiles are None if there is no value. `earlier` are the
    quantiles of earlier deliveries.
    """
    values = values.filter(values.is_finite()).sort()
    if values.is_empty():
        return None, None
    quantiles = np.array([values.quantile(quantile, "linear") for quantile in QUANTILES])
    low, high = column.range or (-np.inf, np.inf)

    def share_in_range(unit: Unit) -> float:
        return float(unit.convert(values).is_between(low, high).to_numpy().mean())

    found = _find_nearest(quantiles, column.also, earlier) if earlier else None
    if found is None or share_in_range(column.also[found]) <= 0.5:
        others = {} if share_in_range(OWN) >= 0.5 else column.also
        shares = {name: share_in_range(unit) for name, unit in others.items()}
        likely = max(shares, key=lambda name: shares[name], default=None)
        found = likely if likely and shares[likely] > 0.5 else None
    return found, _convert_quantiles(quantiles, column.also[found] if found else OWN)


def _convert_quantiles(quantiles: Floats, unit: Unit) -> Floats:
    converted: Floats = np.sort(unit.convert(quantiles))  # a negative factor turns the order round
    return converted


def _find_nearest(quantiles: Floats, also: Mapping[str, Unit], earlier: Sequence[Floats]) -> str | None:
    """Return the unit that makes values like an earlier delivery's, if in the column's own they are far from all.

    The ranges of two units often overlap (70 can be °C or °F), so what the plant sent before tells more. The most
    similar delivery counts, not the mean: a plant that has been seen idle and running may be either again.
    """
    past = np.array(earlier)
    spread = float(np.median(past[:, 3] - past[:, 1])) / NORMAL_IQR
    distance = {name: _nearest_distance(_convert_quantiles(quantiles, unit), past) for name, unit in also.items()}
    nearest = min(distance, key=lambda name: distance[name])
    own = _nearest_distance(quantiles, past)
    return nearest if own > FAR * spread and own > CLOSER * distance[nearest] else None


def _nearest_distance(quantiles: Floats, past: Floats) -> float:
    return float(np.abs(past - quantiles).mean(axis=1).min())
