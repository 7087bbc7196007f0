import math
import re
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from upkeep.core.params import Drift
from upkeep.core.plants import name_file
from upkeep.judging.drift import (
    FEWEST_VALUES,
    Window,
    as_numbers,
    compare_windows,
    count_independent,
    find_edges,
    measure_divergence,
    measure_shift,
    measure_similarity,
    newest_window,
    read_windows,
    smallest_divergence,
    smallest_shift,
    usual_distance,
)
from upkeep.judging.reports import PlantDrift
from upkeep.reporting.drift_pages import (
    draw_page,
    list_pages,
    number_ids,
    overview_page,
    plant_page,
    split_script,
)

START = datetime(2025, 1, 6, tzinfo=UTC)
HOW = Drift(window_batches=1, sample_rows=500, max_drifted_share=0.5, seed=7)
WINDOW = Window(START + timedelta(days=28), START + timedelta(days=35))


def telemetry(**columns):
    """35 days of one machine, hourly."""
    times = pl.datetime_range(START, WINDOW[1], "1h", closed="left", eager=True).dt.cast_time_unit("us")
    return pl.DataFrame({"machine": "m1", "time": times, **columns})


def keys(rows):
    return rows.filter(pl.col("time") < WINDOW[0]).select("machine", "time")


def test_the_window_ends_with_the_batch_that_holds_the_newest_row():
    newest = datetime(2025, 1, 22, 5, tzinfo=UTC)
    window = newest_window(newest, until=date(2025, 3, 3), batch_days=7, batches=2)
    assert window == (datetime(2025, 1, 13, tzinfo=UTC), datetime(2025, 1, 27, tzinfo=UTC))


@given(hours=st.integers(-5000, 5000), batch_days=st.integers(1, 31), batches=st.integers(1, 60))
def test_the_newest_row_never_lies_before_the_last_batch_nor_the_window_after_the_last_one_allowed(
    hours, batch_days, batches
):
    newest = START + timedelta(hours=hours)
    start, end = newest_window(newest, START.date(), batch_days, batches)
    step = timedelta(days=batch_days)
    assert end <= START + step
    assert end == START + step or end - step <= newest <= end
    assert end - start == batches * step


def test_the_training_window_is_that_of_trained_machines_within_the_trained_time():
    rows = pl.DataFrame({"machine": ["a", "a", "b"], "time": [START, START + timedelta(days=9), START], "x": [1, 2, 3]})
    _, trained = read_windows(rows, rows[:1], ["x"], WINDOW, HOW)
    assert (trained.machine.to_list(), trained.values["x"].to_list()) == (["a"], [1])


def test_a_missing_column_a_text_and_an_infinity_become_nulls_with_a_note():
    rows = pl.DataFrame({"a": ["1.5", "broken", None], "b": [1.0, float("inf"), float("nan")]})
    typed, notes = as_numbers(rows, ["a", "b", "c"])
    assert typed.to_dict(as_series=False) == {"a": [1.5, None, None], "b": [1.0, None, None], "c": [None, None, None]}
    assert notes == [
        "c is missing",
        "a holds 1 values that are not finite numbers",
        "b holds 2 values that are not finite numbers",
    ]


def test_a_swing_that_training_has_seen_raises_what_counts_as_usual():
    hours = np.arange(24 * 200, dtype=float)
    swing = np.sin(hours / hours.size * 2 * np.pi)
    noise = np.random.default_rng(0).normal(size=hours.size)
    assert usual_distance(swing, hours, 24 * 28, measure_shift) > 1
    assert usual_distance(noise, hours, 24 * 28, measure_shift) < 0.15


def shift_beyond_chance(values, reference, sizes):
    return measure_shift(values, reference) >= smallest_shift(*sizes)


def divergence_beyond_chance(values, reference, sizes):
    limit = smallest_divergence(*sizes, find_edges(values, reference).size - 1)
    return measure_divergence(values, reference) >= limit


@pytest.mark.parametrize("is_beyond", [shift_beyond_chance, divergence_beyond_chance])
@pytest.mark.parametrize(("n", "m"), [(30, 2000), (100, 100), (1000, 1000)])
@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_two_samples_of_one_distribution_rarely_differ_by_the_smallest_drift(draw, n, m, is_beyond):
    sample = getattr(np.random.default_rng(0), draw)
    assert np.mean([is_beyond(sample(size=n), sample(size=m), (n, m)) for _ in range(300)]) <= 0.02


