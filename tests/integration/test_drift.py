import json
import math
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from parameters import SHIPPED, changed
from scipy.signal import lfilter

from upkeep.stages import drift

REPOSITORY = Path(__file__).parents[2]
START = datetime(2025, 1, 6, tzinfo=UTC)
WEEKS = 12
TRAINED_UNTIL = START + timedelta(weeks=8)
DICTIONARY = """
tables:
  telemetry:
    plant: {type: text, role: key, meaning: plant}
    machine: {type: text, role: key, meaning: machine}
    time: {type: time, role: key, meaning: time}
    load: {role: setting, range: [0, 9], meaning: load}
    speed: {role: setting, range: [0, 9], meaning: speed}
    constant: {role: sensor, meaning: never moves}
    absent: {role: sensor, required: false, meaning: never delivered}
  events:
    plant: {type: text, role: key, meaning: plant}
    machine: {type: text, role: key, meaning: machine}
    time: {type: time, role: key, meaning: time}
    kind: {type: text, role: key, meaning: kind}
    code: {type: text, role: attribute, meaning: code}
  machines:
    plant: {type: text, role: key, meaning: plant}
    machine: {type: text, role: key, meaning: machine}
    model: {type: text, role: attribute, meaning: model}
    installed: {type: time, role: attribute, meaning: installed}
"""


def plant(seed, shift=0.0, weeks=WEEKS, memory=0.0):
    """One machine's hourly readings, each of them `memory` times the one before, plus noise."""
    rng = np.random.default_rng(seed)
    n = weeks * 168
    times = pl.datetime_range(START, interval="1h", end=START + timedelta(hours=n - 1), eager=True)
    late = times >= TRAINED_UNTIL + timedelta(weeks=2)
    noise = rng.normal(size=(2, n)) * math.sqrt(1 - memory**2)
    speed, load = lfilter([1], [1, -memory], noise) + shift * late.to_numpy()
    return pl.DataFrame(
        {
            "plant": "x",
            "machine": "m",
            "time": times,
            "load": load,
            "speed": speed,
            "constant": 5.0,
            "absent": None,
        },
        schema_overrides={"time": pl.Datetime("us", "UTC"), "absent": pl.Float64},
    )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A checkout with a steady plant, a shifted, silent, slow and tiny one, and one whose speed becomes a text."""
    folder = tmp_path_factory.mktemp("fleet")
    broken = (
        plant(3)
        .with_columns(speed=pl.when(pl.col("time") < TRAINED_UNTIL).then("speed").cast(pl.String))
        .fill_null("?")
    )
    plants = {
        "steady": plant(0),
        "shifted": plant(1, 3),
        "silent": plant(2, weeks=9),
        "slow": plant(5, memory=0.95),
        "few": plant(4)[:3],
        "text": broken,
    }
    (folder / "data/interim/telemetry").mkdir(parents=True)
    (folder / "data/references").mkdir()
    (folder / "data/references/dictionary.yaml").write_text(DICTIONARY)
    for name, rows in plants.items():
        rows.write_parquet(folder / f"data/interim/telemetry/{name}.parquet")
        (folder / f"data/processed/plants/{name}").mkdir(parents=True)
        train = rows.filter(pl.col("time") < TRAINED_UNTIL).select("machine", "time")
        train.write_parquet(folder / f"data/processed/plants/{name}/train.parquet")
    return folder


RUN = """
from pathlib import Path
from upkeep.core.params import load_params
from upkeep.stages import drift
params = load_params(Path({params!r}))
changes = {{"drift": {{"window_batches": 2}}, "parallel": {{"backend": {backend!r}}}}}
drift.run(params.model_copy(update={{name: getattr(params, name).model_copy(update=change)
                                    for name, change in changes.items()}}))
"""


def run(fleet, hash_seed, backend="sequential"):
    script = RUN.format(params=str(REPOSITORY / "params.yaml"), backend=backend)
    subprocess.run([sys.executable, "-c", script], cwd=fleet, env={"PYTHONHASHSEED": hash_seed}, check=True)
    return {file.name: file.read_bytes() for file in sorted((fleet / "reports/drift").iterdir())}


@pytest.fixture(scope="module")
def reports(fleet):
    return run(fleet, "1")


@pytest.fixture(scope="module")
def findings(reports):
    return json.loads(reports["drift.json"])


def test_several_workers_write_the_same_bytes_and_remove_pages_of_plants_that_are_gone(fleet, reports):
    (fleet / "reports/drift/gone.html").write_text("a plant that was sold")
    assert run(fleet, "2", "loky") == reports


def test_a_shifted_plant_has_drifted_and_a_steady_one_has_not(findings):
    assert {name: found["drifted"] for name, found in findings.items() if name in ("shifted", "steady", "slow")} == {
        "shifted": True,
        "steady": False,
        "slow": False,
    }
    columns = findings["shifted"]["columns"]
    assert {name for name, column in columns.items() if column["drifted"]} == {"speed", "load"}
    assert columns["speed"]["score"] == pytest.approx(3, abs=0.3)


def test_readings_that_resemble_their_neighbours_must_shift_further_to_be_drift(findings):
    steady, slow = (findings[name]["columns"]["speed"] for name in ("steady", "slow"))
    assert steady["threshold"] < 0.25
    # If the memory is estimated exactly, they are 3 * sqrt(39 / 336 + 39 / 1344), which is 1.1, and 0.7 with 12 bins.
    assert slow["threshold"] > {"wasserstein": 0.8, "jensenshannon": 0.5}[slow["method"]]


def test_a_constant_column_is_no_drift(findings):
    assert findings["steady"]["columns"]["constant"]["score"] == 0


def test_what_cannot_be_judged_is_said(findings):
    assert findings["silent"]["notes"] == ["no rows in the newest window"]
    assert findings["few"]["notes"] == ["no rows in the newest window"]
    assert any(note.startswith("absent is not judged: 0 newest and 0 training") for note in findings["steady"]["notes"])


def test_a_text_where_a_number_was_is_noted_and_counts_as_lost_values(findings):
    assert "newest window: speed holds 336 values that are not finite numbers" in findings["text"]["notes"]
    assert findings["text"]["columns"]["speed"]["drifted"]


def test_pages_are_small_and_load_nothing_from_elsewhere(reports):
    pages = {name: text.decode() for name, text in reports.items() if name.endswith(".html")}
    assert set(pages) == {"index.html", "shifted.html"}
    assert '<script src="evidently.js">' in pages["shifted.html"]
    assert b"drawDashboard" in reports["evidently.js"]
    for page in pages.values():
        assert len(page) <= 1e6
        assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//", page)


def test_an_empty_fleet_is_an_empty_report(tmp_path, monkeypatch, fleet):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/references").symlink_to(fleet / "data/references")
    (tmp_path / "data/interim/telemetry").mkdir(parents=True)
    (tmp_path / "data/processed/plants/empty").mkdir(parents=True)
    plant(0)[:0].write_parquet("data/interim/telemetry/empty.parquet")
    plant(0)[:0].select("machine", "time").write_parquet("data/processed/plants/empty/train.parquet")
    drift.run(SHIPPED.model_copy(update={"parallel": changed(SHIPPED.parallel, backend="sequential")}))
    assert not json.loads(Path("reports/drift/drift.json").read_text())["empty"]["drifted"]
