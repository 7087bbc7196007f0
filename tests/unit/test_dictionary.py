import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from upkeep.contract.dictionary import Column, Dictionary, load_dictionary, names_in_words
from upkeep.core.errors import UpkeepError
from upkeep.reporting.templates import render_markdown

KEY = {"type": "text", "role": "key", "meaning": "key"}
TIME = {**KEY, "type": "time"}
ATTRIBUTE = {**KEY, "role": "attribute"}
SENSOR = {"role": "sensor", "meaning": "heat", "unit": "°C", "range": [-20, 130]}


def tables(**sensors: object) -> dict[str, dict[str, object]]:
    who = {"plant": KEY, "machine": KEY}
    return {
        "telemetry": {**who, "time": TIME, **(sensors or {"heat": SENSOR})},
        "events": {**who, "time": TIME, "kind": KEY, "code": ATTRIBUTE},
        "machines": {**who, "model": ATTRIBUTE, "installed": {**ATTRIBUTE, "type": "time"}},
    }


def load(tmp_path: Path, content: object) -> Dictionary:
    path = tmp_path / "dictionary.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return load_dictionary(path)


def test_a_plants_own_column_replaces_the_tables() -> None:
    own = {"hot": {"telemetry": {"heat": {**SENSOR, "range": [0, 900]}}}}
    dictionary = Dictionary.model_validate({"tables": tables(), "plants": own})
    assert dictionary.columns("telemetry", "hot")["heat"].range == [0, 900]
    assert dictionary.columns("telemetry", "cold")["heat"].range == [-20, 130]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"range": [130, -20]}, r"a range is \[lowest, highest\]"),
        ({"values": ["low", "high"]}, "values are for text"),
        ({"type": "text"}, "range and also are for numbers"),
        ({"type": "time", "range": None}, "settings and sensors are numbers"),
        ({"also": {"°F": {"factor": 0}}}, "a factor of 0"),
        ({"role": "setting", "range": None}, "tables.telemetry.heat: .*a setting needs a range"),
        ({"rnage": [0, 1]}, "tables.telemetry.heat.rnage: Extra inputs"),
        ({"role": "key", "required": False}, "a key is always required"),
    ],
)
def test_a_column_that_makes_no_sense_is_refused(tmp_path: Path, column: dict[str, object], message: str) -> None:
    with pytest.raises(UpkeepError, match=message):
        load(tmp_path, {"tables": tables(heat={**SENSOR, **column})})


@pytest.mark.parametrize(
    ("table", "missing", "message"),
    [
        ("telemetry", "time", r"the table telemetry needs time \(time\)"),
        ("events", "kind", r"the table events needs kind \(text\)"),
        ("machines", "machine", r"the table machines needs machine \(text\)"),
        ("machines", "installed", r"cannot be used: the table machines needs installed \(time\)"),
    ],
)
def test_a_table_without_what_every_table_must_hold_is_refused(
    tmp_path: Path, table: str, missing: str, message: str
) -> None:
    content = tables()
    content[table] = {name: column for name, column in content[table].items() if name != missing}
    with pytest.raises(UpkeepError, match=message):
        load(tmp_path, {"tables": content})


FINDING = {**ATTRIBUTE, "required": False, "values": ["defect", "nothing"]}


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"finding": {**FINDING, "values": ["ok"]}}, r"finding of the table events needs values: \[defect, nothing\]"),
        ({"finding": {**FINDING, "values": None}}, r"finding of the table events needs values: \[defect, nothing\]"),
        ({"alarm_at": ATTRIBUTE}, r"the table events needs alarm_at \(time\)"),
    ],
)
def test_what_visits_found_may_be_listed_as_what_it_means_only(
    tmp_path: Path, column: dict[str, object], message: str
) -> None:
    content = tables()
    content["events"] |= {"finding": FINDING, "alarm_at": {**ATTRIBUTE, "type": "time"}, **column}
    with pytest.raises(UpkeepError, match=message):
        load(tmp_path, {"tables": content})


@pytest.mark.parametrize(("table", "name"), [("telemetry", "time"), ("events", "machine"), ("machines", "plant")])
def test_what_a_row_is_nobodys_without_is_a_key(tmp_path: Path, table: str, name: str) -> None:
    content = tables()
    content[table] = {**content[table], name: {**content[table][name], "role": "attribute", "required": False}}
    with pytest.raises(UpkeepError, match=f"the table {table} needs role: key for {name}"):
        load(tmp_path, {"tables": content})


def test_an_attribute_is_of_one_type_in_all_plants_since_one_model_learns_from_them(tmp_path: Path) -> None:
    plants = {
        plant: {"machines": {"power": {**ATTRIBUTE, "type": kind}}} for plant, kind in (("a", "number"), ("b", "text"))
    }
    with pytest.raises(UpkeepError, match="the attribute power of machines is number, but text of plant b"):
        load(tmp_path, {"tables": tables(), "plants": plants})


