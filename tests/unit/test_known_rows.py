"""A split's features are made of what its rows can know and have the bits of those made of the whole record."""

from itertools import pairwise

import numpy as np
import polars as pl
from fleet_cases import at, dataset_params, events, machines, telemetry
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from upkeep.features.definition import build_features, fit_preparation
from upkeep.features.inputs import Vocabulary
from upkeep.stages.dataset import Tables, find_known

VOCABULARY = Vocabulary(
    settings=["speed"],
    widths=[100.0],
    sensors=["heat"],
    error_codes=["E1"],
    maintenance_codes=["repair"],
    machine_models=["A"],
)
HOURS = 60
MACHINES = ("m1", "m2")
HAPPENED = [("error", "E1"), ("maintenance", "repair"), ("failure", "bearing")]


@st.composite
def records(draw):
    """Tables of two machines, one of which may begin late, with gaps in rows and readings, and events at any time."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for machine in MACHINES:
        hours = np.arange(draw(st.integers(0, HOURS - 1)), HOURS)
        hours = hours[rng.random(hours.size) < draw(st.sampled_from([0.2, 0.7, 1.0]))]
        heat = [None if rng.random() < 0.1 else float(value) for value in rng.normal(size=hours.size)]
        rows.append(telemetry(hours.tolist(), machine, speed=rng.choice([20.0, 80.0], hours.size).tolist(), heat=heat))
    happened = [
        events(
            (draw(st.integers(-5, HOURS)), *draw(st.sampled_from(HAPPENED))), machine=draw(st.sampled_from(MACHINES))
        )
        for _ in range(draw(st.integers(0, 6)))
    ]
    known = machines(("m1", "A", -30), ("m2", None, None))
    return Tables(pl.concat(rows), pl.concat([events(), *happened]), known)


@given(records(), st.sets(st.integers(1, HOURS - 1), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 12))
def test_parts_cut_anywhere_have_the_bits_of_the_whole(tables, cuts, window, baseline):
    params = dataset_params(windows_hours=sorted({window, 6}), baseline_hours=baseline)
    preparation = fit_preparation(tables.telemetry, tables.telemetry, VOCABULARY, params)
    whole = build_features(*tables, preparation, params)
    ends = [at(hour) for hour in (-1, *sorted(cuts), HOURS)]
    for first, last in pairwise(ends):
        wanted = whole.filter(pl.col("time") > first, pl.col("time") <= last)
        found = build_features(*find_known(wanted.select("machine", "time"), tables, params), preparation, params)
        own = wanted.select("machine", "time").join(found, on=["machine", "time"], maintain_order="left")
        assert_frame_equal(own.select(wanted.columns), wanted, check_exact=True)


def test_what_is_known_ends_with_the_rows_and_reaches_back_to_all_events():
    tables = Tables(
        telemetry(list(range(HOURS)), heat=[0.0] * HOURS),
        events((0, "maintenance", "repair"), (31, "error", "E1")),
        machines(("m1", "A", 0), ("m2", "A", 0)),
    )
    rows = tables.telemetry.filter(pl.col("time").is_between(at(20), at(30)))
    known = find_known(rows, tables, dataset_params(windows_hours=[2, 6], baseline_hours=5))
    assert (known.telemetry["time"].min(), known.telemetry["time"].max()) == (at(14), at(30))
    assert known.events["kind"].to_list() == ["maintenance"]
    assert known.machines["machine"].to_list() == ["m1"]
    assert [table.height for table in find_known(rows.clear(), tables, dataset_params())] == [0, 0, 0]
