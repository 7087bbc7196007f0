"""Operating conditions are found in training rows and used as they are afterwards."""

import numpy as np
import pytest

from upkeep.features.conditions import assign_conditions, fit_conditions

RNG = np.random.default_rng(0)


def plant(programs, rows_each=200, noise=0.2):
    """Rows of machines running programs of (speed, load); one sensor follows the speed."""
    settings = np.repeat(np.array(programs, dtype=float), rows_each, axis=0) + RNG.normal(
        scale=noise, size=(len(programs) * rows_each, 2)
    )
    return settings, 2 * settings[:, :1] + RNG.normal(size=(len(settings), 1))


def fit(settings, readings, most=12):
    return fit_conditions(settings, readings, widths=[1000, 100], tolerance=0.02, most=most)


@pytest.mark.parametrize(
    "programs", [[(500, 50)], [(100, 50), (500, 50), (900, 50)], [(100, 10), (100, 90), (900, 10)]]
)
def test_as_many_conditions_are_found_as_there_are_programs(programs):
    conditions = fit(*plant(programs))
    assert sorted(np.round(conditions.centres, -1).tolist()) == sorted([list(map(float, p)) for p in programs])


def test_the_most_frequent_condition_comes_first():
    settings, readings = plant([(100, 50), (900, 50)])
    conditions = fit(settings[150:], readings[150:])
    assert conditions.centres[0][0] == pytest.approx(900, abs=1)


def test_scaled_readings_no_longer_show_the_condition():
    settings, readings = plant([(100, 50), (900, 50)])
    scaled = fit(settings, readings).scale(settings, readings)
    assert abs(scaled[:200].mean() - scaled[200:].mean()) < 1e-9
    assert scaled.std() == pytest.approx(1, abs=0.01)


def test_there_are_never_more_conditions_than_allowed():
    settings = RNG.uniform(0, 1000, size=(500, 2))
    assert len(fit(settings, settings[:, :1], most=3).centres) == 3


def test_a_constant_sensor_scales_to_zero():
    settings, _ = plant([(100, 50)])
    conditions = fit(settings, np.full((200, 1), 7.0))
    assert (conditions.scale(settings, np.full((200, 1), 7.0)) == 0).all()


def test_a_rare_condition_borrows_the_plants_level():
    settings, readings = plant([(100, 50), (900, 50)])
    few = np.r_[0:200, 200:205]
    conditions = fit(settings[few], readings[few])
    assert conditions.levels[1] == pytest.approx([readings[few].mean()])


def test_a_missing_setting_is_left_out_of_the_distance():
    conditions = fit(*plant([(100, 50), (900, 50)]))
    settings = np.array([[100.0, 50.0], [900.0, np.nan], [np.nan, np.nan]])
    assigned = assign_conditions(settings, np.array(conditions.centres), np.array(conditions.widths))
    assert conditions.centres[assigned[1]][0] == pytest.approx(900, abs=1)
    assert assigned[2] == 0


def test_a_plant_without_settings_or_rows_has_one_condition():
    assert fit_conditions(np.empty((9, 0)), np.ones((9, 1)), [], 0.05, 5).levels == [[1.0]]
    nothing = fit(np.empty((0, 2)), np.empty((0, 1)))
    assert nothing.scale(np.ones((1, 2)), np.ones((1, 1))).tolist() == [[1.0]]


def test_fitting_twice_gives_the_same_bits():
    settings, readings = plant([(100, 50), (500, 50), (900, 50)])
    assert fit(settings, readings).model_dump_json() == fit(settings, readings).model_dump_json()