def test_a_plant_that_breaks_a_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UpkeepError, match=r"the table machines of plant odd needs machine \(text\)"):
        load(tmp_path, {"tables": tables(), "plants": {"odd": {"machines": {"machine": {**KEY, "type": "number"}}}}})


@pytest.mark.parametrize(
    ("table", "name"),
    [
        *(("telemetry", name) for name in ("@row", "*", "^heat.*$", "kind", "code", "model", "installed")),
        *(("events", name) for name in ("@column", "model")),
        *(("machines", name) for name in ("time", "kind", "code")),
    ],
)
def test_a_name_that_upkeep_reads_as_something_else_is_refused_with_what_to_do(
    tmp_path: Path, table: str, name: str
) -> None:
    content = tables()
    content[table] = {**content[table], name: {**SENSOR, "role": "attribute"}}
    with pytest.raises(UpkeepError, match=re.escape(f"the table {table} uses reserved names: {name}; ")) as error:
        load(tmp_path, {"tables": content})
    assert f"fetch.options.{table}.columns, as in my_name: '{name}'" in str(error.value)


@pytest.mark.parametrize("name", ["value", "row", "weight", "label", "time ", "Time", "x$", "^x", "a.*", "", "literal"])
def test_any_other_name_is_fine(tmp_path: Path, name: str) -> None:
    assert name in load(tmp_path, {"tables": tables(**{name: SENSOR})}).columns("telemetry")


LONG = "x" * 100_000


@pytest.mark.parametrize("odd", [LONG, "heat\nor cold"])
@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("tables.telemetry.", lambda odd: {"tables": tables(**{odd: SENSOR})}),
        ("plants.", lambda odd: {"tables": tables(), "plants": {odd: {}}}),
        ("plants.hot.events.", lambda odd: {"tables": tables(), "plants": {"hot": {"events": {odd: ATTRIBUTE}}}}),
        ("tables.telemetry.heat.label", lambda odd: {"tables": tables(heat={**SENSOR, "label": odd})}),
        ("tables.telemetry.heat.also", lambda odd: {"tables": tables(heat={**SENSOR, "also": {odd: {"factor": 2}}})}),
        (
            "tables.events.kind.values",
            lambda odd: {"tables": {**tables(), "events": {"kind": {**KEY, "values": [odd]}}}},
        ),
    ],
)
def test_a_name_that_is_none_is_refused_where_it_stands_and_shown_in_short(
    tmp_path: Path, place: str, content: Callable[[str], object], odd: str
) -> None:
    with pytest.raises(UpkeepError, match=r"a name has (at most 200|no control) characters") as error:
        load(tmp_path, content(odd))
    assert place in error.value.what
    assert len(error.value.what) < 700
    assert "\n" not in error.value.what


@pytest.mark.parametrize("content", ["tables: [", "- a list", "\ttabs"])
def test_a_file_that_is_no_dictionary_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dictionary.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UpkeepError, match="the data dictionary cannot be used") as error:
        load_dictionary(path)
    assert error.value.where["file"] == path


def test_a_column_is_named_without_its_unit() -> None:
    columns = {"vibration_mm_s": "mm/s", "load_pct": "%", "temperature_c": "°C", "sensor_11": None}
    given = {name: Column(meaning="", role="sensor", unit=unit) for name, unit in columns.items()}
    assert list(names_in_words(given).values()) == ["vibration", "load", "temperature", "sensor 11"]


def test_columns_that_only_one_plant_has_are_among_all() -> None:
    dictionary = Dictionary.model_validate({"tables": tables(), "plants": {"hot": {"telemetry": {"flame": SENSOR}}}})
    assert list(dictionary.all_columns("telemetry")) == ["plant", "machine", "time", "heat", "flame"]


def test_the_page_has_a_row_per_column_and_a_section_per_difference() -> None:
    fahrenheit = {"°F": {"factor": 0.5, "offset": -17.5}}
    content = {
        "tables": tables(heat={**SENSOR, "also": fahrenheit, "meaning": "a|b", "required": False}),
        "plants": {"hot": {"telemetry": {"heat": {**SENSOR, "range": [0, 1_234_567]}}}},
    }
    page = render_markdown(
        "data_dictionary.md", dictionary=Dictionary.model_validate(content), source=Path("here.yaml")
    )
    assert "from `here.yaml`" in page
    assert r"| `heat` | a\|b | °C | number | sensor | -20 to 130 | no | °F (`value * 0.5 - 17.5`) |" in page
    assert page.index("## Where plants differ") < page.index("### hot: telemetry")
    assert page.endswith("| `heat` | heat | °C | number | sensor | 0 to 1234567 | yes |  |\n")
