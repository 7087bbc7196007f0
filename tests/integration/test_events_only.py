"""A plant that keeps a log of events but no telemetry goes through the pipeline and is scored."""

import csv
import json
from contextlib import chdir
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT
from parameters import LIMITS, SHIPPED, changed

from upkeep.cli.stages import run_stage
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.scoring import score
from upkeep.sources import Delivery
from upkeep.sources.registry import list_deliveries, schedule_rows

STAGES = ("fetch", "validate", "dataset", "train", "golden", "evaluate", "drift", "card")
START = datetime(2025, 1, 6, tzinfo=UTC)
HEADER = ("plant", "machine", "time", "kind", "code")


def write_log(file: Path) -> None:
    """Twelve pumps that fail every three weeks or so, with a burst of errors in the days before."""
    draw = np.random.default_rng(1)
    rows = []
    for machine in range(12):
        time = START + timedelta(hours=draw.uniform(0, 50))
        while time < START + timedelta(weeks=20):
            failed = time + timedelta(hours=max(100.0, draw.normal(500, 120)))
            errors = [failed - timedelta(hours=draw.exponential(30)) for _ in range(8)]
            rows += [(error, machine, "error", "E1") for error in errors if error > time]
            time = failed + timedelta(hours=10)
            rows += [(failed, machine, "failure", "pump"), (time, machine, "maintenance", "pump")]
    with file.open("w", newline="") as handle:
        lines = sorted(rows)
        csv.writer(handle).writerows([HEADER, *(("nord", f"m{m}", t.isoformat(), k, c) for t, m, k, c in lines)])


@pytest.fixture
def events_project(tmp_path):
    dictionary = yaml.safe_load((ROOT / "data/references/dictionary.yaml").read_text())
    telemetry = dictionary["tables"]["telemetry"]
    dictionary["tables"]["telemetry"] = {name: telemetry[name] for name in ("plant", "machine", "time")}
    (tmp_path / "dictionary.yaml").write_text(yaml.safe_dump(dictionary))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    options = {"events": {"path": "events.csv"}}
    params["fetch"] |= {"source": "files", "until": "2025-05-26", "rows_every_hours": 8, "options": options}
    params["validate"]["dictionary"] = "dictionary.yaml"
    params["dataset"] |= {"horizon_hours": 72, "windows_hours": [48, 168]}
    params["evaluate"] |= {"golden": None, "bootstrap": 20}
    params["parallel"]["backend"] = "sequential"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    write_log(tmp_path / "events.csv")
    with chdir(tmp_path):
        yield tmp_path


@pytest.mark.usefixtures("events_project")
def test_events_alone_give_a_model_that_warns_and_predictions(capsys):
    for stage in STAGES:
        run_stage(stage)
    quality = json.loads(Path("reports/data_quality.json").read_text())["plants"]["nord"]["tables"]
    assert quality["telemetry"]["clean"] == quality["telemetry"]["rows_in"] > 3000
    metrics = json.loads(Path("reports/metrics.json").read_text())
    assert metrics["overall"]["average_precision"] > 0.6  # the errors do give failures away
    score.run(load_params(), datetime(2025, 6, 1, 23, tzinfo=UTC))
    assert "(E1) in the last" in capsys.readouterr().out


@pytest.mark.usefixtures("events_project")
def test_without_telemetry_and_without_a_schedule_the_error_names_the_setting():
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["fetch"]["rows_every_hours"] = None
    Path("params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(UpkeepError) as raised:
        list_deliveries(load_params().fetch, LIMITS)
    assert "fetch.rows_every_hours" in raised.value.remedy


def test_a_machine_has_rows_from_the_batch_of_its_first_event_to_the_newest_event():
    def deliver(batch: date, *rows: tuple[str, str]) -> Delivery:
        return Delivery("events", "p", batch, lambda: pl.DataFrame(rows, schema=["machine", "time"], orient="row"))

    fetch = changed(SHIPPED.fetch, until="2025-01-13", rows_every_hours=12)
    events = [
        deliver(date(2025, 1, 6), ("old", "2025-01-09T00:00:00Z"), ("old", "no time")),
        deliver(date(2025, 1, 13), ("new", "2025-01-14T00:30:00Z")),
    ]
    telemetry = Delivery("telemetry", "with telemetry", date(2025, 1, 6), pl.DataFrame)
    scheduled = list(schedule_rows([*events, telemetry], fetch))
    assert [(delivery.plant, delivery.batch.day) for delivery in scheduled] == [("p", 6), ("p", 13)]
    first, newest = (delivery.read() for delivery in scheduled)
    assert first["machine"].unique().to_list() == ["old"]
    assert first["time"].to_list() == [START + timedelta(hours=12 * step) for step in range(14)]
    assert newest.filter(machine="new")["time"].max() == datetime(2025, 1, 14, tzinfo=UTC)
    assert newest.group_by("machine").len().sort("machine").rows() == [("new", 3), ("old", 3)]