def machines_that_remember(rng, memory, weeks=12, n_machines=4):
    """Hourly readings of which each is `memory` times the one before, plus noise, with mean 0 and deviation 1."""
    hours = weeks * 168
    noise = rng.normal(size=(n_machines, hours + 500)) * math.sqrt(1 - memory**2)
    readings = lfilter([1], [1, -memory], noise)[:, 500:]
    machine = pl.Series(np.repeat([f"m{number}" for number in range(n_machines)], hours))
    return machine, readings


@pytest.mark.parametrize(("is_beyond", "shift"), [(shift_beyond_chance, 1.0), (divergence_beyond_chance, 1.5)])
@pytest.mark.parametrize("memory", [0.0, 0.95])
def test_readings_that_resemble_their_neighbours_rarely_differ_by_the_smallest_drift_and_a_shift_always_does(
    memory, is_beyond, shift
):
    rng, window = np.random.default_rng(0), 4 * 168
    steady, shifted = [], []
    for _ in range(100):
        machine, readings = machines_that_remember(rng, memory)
        current, reference = readings[:, -window:].ravel(), readings[:, :-window].ravel()
        alike = measure_similarity(machine, pl.DataFrame({"heat": readings.ravel()}))["heat"]
        sizes = [count_independent(side.size, side.size, alike) for side in (current, reference)]
        steady.append(is_beyond(current, reference, sizes))
        shifted.append(is_beyond(current + shift, reference, sizes))
    assert np.mean(steady) <= 0.02
    assert np.mean(shifted) >= 0.98


def test_machines_on_different_levels_do_not_resemble_themselves_for_that():
    rng = np.random.default_rng(0)
    machine = pl.Series(["a"] * 500 + ["b"] * 500)
    readings = pl.DataFrame({"level": np.r_[rng.normal(size=500), rng.normal(size=500) + 100], "constant": 5.0})
    found = measure_similarity(machine, readings)
    assert found["level"] < 0.1
    assert found["constant"] == 0


def test_a_sample_tells_no_more_than_its_size_and_no_more_than_its_series():
    assert count_independent(1000, 1000, 0.0) == 1000
    assert count_independent(1000, 1000, 0.95) == pytest.approx(1000 / 39)
    assert count_independent(100_000, 100, 0.95) == pytest.approx(100, rel=0.05)


def test_random_ids_are_numbered_and_links_between_them_hold():
    def page(a, b):
        return (
            f'code aaaaaaaa-0000-0000-0000-000000000000 var metric_{a} = {{"id": "{b}", "see": "{b}"}}; root_metric_{a}'
        )

    first = page("0" * 31 + "a", "01a1fc3b-8cbe-7c76-a9f3-d88a90609df2")
    second = page("1" * 31 + "b", "01a1fc3b-8ed0-736a-96a8-bda34aaf6f45")
    assert first != second
    assert number_ids(first) == number_ids(second)
    assert number_ids(first).startswith("code aaaaaaaa-0000")
    widget, link = re.findall(r'"(?:id|see)": "([^"]+)"', number_ids(first))
    assert widget == link


def test_a_plant_without_newest_rows_is_not_judged():
    rows = telemetry(speed=1.0).filter(pl.col("time") < WINDOW[0])
    found = compare_windows(rows, keys(rows), ["speed"], WINDOW, HOW)
    assert not found.drifted
    assert found.notes == ["no rows in the newest window"]


def test_rows_that_were_trained_on_are_not_newest_rows():
    rows = telemetry(speed=1.0)
    found = compare_windows(rows, rows.select("machine", "time"), ["speed"], WINDOW, HOW)
    assert (found.current_rows, found.reference_rows) == (0, rows.height)


def test_three_rows_are_too_few_to_judge():
    rows = telemetry(speed=1.0)[[0, 1, -1]]
    found = compare_windows(rows, keys(rows), ["speed"], WINDOW, HOW)
    assert found.columns["speed"].score is None
    assert found.notes == [f"speed is not judged: 1 newest and 2 training values, {FEWEST_VALUES} needed"]


