import hashlib
import json
import re
from datetime import datetime
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest

from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.features.conditions import Conditions
from upkeep.features.inputs import Preparation, Vocabulary
from upkeep.model.calibration import Calibration
from upkeep.model.storage import (
    Metadata,
    TrainingRange,
    booster_names,
    checksum,
    contributions,
    load_model,
    name_files,
    predict,
    save_model,
    to_text,
)

FEATURES = ["vibration_mm_s", "errors_oil leak_48h"]
PREPARATION = Preparation(
    vocabulary=Vocabulary(
        settings=[], widths=[], sensors=[], error_codes=["oil leak"], maintenance_codes=[], machine_models=[]
    ),
    conditions=Conditions(widths=[], centres=[[]], levels=[[]], spreads=[[]]),
    baselines={},
    records={},
)


def grow(seed=0, threads=1, names=FEATURES):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(200, len(names)))
    data = lgb.Dataset(features, features[:, 0] > 0, feature_name=booster_names(names))
    settings = {"objective": "binary", "verbosity": -1, "deterministic": True, "force_row_wise": True}
    return to_text(lgb.train({**settings, "num_threads": threads}, data, 5), 5)


def write_metadata(texts, **changes):
    content = {
        "plant": "lyon",
        "scope": "plant",
        "features": FEATURES,
        "dataset": load_params(Path("params.yaml")).dataset,
        "preparation": PREPARATION,
        "calibration": Calibration(method="sigmoid", slope=0.7, intercept=-0.1),
        "threshold": 0.3,
        "training_ranges": {name: TrainingRange(minimum=0, low=None, high=None, maximum=1) for name in FEATURES},
        "boosters": {name: checksum(text.encode()) for name, text in name_files(texts).items()},
        "data_version": "0" * 64,
        "near_duplicate_seconds": 60,
        "rows": 200,
        "positives": 100,
    }
    return Metadata.model_validate({**content, **changes})


@pytest.fixture
def folder(tmp_path):
    texts = [grow(0), grow(1)]
    save_model(tmp_path, write_metadata(texts), texts)
    return tmp_path


@pytest.fixture
def unseen():
    return np.random.default_rng(5).normal(size=(50, 2)).astype(np.float32)


def edit_metadata(folder, change):
    content = json.loads((folder / "model.json").read_text())
    change(content)
    (folder / "model.json").write_text(json.dumps(content))


def test_a_model_read_back_is_the_model_saved(folder):
    model = load_model(folder)
    assert model.metadata == write_metadata([grow(0), grow(1)])
    assert [to_text(booster, 5).split("parameters:")[0] for booster in model.boosters] == [
        text.split("parameters:")[0] for text in (grow(0), grow(1))
    ]


