"""A saved model gives rows that its own run judged the bits that were stored, and refuses tables it would misread."""

import shutil

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from trained_fleet import PLANTS

from upkeep.contract.dictionary import TABLES
from upkeep.core.errors import UpkeepError
from upkeep.features.inputs import Preparation
from upkeep.model.storage import Metadata, load_model
from upkeep.releases.rescoring import rescore


def scan(fleet, plant="lyon") -> list[pl.LazyFrame]:
    return [pl.scan_parquet(fleet / f"data/interim/{table}/{plant}.parquet") for table in TABLES]


def stored(fleet, plant="lyon") -> pl.DataFrame:
    return pl.read_parquet(fleet / f"data/predictions/{plant}.parquet").filter("chosen")


def described(fleet, plant="lyon") -> Metadata:
    return load_model(fleet / "models/plants" / plant).metadata


@pytest.mark.parametrize("plant", PLANTS)
def test_the_bits_are_those_that_train_stored(trained_fleet, plant):
    rows = stored(trained_fleet, plant)
    blank = rows.sample(fraction=0.3, seed=1).with_columns(candidate=pl.lit("?"), probability=0.0, alarm=None)
    folder, present = trained_fleet / "models/plants" / plant, described(trained_fleet, plant)
    found = rescore(folder, blank, scan(trained_fleet, plant), present)
    expected = rows.join(blank, on=["machine", "time"], how="semi")
    assert_frame_equal(found, expected.sort("machine", "time"), check_exact=True)


def test_no_rows_give_no_rows(trained_fleet):
    rows = stored(trained_fleet).clear()
    found = rescore(trained_fleet / "models/plants/lyon", rows, scan(trained_fleet), described(trained_fleet))
    assert found.schema == rows.schema


def test_frames_serve_as_well_as_files(trained_fleet):
    rows, tables = stored(trained_fleet).head(5), scan(trained_fleet)
    folder, present = trained_fleet / "models/plants/lyon", described(trained_fleet)
    frames = [table.collect() for table in tables]
    assert rescore(folder, rows, frames, present).equals(rescore(folder, rows, tables, present))


def other_unit(preparation: Preparation) -> Preparation:
    telemetry = preparation.quantities["telemetry"]
    quantity = telemetry["vibration_mm_s"].model_copy(update={"unit": "in/s"})
    return preparation.model_copy(update={"quantities": {"telemetry": telemetry | {"vibration_mm_s": quantity}}})


def without_a_sensor(preparation: Preparation) -> Preparation:
    telemetry = {name: column for name, column in preparation.quantities["telemetry"].items() if name != "current_a"}
    return preparation.model_copy(update={"quantities": {"telemetry": telemetry}})


def every_hour(preparation: Preparation) -> Preparation:
    return preparation.model_copy(update={"rows_every": "1h"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_unit, "column telemetry.vibration_mm_s was in mm/s, and is in in/s"),
        (without_a_sensor, "column telemetry.current_a was in A, and is not there"),
        (every_hour, "rows_every of the data dictionary was None, and is 1h"),
    ],
)
def test_tables_that_mean_something_else_are_not_read(trained_fleet, change, told):
    present = described(trained_fleet)
    present = present.model_copy(update={"preparation": change(present.preparation)})
    with pytest.raises(UpkeepError, match=told):
        rescore(trained_fleet / "models/plants/lyon", stored(trained_fleet), scan(trained_fleet), present)


def test_a_model_reads_only_what_is_thinned_out_as_its_own_rows_were(trained_fleet):
    present = described(trained_fleet).model_copy(update={"near_duplicate_seconds": 0})
    with pytest.raises(UpkeepError, match="near_duplicate_seconds was 60, and is 0"):
        rescore(trained_fleet / "models/plants/lyon", stored(trained_fleet), scan(trained_fleet), present)


def test_a_plant_that_the_models_do_not_know_is_told(trained_fleet, tmp_path):
    rows, present = stored(trained_fleet, "porto"), described(trained_fleet, "porto")
    with pytest.raises(UpkeepError, match="there is no model"):
        rescore(tmp_path / "porto", rows, scan(trained_fleet, "porto"), present)
    shutil.copytree(trained_fleet / "models/plants/lyon", tmp_path / "porto")
    with pytest.raises(UpkeepError, match="the model is of plant lyon"):
        rescore(tmp_path / "porto", rows, scan(trained_fleet, "porto"), present)


def test_rows_that_are_not_in_the_tables_are_told(trained_fleet):
    later = stored(trained_fleet).head(3).with_columns(pl.col("time").dt.offset_by("2y"))
    with pytest.raises(UpkeepError, match="3 rows to be scored are not in the telemetry"):
        rescore(trained_fleet / "models/plants/lyon", later, scan(trained_fleet), described(trained_fleet))