def test_a_column_that_lost_all_its_values_has_drifted():
    rows = telemetry(speed=pl.Series(np.arange(840.0))).with_columns(
        pl.when(pl.col("time") < WINDOW[0]).then("speed").alias("speed")
    )
    found = compare_windows(rows, keys(rows), ["speed"], WINDOW, HOW)
    assert found.drifted
    assert found.columns["speed"].drifted


def test_scores_are_to_six_digits_those_that_evidently_reports_of_the_same_rows():
    from evidently import DataDefinition, Dataset, Report  # both take seconds, in each worker that collects this file
    from evidently.presets import DataDriftPreset

    rng, late = np.random.default_rng(0), np.arange(840) >= 28 * 24
    columns = {
        "steady": rng.normal(size=840),
        "shifted": rng.normal(size=840) + late,
        "skewed": rng.exponential(size=840) ** 3,
        "wider": rng.normal(size=840) * (1 + late),
        "categories": rng.choice([1.0, 2.0, 5.0], size=840),
        "another category": rng.choice([1.0, 2.0], size=840) + 3 * late,
        "constant": np.full(840, 5.0),
        "with gaps": np.where(rng.random(840) < 0.3, np.nan, rng.normal(size=840)),
    }
    rows = telemetry(**columns).with_columns(pl.col(list(columns)).round_sig_figs(6))
    all_rows = HOW.model_copy(update={"sample_rows": rows.height})
    found = compare_windows(rows, keys(rows), list(columns), WINDOW, all_rows)
    as_evidently = DataDefinition(numerical_columns=list(columns))
    sides = [rows.filter(late).select(list(columns)), rows.filter(~late).select(list(columns))]
    methods = {name: column.method for name, column in found.columns.items()}
    assert set(methods.values()) == {"wasserstein", "jensenshannon"}
    report = Report([DataDriftPreset(per_column_method=methods)]).run(
        *(Dataset.from_pandas(side.to_pandas(), as_evidently) for side in sides)
    )
    reported = {
        metric["config"]["column"]: round(metric["value"], 6)
        for metric in report.dict()["metrics"]
        if "column" in metric["config"]
    }
    assert {name: column.score for name, column in found.columns.items()} == reported


def test_values_that_hardly_shift_but_are_quite_different_ones_have_drifted():
    rng, late = np.random.default_rng(0), np.arange(840) >= 28 * 24
    loads = np.where(late, rng.choice([34, 74], size=840), rng.choice([30, 70], size=840)) + rng.normal(size=840)
    rows = telemetry(load=loads)
    found = compare_windows(rows, keys(rows), ["load"], WINDOW, HOW).columns["load"]
    assert found.drifted
    assert found.method == "jensenshannon"
    assert measure_shift(loads[late], loads[~late]) < smallest_shift(168, 500)


def judge(values):
    rows = telemetry(column=pl.Series(values, dtype=pl.Float64))
    return compare_windows(rows, keys(rows), ["column"], WINDOW, HOW).columns["column"]


def test_the_last_bits_of_a_conversion_are_no_drift():
    steps = np.random.default_rng(0).choice([60.1, 61.3, 62.7], size=840)
    converted = (steps * 9 / 5 + 32) * 5 / 9 - 160 / 9
    assert (converted != steps).any()
    assert not judge(np.where(np.arange(840) >= 28 * 24, converted, steps)).drifted


@pytest.mark.parametrize("large", [1e306, -1.7e308])
def test_a_value_whose_square_is_infinite_counts_as_one_that_is(large):
    values = np.random.default_rng(0).normal(size=840)
    values[-5:] = large
    assert not judge(values).drifted


def test_fewer_bins_differ_less_by_chance():
    most = math.sqrt(math.log(2))
    assert smallest_divergence(2, 40, bins=3) < most < smallest_divergence(2, 40, bins=20)


def test_few_values_that_never_repeat_have_not_drifted_for_that():
    rng, found = np.random.default_rng(0), 0
    for _ in range(100):
        sides = [np.where(rng.random(30) < 0.5, 0.0, rng.exponential(size=30)) for _ in range(2)]
        found += divergence_beyond_chance(*sides, (30, 30))
    assert found <= 2