def test_saving_again_writes_the_same_bytes(folder, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    texts = [grow(0, threads=2), grow(1)]
    save_model(again, write_metadata(texts), texts)
    first, second = ({file.name: file.read_bytes() for file in place.iterdir()} for place in (folder, again))
    assert first == second
    assert first["model.json"].endswith(b"\n")


def test_one_booster_replaces_two_without_leaving_one_behind(folder):
    save_model(folder, write_metadata([grow()]), [grow()])
    assert sorted(file.name for file in folder.iterdir()) == ["model.json", "model.txt"]


def test_no_file_tells_when_or_where_it_was_written(folder):
    for file in folder.iterdir():
        assert not re.search(
            rf"{datetime.now().year}-|{re.escape(str(folder))}|{re.escape(str(Path.cwd()))}", file.read_text()
        )


def test_probability_is_the_calibrated_mean_of_the_boosters_log_odds(folder, unseen):
    model = load_model(folder)
    mean = np.mean([booster.predict(unseen, raw_score=True) for booster in model.boosters], axis=0)
    np.testing.assert_allclose(predict(model, unseen), 1 / (1 + np.exp(-(0.7 * mean - 0.1))), rtol=1e-7)


def test_frame_array_and_single_rows_score_alike_to_the_bit(folder, unseen):
    model = load_model(folder)
    frame = pl.DataFrame(
        {"machine": ["M1"] * 50, FEATURES[1]: unseen[:, 1].astype(np.float64), FEATURES[0]: unseen[:, 0]}
    )
    expected = predict(model, unseen)
    assert predict(model, frame).tobytes() == expected.tobytes()
    assert predict(model, unseen.astype(np.float64), threads=2).tobytes() == expected.tobytes()
    assert b"".join(predict(model, unseen[row : row + 1]).tobytes() for row in range(50)) == expected.tobytes()


def test_a_null_is_scored_like_nan(folder):
    model = load_model(folder)
    frame = pl.DataFrame({FEATURES[0]: [None, 1.0], FEATURES[1]: [0.5, None]})
    assert predict(model, frame).tolist() == predict(model, np.array([[np.nan, 0.5], [1.0, np.nan]])).tolist()


def test_no_rows_give_no_probabilities(folder):
    model = load_model(folder)
    assert predict(model, np.empty((0, 2))).shape == (0,)
    assert contributions(model, np.empty((0, 2))).shape == (0, 3)


def test_contributions_add_up_to_the_log_odds(folder, unseen):
    model = load_model(folder)
    log_odds = np.mean([booster.predict(unseen, raw_score=True) for booster in model.boosters], axis=0)
    np.testing.assert_allclose(contributions(model, unseen).sum(axis=1), log_odds, atol=1e-9)


def test_a_missing_feature_is_named(folder):
    with pytest.raises(UpkeepError, match="errors_oil leak_48h"):
        predict(load_model(folder), pl.DataFrame({FEATURES[0]: [1.0]}))


def test_an_array_of_another_width_is_refused(folder):
    with pytest.raises(UpkeepError, match=r"shape \(4, 3\)"):
        predict(load_model(folder), np.zeros((4, 3)))


def test_a_changed_booster_is_refused(folder):
    file = folder / "model_1.txt"
    file.write_text(file.read_text().replace("leaf_value=", "leaf_value=1", 1))
    with pytest.raises(UpkeepError, match="SHA-256") as error:
        load_model(folder)
    assert error.value.where["file"] == file


def test_a_missing_booster_is_refused(folder):
    (folder / "model_0.txt").unlink()
    with pytest.raises(UpkeepError, match="cannot be read"):
        load_model(folder)


def test_a_booster_that_is_not_lightgbm_text_is_refused(folder):
    (folder / "model_0.txt").write_text("cos\nsystem\n")
    digest = hashlib.sha256(b"cos\nsystem\n").hexdigest()
    edit_metadata(folder, lambda metadata: metadata["boosters"].update({"model_0.txt": digest}))
    with pytest.raises(UpkeepError, match="LightGBM cannot read"):
        load_model(folder)


@pytest.mark.parametrize("features", [FEATURES[::-1], [FEATURES[0], "pressure_bar"], [*FEATURES, "age_hours"]])
def test_metadata_that_names_other_features_than_the_boosters_is_refused(folder, features):
    edit_metadata(folder, lambda metadata: metadata.update(features=features))
    with pytest.raises(UpkeepError, match="other features"):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"threshold": "high"},
        {"boosters": {"../model.txt": "0" * 64}},
        {"boosters": {"model.txt\n": "0" * 64}},
        {"boosters": {}},
        {"unknown": 1},
    ],
)
def test_metadata_that_this_version_cannot_trust_is_refused(folder, change):
    edit_metadata(folder, lambda metadata: metadata.update(change))
    with pytest.raises(UpkeepError, match=next(iter(change))):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{"])
def test_metadata_that_is_none_is_refused(folder, content):
    (folder / "model.json").write_bytes(content)
    with pytest.raises(UpkeepError, match="cannot be used"):
        load_model(folder)


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(UpkeepError, match="there is no model"):
        load_model(tmp_path)
