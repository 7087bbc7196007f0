from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_defects import planted_defects

from upkeep.contract.dictionary import load_dictionary
from upkeep.core.errors import UpkeepError
from upkeep.simulator.fleet import COMPONENTS, draw_regime, simulate_fleet, visit
from upkeep.simulator.readings import simulate_events, simulate_telemetry
from upkeep.simulator.source import LARGE, NEW_COLUMN, REGIME_DRIFT, SMALL, VANISHED_COLUMN, Simulator

START = date(2025, 1, 6)
WEEK = timedelta(days=7)
YEAR = START + 51 * WEEK
LATER = datetime(2200, 1, 1, tzinfo=UTC)
"""A clock by which every batch is complete."""
SENSORS = ["vibration_mm_s", "temperature_c", "pressure_bar", "current_a"]
KEYS = ["plant", "machine", "time"]
PERSISTENT = {"unit_change", "new_column", "vanished_column", "regime_drift"}


def chosen(plants=None, **options):
    return {"seed": 7, "start": START, "plants": plants or {"gdansk": 2}, **options}


def simulator(plants=None, batch_days=7, now=LATER, **options):
    return Simulator(chosen(plants, **options), batch_days, now)


def read(source, until, table="telemetry"):
    return {(item.plant, item.batch): item.read() for item in source.deliveries(until) if item.table == table}


def rows(source, until=YEAR, table="telemetry"):
    return pl.concat(read(source, until, table).values(), how="diagonal")


@pytest.fixture(scope="module")
def plants():
    return {"gdansk": 4, "lyon": 3, "porto": 2}


@pytest.fixture(scope="module")
def clean(plants):
    return read(simulator(plants, defects=False), YEAR)


@pytest.fixture(scope="module")
def delivered(plants):
    return read(simulator(plants), YEAR)


@pytest.fixture(scope="module")
def defects(plants):
    return planted_defects(chosen(plants), YEAR)


@pytest.fixture(scope="module")
def healthy_fleet():
    source = simulator({"gdansk": 20}, defects=False)
    return rows(source), rows(source, table="events")


def of_kind(defects, kind, table="telemetry"):
    found = list(defects.filter(kind=kind, table=table).iter_rows(named=True))
    assert found, f"no {kind} to look at"
    return found


@pytest.mark.parametrize("table", ["telemetry", "events", "machines"])
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(table):
    once, again, other = (read(simulator(seed=seed), START + 4 * WEEK, table) for seed in (7, 7, 8))
    assert all(once[key].equals(again[key], null_equal=True) for key in once)
    assert not all(once[key].equals(other[key], null_equal=True) for key in once)


@pytest.mark.parametrize("batch_days", [1, 7])
@pytest.mark.parametrize("table", ["telemetry", "events", "machines"])
def test_a_batch_does_not_depend_on_how_far_the_history_goes_on(table, batch_days):
    source, another = (simulator({"lyon": 1, "porto": 3}, batch_days) for _ in range(2))
    short = read(source, START + 20 * timedelta(days=batch_days), table)
    for long in (read(each, START + 50 * timedelta(days=batch_days), table) for each in (source, another)):
        assert short.keys() == {key for key in long if key[1] <= START + 20 * timedelta(days=batch_days)}
        assert all(frame.equals(long[key], null_equal=True) for key, frame in short.items())


def test_a_batch_does_not_depend_on_what_was_read_before():
    forwards, backwards = (list(simulator().deliveries(START + 20 * WEEK)) for _ in range(2))
    first = [item.read() for item in forwards]
    last = [item.read() for item in reversed(backwards)]
    assert all(one.equals(other, null_equal=True) for one, other in zip(first, reversed(last), strict=True))


def test_nothing_is_simulated_until_a_batch_is_read(monkeypatch):
    monkeypatch.setattr("upkeep.simulator.source.simulate_fleet", lambda *_, **__: pytest.fail("simulated"))
    assert len(list(simulator().deliveries(START + WEEK))) == 5


@pytest.mark.parametrize("table", ["telemetry", "events"])
def test_the_batch_under_way_holds_what_lies_before_now_and_later_batches_do_not_exist(plants, table):
    now = datetime(2025, 3, 20, 10, 30, tzinfo=UTC)
    so_far, whole = (read(simulator(plants, now=clock), YEAR, table) for clock in (now, LATER))
    running = date(2025, 3, 17)
    assert {batch for _, batch in so_far} == {batch for _, batch in whole if batch <= running}
    until_now = {
        place: frame.filter(pl.col("time") < now) if place[1] == running else frame for place, frame in whole.items()
    }
    assert all(frame.equals(until_now[place], null_equal=True) for place, frame in so_far.items())
    cut = [whole[place].height - frame.height for place, frame in so_far.items() if place[1] == running]
    assert len(cut) > 0
    assert sum(cut) > 0


