"""A plant that reads every minute, taken through the pipeline, whose dictionary makes hourly rows of its readings."""

from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from upkeep.cli.stages import run_stage

ROOT = Path(__file__).parents[1]
START = datetime(2025, 1, 6, tzinfo=UTC)
WEEKS, MACHINES, FAILS_EVERY = 3, 4, 90
SENSORS = ["vibration_mm_s", "temperature_c"]
COLUMNS = ["plant", "machine", "time", "load_pct", *SENSORS]
WINDOWS_HOURS = [6, 24]


def train_minute_fleet(folder: Path, windows_hours: list[int] = WINDOWS_HOURS) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Run all stages up to the golden requests in `folder`; return telemetry and events as they were delivered."""
    dictionary = yaml.safe_load((ROOT / "data/references/dictionary.yaml").read_text())
    columns = dictionary["tables"]["telemetry"]
    dictionary["tables"]["telemetry"] = {name: columns[name] for name in COLUMNS}
    (folder / "dictionary.yaml").write_text(yaml.safe_dump({"rows_every": "1h", **dictionary}))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    options = {table: {"path": str(folder / f"{table}.parquet")} for table in ("telemetry", "events")}
    params["fetch"] |= {"source": "files", "until": "2025-01-20", "options": options}
    params["validate"]["dictionary"] = "dictionary.yaml"
    params["dataset"] |= {"horizon_hours": 24, "baseline_hours": 24, "max_repair_hours": 12}
    params["dataset"] |= {
        "windows_hours": windows_hours,
        "max_single_feature_auc": 1,
    }  # the spread tells all, as it shall
    params["model"] |= {"compare": [], "lightgbm": params["model"]["lightgbm"] | {"n_estimators": 20}}
    params["score"] |= {"history_batches": 2}
    params["parallel"]["backend"] = "sequential"
    delivered = _write_deliveries(folder)
    with chdir(folder):
        Path("params.yaml").write_text(yaml.safe_dump(params))
        for stage in ("fetch", "validate", "dataset", "train", "golden"):
            run_stage(stage)
    return delivered


def _write_deliveries(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Machines that shake ever more unevenly before they fail, while their means stay."""
    draw = np.random.default_rng(3)
    minutes = np.arange(WEEKS * 7 * 24 * 60)
    tables, happened = [], []
    for machine in range(MACHINES):
        hours = minutes / 60 + 17 * machine
        wear = np.exp((hours % FAILS_EVERY - FAILS_EVERY) / 12)
        noise = draw.normal(size=(2, len(minutes)))
        columns = {"plant": "lyon", "machine": f"M{machine}", "load_pct": 50.0, "temperature_c": 60 + noise[0]}
        columns["vibration_mm_s"] = 5 + (0.1 + wear) * noise[1]
        tables.append(pl.DataFrame(columns).with_columns(time=START + pl.duration(minutes=pl.Series(minutes))))
        for fails in range(FAILS_EVERY - 17 * machine % FAILS_EVERY, WEEKS * 168, FAILS_EVERY):
            for hour, kind in ((fails, "failure"), (fails + 2, "maintenance")):
                happened.append(("lyon", f"M{machine}", START + timedelta(hours=hour), kind, "bearing"))
    telemetry = pl.concat(tables).select(COLUMNS).sort("time", maintain_order=True)
    spiked = pl.when(pl.int_range(pl.len()) == 777).then(999.0).otherwise("temperature_c").alias("temperature_c")
    telemetry = telemetry.with_columns(spiked)
    telemetry.write_parquet(folder / "telemetry.parquet")
    events = pl.DataFrame(happened, schema=["plant", "machine", "time", "kind", "code"], orient="row")
    events.write_parquet(folder / "events.parquet")
    return telemetry, events
