"""The same feature windows as fast as pandas goes without a compiler, which is by ``groupby().rolling()``."""

from pathlib import Path

import pandas as pd

from bench.features import NAMES, SENSORS, WINDOWS_HOURS


def build(telemetry: Path) -> pd.DataFrame:
    """Read telemetry, sorted by machine and time, and return its windows."""
    rows = pd.read_parquet(telemetry).set_index("time")
    # The slope is a quotient of rolling sums of t x, t t and t, which costs a fifth of what rolling().cov() does.
    hours = pd.Series((rows.index - rows.index[0]) / pd.Timedelta(hours=1), index=rows.index)
    products = rows[SENSORS].mul(hours, axis=0).assign(n=1.0, t=hours, tt=hours * hours, machine=rows["machine"])
    readings, products = rows.groupby("machine", sort=False)[SENSORS], products.groupby("machine", sort=False)
    windows = []
    for width in WINDOWS_HOURS:
        rolling = readings.rolling(f"{width}h")
        mean = rolling.mean()
        windows += [mean, rolling.std(), rolling.min(), rolling.max()]
        sums = products.rolling(f"{width}h").sum()
        spread = (sums["n"] * sums["tt"] - sums["t"] ** 2).where(sums["n"] > 1)
        deviations = sums[SENSORS].sub(mean.mul(sums["t"], axis=0))
        windows.append(deviations.mul(sums["n"], axis=0).div(spread, axis=0))
    table = pd.concat(windows, axis=1)
    table.columns = NAMES
    return table.reset_index()
