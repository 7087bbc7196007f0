"""A small fleet with the worst names that plants could give, and one with plain names; all else is the same."""

from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import yaml
from conftest import ROOT

from upkeep.cli.stages import run_stage
from upkeep.core.params import load_params
from upkeep.reporting.notebooks import rendering_of, resolve_parameters, run_notebook

START = datetime(2025, 1, 6, tzinfo=UTC)
HOURS = 7 * 168
FAILS_EVERY, WEARS = 240, 48
"""Hours."""
TEXT = {"model": pl.String}
PICTURE, SCRIPT = "<img src=x onerror=harm()>", "</script><script>harm()</script>"


class Names(NamedTuple):
    """What a fleet calls things; each list is in alphabetical order where the pipeline sorts."""

    plants: list[str]
    machines: list[str]
    settings: list[str]
    sensors: list[str]
    errors: list[str]
    maintenance: list[str]
    models: list[str]
    attributes: list[str]


WORST = Names(
    plants=["..", "7", f"Nord/ö|{PICTURE}", f"nord/ö|{PICTURE}"],
    machines=["..", f"a/b{SCRIPT}"],
    settings=["rank", "split"],
    sensors=[
        *("value", "row", "weight", "label", "others", "Time", "machine_model", "hours_to_failure", "probability"),
        *("vibration", "vibration_mean_8h", "before vibration", "age_hours", "model_code", "hours_since_failure"),
        *("errors_E1_8h", "column", "literal", "begins", "failed", "ahead", "failures", "tenth", "last", "target"),
        *('a "quoted", name', "100 % [x]{y}:z", f"Öl|`{SCRIPT}", "^x", "$z$", "_hidden", "null"),
    ],
    errors=["E1", "E1_8h", "[e1]", "e1", f'é,"{{}}:{PICTURE}'],
    maintenance=["@failure@", "failure"],
    models=[f"not known {PICTURE}", "unknown"],
    attributes=["last", "weight", "attribute_x", "split"],
)
SHIFTED = WORST.sensors.index(f"Öl|`{SCRIPT}")
"""The sensor that drifts in the last weeks, in one plant: each page takes seconds."""
DRIFTED = 2

PLAIN = Names(*([f"{kind}{number:02}" for number in range(len(names))] for kind, names in WORST._asdict().items()))


def deliver(names: Names, folder: Path) -> None:
    """Write three tables of machines whose first sensor rises before they fail."""
    rng = np.random.default_rng(1)
    tables = {"telemetry": [], "events": [], "machines": []}
    hours = np.arange(HOURS)
    for number, (plant, machine) in enumerate((plant, machine) for plant in names.plants for machine in names.machines):
        left = (-hours - 31 * number) % FAILS_EVERY
        columns = {setting: np.where(hours % 5 < 2, 20.0, 80.0) for setting in names.settings}
        columns |= {sensor: rng.normal(size=HOURS).round(3) for sensor in names.sensors}
        columns[names.sensors[0]] += np.where(left < WEARS, 4.0, 0.0)
        if plant == names.plants[DRIFTED]:
            columns[names.sensors[SHIFTED]] += np.where(hours >= HOURS - 336, 3.0, 0.0)
        time = pl.Series([START + timedelta(hours=int(hour)) for hour in hours])
        place = {"plant": plant, "machine": machine}
        tables["telemetry"].append(pl.DataFrame({"time": time, **columns}).with_columns(**lit(place)))
        for hour in hours[left == 0].tolist():
            happened = [("failure", "bearing", 0), ("maintenance", names.maintenance[hour % 2], 3)]
            happened += [("error", code, -position) for position, code in enumerate(names.errors)]
            for kind, code, after in happened:
                at = START + timedelta(hours=hour + after, minutes=1)
                tables["events"].append(
                    pl.DataFrame({"time": [at], "kind": kind, "code": code}).with_columns(**lit(place))
                )
        model = [*names.models, None][number % 3]
        facts = {name: float(number % 4) for name in names.attributes}
        tables["machines"].append(
            pl.DataFrame({"model": [model], **facts}, schema_overrides=TEXT).with_columns(**lit(place))
        )
    for table, frames in tables.items():
        pl.concat(frames).write_parquet(folder / f"{table}.parquet")


def lit(values):
    return {name: pl.lit(value) for name, value in values.items()}


def describe(names: Names) -> dict:
    key = {"type": "text", "role": "key", "meaning": "it"}
    keys = {"plant": key, "machine": key}
    timed = {**keys, "time": {**key, "type": "time"}}
    settings = {name: {"role": "setting", "range": [0, 100], "meaning": "it"} for name in names.settings}
    sensors = {name: {"role": "sensor", "range": [-100, 100], "meaning": "it"} for name in names.sensors}
    attribute = {"type": "text", "role": "attribute", "meaning": "it", "required": False}
    attributes = {name: {**attribute, "type": "number"} for name in names.attributes}
    return {
        "tables": {
            "telemetry": {**timed, **settings, **sensors},
            "events": {**timed, "kind": key, "code": attribute},
            "machines": {**keys, **attributes, "model": attribute, "installed": {**attribute, "type": "time"}},
        }
    }


def prepare(names: Names, folder: Path) -> None:
    """Put a fleet's deliveries, data dictionary and parameters into a folder."""
    deliver(names, folder)
    dictionary = folder / "dictionary.yaml"
    dictionary.write_text(yaml.safe_dump(describe(names), allow_unicode=True, sort_keys=False), encoding="utf-8")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tables = {table: {"path": f"{folder}/{table}.parquet"} for table in ("telemetry", "events", "machines")}
    params["fetch"] |= {"source": "files", "until": "2025-02-17", "options": tables}
    params["validate"]["dictionary"] = str(dictionary)
    params["dataset"] |= {"aggregates": ["mean"], "windows_hours": [8, 24], "baseline_hours": 24}
    params["model"] |= {"compare": [], "lightgbm": params["model"]["lightgbm"] | {"n_estimators": 10}}
    params["evaluate"] |= {"bootstrap": 10, "golden": None}
    params["evaluate"]["floors"] = {f"plants.{plant}.average_precision": 0.1 for plant in names.plants}
    params["drift"] |= {"window_batches": 2, "sample_rows": 1000}
    params["parallel"]["backend"] = "sequential"
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")


def run(names: Names, folder: Path, *stages: str) -> Path:
    prepare(names, folder)
    with chdir(folder):
        for stage in stages:
            run_stage(stage)
    return folder


def run_with_reports(names: Names, folder: Path) -> Path:
    """Run all stages, the notebooks too."""
    run(names, folder, "fetch", "validate", "dataset", "train", "golden", "evaluate", "drift")
    with chdir(folder):
        for name in ("01_eda", "02_model_quality"):
            notebook = ROOT / "notebooks" / f"{name}.ipynb"
            run_notebook(notebook, rendering_of(notebook), resolve_parameters(notebook, load_params()))
        for stage in ("card", "record"):
            run_stage(stage)
    return folder
