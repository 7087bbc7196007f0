import hashlib
import json
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from upkeep.core.params import Pieces, load_params
from upkeep.features.conditions import Conditions
from upkeep.features.inputs import Preparation, Vocabulary
from upkeep.model import labelled_rows, training
from upkeep.model.storage import load_model, predict
from upkeep.stages import train

SMALL = {"n_estimators": 15, "num_leaves": 4, "min_child_samples": 5, "learning_rate": 0.2}
START = datetime(2025, 1, 1, tzinfo=UTC)
NO_PIECES = Pieces(folder=None, max_gb=1)
PREPARATION = Preparation(
    vocabulary=Vocabulary(
        settings=[], widths=[], sensors=["vibration"], error_codes=[], maintenance_codes=[], machine_models=[]
    ),
    conditions=Conditions(widths=[], centres=[[]], levels=[[0.0]], spreads=[[1.0]]),
    baselines={},
    records={},
)


@pytest.fixture
def params(tmp_path, monkeypatch):
    loaded = load_params(Path("params.yaml"))
    monkeypatch.chdir(tmp_path)
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/manifest.json").write_text("[]\n")
    return loaded.model_copy(
        update={
            "model": loaded.model.model_copy(update={"lightgbm": SMALL, "compare": ["logistic"]}),
            "parallel": loaded.parallel.model_copy(update={"backend": "threads", "jobs": 1}),
            "pieces": NO_PIECES,  # of a run before, which would be read instead of trained again
        }
    )


