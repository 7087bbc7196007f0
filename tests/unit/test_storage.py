import hashlib
import json
import os
import re
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from upkeep.model.trees import check_trees

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
    assert predict(model, unseen.astype(np.float64)).tobytes() == expected.tobytes()
    assert b"".join(predict(model, unseen[row : row + 1]).tobytes() for row in range(50)) == expected.tobytes()


def test_a_null_is_scored_like_nan(folder):
    model = load_model(folder)
    frame = pl.DataFrame({FEATURES[0]: [None, 1.0], FEATURES[1]: [0.5, None]})
    assert predict(model, frame).tolist() == predict(model, np.array([[np.nan, 0.5], [1.0, np.nan]])).tolist()


def test_no_rows_give_no_probabilities(folder):
    model = load_model(folder)
    assert predict(model, np.empty((0, 2))).shape == (0,)


def test_contributions_add_up_to_the_log_odds(folder, unseen):
    model = load_model(folder)
    log_odds = np.mean([booster.predict(unseen, raw_score=True) for booster in model.boosters], axis=0)
    np.testing.assert_allclose(contributions(model, unseen).sum(axis=1), log_odds, atol=1e-9)


def test_a_missing_feature_is_named(folder):
    with pytest.raises(UpkeepError, match="errors_oil leak_48h"):
        predict(load_model(folder), pl.DataFrame({FEATURES[0]: [1.0]}))


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
    with pytest.raises(UpkeepError, match="the booster cannot be used: it does not begin"):
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


def forge(folder, change):
    """Change a booster's text and its checksum, as whoever can write the folder can."""
    file = folder / "model_0.txt"
    text = change(file.read_text())
    assert text != file.read_text()
    file.write_bytes(text.encode())
    edit_metadata(folder, lambda metadata: metadata["boosters"].update({"model_0.txt": checksum(text.encode())}))


def resize(text):
    """State the sizes that the trees of a text have, where LightGBM looks for them."""
    trees = re.findall(r"Tree=.*?\n\n\n", text, flags=re.DOTALL)
    return re.sub("tree_sizes=.*", f"tree_sizes={' '.join(str(len(tree)) for tree in trees)}", text)


FORGED = [
    ("(?<=left_child=)-?[0-9]+", "0", "a split below itself"),
    ("(?<=left_child=)-?[0-9]+", "99999", "a child that there is not"),
    ("(?<=right_child=)-?[0-9]+", "-99999", "a child that there is not"),
    ("(?<=right_child=)-?[0-9]+ -?[0-9]+", "-1 -1", "a node with two parents"),
    ("(?<=split_feature=)[0-9]+", "9999999", "a split by no feature"),
    ("(?<=split_feature=)[0-9]+", "-1", "a split by no feature"),
    ("(?<=num_leaves=)[0-9]+", "2000000", "another number of"),
    ("(?<=num_leaves=)[0-9]+", "2000000000", "after 0 trees"),
    ("(?<=num_leaves=)[0-9]+", "2", "another number of"),
    ("(?<=num_leaves=)[0-9]+", "0", "another number of"),
    ("(?<=leaf_value=)[^ ]+", "1e308", "a leaf beyond"),
    ("(?<=leaf_value=)[^ ]+", "nan", "after 0 trees"),
    ("(?<=leaf_value=)[^ ]+", "1.2.3", ""),
    ("(?<=leaf_value=)[^ ]+", "inf", "a leaf beyond"),
    ("(?<=leaf_value=)[^ ]+ ", "", "another number of leaf_value"),
    ("(?<=threshold=)[^ ]+", "nan", "after 0 trees"),
    ("(?<=leaf_count=)[0-9]+", "1", "counts that do not add up"),
    ("(?<=internal_count=)[0-9]+", "0", "a count out of range"),
    ("(?<=internal_count=)[0-9]+", "99999999999999999999", "a count out of range"),
    ("(?<=decision_type=)[0-9]+", "14", "a split of an unknown kind"),
    ("(?<=decision_type=)[0-9]+", "3", "a split by categories that there are not"),
    ("num_cat=0", "num_cat=1", "sets of categories that do not fit"),
    ("is_linear=0", "cat_boundaries=0 9\ncat_threshold=1\nis_linear=0", "sets of categories that do not fit"),
    ("is_linear=0", "is_linear=1", "after 0 trees"),
    ("(?<=max_feature_idx=)[0-9]+", "999999999", "other features"),
    ("(?<=num_class=)1", "1000000", "it does not begin"),
    ("version=v4", "version=v4\r", "it does not begin"),
    ("end of trees", "Tree=9\nend of trees", "after 5 trees"),
    ("pandas_categorical:null", "pandas_categorical:[[[[", "after 5 trees"),
]


