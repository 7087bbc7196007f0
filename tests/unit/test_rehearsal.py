"""Plants that live under a policy, and what the weeks of several come to."""

from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from upkeep.core.errors import TooLittleDataError, UpkeepError
from upkeep.core.params import load_params
from upkeep.rehearsal import rehearse
from upkeep.rehearsal.plants import LivedPlant
from upkeep.rehearsal.rehearse import POLICIES, WEEKS, World
from upkeep.rehearsal.run import run
from upkeep.rehearsal.summary import summarise, tabulate_policies
from upkeep.simulator.fleet import COMPONENTS, simulate_fleet

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
MODEL = SimpleNamespace(metadata=SimpleNamespace(threshold=0.5, data_version="1"))
FLEET = simulate_fleet("gdansk", 3, seed=7, start=date(2025, 1, 6), batches=20, batch_days=7, changes={})


@pytest.fixture(scope="module")
def failure():
    """Return the machine and the hour of a failure whose wear shows a day before, within one week."""
    [*found] = [
        (machine, hour)
        for machine, hour, _, code in FLEET.happenings.filter(kind="failure").sort("hour").rows()
        if FLEET.signs[COMPONENTS.index(code), machine, hour - 24] > 0.1 and 48 < hour % 168 < 160
    ]
    return found[0]


def live(monkeypatch, alarms, weeks):
    """Let a plant live with a model that raises alarms at some hours, by machine, and return it."""
    plant = LivedPlant(FLEET)

    def score(self, _, machines):
        batch = len(self.telemetry)
        rows = [
            (FLEET.names[of], self.at(hour), 0.9)
            for of, hour in alarms
            if hour // 168 == batch and FLEET.names[of] in machines
        ]
        schema = {"machine": pl.String, "time": pl.Datetime("us", "UTC"), "probability": pl.Float64}
        return pl.DataFrame(rows, schema, orient="row")

    monkeypatch.setattr(LivedPlant, "_score", score)
    for _ in range(weeks):
        plant.live(MODEL, PARAMS)
    return plant


def failures(plant):
    return pl.concat(plant.happened).filter(kind="failure").select("machine", "time")


def test_an_alarm_in_time_sends_somebody_who_prevents_the_failure_and_no_other(monkeypatch, failure):
    machine, hour = failure
    weeks = hour // 168 + 3
    idle, helped = (live(monkeypatch, alarms, weeks) for alarms in ([], [(machine, hour - 24)]))
    [visit] = helped.visits.rows(named=True)
    assert (visit["machine"], visit["finding"]) == (FLEET.names[machine], "defect")
    assert visit["alarm_at"] == helped.at(hour - 24)
    assert timedelta(hours=8) <= visit["time"] - visit["alarm_at"] < timedelta(hours=9)
    prevented = failures(idle).join(failures(helped), on=["machine", "time"], how="anti")
    assert prevented.height == 1
    assert failures(helped).join(failures(idle), on=["machine", "time"], how="anti").is_empty()


