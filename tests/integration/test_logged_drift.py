"""`upkeep monitor` on a trained fleet whose prediction log was planted."""

import json
import shutil
from datetime import timedelta

import polars as pl
import pytest
from parameters import changed

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.core.plants import name_file, table_file
from upkeep.model.scoring import load_scorer
from upkeep.model.storage import predict
from upkeep.production import monitor
from upkeep.scoring.prediction_log import SCHEMA, write_part

MOVED = "vibration_mm_s"


@pytest.fixture(autouse=True)
def checkout(trained_fleet, tmp_path, monkeypatch):
    """A checkout with the small fleet's data and models; it writes what is of no stage."""
    for name in ("data", "models", "params.yaml"):
        (tmp_path / name).symlink_to(trained_fleet / name)
    shutil.copytree(trained_fleet / "reports", tmp_path / "reports")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def log_test_rows(plant, url, *, shift=0.0, version=None):
    """Log what the live model answers to a plant's newest eight weeks, with a sensor's features moved."""
    scorer = load_scorer(paths.MODELS / name_file(plant))
    metadata = scorer.model.metadata
    rows = pl.read_parquet(paths.PROCESSED / name_file(plant) / "test.parquet")
    rows = rows.with_columns(pl.col(name) + shift for name in metadata.features if name.startswith(MOVED))
    said = rows.select("plant", "machine", "time", scored_at="time").with_columns(
        source=pl.lit("batch"),
        probability=pl.Series(predict(scorer.model, rows)),
        threshold=pl.lit(metadata.threshold),
        alarm=pl.lit(value=False),
        model_version=pl.lit(version or scorer.version),
        warnings=pl.lit([], SCHEMA["warnings"]),
        features=rows.select(pl.concat_list(metadata.features)).to_series(),
    )
    absent = {name: pl.lit(None, kind) for name, kind in SCHEMA.items() if name not in said.columns}
    write_part(url, plant, said.with_columns(**absent).select(SCHEMA.names()))


def look(log):
    """Return what `upkeep monitor` says of each plant's predictions, and its pages."""
    params = load_params()
    # In fewer weeks than the log holds, the small fleet's weather would drift, too.
    sections = {"score": changed(params.score, log=log), "drift": changed(params.drift, window_batches=8)}
    params = params.model_copy(update=sections)
    ends = [pl.read_parquet(file)["time"].max() for file in (paths.INTERIM / "telemetry").glob("*.parquet")]
    with pytest.raises(UpkeepError):  # much is not known, such as what came of alarms
        monitor.run(params, max(ends) + timedelta(hours=1))
    found = json.loads(monitor.REPORT.read_text())["signals"]
    signals = {signal["plant"]: signal for signal in found if signal["measure"] == "predictions"}
    return signals, [file.read_text() for file in (monitor.PLANNER, monitor.ENGINEER)]


def test_a_shift_that_was_planted_in_the_log_is_told_with_its_sensor_and_since_when():
    log_test_rows("porto", "log", shift=2)
    log_test_rows("lyon", "log")
    signals, pages = look("log")
    assert signals["porto"]["status"] == "watch"
    assert "vibration" in signals["porto"]["words"]
    assert signals["porto"]["value"] > signals["porto"]["limit"]
    assert all(signals["porto"]["words"] in page for page in pages)
    assert signals["lyon"]["status"] == "fine"
    again, _ = look("log")
    assert again["porto"]["since"] == signals["porto"]["since"]


def test_a_model_that_nobody_asks_is_not_known_and_another_models_predictions_are_not_its_own():
    assert {signal["status"] for signal in look("log")[0].values()} == {"unknown"}
    log_test_rows("lyon", "log", shift=2, version="older")
    signals, _ = look("log")
    assert (signals["lyon"]["status"], signals["lyon"]["remedy"]) == ("unknown", "run `upkeep score`")


@pytest.mark.parametrize("missing", [paths.MODELS, paths.PROCESSED])
def test_where_models_or_their_rows_are_not_at_hand_nothing_is_said_of_predictions(checkout, missing, monkeypatch):
    log_test_rows("lyon", "log", shift=2)
    monkeypatch.setattr(paths, {paths.MODELS: "MODELS", paths.PROCESSED: "PROCESSED"}[missing], checkout / "nowhere")
    assert look("log")[0] == {}


def test_a_plant_whose_judged_rows_are_lost_is_not_known_and_costs_no_other_its_signal(checkout, monkeypatch):
    log_test_rows("lyon", "log")
    log_test_rows("porto", "log")
    monkeypatch.setattr(paths, "PREDICTIONS", checkout / "predictions")
    paths.PREDICTIONS.mkdir()
    shutil.copy(checkout / "data/predictions/porto.parquet", table_file(paths.PREDICTIONS, "porto"))
    signals, _ = look("log")
    assert (signals["lyon"]["status"], signals["lyon"]["remedy"]) == ("unknown", "run `dvc checkout`")
    assert signals["porto"]["status"] != "unknown"