@pytest.mark.parametrize(("old", "new", "told"), FORGED)
def test_a_forged_booster_is_refused_before_lightgbm_reads_it(folder, old, new, told, monkeypatch):
    forge(folder, lambda text: resize(re.sub(old, new, text, count=1)))
    monkeypatch.setattr(lgb, "Booster", None)
    with pytest.raises(UpkeepError, match=f"the booster cannot be used: .*{told}"):
        load_model(folder)


def test_trees_that_lie_elsewhere_than_they_are_read_from_are_refused(folder):
    forge(folder, lambda text: re.sub("(?<=tree_sizes=)[0-9]+", "10", text))
    with pytest.raises(UpkeepError, match="goes on otherwise than LightGBM writes"):
        load_model(folder)


def write_chain(splits):
    """Return a tree whose every split has the next one to its left."""
    numbers = {
        "split_feature": [0] * splits,
        "split_gain": [1] * splits,
        "threshold": [0.5] * splits,
        "decision_type": [2] * splits,
        "left_child": [*range(1, splits), -1],
        "right_child": [-2 - split for split in range(splits)],
        "leaf_value": [0.1] * (splits + 1),
        "leaf_weight": [1] * (splits + 1),
        "leaf_count": [1] * (splits + 1),
        "internal_value": [0] * splits,
        "internal_weight": [1] * splits,
        "internal_count": range(splits + 1, 1, -1),
    }
    lines = "".join(f"{name}={' '.join(map(str, values))}\n" for name, values in numbers.items())
    return f"Tree=0\nnum_leaves={splits + 1}\nnum_cat=0\n{lines}is_linear=0\nshrinkage=1\n\n\n"


@pytest.mark.parametrize(("splits", "is_taken"), [(500, True), (501, False)])
def test_a_tree_is_as_deep_as_reasons_can_be_found_for(splits, is_taken):
    text = resize(re.sub(r"(?s)Tree=.*(?=end of trees)", write_chain(splits), grow()))
    with nullcontext() if is_taken else pytest.raises(ValueError, match="more than 500 splits above a leaf"):
        check_trees(text, booster_names(FEATURES))


SETTINGS = {
    "categories": {"categorical_feature": [1], "min_data_per_group": 1, "cat_smooth": 0, "max_cat_to_onehot": 1},
    "a forest": {"boosting": "rf", "subsample": 0.6, "subsample_freq": 1},
    "dart": {"boosting": "dart"},
    "goss": {"data_sample_strategy": "goss"},
    "tiny leaves": {"min_child_samples": 1, "min_sum_hessian_in_leaf": 0, "learning_rate": 1},
    "no split": {"min_child_samples": 500},
    "monotone": {"monotone_constraints": [1, 0]},
    "quantised": {"use_quantized_grad": True},
}


@pytest.mark.filterwarnings("ignore:categorical_feature keyword")
@pytest.mark.parametrize("name", SETTINGS)
def test_whatever_lightgbm_grows_is_taken(name):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=400), rng.integers(0, 8, 400)])
    rows[::9] = np.nan
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, **SETTINGS[name]}
    label = (rows[:, 1] % 3 == 1) ^ (rows[:, 0] > 1)
    data = lgb.Dataset(rows, label, feature_name=["a", "b"], params=settings)
    text = lgb.train(settings, data, 20).model_to_string()
    assert ("num_cat=1" in text) == (name == "categories")
    check_trees(text, ["a", "b"])


