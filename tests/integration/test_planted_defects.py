"""What the simulator spoilt on purpose is what validate finds, row for row."""

import json
import shutil

import polars as pl
import pytest
from conftest import ROOT
from parameters import SHIPPED, changed
from planted_defects import planted_defects

from upkeep.core import paths
from upkeep.stages import fetch, validate

SMALLER = {"plants": dict.fromkeys(SHIPPED.fetch.options["plants"], 3)}
PARAMS = SHIPPED.model_copy(
    update={
        "fetch": changed(SHIPPED.fetch, until="2025-08-04", options=SHIPPED.fetch.options | SMALLER),
        "parallel": changed(SHIPPED.parallel, backend="sequential"),
    }
)


@pytest.fixture(scope="module")
def quality(tmp_path_factory):
    """What validate says of the default fleet, but for a few weeks and machines that are as others."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(ROOT / "data/references", folder / "data/references")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fetch.run(PARAMS)
        validate.run(PARAMS)
        return json.loads(paths.DATA_QUALITY.read_text(encoding="utf-8"))["plants"]


@pytest.fixture(scope="module")
def planted() -> pl.DataFrame:
    fetched = PARAMS.fetch
    return planted_defects(fetched.options, fetched.until, fetched.batch_days).filter(table="telemetry")


def rows(planted, plant, *kinds):
    return planted.filter(pl.col("kind").is_in(kinds), plant=plant)["rows"].sum()


def places(planted, kind):
    """Each plant, batch and column in which a defect of this kind was planted."""
    return set(planted.filter(kind=kind).select("plant", pl.col("batch").cast(pl.String), "column").iter_rows())


def found(quality, kind):
    return [(plant, item) for plant, said in quality.items() for item in said["findings"] if item["kind"] == kind]


@pytest.mark.parametrize(
    ("reason", "kind"), [("not a number", "unparsable"), ("null key", "null_key"), ("out of range", "spike")]
)
def test_each_broken_row_is_quarantined_for_its_reason_and_no_other_row(quality, planted, reason, kind):
    for plant, said in quality.items():
        assert said["tables"]["telemetry"]["quarantined"][reason] == rows(planted, plant, kind)


def test_each_copied_row_is_dropped_once(quality, planted):
    for plant, said in quality.items():
        dropped = said["tables"]["telemetry"]["duplicates"]
        assert dropped["exact"] == rows(planted, plant, "exact_duplicate", "repeated_batch")
        assert dropped["near"] == rows(planted, plant, "near_duplicate")


def test_a_changed_unit_is_found_in_each_batch_and_nowhere_else(quality, planted):
    batches = {(plant, batch) for plant, batch, _ in places(planted, "unit_change")}
    stretches = [(plant, item["from"], item["to"]) for plant, item in found(quality, "unit_converted")]
    assert {plant for plant, _, _ in stretches} == {plant for plant, _ in batches}
    assert all(any(plant == p and a <= batch <= b for p, a, b in stretches) for plant, batch in batches)
    assert sum(int(item["detail"].split(" in ")[1].split()[0]) for _, item in found(quality, "unit_converted")) == len(
        batches
    )


def test_a_new_and_a_vanished_column_are_reported_from_their_first_batch(quality, planted):
    for kind, finding in (("new_column", "extra_column"), ("vanished_column", "missing_column")):
        ((plant, item),) = found(quality, finding)
        assert (plant, item["batch"], item["column"]) == min(places(planted, kind))


def test_missing_batches_and_late_rows_are_reported(quality, planted):
    gone = {(plant, batch) for kind in ("missing_batch", "late_batch") for plant, batch, _ in places(planted, kind)}
    assert {(plant, item["batch"]) for plant, item in found(quality, "missing_batch")} == gone
    assert len(found(quality, "late_rows")) == planted.filter(kind="late_rows").height


def test_most_stuck_sensors_are_found_in_their_machine(quality, planted):
    stuck = set(planted.filter(kind="stuck_sensor").select("plant", "machine", "column").iter_rows())
    said = {(plant, item["machine"], item["column"]) for plant, item in found(quality, "stuck_sensor")}
    assert len(stuck & said) >= 0.9 * len(stuck)