def test_the_clocks_own_time_is_now_unless_another_is_given():
    today = datetime.now(UTC).date()
    source = Simulator({"seed": 7, "start": today - 2 * WEEK, "plants": {"gdansk": 1}, "defects": False}, 7)
    telemetry = rows(source, until=today + 4 * WEEK)
    assert telemetry["time"].max() <= datetime.now(UTC)


def test_a_history_that_has_not_begun_has_no_deliveries():
    assert list(simulator().deliveries(START - WEEK)) == []


def test_batches_start_on_mondays_whatever_day_history_starts_on():
    source = simulator(start=START + timedelta(days=3))
    assert [item.batch for item in source.deliveries(START + WEEK) if item.table == "events"] == [START, START + WEEK]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"plants": {"gdansk": 0}}, "plants.gdansk"),
        ({"plants": {}}, "plants"),
        ({"plants": {"a/b": 1}}, "plants.a/b"),
        ({"start": "soon"}, "start"),
        ({"sede": 7}, "sede"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_option_is_named(change, named):
    with pytest.raises(UpkeepError, match=named):
        Simulator({"start": START, "plants": {"gdansk": 1}, **change}, 7)


def test_rows_without_defects_hold_what_the_dictionary_asks_for(clean):
    columns = load_dictionary(Path(__file__).parents[2] / "data/references/dictionary.yaml").columns("telemetry")
    telemetry = pl.concat(clean.values())
    assert telemetry.schema == {name: column.dtype for name, column in columns.items()}
    ranges = [pl.col(name).is_between(*column.range).all() for name, column in columns.items() if column.range]
    assert all(telemetry.select(ranges).row(0))
    assert not any(telemetry.null_count().row(0))
    assert not telemetry.select(pl.struct(KEYS).is_duplicated().any()).item()


def test_rows_and_events_lie_in_their_batch():
    for table in ("telemetry", "events"):
        for (_, batch), frame in read(simulator(defects=False), START + 8 * WEEK, table).items():
            assert frame["time"].dt.date().is_between(batch, batch + WEEK, closed="left").all()


def test_machines_come_with_the_first_batch_and_were_installed_before():
    [((plant, batch), machines)] = read(simulator({"lyon": 3}), YEAR, "machines").items()
    assert (plant, batch, machines.columns) == ("lyon", START, ["plant", "machine", "model", "installed"])
    assert (machines["installed"].dt.date() < START).all()
    assert machines["machine"].to_list() == rows(simulator({"lyon": 3}), START)["machine"].unique().sort().to_list()


def test_plants_run_differently_whatever_the_seed():
    regimes = [draw_regime(plant) for plant in ("gdansk", "hamburg", "lyon", "porto")]
    programs = {(*regime.speed_rpm.tolist(), *regime.load_pct.tolist()) for regime in regimes}
    assert len(programs) == len({regime.ambient_c for regime in regimes}) == 4


def test_a_machine_fails_a_few_times_a_year(healthy_fleet):
    failures = healthy_fleet[1].filter(kind="failure")
    assert 3 <= failures.height / 20 <= 9
    assert failures["code"].n_unique() == 4


def test_a_repair_closes_each_failure_after_12_to_48_hours_and_the_machine_stands_still_until_then(healthy_fleet):
    telemetry, events = healthy_fleet
    stops = events.filter(pl.col("kind").is_in(["failure", "maintenance"]), pl.col("code") != "scheduled")
    for machine, own in stops.group_by("machine"):
        hours = telemetry.filter(machine=machine[0])
        for failure, repair in pairwise(own.sort("time").iter_rows(named=True)):
            if failure["kind"] == "failure":
                assert (repair["kind"], repair["code"]) == ("maintenance", "repair")
                assert timedelta(hours=11) <= repair["time"] - failure["time"] <= timedelta(hours=49)
                stopped = pl.col("time").is_between(failure["time"], repair["time"])
                assert (hours.filter(stopped)["speed_rpm"] == 0).all()


def test_scheduled_maintenance_comes_every_two_or_three_months(healthy_fleet):
    times = healthy_fleet[1].filter(code="scheduled").sort("machine", "time")
    apart = times.select((pl.col("time") - pl.col("time").shift()).over("machine")).drop_nulls().to_series()
    assert (apart > timedelta(days=59)).all()
    assert 3 <= times.height / 20 <= 6


@pytest.mark.parametrize(
    ("component", "sensor", "factor"),
    [("bearing", "vibration_mm_s", 1.3), ("hydraulics", "pressure_bar", 0.95), ("motor", "current_a", 1.1)],
)
def test_wear_of_a_component_shows_in_its_sensor_before_it_fails(healthy_fleet, component, sensor, factor):
    telemetry, events = healthy_fleet
    running = telemetry.filter(pl.col("speed_rpm") > 0).sort("time")
    running = running.with_columns(program=(pl.col("load_pct") / 10).round())
    running = running.with_columns(share=pl.col(sensor) / pl.col(sensor).median().over("machine", "program"))
    failures = events.filter(kind="failure", code=component).select("machine", failed="time").sort("failed")
    ahead = running.join_asof(
        failures, left_on="time", right_on="failed", by="machine", strategy="forward", check_sortedness=False
    )
    last_day = ahead.filter(pl.col("failed") - pl.col("time") <= timedelta(hours=24))["share"].mean()
    assert last_day > factor if factor > 1 else last_day < factor


def test_errors_are_more_frequent_before_failures_and_some_mean_nothing(healthy_fleet):
    telemetry, events = healthy_fleet
    failures = events.filter(kind="failure").select("machine", failed="time").sort("failed")
    errors = events.filter(kind="error").sort("time")
    ahead = errors.join_asof(
        failures, left_on="time", right_on="failed", by="machine", strategy="forward", check_sortedness=False
    )
    near = ahead.filter(pl.col("failed") - pl.col("time") <= timedelta(hours=48)).height
    rate_near = near / (48 * failures.height)
    rate_else = (errors.height - near) / telemetry.height
    assert rate_near > 5 * rate_else
    assert errors.filter(code="E5").height > 0


def test_each_kind_of_defect_happens_within_a_year(defects):
    assert set(defects["kind"]) == {*SMALL, *LARGE, *PERSISTENT}


def test_without_defects_there_are_none():
    assert planted_defects(chosen(defects=False), YEAR).is_empty()


def test_every_row_arrives_but_those_lost_in_outages_and_missing_batches(clean, delivered, defects):
    lost = defects.filter(pl.col("kind").is_in(["outage", "missing_batch"]))["rows"].sum()
    nulls = defects.filter(kind="null_key")["rows"].sum()
    hour = pl.col("time").dt.truncate("1h")
    came = pl.concat(delivered.values(), how="diagonal_relaxed").select("plant", "machine", hour).drop_nulls()
    sent = pl.concat(clean.values()).select(KEYS)
    assert came.join(sent, on=KEYS, how="anti").is_empty()
    missing = sent.height - came.unique().height
    assert lost <= missing <= lost + nulls


def not_numbers(values):
    return values.is_not_null() & values.cast(pl.Float64, strict=False).is_null()


@pytest.mark.parametrize(
    ("kind", "table", "count"),
    [
        ("exact_duplicate", "telemetry", lambda rows, _: rows.height - rows.unique().height),
        ("exact_duplicate", "events", lambda rows, _: rows.height - rows.unique().height),
        (
            "null_sensor",
            "telemetry",
            lambda rows, found: rows.filter(machine=found["machine"])[found["column"]].null_count(),
        ),
        ("null_key", "telemetry", lambda rows, found: rows[found["column"]].null_count()),
        ("spike", "telemetry", lambda rows, found: (~rows[found["column"]].is_between(-500, 5000)).sum()),
        ("unparsable", "telemetry", lambda rows, found: not_numbers(rows[found["column"]]).sum()),
    ],
)
def test_a_delivery_holds_as_many_spoilt_rows_as_were_planted(plants, delivered, defects, kind, table, count):
    came = delivered if table == "telemetry" else read(simulator(plants), YEAR, table)
    for found in of_kind(defects, kind, table):
        if found["delivered"] == found["batch"]:
            assert count(came[found["plant"], found["batch"]], found) == found["rows"] > 0


def test_a_nearly_repeated_row_comes_seconds_later_with_other_values(delivered, defects):
    for found in of_kind(defects, "near_duplicate"):
        frame = delivered[found["plant"], found["batch"]]
        again = frame.filter(pl.col("time").dt.second() > 0)
        assert again.height == found["rows"]
        assert again["time"].dt.second().is_between(5, 20).all()
        pairs = again.with_columns(pl.col("time").dt.truncate("1h")).join(frame, on=["machine", "time"])
        assert (pairs["vibration_mm_s"] - pairs["vibration_mm_s_right"]).abs().is_between(0.0001, 0.01).all()


def test_a_repeated_batch_comes_again_within_the_next(clean, delivered, defects):
    for found in of_kind(defects, "repeated_batch"):
        again = delivered[found["plant"], found["delivered"]].filter(pl.col("time").dt.date() < found["delivered"])
        assert (found["plant"], found["batch"]) in delivered
        assert again.height >= found["rows"] > 0.8 * clean[found["plant"], found["batch"]].height


def test_a_late_batch_comes_only_with_the_next(delivered, defects):
    for found in of_kind(defects, "late_batch"):
        assert (found["plant"], found["batch"]) not in delivered
        own = pl.col("time").dt.date().is_between(found["batch"], found["delivered"], closed="left")
        assert (
            delivered[found["plant"], found["delivered"]].filter(own).height > 0.97 * found["rows"] > 0
        )  # a few may lack their time


def test_a_missing_batch_never_comes(clean, delivered, defects):
    for found in of_kind(defects, "missing_batch"):
        assert found["delivered"] is None
        assert (found["plant"], found["batch"]) not in delivered
        assert found["rows"] > 0.8 * clean[found["plant"], found["batch"]].height


def test_late_rows_come_one_to_three_batches_later(delivered, defects):
    for found in of_kind(defects, "late_rows"):
        assert 1 <= (found["delivered"] - found["batch"]) / WEEK <= 3
        if found["delivered"] <= YEAR:
            file = delivered[found["plant"], found["delivered"]].filter(machine=found["machine"])
            late = file.filter(
                pl.col("time").dt.date().is_between(found["batch"], found["batch"] + WEEK, closed="left")
            )
            assert late.select("machine", "time").unique().height >= found["rows"] > 0


def test_an_outage_is_a_gap_in_a_machines_rows(clean, delivered, defects):
    for found in of_kind(defects, "outage"):
        place = found["plant"], found["batch"]
        if place in delivered:
            sent = clean[place].filter(machine=found["machine"])
            came = delivered[place].filter(machine=found["machine"])
            gap = sent.join(came, on="time", how="anti")["time"]
            assert 0 < len(gap) == found["rows"] <= 30
            assert gap.max() - gap.min() < timedelta(hours=30)


def test_a_stuck_sensor_repeats_one_value_for_more_than_a_day(delivered, defects):
    longest = []
    for found in of_kind(defects, "stuck_sensor"):
        own = delivered[found["plant"], found["batch"]].filter(machine=found["machine"]).unique("time").sort("time")
        longest.append(own[found["column"]].rle().struct.field("len").max())
        assert 60 >= longest[-1] > found["rows"] > 0  # the first of the row of equal values is its own
    assert max(longest) > 24


def test_one_plants_column_appears_and_anothers_vanishes(delivered):
    for (plant, batch), frame in delivered.items():
        number = (batch - START) // WEEK
        assert ("oil_particles_ppm" in frame.columns) == (plant == "gdansk" and number >= NEW_COLUMN)
        assert ("humidity_pct" not in frame.columns) == (plant == "porto" and number >= VANISHED_COLUMN)


def test_one_plant_changes_to_fahrenheit_for_some_batches(clean, delivered, defects):
    changed = of_kind(defects, "unit_change")
    assert {found["plant"] for found in changed} == {"lyon"}
    for found in changed:
        place = found["plant"], found["batch"]
        fahrenheit = delivered[place]["temperature_c"].cast(pl.Float64, strict=False).median()
        assert fahrenheit == pytest.approx(clean[place]["temperature_c"].median() * 1.8 + 32, abs=8)


def test_one_plants_regime_drifts(clean, delivered, defects):
    assert [found["plant"] for found in of_kind(defects, "regime_drift")] == ["porto"]
    after_drift = pl.col("time").dt.date() >= START + REGIME_DRIFT * WEEK
    drifted, undrifted = (
        pl.concat([frame.select("time", "load_pct") for (plant, _), frame in files.items() if plant == "porto"])
        for files in (delivered, clean)
    )
    before, after = (drifted.filter(side)["load_pct"].max() for side in (~after_drift, after_drift))
    assert after > before + 5
    assert undrifted.filter(after_drift)["load_pct"].max() < before + 5


def test_the_first_batch_is_clean(clean, delivered):
    assert all(delivered[place].equals(frame) for place, frame in clean.items() if place[1] == START)


@settings(max_examples=4)
@given(seed=st.integers(0, 2**32), machines=st.integers(1, 3), batch_days=st.sampled_from([1, 7]))
def test_few_rows_are_unusable_however_small_the_fleet(seed, machines, batch_days):
    source = simulator({"a": machines}, batch_days, seed=seed)
    until = START + 20 * timedelta(days=batch_days)
    planted = planted_defects(chosen({"a": machines}, seed=seed), until, batch_days)
    unusable = planted.filter(pl.col("kind").is_in(["spike", "unparsable", "null_key"]))
    delivered = sum(frame.height for frame in read(source, until).values())
    assert unusable["rows"].sum() < 0.05 * delivered


@pytest.mark.parametrize("change", ["bearings", "sensor", "firmware", "regime", "overhauls", "maintenance"])
def test_a_change_shows_from_its_batch_on_and_never_before(change):
    plain = simulator({"a": 6}, defects=False)
    changed = simulator({"a": 6}, defects=False, changes={change: START + 15 * WEEK})
    for table in ("telemetry", "events"):
        before, after = (read(source, START + 40 * WEEK, table) for source in (plain, changed))
        same = {batch: frame.equals(after[plant, batch]) for (plant, batch), frame in before.items()}
        assert all(equal for batch, equal in same.items() if batch < START + 15 * WEEK)
        if table == "telemetry":
            assert not all(same.values())


def test_a_change_within_a_batch_holds_from_the_next_one_on():
    days = (START + timedelta(days=1), START + WEEK)
    late, on_time = (rows(simulator(defects=False, changes={"sensor": day}), START + 2 * WEEK) for day in days)
    assert late.equals(on_time)


def test_a_change_that_nobody_knows_is_named():
    with pytest.raises(UpkeepError, match=r"changes\.weather"):
        simulator(changes={"weather": START})


@pytest.fixture(scope="module")
def worn():
    """A fleet, and one of its failures: machine, hour and component."""
    fleet = simulate_fleet("gdansk", 3, seed=7, start=START, batches=20, batch_days=7, changes={})
    shown = [
        (machine, hour, code)
        for machine, hour, _, code in fleet.happenings.filter(kind="failure").rows()
        if fleet.signs[COMPONENTS.index(code), machine, hour - 10] > 0.3
    ]
    return fleet, *shown[0]


def read_all(fleet, read_batch):
    return pl.concat(read_batch(fleet, batch) for batch in range(fleet.batches))


def test_a_visit_in_time_prevents_the_failure_and_its_repair_and_nothing_else(worn):
    fleet, machine, hour, component = worn
    spared, found = visit(fleet, machine, hour - 10)
    assert component in found
    gone = fleet.happenings.join(spared.happenings, on=fleet.happenings.columns, how="anti")
    assert gone.sort("hour").select("machine", "kind", "code").rows() == [
        (machine, "failure", component),
        (machine, "maintenance", "repair"),
    ]
    own = pl.col("machine") == fleet.names[machine]
    for read_batch in (simulate_telemetry, simulate_events):
        before, after = (read_all(of, read_batch) for of in (fleet, spared))
        assert before.filter(~own).equals(after.filter(~own))


def test_a_machine_runs_on_after_a_visit_without_the_signs_that_it_found(worn):
    fleet, machine, hour, component = worn
    spared, _ = visit(fleet, machine, hour - 10)
    place = COMPONENTS.index(component)
    assert spared.signs[place, machine, hour - 10] == fleet.signs[place, machine, hour - 10] > 0
    assert not spared.signs[place, machine, hour - 9 : hour + 1].any()
    assert fleet.program[machine, hour + 1 : hour + 12].max() == 0
    assert spared.program[machine, hour + 1 : hour + 49].max() > 0
    assert (spared.program[:, : hour + 1] == fleet.program[:, : hour + 1]).all()


def test_a_visit_to_a_healthy_machine_finds_and_changes_nothing(worn):
    fleet = worn[0]
    machine, hour = np.argwhere(fleet.signs.max(axis=0) == 0)[0]
    healthy, found = visit(fleet, int(machine), int(hour))
    assert found == []
    assert (healthy.signs == fleet.signs).all()
    assert healthy.happenings.equals(fleet.happenings)