@given(st.data())
def test_a_booster_of_which_any_number_is_changed_is_refused_or_answers(data):
    text = grow()
    number = data.draw(st.sampled_from(list(re.finditer(r"-?[0-9][0-9.e+-]*", text))))
    new = data.draw(st.sampled_from(["0", "-1", "1", "2", "7", "1e9", "-3", "4294967295", "0.5", "1e-320", ""]))
    changed = resize(text[: number.start()] + new + text[number.end() :])
    rows = np.array([[0.0, np.nan], [1e30, -1e30]])
    try:
        check_trees(changed, booster_names(FEATURES))
        booster = lgb.Booster(model_str=changed)
        answers = [booster.predict(rows, **{kind: True}, num_threads=1) for kind in ("raw_score", "pred_contrib")]
    except (ValueError, lgb.basic.LightGBMError):  # such as a parameter that says that its leaves are linear
        return
    assert all(np.isfinite(answer).all() for answer in answers)


UNBOUNDED = {
    "threshold": [-1, 1.1, 1e308, float("nan")],
    "calibration": [
        {"method": "sigmoid", "slope": 1e308},
        {"method": "sigmoid", "slope": float("inf")},
        {"method": "sigmoid", "slope": -1},
        {"method": "sigmoid", "intercept": -1e308},
        {"method": "isotonic", "knots": [-1e308, 1e308], "levels": [0, 1]},
        {"method": "isotonic", "knots": [0, 1], "levels": [0, 2]},
    ],
    "near_duplicate_seconds": [10**30],
    "training_ranges": [{}, {FEATURES[0]: None}],
    "rows": [-1],
}


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, values in UNBOUNDED.items() for value in values])
def test_numbers_that_no_training_gives_are_refused(folder, field, value):
    edit_metadata(folder, lambda metadata: metadata.update({field: value}))
    with pytest.raises(UpkeepError, match="metadata cannot be used"):
        load_model(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("dataset", "windows_hours"), [1e308]),
        (("dataset", "horizon_hours"), 1e308),
        (("preparation", "baselines"), {"M1": {"start": 10**30, "levels": []}}),
        (("preparation", "baselines"), {"M1": {"start": 0, "levels": [1e308]}}),
        (("preparation", "records"), {"M1": {"installed": 10**30}}),
        (("preparation", "conditions", "spreads"), [[0.0]]),
        (("preparation", "conditions", "levels"), [[1e308]]),
    ],
)
def test_numbers_that_features_could_not_be_made_with_are_refused(folder, path, value):
    def change(metadata):
        for name in path[:-1]:
            metadata = metadata[name]
        metadata[path[-1]] = value

    edit_metadata(folder, change)
    with pytest.raises(UpkeepError, match="metadata cannot be used"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.json", "model_0.txt"])
@pytest.mark.parametrize("place", [os.mkfifo, Path.mkdir, lambda file: file.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused(folder, name, place):
    (folder / name).unlink()
    place(folder / name)
    with pytest.raises(UpkeepError, match=r"cannot be (read|used): it is a .*, not a file"):
        load_model(folder)


def test_a_file_beyond_all_measure_is_refused_unread(folder):
    os.truncate(folder / "model_0.txt", 10**12)
    with pytest.raises(UpkeepError, match="it is larger than 100,000,000 bytes"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{", b"[" * 100_000])
def test_metadata_that_is_none_is_refused(folder, content):
    (folder / "model.json").write_bytes(content)
    with pytest.raises(UpkeepError, match="cannot be used"):
        load_model(folder)


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(UpkeepError, match="there is no model"):
        load_model(tmp_path)
