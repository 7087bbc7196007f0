from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from hypothesis import given
from prediction_cases import COSTS, HORIZON, LEAD, START, fleets, how
from test_stage_dependencies import closure

from upkeep.core.params import load_params
from upkeep.judging.drift import Window
from upkeep.judging.episodes import HOURS_PER_MONTH, find_episodes, judge_failures, read_timeline
from upkeep.judging.reports import ColumnDrift, PlantDrift, WindowReport
from upkeep.model.scoring import RANGE_LEFT
from upkeep.production.estimates import FEWEST_ALARMS, compare_with_outcomes, cut_stretches, estimate_plant
from upkeep.production.outcomes import LEDGER
from upkeep.scoring.prediction_log import WARNINGS

SHIPPED = load_params(ROOT / "params.yaml")
PARAMS = SHIPPED.model_copy(
    update={
        "dataset": SHIPPED.dataset.model_copy(update={"horizon_hours": HORIZON}),
        "evaluate": how(bootstrap=50, confidence=0.95),
    }
)
VERSION, BLOCK = "3f2a", 20
WARNING = {"code": RANGE_LEFT, "message": "", "column": None}
MONTH = timedelta(days=28)


def blocks(true, probability=0.9, machines=8, start=START):
    """Rows of machines that all alarm once in each block of 20 hours; `true` tells whether a failure follows.

    The alarm comes 7 hours before the failure, in time for a lead time of 2.
    """
    true = np.broadcast_to(true, (machines, np.shape(true)[-1]))
    parts = []
    for number, own in enumerate(true):
        hour = np.arange(len(own) * BLOCK)
        left = np.where(own[hour // BLOCK] & (hour % BLOCK < 12), 12.0 - hour % BLOCK, np.nan)
        alarm = hour % BLOCK == 5
        parts.append(
            pl.DataFrame(
                {
                    "plant": "lyon",
                    "machine": f"m{number}",
                    "time": [start + timedelta(hours=int(each)) for each in hour],
                    "split": "test",
                    "chosen": True,
                    "hours_to_failure": left,
                    "prevented": False,
                    "probability": np.where(alarm, probability, 0.01),
                    "alarm": alarm,
                },
                schema_overrides={"time": pl.Datetime("us", "UTC")},
            ).with_columns(pl.col("hours_to_failure").fill_nan(None))
        )
    return pl.concat(parts)


def log(rows, **columns):
    """The same rows as the service logged them."""
    given = {"source": "batch", "model_version": VERSION, "role": None}
    logged = rows.drop("split", "chosen", "hours_to_failure", "prevented").with_columns(scored_at="time")
    warnings = pl.Series([columns.pop("warnings", [])] * rows.height, dtype=WARNINGS)
    texts = {name: pl.lit(value, pl.String) for name, value in (given | columns).items()}
    return logged.with_columns(warnings=warnings, **texts)


FIRST = Window(START, START + MONTH)


def estimate(logged, predictions, window=FIRST, drift=None):
    (found,) = estimate_plant(logged, predictions, {window: drift}, PARAMS, plant="lyon", model_version=VERSION)
    return found


def test_what_was_told_too_late_to_act_on_is_not_expected():
    rows = blocks([True] * 30, 0.6)
    late = log(rows).with_columns(scored_at=pl.col("time") + MONTH)
    assert "not in the log" in estimate(late, SETTLED).reasons[0]


ONE_IN_THREE = np.resize([True, False, False], 30)
SETTLED = pl.concat([blocks(ONE_IN_THREE, 0.6), blocks(np.resize([True] * 9 + [False], 30), 0.9, start=START + MONTH)])


@pytest.mark.parametrize(("probability", "came_true"), [(0.6, 1 / 3), (0.9, 0.9)])
def test_an_alarm_is_expected_to_be_true_as_often_as_alarms_like_it_were(probability, came_true):
    found = estimate(log(blocks([True] * 30, probability)), SETTLED)
    assert found.reasons == []
    assert found.alarms == 8 * 30
    assert found.precision == pytest.approx(came_true, abs=0.03)
    low, high = found.precision_interval
    assert low < came_true < high < low + 0.2
    assert f"240 alarms, {low:.0%} to {high:.0%} of them right, and" in str(found)


def test_the_cost_is_that_of_planned_repairs_where_every_alarm_comes_true_and_nothing_is_missed():
    found = estimate(log(blocks([True] * 30)), blocks([True] * 30))
    exact = 8 * 30 * COSTS.planned_repair * timedelta(hours=HOURS_PER_MONTH) / MONTH
    assert found.monthly_cost == pytest.approx(exact, rel=0.05)


def test_failures_without_an_alarm_are_expected_again():
    silent = blocks(ONE_IN_THREE).with_columns(alarm=pl.lit(value=False), probability=0.1)
    quiet = estimate(log(silent), pl.concat([silent, blocks([True] * 30, start=START + MONTH)]))
    missed = quiet.monthly_cost / COSTS.failure * (MONTH / timedelta(hours=HOURS_PER_MONTH))
    assert (quiet.alarms, quiet.precision, quiet.precision_interval) == (0, None, None)
    assert missed == pytest.approx(8 * 10, rel=0.2)
    low, high = quiet.monthly_cost_interval
    assert low < quiet.monthly_cost < high


def test_an_estimate_is_the_same_whatever_the_order_of_rows_and_counts_a_row_asked_twice_once():
    logged, others = log(blocks(ONE_IN_THREE)), log(blocks(ONE_IN_THREE), role="challenger")
    mixed = pl.concat([logged, logged, others, log(blocks(ONE_IN_THREE), source="smoke")]).sample(
        fraction=1, shuffle=True, seed=1
    )
    assert estimate(mixed, SETTLED.reverse()) == estimate(logged, SETTLED)


def test_a_row_asked_twice_is_what_outcomes_take_it_for_the_highest_answer():
    logged = log(blocks(ONE_IN_THREE))
    lower = logged.with_columns(probability=0.01, alarm=pl.lit(value=False), scored_at=pl.col("scored_at") + MONTH)
    assert estimate(pl.concat([logged, lower]), SETTLED) == estimate(logged, SETTLED)


def test_a_model_that_always_alarmed_is_taken_at_its_word_where_it_does_not_any_more():
    always = blocks(ONE_IN_THREE, 0.6).with_columns(alarm=pl.lit(value=True), probability=0.6)
    found = estimate(log(blocks(ONE_IN_THREE, 0.6)), always)
    assert found.reasons == []
    assert 0 < found.monthly_cost_interval[0] < found.monthly_cost


def drifted(column):
    judged = ColumnDrift(method="wasserstein", score=0.9, threshold=0.5, drifted=column)
    return PlantDrift(
        drifted=False,
        share=0.0,
        columns={"vibration": judged},
        current_rows=1,
        reference_rows=1,
        window=WindowReport.model_validate({"from": "2025-01-06", "to": "2025-02-03"}),
        notes=[],
    )


NINE = [False] * (FEWEST_ALARMS - 1)


@pytest.mark.parametrize(
    ("logged", "settled", "drift", "reason"),
    [
        (log(blocks(ONE_IN_THREE), warnings=[WARNING]), SETTLED, None, "4800 of 4800 rows lie outside"),
        (log(blocks(ONE_IN_THREE)), SETTLED, drifted(column=True), "drifted from the training window: vibration"),
        (log(blocks(ONE_IN_THREE), model_version="old"), SETTLED, None, "not in the log"),
        (log(blocks(ONE_IN_THREE)), blocks(NINE, machines=1), None, "hold 9 alarms, 10 are needed"),
        (log(blocks(ONE_IN_THREE)), SETTLED.with_columns(split=pl.lit("train")), None, "hold 0 alarms"),
        (log(blocks(ONE_IN_THREE)), blocks(ONE_IN_THREE, machines=1), None, "one machine"),
    ],
)
def test_what_cannot_be_estimated_says_why_and_has_no_figures(logged, settled, drift, reason):
    found = estimate(logged, settled, drift=drift)
    assert reason in found.reasons[0]
    assert (found.precision, found.monthly_cost, found.monthly_cost_interval) == (None, None, None)
    assert str(found) == f"nothing is expected from 2025-01-06 on: {found.reasons[0]}"


def test_columns_that_did_not_drift_and_a_single_row_outside_leave_the_estimate():
    logged = log(blocks(ONE_IN_THREE))
    one = pl.concat([log(blocks(ONE_IN_THREE)[:1], warnings=[WARNING]), logged[1:]])
    assert estimate(one, SETTLED, drift=drifted(column=False)) == estimate(logged, SETTLED)


def test_who_asks_every_twentieth_hour_is_told_what_such_rows_would_have_shown():
    seldom = log(blocks(ONE_IN_THREE).filter(pl.col("time").dt.hour() == 0))
    assert "hold 0 alarms" in estimate(seldom, blocks(ONE_IN_THREE)).reasons[0]


@given(fleets())
def test_stretches_begin_at_each_episode_and_hold_every_failure_once(rows):
    rows = rows.sort("plant", "machine", "time")
    found = cut_stretches(rows, PARAMS)
    starts, false = find_episodes(read_timeline(rows, HORIZON), rows["alarm"].to_numpy())
    alarms = found.filter("alarm")
    assert alarms.select("machine", "time").equals(rows[starts].select("machine", "time"))
    assert alarms["true"].to_list() == (~false).tolist()
    failures = judge_failures(rows, LEAD, HORIZON)
    assert found["caught"].sum() == alarms["caught"].sum() == failures["caught"].sum()
    assert found["missed"].sum() == failures.filter(~pl.col("caught"), ~pl.col("prevented")).height


WINDOWS = [Window(START + n * MONTH, START + (n + 1) * MONTH) for n in range(3)]
ESTIMATES = [estimate(log(blocks(ONE_IN_THREE, 0.6, start=window.start)), SETTLED, window) for window in WINDOWS]
KNOWN_AT = WINDOWS[-1].end + timedelta(hours=HORIZON)


def ledger(came_true, windows=WINDOWS, otherwise="survived"):
    """What came of the same alarms, if so many of each thirty were true."""
    rows = []
    for window in windows:
        for number in range(8 * 30):
            true = number % 30 < came_true
            at = window.start + timedelta(hours=number % 30 * BLOCK + 5)
            alarm = {"kind": "alarm", "machine": f"m{number // 30}", "at": at, "role": "champion", "plant": "lyon"}
            alarm |= {"model_version": VERSION, "outcome": "failed" if true else otherwise, "known_at": KNOWN_AT}
            rows.append(alarm)
            if true:
                rows.append(alarm | {"kind": "failure", "outcome": "caught", "at": at + timedelta(hours=7)})
    return pl.DataFrame(rows, schema=LEDGER)


def test_estimates_that_came_true_agree():
    found = compare_with_outcomes(ESTIMATES, ledger(10), KNOWN_AT, PARAMS)
    assert found.verdict == "agrees", found.why
    assert found.windows[0].precision == pytest.approx([1 / 3, 1 / 3])


@pytest.mark.parametrize("came_true", [0, 3, 28])
def test_estimates_disagree_once_the_ledger_says_that_machines_fail_otherwise(came_true):
    found = compare_with_outcomes(ESTIMATES, ledger(came_true), KNOWN_AT, PARAMS)
    assert found.verdict == "disagrees"
    assert "precision outside of its interval in 3 of 3 windows" in found.why


@pytest.mark.parametrize(
    ("estimates", "outcomes", "known_at"),
    [
        (ESTIMATES[:1], ledger(0), KNOWN_AT),
        (ESTIMATES, ledger(0), WINDOWS[0].end),
        (ESTIMATES, ledger(0, otherwise="pending"), KNOWN_AT),
        (ESTIMATES, ledger(10, otherwise="no_code"), KNOWN_AT),
        (ESTIMATES, LEDGER.to_frame(), KNOWN_AT),
        (ESTIMATES, ledger(0).with_columns(role=pl.lit("challenger")), KNOWN_AT),
        ([], ledger(0), KNOWN_AT),
    ],
    ids=["one window", "too early", "pending", "mostly not coded", "no ledger", "a challenger's", "no estimates"],
)
def test_nothing_is_said_of_windows_that_nobody_can_compare(estimates, outcomes, known_at):
    assert compare_with_outcomes(estimates, outcomes, known_at, PARAMS).verdict == "unknown"


DECIDE = ("gitlab.gate", "gitlab.retraining", "judging.acceptance", "judging.comparison", "releases")


def test_two_misses_of_six_are_too_many_to_agree_and_too_few_to_disagree():
    six = [estimate for estimate in ESTIMATES for _ in range(2)]
    mixed = pl.concat([ledger(0, WINDOWS[:1]), ledger(10, WINDOWS[1:])])
    found = compare_with_outcomes(six, mixed, KNOWN_AT, PARAMS)
    assert found.verdict == "unknown"
    assert "precision outside of its interval in 2 of 6 windows" in found.why


def test_nothing_that_trains_vetoes_or_promotes_knows_of_estimates():
    names = [f"upkeep.{name}" for name in DECIDE] + [
        f"upkeep.releases.{file.stem}" for file in (ROOT / "src/upkeep/releases").glob("[a-z]*.py")
    ]
    files = {file.stem for name in names for file in closure(f"import {name}")}
    assert "gate" in files
    assert "estimates" not in files