@pytest.mark.parametrize("before", [24, 54])  # somebody comes in the same week, or in the next
def test_an_alarm_that_goes_on_until_the_defect_is_found_sends_nobody_else(monkeypatch, failure, before):
    machine, hour = failure
    first = hour - before
    plant = live(monkeypatch, [(machine, first + late) for late in (0, 4, 8)], first // 168 + 3)
    assert plant.visits.select("finding", "alarm_at").rows() == [("defect", plant.at(first))]


def test_an_alarm_that_comes_too_late_or_during_the_repair_sends_nobody(monkeypatch, failure):
    machine, hour = failure
    assert live(monkeypatch, [(machine, hour - 5), (machine, hour + 4)], hour // 168 + 1).visits.is_empty()


def test_alarms_within_a_horizon_of_a_visit_that_found_nothing_send_nobody_again(monkeypatch):
    hours = [40, 48, 56, 87, 88]
    assert FLEET.signs[:, 0, :100].max() < 0.05
    plant = live(monkeypatch, [(0, hour) for hour in hours], 1)
    assert plant.visits["alarm_at"].to_list() == [plant.at(40), plant.at(88)]
    assert plant.visits["finding"].to_list() == ["nothing", "nothing"]
    assert plant.count_by_week().row(0, named=True)["false_alarms"] == 2


def test_what_a_visit_found_is_known_a_week_later(monkeypatch):
    plant = live(monkeypatch, [(0, 120)], 1)
    assert plant.read_tables().events.filter(code="inspection")["finding"].to_list() == [None]
    plant.live(MODEL, PARAMS)
    plant.live(MODEL, PARAMS)
    assert plant.read_tables().events.filter(code="inspection")["finding"].to_list() == ["nothing"]


@pytest.mark.parametrize(
    ("drifted", "reason"),
    [({20, 18}, "drift"), ({20, 16}, "drift"), ({20, 15}, ""), ({20}, ""), ({19, 18, 17}, "")],
)
def test_drift_is_a_reason_in_a_rehearsal_if_the_newest_window_and_another_of_the_last_five_have_it(
    monkeypatch, drifted, reason
):
    def compare_windows(telemetry, trained, columns, window, params):  # noqa: ARG001  # called as the stage's
        return SimpleNamespace(drifted=(window.end.date() - FLEET.start).days // 7 in drifted)

    monkeypatch.setattr(rehearse, "compare_windows", compare_windows)
    monkeypatch.setattr(LivedPlant, "read_tables", lambda _: SimpleNamespace(telemetry=None))
    loop = rehearse.Rehearsal(World(1, 2, 24, 7, "none"), "loop", PARAMS)
    loop.champion, loop.trained_in = SimpleNamespace(trained={"gdansk": None}), 16
    assert loop._decide(20) == reason
    loop.offered_in = 17
    assert loop._decide(20) == ""  # it waits for four batches after the last retraining


def weeks(policy, costs, *, change="none", seed=1, reasons=None, promoted=False):
    rows = [(seed, change, policy, week, 1, 0, 0, cost, "", promoted) for week, cost in enumerate(costs, 1)]
    frame = pl.DataFrame(rows, WEEKS, orient="row")
    told = [(reasons or {}).get(week, "") for week in frame["week"]]
    return frame.with_columns(reason=pl.Series(told, dtype=pl.String))


@pytest.fixture
def rehearsal(monkeypatch):
    """A rehearsal by parameters that train no model that can live: of another kind, and split by days long past."""
    monkeypatch.chdir(ROOT)
    days = {"by": "date", "validation_from": date(2001, 1, 1), "test_from": date(2001, 2, 1)}
    split = PARAMS.dataset.split.model_copy(update=days)
    sections = {
        "model": PARAMS.model.model_copy(update={"kind": "logistic"}),
        "dataset": PARAMS.dataset.model_copy(update={"split": split}),
    }
    return rehearse.Rehearsal(World(1, 2, 24, 1, "none"), "never_6", PARAMS.model_copy(update=sections))


def test_a_rehearsal_trains_whatever_kind_and_split_the_parameters_name(rehearsal):
    assert rehearsal.params.model.kind == "lightgbm"
    assert rehearsal.params.dataset.split.by == "time"


def test_too_little_data_puts_a_training_off_and_any_other_error_is_told(rehearsal, monkeypatch):
    def refuse(*_):
        raise error

    monkeypatch.setattr(rehearse, "train_models", refuse)
    rehearsal.learnt_from = {}
    error = TooLittleDataError("no plant has a training row", remedy="fetch more history")
    assert not rehearsal._train(6)
    error = UpkeepError("LightGBM refuses the parameters", remedy="correct them")
    with pytest.raises(UpkeepError, match="LightGBM refuses"):
        rehearsal._train(6)


def test_costs_are_those_of_the_second_half_and_regret_is_what_the_oracle_saves():
    lived = pl.concat([weeks("loop", [9, 9, 9, 9, 3, 3, 3, 3]), weeks("oracle", [0, 0, 0, 0, 2, 2, 2, 2])])
    loop, oracle = summarise(lived, 0.95).rows(named=True)
    assert (loop["cost"], loop["regret"], loop["failures"]) == (12, 4, 4)
    assert (oracle["cost"], oracle["regret"]) == (8, 0)
    assert loop["cost_margin"] is None


def test_an_interval_of_regret_is_of_differences_within_the_same_world():
    parts = [
        weeks(policy, [cost + seed] * 8, seed=seed)
        for seed in (1, 2, 3)
        for policy, cost in (("loop", 3), ("oracle", 2))
    ]
    loop = summarise(pl.concat(parts), 0.95).row(0, named=True)
    assert loop["regret"] == 4
    assert loop["regret_margin"] == pytest.approx(0)
    assert loop["cost_margin"] == pytest.approx(4.3027 * 4 / 3**0.5, rel=1e-3)  # t of two degrees of freedom


def test_the_order_in_which_lives_end_changes_no_bit():
    lives = [weeks("loop", [0.1 * seed + week / 3 for week in range(8)], seed=seed) for seed in range(9)]
    orders = [lives, lives[::-1], lives[4:] + lives[:4]]
    assert len({str(summarise(pl.concat(order), 0.95).rows()) for order in orders}) == 1


def test_drift_is_detected_after_a_change_and_false_without_one():
    reasons = {1: "first", 3: "drift", 6: "new data, drift", 7: "age"}
    lived = pl.concat(weeks("loop", [1] * 8, change=change, reasons=reasons) for change in ("none", "sensor"))
    twin, changed = summarise(lived, 0.95).rows(named=True)
    assert (changed["detected_after"], changed["false_drifts"], changed["trainings"]) == (2, 1, 3)
    assert (twin["detected_after"], twin["false_drifts"]) == (None, 2)


def test_the_table_shows_policies_in_their_order_with_money_in_thousands():
    lived = pl.concat(weeks(policy, [1000] * 8) for policy in ("oracle", "monthly"))
    lines = tabulate_policies(summarise(lived, 0.95)).splitlines()
    assert [line.split()[1:4] for line in lines[1:]] == [["monthly", "4.0", "0.0"], ["oracle", "4.0", "0.0"]]


@pytest.mark.parametrize(("changes", "policies", "wrong"), [(["rain"], ["loop"], "rain"), ([], ["daily"], "daily")])
def test_a_change_or_policy_that_nobody_knows_is_named(changes, policies, wrong):
    with pytest.raises(UpkeepError, match=wrong):
        run(PARAMS, World(1, 2, 24, 1, "none"), 1, changes, policies)


def test_only_an_oracle_learns_from_plants_that_nobody_visits():
    assert [name for name, policy in POLICIES.items() if policy.knows_labels] == ["oracle"]
