"""Why to train again, by each policy."""

from datetime import date, timedelta
from typing import get_args

import pytest

from upkeep.core.params import Retrain
from upkeep.releases.policies import POLICIES, Evidence, RealisedLoss
from upkeep.releases.policies import decide as decide_by

MONDAY = date(2025, 12, 29)
HOW = Retrain(policy="evidence", new_batches=3, batches_between=1, max_age_days=35, drift_windows=5, drift_needed=2)
ONE, THREE = [MONDAY], [MONDAY + timedelta(weeks=week) for week in range(3)]


def decide(batches, drifted, age_days, how, **known):
    return decide_by(Evidence(batches, age_days, lambda: drifted, **known), how)


def test_without_a_new_batch_nothing_is_a_reason():
    assert decide([], {"lyon": [True] * 5}, 100, HOW) == {}


def test_enough_new_batches_are_a_reason():
    assert decide(THREE, {}, 0, HOW) == {"new data": "3 new batches up to that of 2026-01-12"}
    assert decide(THREE[:2], {}, 0, HOW) == {}


@pytest.mark.parametrize(
    ("windows", "lasts"),
    [
        ([True, True, False, False, False], True),
        ([True, False, False, False, True], True),
        ([True, False, False, False, False], False),
        ([True], False),
        ([False], False),
        ([False, True, True, True, True], False),
    ],
)
def test_drift_is_a_reason_if_the_newest_window_and_another_of_the_last_five_have_it(windows, lasts):
    assert ("drift" in decide(ONE, {"lyon": windows}, 0, HOW)) == lasts


def test_windows_of_different_plants_do_not_add_up():
    assert decide(ONE, {"lyon": [True, False, False], "porto": [True, False, False]}, 0, HOW) == {}


def test_plants_whose_drift_lasts_are_named_with_their_windows():
    reasons = decide(ONE, {"lyon": [True] * 3, "porto": [False]}, 0, HOW)
    assert reasons == {"drift": "drift of lyon in 3 of its last 5 windows"}


def test_old_models_are_a_reason_to_use_a_single_batch():
    assert decide(ONE, {}, 35, HOW) == {}
    assert decide(ONE, {}, 36, HOW) == {"age": "the models know nothing of the last 36 days"}


@pytest.mark.parametrize(
    ("offered", "needed", "trains"),
    [
        (None, 3, True),
        (None, 4, False),
        (MONDAY - timedelta(weeks=1), 3, True),
        (MONDAY, 3, False),
        (MONDAY, 2, True),
        (MONDAY + timedelta(weeks=1), 1, True),
    ],
)
def test_no_evidence_is_a_reason_so_soon_after_the_last_retraining(offered, needed, trains):
    how = HOW.model_copy(update={"batches_between": needed})
    for drifted, age_days in (({"lyon": [True] * 5}, 0), ({}, 100)):
        assert bool(decide(THREE, drifted, age_days, how, offered=offered)) == trains


@pytest.mark.parametrize(("least", "is_reason"), [(90_000, True), (60_000, False), (10_000, False)])
def test_a_loss_is_a_reason_if_it_is_above_what_was_promised_beyond_chance(least, is_reason):
    reasons = decide(ONE, {}, 0, HOW, realised={"lyon": RealisedLoss(least, 60_000), "porto": RealisedLoss(1, 2)})
    loss = "realised loss: lyon has cost 90,000 at least, not the 60,000 of its test figures"
    assert reasons == ({"loss": loss} if is_reason else {})


@pytest.mark.parametrize(
    ("policy", "batches", "age_days", "trains"),
    [
        ("every_batch", ONE, 0, True),
        ("every_batch", [], 100, False),
        ("monthly", THREE, 27, False),
        ("monthly", ONE, 28, True),
        ("monthly", [], 100, False),
        ("never", THREE, 100, False),
    ],
)
def test_simple_policies_neither_need_nor_look_up_drift(policy, batches, age_days, trains):
    how = HOW.model_copy(update={"policy": policy})

    def look():
        raise AssertionError("drift was looked up")

    assert bool(decide_by(Evidence(batches, age_days, look), how)) == trains


def test_each_policy_that_the_parameters_take_is_one():
    assert set(get_args(Retrain.model_fields["policy"].annotation)) == set(POLICIES)