def rows(plant, failures, seed):
    hours = 300
    rng = np.random.default_rng(seed)
    left = np.tile(np.arange(hours, 0, -1, dtype=np.float64), max(failures, 1))
    if not failures:
        left[:] = np.nan
    return pl.DataFrame(
        {
            "plant": plant,
            "machine": np.repeat([f"M{machine}" for machine in range(len(left) // hours)], hours),
            "time": [START + timedelta(hours=hour % hours) for hour in range(len(left))],
            "machine_model": "press",
            "label": pl.Series(left <= 48, dtype=pl.UInt8),
            "hours_to_failure": pl.Series(left).fill_nan(None),
            "prevented": False,
            "weight": 1.0,
            "vibration": pl.Series(
                (np.nan_to_num(left, nan=1e3) < 60) + rng.normal(0, 0.3, left.size), dtype=pl.Float32
            ),
            "humidity": pl.Series([None] * left.size, dtype=pl.Float32),
        }
    ).with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))


def write_plant(plant, failures=5, seed=0):
    folder = Path("data/processed/plants") / plant
    folder.mkdir(parents=True)
    for number, split in enumerate(["train", "validation", "test"], seed):
        rows(plant, failures, number).write_parquet(folder / f"{split}.parquet")
    (folder / "preparation.json").write_text(PREPARATION.model_dump_json(indent=1))


def outputs():
    files = [Path("reports/training.json"), *Path("models").rglob("*"), *Path("data/predictions").rglob("*")]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def with_model(params, **changes):
    return params.model_copy(update={"model": params.model.model_copy(update=changes)})


def test_each_plant_gets_a_model_that_scores_as_its_predictions_say(params):
    write_plant("lyon")
    write_plant("porto", failures=0)
    train.run(params)
    for plant in ("lyon", "porto"):
        model = load_model(Path("models/plants") / plant)
        chosen = pl.read_parquet(f"data/predictions/{plant}.parquet").filter("chosen", split="test")
        test = pl.read_parquet(f"data/processed/plants/{plant}/test.parquet")
        probability = predict(model, test)
        assert probability.tobytes() == chosen["probability"].cast(pl.Float64).to_numpy().tobytes()
        assert ((probability >= model.metadata.threshold) == chosen["alarm"].to_numpy()).all()
        assert chosen.select("machine", "time").equals(test.select("machine", "time"))
        assert model.metadata.preparation == PREPARATION
        assert model.metadata.training_ranges["humidity"].minimum is None
    assert model.metadata.scope == "fleet"
    assert model.metadata.data_version == hashlib.sha256(b"[]\n").hexdigest()


def test_predictions_have_the_columns_that_evaluation_reads(params):
    write_plant("lyon")
    train.run(params)
    assert pl.read_parquet_schema("data/predictions/lyon.parquet") == pl.Schema(
        {
            "plant": pl.String,
            "machine": pl.String,
            "time": pl.Datetime("us", "UTC"),
            "machine_model": pl.String,
            "split": pl.String,
            "candidate": pl.String,
            "chosen": pl.Boolean,
            "label": pl.UInt8,
            "hours_to_failure": pl.Float64,
            "prevented": pl.Boolean,
            "probability": pl.Float32,
            "alarm": pl.Boolean,
        }
    )


def with_pieces(params, jobs=1):
    parallel = params.parallel.model_copy(update={"jobs": jobs})
    pieces = NO_PIECES.model_copy(update={"folder": Path("pieces")})
    return params.model_copy(update={"pieces": pieces, "parallel": parallel})


def test_nothing_is_trained_twice_and_plants_in_processes_train_their_own_beside_the_fleet(params, monkeypatch):
    write_plant("lyon")
    write_plant("porto", seed=3)  # models of equal rows would be one piece
    train.run(params)
    first, fit, fitted = outputs(), training.fit, []

    def watch(kind, rows, *others, **how):
        fitted.append("fleet" if len(rows.label) > 1_500 else kind)
        return fit(kind, rows, *others, **how)

    monkeypatch.setattr(training, "fit", watch)
    threads = with_pieces(params, jobs=2)
    train.run(threads)
    assert Counter(fitted) == {"fleet": 1, "logistic": 2, "lightgbm": 2 * (1 + training.SHUFFLES)}
    assert outputs() == first
    fitted.clear()
    shutil.rmtree("pieces")
    apart = threads.parallel.model_copy(update={"backend": "loky"})
    train.run(threads.model_copy(update={"parallel": apart}))
    assert fitted == ["fleet"]
    assert outputs() == first


def test_training_again_in_parallel_writes_the_same_bytes(params):
    write_plant("lyon")
    write_plant("porto")
    train.run(params)
    first = outputs()
    train.run(params.model_copy(update={"parallel": params.parallel.model_copy(update={"jobs": 2})}))
    assert outputs() == first
    assert len(first) == 7


def test_models_follow_a_file_that_lightgbm_reads(params):
    write_plant("lyon")
    params = with_model(params, lightgbm={**SMALL, "forcedsplits_filename": "splits.json"})
    models = set()
    for threshold in (0.1, 0.9):
        Path("splits.json").write_text(json.dumps({"feature": 0, "threshold": threshold}))
        train.run(with_pieces(params))
        models.add(Path("models/plants/lyon/model.txt").read_bytes())
    assert len(models) == 2


def test_plants_that_are_read_in_pieces_get_the_same_models(params, monkeypatch):
    params = with_model(params, lightgbm={**SMALL, "bin_construct_sample_cnt": 700})
    write_plant("lyon")
    write_plant("porto", failures=0)
    train.run(params)
    first = outputs()
    monkeypatch.setattr(labelled_rows, "CHUNK_ROWS", 400)
    monkeypatch.setattr(train, "_open_splits", lambda plant, _: train._scan_splits(plant))
    train.run(params)
    assert outputs() == first


@pytest.mark.parametrize(("memory", "in_pieces"), [(None, False), (1, True), (100, False)])
@pytest.mark.usefixtures("params")
def test_a_plant_larger_than_the_bound_is_not_held_in_memory(memory, in_pieces):
    write_plant("lyon")
    rows = pl.concat([pl.read_parquet("data/processed/plants/lyon/train.parquet")] * 100)
    rows.write_parquet("data/processed/plants/lyon/train.parquet")
    assert isinstance(train._open_splits("lyon", memory).train, pl.LazyFrame) == in_pieces


def test_the_report_says_what_was_chosen_and_why(params):
    write_plant("lyon")
    write_plant("porto", failures=0)
    train.run(params)
    report = json.loads(Path("reports/training.json").read_text())["plants"]
    assert report["porto"]["why"] == "the plant's training rows hold no failure"
    assert report["porto"]["saved"]
    assert report["lyon"]["rows"] == {"train": 1500, "validation": 1500, "test": 1500}
    assert report["lyon"]["positives"]["train"] == report["lyon"]["candidates"]["plant"]["trained_positives"] == 240
    assert report["lyon"]["candidates"]["fleet"]["rounds"][0] > 0


def test_an_ensemble_is_saved_as_several_files(params):
    write_plant("lyon")
    train.run(with_model(params, ensemble=2))
    assert sorted(file.name for file in Path("models/plants/lyon").iterdir()) == [
        "model.json",
        "model_0.txt",
        "model_1.txt",
    ]


def test_kinds_other_than_lightgbm_are_judged_but_not_saved(params):
    write_plant("lyon")
    train.run(with_model(params, kind="logistic"))
    assert json.loads(Path("reports/training.json").read_text())["plants"]["lyon"]["saved"] is False
    assert pl.read_parquet("data/predictions/lyon.parquet").filter("chosen").height == 3000
    assert not list(Path("models/plants").iterdir())


def test_a_plant_that_is_gone_leaves_no_model_behind(params):
    write_plant("lyon")
    Path("models/plants/gone").mkdir(parents=True)
    train.run(params)
    assert [folder.name for folder in Path("models/plants").iterdir()] == ["lyon"]
