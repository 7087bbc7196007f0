"""The windows of each machine's newest row as pandas makes them, vectorised over machines."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from upkeep.core.params import Dataset
from upkeep.features.inputs import Preparation

Floats = NDArray[np.float64]
HOUR = pd.Timedelta(hours=1)


class Fitted(NamedTuple):
    """What was learnt from training rows, laid out for pandas; `baselines` has a column per sensor, by machine."""

    sensors: list[str]
    settings: list[str]
    conditions: dict[str, Floats]
    baselines: pd.DataFrame


def lay_out(preparation: Preparation) -> Fitted:
    """Lay out a preparation for pandas."""
    vocabulary, known = preparation.vocabulary, preparation.baselines
    levels = [each.levels for each in known.values()]
    baselines = pd.DataFrame(levels, index=list(known), columns=vocabulary.sensors, dtype=float)
    conditions = {name: np.array(values) for name, values in preparation.conditions}
    return Fitted(vocabulary.sensors, vocabulary.settings, conditions, baselines)


def build(telemetry: pd.DataFrame, fitted: Fitted, params: Dataset) -> pd.DataFrame:
    """Return what readings, sorted by machine and time, tell of each machine's newest row.

    Windows are made at every row, as training has to, and the newest are kept. Events and records are left out.
    """
    scaled = _scale(telemetry, fitted)
    newest = _newest(scaled)
    baseline = fitted.baselines.reindex(newest.index)
    blocks = [newest[fitted.sensors]]
    for hours in params.windows_hours:
        windows = _roll(scaled, fitted.sensors, hours)
        blocks += [windows[name].add_suffix(f"_{name}_{hours}h") for name in params.aggregates]
        blocks.append((windows["mean"] - baseline).add_suffix(f"_from_baseline_{hours}h"))
    return pd.concat(blocks, axis=1)


def _scale(telemetry: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    """Return readings in spreads of their operating condition."""
    settings, conditions = telemetry[fitted.settings].to_numpy(), fitted.conditions
    distance = np.nansum(((settings[:, None, :] - conditions["centres"]) / conditions["widths"]) ** 2, axis=2)
    nearest = distance.argmin(axis=1)
    scaled = (telemetry[fitted.sensors] - conditions["levels"][nearest]) / conditions["spreads"][nearest]
    return scaled.assign(machine=telemetry["machine"], time=telemetry["time"])


def _newest(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop_duplicates("machine", keep="last").set_index("machine")


def _roll(scaled: pd.DataFrame, sensors: list[str], hours: int) -> dict[str, pd.DataFrame]:
    rows = scaled.set_index("time")
    readings = rows.groupby("machine", sort=False)[sensors].rolling(f"{hours}h")
    products = _multiply(rows, sensors, (rows.index - rows.index[0]) / HOUR)
    sums = products.groupby("machine", sort=False).rolling(f"{hours}h").sum()
    windows = {"mean": readings.mean(), "std": readings.std(), "min": readings.min(), "max": readings.max()}
    windows["slope"] = _fit_slopes(sums, sensors)
    return {name: _newest(window.reset_index())[sensors] for name, window in windows.items()}


def _multiply(rows: pd.DataFrame, sensors: list[str], hours: pd.Index) -> pd.DataFrame:
    """Return the products whose sums make a least-squares slope: n, t, t t, x and t x, where there is a reading."""
    t, x = np.asarray(hours)[:, None], rows[sensors].to_numpy()
    known = (~np.isnan(x)).astype(np.float64)
    filled = np.where(np.isnan(x), 0.0, x)
    columns = [f"{product} {sensor}" for product in ("n", "t", "tt", "x", "tx") for sensor in sensors]
    products = np.hstack([known, known * t, known * t * t, filled, filled * t])
    return pd.DataFrame(products, index=rows.index, columns=columns).assign(machine=rows["machine"])


def _fit_slopes(sums: pd.DataFrame, sensors: list[str]) -> pd.DataFrame:
    n, t, tt, x, tx = np.split(sums.to_numpy(), 5, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(n > 1, (n * tx - t * x) / (n * tt - t * t), np.nan)
    return pd.DataFrame(slope, index=sums.index, columns=sensors)