def test_pages_say_the_verdict_and_escape_what_they_show():
    rows = telemetry(**{"<b>": 1.0})[[0, -1]]
    found = compare_windows(rows, keys(rows), ["<b>"], WINDOW, HOW)
    page = plant_page("lyon", found, "<html><body>\n<p>Evidently</p></body></html>")
    assert "cannot be judged" in page
    assert "&lt;b&gt; is not judged" in page
    overview = overview_page({"<i>/?": found})
    assert "0 of 1 plants drifted" in overview
    assert "<td>&lt;i&gt;/?</td>" in overview


def test_only_a_plant_in_which_something_drifted_is_linked_to_a_page_of_its_own():
    values = np.random.default_rng(0).normal(size=840) + 5 * (np.arange(840) >= 28 * 24)
    rows = telemetry(speed=pl.Series(values))
    found = compare_windows(rows, keys(rows), ["speed"], WINDOW, HOW)
    assert f'<a href="{name_file("<i>/?")}.html">&lt;i&gt;/?</a>' in overview_page({"<i>/?": found})


def test_of_a_thousand_columns_the_farthest_are_listed():
    column = {"method": "wasserstein", "threshold": 0.1, "drifted": True}
    many = {f"s{number:04}": {**column, "score": 1.0 + number} for number in range(1000)}
    window = {"from": "2025-12-01", "to": "2025-12-29"}
    found = PlantDrift.model_validate(
        {"drifted": True, "share": 1.0, "columns": many, "current_rows": 1, "reference_rows": 1, "window": window}
        | {"notes": [f"{name} is odd" for name in many]}
    )
    page = overview_page({"lyon": found})
    assert "(1000 of 1000 columns)" in page
    assert "s0999" in page
    assert "and 985 more" in page
    assert page.count("s0") < 40


def test_what_drifted_is_shown_beyond_the_usual_and_a_plant_that_lost_its_values_has_no_page():
    column = {"method": "jensenshannon", "threshold": 0.3913, "drifted": True}
    rest = {"drifted": True, "share": 1.0, "current_rows": 1, "reference_rows": 1, "window": {"from": "", "to": ""}}
    found = {
        plant: PlantDrift.model_validate({"columns": {"speed": column | {"score": score}}, "notes": [], **rest})
        for plant, score in {"lyon": None, "porto": 0.392}.items()
    }
    assert "differs by 0.392, usual up to 0.391" in overview_page(found)
    assert list_pages(found) == ["porto"]


def test_of_a_thousand_plants_those_that_drifted_most_have_a_page():
    column = {"method": "wasserstein", "threshold": 0.1, "drifted": True, "score": 1.0}
    window = {"from": "2025-12-01", "to": "2025-12-29"}
    same = {"columns": {"speed": column}, "current_rows": 1, "reference_rows": 1, "window": window, "notes": []}
    found = {
        f"{number:03}": PlantDrift.model_validate({"drifted": number >= 100, "share": number / 1000, **same})
        for number in range(1000)
    }
    assert list_pages(found) == [f"{number:03}" for number in range(999, 984, -1)]


def test_no_name_of_a_column_ends_the_script_that_holds_it():
    values = pl.Series(np.random.default_rng(0).normal(size=840) + 5 * (np.arange(840) >= 28 * 24))
    names = ["</script><script>harm()</script>", "01234567-89ab-cdef-0123-456789abcdef"]
    rows = telemetry(**dict.fromkeys(names, values))
    found = compare_windows(rows, keys(rows), names, WINDOW, HOW)
    page = draw_page(*read_windows(rows, keys(rows), names, WINDOW, HOW), found, HOW)
    assert "harm()" in page
    assert "<script>harm()" not in page
    assert names[1] in page


def test_the_longest_script_of_a_page_s_body_is_split_off_however_long_the_plant_s_own_data_are():
    data = "<head><script>var metric_1 = [1, 2, 3]</script></head>"
    page, script = split_script(f"{data}<body><script>long\nscript</script><script>b</script></body>")
    assert script == "long\nscript"
    assert page == f'{data}<body><script src="evidently.js"></script><script>b</script></body>'
