"""What is on record of a machine counts where a request says nothing, and a model that does not fit is refused."""

import numpy as np
import pytest
from fleet_cases import START, dataset_params

from upkeep.core.errors import UpkeepError
from upkeep.features.conditions import Conditions
from upkeep.features.definition import feature_names
from upkeep.features.inputs import Events, MachineRecord, Preparation, Telemetry, Vocabulary
from upkeep.features.windows import HOUR
from upkeep.model.calibration import Calibration
from upkeep.model.scoring import Scorer
from upkeep.model.storage import Metadata, SavedModel, TrainingRange
from upkeep.model.trial import load_scorers

NOW = int(START.timestamp()) * 1_000_000
PARAMS = dataset_params()
VOCABULARY = Vocabulary(
    settings=["speed"],
    widths=[100.0],
    sensors=["heat"],
    error_codes=["E1"],
    maintenance_codes=["repair", "service"],
    machine_models=["A", "B"],
)
NAMES = feature_names(VOCABULARY, PARAMS)
NO_EVENTS = Events(*np.empty((3, 0), dtype=np.int64))


class Flat:
    """Stands in for a booster, whose trees do not matter here: all log-odds are 0."""

    def predict(self, matrix, **_):
        return np.zeros(len(matrix))


def scorer(features=NAMES, records=None, rows_every=None):
    conditions = Conditions(widths=[100.0], centres=[[0.0]], levels=[[0.0]], spreads=[[1.0]])
    metadata = Metadata(
        plant="p",
        scope="plant",
        features=features,
        near_duplicate_seconds=60,
        dataset=PARAMS,
        preparation=Preparation(
            vocabulary=VOCABULARY, conditions=conditions, baselines={}, records=records or {}, rows_every=rows_every
        ),
        calibration=Calibration(method="none"),
        threshold=0.5,
        training_ranges={name: TrainingRange(minimum=0, low=0, high=1, maximum=1) for name in features},
        boosters={"model.txt": "0" * 64},
        data_version="0",
        rows=1,
        positives=1,
    )
    return Scorer(SavedModel(metadata, (Flat(),)), "v1")


def rows(readings=(0.5,) * 6):
    time = NOW + np.arange(len(readings)) * HOUR
    values = np.array(readings, dtype=np.float64)[:, None]
    return Telemetry(["m1"], np.array([0, len(values)]), time, values * 0, values)


def feature(answer, name):
    return answer.features[NAMES.index(name)]


def test_the_threshold_itself_raises_the_alarm():
    (answer,) = scorer().score(rows(), NO_EVENTS, {})
    assert (answer.probability, answer.alarm) == (0.5, True)


def test_a_request_overrides_what_is_on_record_and_only_that():
    known = scorer(records={"m1": MachineRecord(model="B", installed=NOW - 100 * HOUR)})
    (silent,) = known.score(rows(), NO_EVENTS, {})
    (told,) = known.score(rows(), NO_EVENTS, {"m1": MachineRecord(installed=NOW - 5 * HOUR)})
    assert (feature(silent, "age_hours"), feature(silent, "model_code")) == (105, 1)
    assert (feature(told, "age_hours"), feature(told, "model_code")) == (10, 1)


def test_leaving_the_training_range_is_told_for_readings_but_not_for_mere_time():
    inside, outside = (scorer().score(rows((value,) * 6), NO_EVENTS, {})[0].warnings for value in (0.5, 7.0))
    codes = [{warning["code"] for warning in warnings} for warnings in (inside, outside)]
    assert "training_range_left" not in codes[0]
    assert "training_range_left" in codes[1]


@pytest.mark.parametrize(
    ("every", "hours", "told"),
    [
        ("3h", [0, 3, 6], set()),
        (None, [0, 3, 6], {"gap", "short_history"}),
        ("1h", [0, 1, 2, 5, 6], set()),
        ("1h", [0, 1, 2, 6], {"gap"}),
        ("1h", [4, 5, 6], {"short_history"}),
    ],
)
def test_a_row_of_reduced_readings_covers_the_whole_of_its_length(every, hours, told):
    some = Telemetry(["m1"], np.array([0, len(hours)]), *(values[hours] for values in rows((0.5,) * 7)[2:]))
    (answer,) = scorer(rows_every=every).score(some, NO_EVENTS, {})
    assert {warning["code"] for warning in answer.warnings} & {"gap", "short_history"} == told


def test_a_model_that_takes_other_features_is_refused():
    with pytest.raises(UpkeepError, match="in another order"):
        scorer(features=NAMES[::-1])


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(UpkeepError, match="holds no model"):
        load_scorers(tmp_path)
