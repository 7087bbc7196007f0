"""The stage that makes features, on small plants."""

from pathlib import Path

import polars as pl
import pytest
import yaml
from fleet_cases import at, dataset_params, events, machines, telemetry

from upkeep.contract.dictionary import Dictionary
from upkeep.core import paths
from upkeep.core.params import load_params
from upkeep.stages import dataset

ROOT = Path(__file__).parents[2]
KEY = {"meaning": "key", "role": "key"}
SPEED = {"meaning": "speed", "role": "setting"}
FLAME = pl.col("heat").sin().alias("flame")


def dictionary(everywhere: list[float], **plants: list[float]) -> Dictionary:
    """A dictionary of one setting, `speed`, with its range everywhere and in single plants."""
    machine_keys = {"plant": {**KEY, "type": "text"}, "machine": {**KEY, "type": "text"}}
    keys = {**machine_keys, "time": {**KEY, "type": "time"}}
    text = {"meaning": "text", "role": "attribute", "type": "text"}
    tables = {
        "telemetry": {**keys, "speed": {**SPEED, "range": everywhere}, "heat": {"meaning": "heat", "role": "sensor"}},
        "events": {**keys, "kind": text, "code": text},
        "machines": {**machine_keys, "model": text, "installed": {**text, "type": "time"}},
    }
    own = {plant: {"telemetry": {"speed": {**SPEED, "range": bounds}}} for plant, bounds in plants.items()}
    return Dictionary.model_validate({"tables": tables, "plants": own})


@pytest.mark.parametrize("plants", [["lyon", "porto"], ["porto", "lyon"]])
def test_the_range_of_a_setting_is_that_of_all_plants_together(plants):
    known = dictionary([0, 10], porto=[5, 30])
    assert dataset.measure_settings(known, plants) == {"speed": 30}
    assert dataset.measure_settings(known, ["lyon"]) == {"speed": 10}


TABLES = {
    "telemetry": telemetry(list(range(300)), speed=[hour % 7 for hour in range(300)], heat=list(range(300))),
    "events": events(),
    "machines": machines(("m1", "A", 0)),
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write parameters, a dictionary and the reconciled tables of two plants, with what telemetry has besides."""
    monkeypatch.chdir(tmp_path)

    def write(known: Dictionary, **more: pl.Expr) -> None:
        Path("dictionary.yaml").write_text(yaml.safe_dump(known.model_dump(exclude_unset=True)))
        given = yaml.safe_load((ROOT / "params.yaml").read_text())
        given["validate"]["dictionary"] = "dictionary.yaml"
        given["parallel"]["backend"] = "sequential"
        Path("params.yaml").write_text(yaml.safe_dump(given))
        for plant in ("lyon", "porto"):
            for name, table in TABLES.items():
                own = [more[plant]] if name == "telemetry" and plant in more else []
                file = paths.INTERIM / name / f"{plant}.parquet"
                file.parent.mkdir(parents=True, exist_ok=True)
                table.with_columns(*own, plant=pl.lit(plant)).write_parquet(file)

    return write


@pytest.mark.parametrize("plant", ["lyon", "porto"])
def test_a_sensor_that_one_plant_alone_has_is_unknown_in_the_others(write, plant):
    known = dictionary([0, 10])
    flame = {"telemetry": {"flame": {"meaning": "flame", "role": "sensor"}}}
    write(known.model_validate(known.model_dump(exclude_unset=True) | {"plants": {plant: flame}}), **{plant: FLAME})
    dataset.run(load_params())
    for own in paths.PROCESSED.iterdir():
        assert pl.read_parquet(own / "train.parquet")["flame"].is_nan().all() == (own.name != plant)


def test_a_plant_that_is_gone_leaves_no_rows_behind(write):
    write(dictionary([0, 10]))
    dataset.run(load_params())
    for name in TABLES:
        (paths.INTERIM / name / "porto.parquet").unlink()
    dataset.run(load_params())
    assert [folder.name for folder in paths.PROCESSED.iterdir()] == ["lyon"]


def test_attributes_of_machines_are_features_unless_the_dictionary_says_no(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = dictionary([0, 10]).model_dump(exclude_unset=True)
    attribute = {"meaning": "fact", "role": "attribute"}
    known["tables"]["machines"] |= {
        "power": attribute,
        "serial": {**attribute, "type": "text"},
        "hall": {**attribute, "type": "text"},
        "colour": {**attribute, "type": "text", "input": False},
    }
    known["tables"]["telemetry"]["speed"]["input"] = True
    known["plants"] = {"q": {"machines": {"colour": {**attribute, "input": False}}}}
    hours = list(range(300))
    rows = pl.concat(telemetry(hours, machine, speed=hours, heat=hours) for machine in ("m1", "m2", "m3"))
    facts = machines(*((name, "A", 0) for name in ("m1", "m2", "m3"))).with_columns(
        power=pl.Series([1.0, 2.0, None]),
        serial=pl.Series(["a", "b", "c"]),
        hall=pl.Series(["east", "east", "west"]),
        colour=pl.lit("red"),
    )
    for name, table in {"telemetry": rows, "events": events(), "machines": facts}.items():
        folder = paths.INTERIM / name
        folder.mkdir(parents=True)
        table.write_parquet(folder / "p.parquet")
        table.clear().cast({"colour": pl.Float64} if name == "machines" else {}).write_parquet(folder / "q.parquet")
    fleet = [(name, dataset._read_tables(name)) for name in ("p", "q")]
    vocabulary = dataset.find_vocabulary(fleet, (at(200), at(250)), Dictionary.model_validate(known), dataset_params())
    assert vocabulary.inputs == ["speed"]
    # What one machine alone has would let the model learn that machine by heart.
    assert vocabulary.attributes == {"power": None, "serial": [], "hall": ["east"]}
