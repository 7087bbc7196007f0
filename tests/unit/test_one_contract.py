"""One contract: a table of anything is read by the service as `validate` reads it, value by value."""

import csv
import io
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parameters import SHIPPED as SHIPPED_PARAMS
from parameters import changed

from upkeep.contract.dictionary import Column, Dictionary, load_dictionary
from upkeep.contract.reconcile import Delivered
from upkeep.contract.validation import check_table
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.features.conditions import Conditions
from upkeep.features.inputs import Preparation, Vocabulary
from upkeep.model.storage import Metadata
from upkeep.serving.request import Contract, read_request
from upkeep.serving.table import read_table
from upkeep.sources.delimited import read_delimited

SHIPPED = load_dictionary(Path(__file__).parents[2] / "data/references/dictionary.yaml")
POWER = {"power_kw": Column(meaning="Rated power", role="attribute")}
DICTIONARY = SHIPPED.model_copy(
    update={"tables": {**SHIPPED.tables, "machines": {**SHIPPED.tables["machines"], **POWER}}}
)
REDUCED = DICTIONARY.model_copy(update={"rows_every": "1m"})
PLANT, NEAR_SECONDS = "lyon", 60
BATCH = date(2025, 1, 6)
STRICTNESS = changed(SHIPPED_PARAMS.validate_, max_near_duplicate_share=1.0)
SETTINGS, SENSORS = (
    ["speed_rpm", "load_pct"],
    ["vibration_mm_s", "temperature_c", "pressure_bar", "current_a", "humidity_pct"],
)
NUMBERS = [*SETTINGS, *SENSORS]
COLUMNS = ["plant", "machine", "time", "kind", "code", "model", "installed", "power_kw", *NUMBERS]
TELEMETRY = ["plant", "machine", "time", *NUMBERS]
EVENTS = ["plant", "machine", "time", "kind", "code"]
MACHINES = ["plant", "machine", "model", "installed", "power_kw"]

ODD_NUMBERS = [
    *(
        "",
        " ",
        "1.5",
        " 2 ",
        "\u00a03",
        "\x1f4",
        "5\n",
        "1_000",
        "\u0661",
        "\uff11",
        "\u0663.\u0665",
        "1e1",
        "1E1",
        "1e20",
        "1e400",
        "1e-400",
    ),
    *("+4", "-0", "--1", ".5", "5.", "1,5", "1 000", "0x10", "1\x00", "nan", "NaN", "-nan", "inf", "-Infinity", "+inf"),
    *("true", "True", "null", "None", "n/a", "-"),
]
ODD_TIMES = [
    *("2025-01-06T13:00:00Z", "2025-01-06T13:00:10Z", "2025-01-06T13:00:59Z", "2025-01-06T13:01:00Z"),
    *("2025-01-06T23:59:60Z", "2025-01-06T24:00:00Z", "2025-01-06T12:60:00Z", "2025-02-30T00:00:00Z"),
    *(
        "2025-W02-1T13:00:00Z",
        "2025-W02-1",
        "2025-006",
        "20250106T130000Z",
        "2025-01-06",
        "2025-01-06 13:00",
        "2025-01-06T13",
    ),
    *("2025-01-06T13:00:00", "2025-01-06T13:00:00+02:00", "2025-01-06T13:00:00+0200", "2025-01-06 13:00:00-02"),
    *("2025-01-06T13:00:00.5Z", "2025-01-06T13:00:00.123456789Z", "2025-01-06T13:00:00,5Z", "2025-01-06T13:00:00 UTC"),
    *(
        "2025-01-06t13:00:00z",
        " 2025-01-06T13:00:00Z ",
        "\u00a02025-01-06",
        "\u0662\u0660\u0662\u0665-01-06T13:00:00Z",
        "2025-01-06T13:00:0\u0661Z",
    ),
    *("0000-01-01T00:00:00Z", "1899-12-31T23:59:59Z", "1900-01-01T00:00:00Z", "2199-12-31T23:59:59Z"),
    *("2200-01-01T00:00:00Z", "2200-01-01T00:00:01Z", "-001-01-01T00:00:00Z", "1736168400", "", " ", "NaT", "now"),
]
NAMES = ["M1", " M1", "M1 ", "\tM1\n", "M1\u00a0", "M1\u2003", "M1\x1f", "m1", "7", "7.0", "Säge", "", " "]
OF_MACHINES = {
    "installed": ODD_TIMES,
    "model": ["A", " A ", "", "B\x1f"],
    "power_kw": ["7.5", " 2 ", "", "1e1", "1,5", "NaN"],
}
KINDS = ["error", " error ", "maintenance", "failure", "Failure", "party", "error\x1f"]
CODES = ["E1", " E1", "E1\u00a0", "", " ", "bearing", None]


def anything_or(odd, *, alphabet=None):
    return st.one_of(st.sampled_from(odd), st.text(alphabet, max_size=4) if alphabet else st.text(max_size=4))


def numbers_of_one_type():
    """Cells of a column of numbers, as the types of a Parquet file or of JSON have them; text is what CSV has."""
    # Between 130 and 266 a temperature would be read as °F, by what all rows say: another test's matter.
    plain = st.one_of(st.floats(0, 16), st.floats(-100, 130))
    return st.sampled_from(
        [
            st.one_of(st.none(), plain),
            st.one_of(st.none(), st.integers(-100, 130), st.integers(2**53, 2**64 - 1)),
            st.one_of(st.none(), st.booleans()),
            st.one_of(st.none(), anything_or(ODD_NUMBERS, alphabet="0123456789.,eE+-_ "), plain.map(repr)),
        ]
    )


def names_of_one_type():
    return st.sampled_from(
        [
            anything_or(NAMES),
            st.sampled_from([7, 8, 2**63]),
            st.sampled_from([7.0, 7.5, -0.0, 1e20, 1e-7, 123456789.0]),
            st.booleans(),
        ]
    )


PLAIN = {
    "plant": st.just(PLANT),
    "machine": st.sampled_from(["M1", "M1", "M2"]),
    "time": st.sampled_from([f"2025-01-06T{hour}:00:{second:02d}Z" for hour in (13, 14) for second in (0, 10, 59)]),
    "kind": st.sampled_from([None, None, None, "error", "maintenance", "failure"]),
    "code": st.sampled_from(["E1", "bearing", "E2", None]),
    **dict.fromkeys(NUMBERS, st.one_of(st.none(), st.floats(0, 16, allow_subnormal=False))),
}
ODD = {
    "time": anything_or(ODD_TIMES),
    "kind": st.one_of(st.none(), st.sampled_from(KINDS)),
    "code": st.sampled_from(CODES),
    **dict.fromkeys(NUMBERS, st.one_of(st.none(), anything_or(ODD_NUMBERS, alphabet="0123456789.,eE+-_ "))),
}


@st.composite
def tables(draw, *, text_only=False):
    """Rows of one plant: readings and events; in up to three columns, of one type each, cells of anything."""
    size = draw(st.integers(1, 10))
    odd = draw(st.sets(st.sampled_from(["machine", "model", "installed", "power_kw", *ODD]), max_size=3))
    table = {}
    for name in COLUMNS:
        if name in OF_MACHINES:  # a request says them on each row
            cells = st.just(draw(st.sampled_from(OF_MACHINES[name])) if name in odd else None)
        elif name == "machine" and name in odd:
            cells = st.sampled_from(NAMES) if text_only else draw(names_of_one_type())
        elif name in NUMBERS and name in odd and not text_only:
            cells = draw(numbers_of_one_type())
        else:
            cells = ODD[name] if name in odd else PLAIN[name]
        table[name] = draw(st.lists(cells, min_size=size, max_size=size))
    return {name: as_text(cells) for name, cells in table.items()} if text_only else table


def as_text(cells):
    return [None if cell is None else str(cell) for cell in cells]


def service_preparation(dictionary: Dictionary, plant: str = PLANT):
    vocabulary = Vocabulary(
        settings=SETTINGS,
        widths=[4000, 120],
        sensors=dictionary.names("telemetry", "sensor", plant),
        error_codes=["E1"],
        maintenance_codes=["bearing"],
        machine_models=["A"],
        attributes={"power_kw": None},
    )
    conditions = Conditions(widths=[1.0], centres=[[0.0]], levels=[[0.0]], spreads=[[1.0]])
    made = {"conditions": conditions, "baselines": {}, "records": {}, "rows_every": dictionary.rows_every}
    return Preparation(vocabulary=vocabulary, **made)


def service_contract(dictionary: Dictionary = DICTIONARY, plant: str = PLANT):
    preparation = service_preparation(dictionary, plant)
    metadata = Metadata.model_construct(plant=plant, near_duplicate_seconds=NEAR_SECONDS, preparation=preparation)
    return Contract(metadata, dictionary)


def ask_service(body, content_type="application/json", contracts=None):
    return read_request(read_table(body, content_type, {}), contracts or {PLANT: service_contract()})


def as_json(table):
    rows = [list(row) for row in zip(*table.values(), strict=True)]
    return orjson.dumps({"dataframe_split": {"columns": list(table), "data": rows}})


def check(table, name, columns, every=None):
    """What `validate` makes of a delivery's rows."""
    delivered = Delivered(BATCH, 1, table.select(columns).lazy)
    days = (datetime.now(UTC).date() - BATCH).days + 1  # what is ahead of the service's clock is after this batch
    return check_table(name, PLANT, [delivered], DICTIONARY.columns(name, PLANT), STRICTNESS, days, every)


def ask_validate(frame, every):
    """Tables of clean rows, and the machines that lost a row to a value that could not be read."""
    is_reading = pl.col("kind").str.strip_chars().fill_null("") == ""
    checked = {
        "telemetry": check(frame.filter(is_reading), "telemetry", TELEMETRY, every),
        "events": check(frame.filter(~is_reading), "events", EVENTS),
        "machines": check(frame, "machines", MACHINES),
    }
    unreadable = {
        row["machine"]
        for part in checked.values()
        for row in part.quarantined.iter_rows(named=True)
        if row["reason"] not in ("out of range", "after its batch", "clock was reset")
    }
    return {name: part.clean for name, part in checked.items()}, unreadable


def assert_read_alike(frame, answer, dictionary=DICTIONARY):
    requests, faults = answer
    clean, unreadable = ask_validate(frame, dictionary.row_length)
    sensors = dictionary.names("telemetry", "sensor", PLANT)
    refused = {fault.machine for fault in faults}
    read = requests.get(PLANT)
    answered = set(read.rows.machines) if read else set()
    assert answered == set(clean["telemetry"]["machine"]) - unreadable
    assert {name and shorten(name) for name in unreadable} <= refused
    for index, machine in enumerate(read.rows.machines if read else []):
        rows = clean["telemetry"].filter(machine=machine)
        here = slice(read.rows.starts[index], read.rows.starts[index + 1])
        assert read.rows.time[here].tolist() == rows["time"].dt.timestamp("us").to_list()
        for names, values in ((SETTINGS, read.rows.settings), (sensors, read.rows.readings)):
            wanted = rows.select(pl.col(names).fill_null(float("nan"))).to_numpy()
            np.testing.assert_array_equal(values[here], wanted, strict=True)
        known = clean["events"].filter(
            pl.col("machine") == machine,
            (pl.col("kind") == "failure")
            | pl.concat_str("kind", "code").is_in(["errorE1", "maintenancebearing"]).fill_null(False),
        )
        happened = read.events.time[read.events.machine == index]
        assert sorted(happened.tolist()) == sorted(known["time"].dt.timestamp("us").to_list())
        (record,) = clean["machines"].filter(machine=machine).with_columns(pl.col("installed").to_physical()).to_dicts()
        power = {} if record["power_kw"] is None else {"power_kw": record["power_kw"]}
        known_of = {"model": record["model"], "installed": record["installed"], "attributes": power}
        assert read.records[machine].model_dump() == known_of


@settings(max_examples=60)
@given(tables())
def test_json_is_read_as_validate_reads_columns_of_its_types(table):
    frame = pl.DataFrame({name: pl.Series(cells, dtype=column_type(cells)) for name, cells in table.items()})
    assert_read_alike(frame, ask_service(as_json(table)))


@settings(max_examples=30)
@given(tables())
def test_readings_are_reduced_as_validate_reduces_them(table):
    frame = pl.DataFrame({name: pl.Series(cells, dtype=column_type(cells)) for name, cells in table.items()})
    answer = ask_service(as_json(table), contracts={PLANT: service_contract(REDUCED)})
    assert_read_alike(frame, answer, REDUCED)


@pytest.mark.parametrize(("dictionary", "trained"), [(REDUCED, DICTIONARY), (DICTIONARY, REDUCED)])
def test_a_model_that_was_trained_on_other_rows_is_not_served(dictionary, trained):
    preparation = service_preparation(trained)
    metadata = Metadata.model_construct(plant=PLANT, near_duplicate_seconds=NEAR_SECONDS, preparation=preparation)
    with pytest.raises(UpkeepError, match=f"rows_every: {dictionary.rows_every or 'nothing'}"):
        Contract(metadata, dictionary)


def column_type(cells):
    types = {type(cell) for cell in cells if cell is not None}
    if types == {int}:
        return pl.Int128  # JSON's integers reach beyond both of 64 bits
    return {frozenset({bool}): pl.Boolean, frozenset({float}): pl.Float64}.get(frozenset(types), pl.String)


@settings(max_examples=30)
@given(tables(text_only=True))
def test_csv_is_read_as_validate_reads_the_same_file(table):
    text = io.StringIO()
    # A value that spans lines is refused as a whole.
    lines = [[cell and cell.translate({10: " ", 13: " "}) for cell in row] for row in zip(*table.values(), strict=True)]
    csv.writer(text).writerows([list(table), *lines])
    content = text.getvalue().encode()
    assert_read_alike(pl.read_csv(content, infer_schema=False), ask_service(content, "text/csv"))


@pytest.mark.parametrize(("separator", "end"), [(", ", ""), (",", ","), (" ,\t", ",")])
def test_csv_with_blanks_around_its_names_or_a_separator_at_each_end_is_read_as_validate_reads_it(separator, end):
    header = ["plant", "machine", "time", "kind", "code", *OF_MACHINES, *NUMBERS]
    row = [PLANT, "M1", "2025-01-06T13:00:00Z", "", "", *[""] * len(OF_MACHINES), *["1.5"] * len(NUMBERS)]
    content = f"{separator.join(header)}\n{','.join(row)}{end}\n".encode()
    frame = read_delimited(content, ",", "utf-8", SHIPPED_PARAMS.limits)
    assert_read_alike(frame, ask_service(content, "text/csv"))


@pytest.mark.parametrize("truth", ["true", "False", " TRUE", "trueish"])
def test_a_signal_in_text_is_a_number_to_the_service_as_to_validate(truth):
    table = {name: [None, None] for name in COLUMNS} | {"plant": [PLANT] * 2, "machine": ["M1", "M1"]}
    table |= {"time": ["2025-01-06T13:00:00Z", "2025-01-06T14:00:00Z"], "humidity_pct": [truth, truth]}
    assert_read_alike(pl.DataFrame(table, dict.fromkeys(table, pl.String)), ask_service(as_json(table)))


@given(st.lists(st.one_of(st.none(), st.floats(-60, 300, allow_subnormal=False)), min_size=1, max_size=8))
def test_another_unit_is_told_from_the_values_as_validate_tells_it(temperatures):
    table = {
        "plant": [PLANT] * len(temperatures),
        "machine": ["M1"] * len(temperatures),
        "time": [f"2025-01-06T{hour:02d}:00:00Z" for hour in range(len(temperatures))],
        **dict.fromkeys(["kind", "code", *OF_MACHINES], [None] * len(temperatures)),
        **{name: [1.0] * len(temperatures) for name in NUMBERS},
        "temperature_c": temperatures,
    }
    schema = dict.fromkeys(COLUMNS, pl.String) | dict.fromkeys(NUMBERS, pl.Float64)
    assert_read_alike(pl.DataFrame(table, schema=schema), ask_service(as_json(table)))


def rows_of(plant, **columns):
    """Two readings a minute apart of one machine, of which nothing else is known."""
    table = {"plant": [plant] * 2, "machine": ["M1"] * 2, "time": ["2025-01-06T13:00:00Z", "2025-01-06T13:01:00Z"]}
    return table | {name: [cell] * 2 for name, cell in columns.items()}


def test_each_plants_rows_are_judged_by_its_own_dictionary():
    whole = DICTIONARY.model_dump()
    level = {"meaning": "Oil level, which lyon measures and porto writes down", "role": "sensor"}
    text = {**level, "type": "text", "role": "attribute"}
    dictionary = Dictionary.model_validate(
        whole | {"plants": {"lyon": {"telemetry": {"oil": level}}, "porto": {"telemetry": {"oil": text}}}}
    )
    contracts = {plant: service_contract(dictionary, plant) for plant in ("lyon", "porto")}
    both = {
        name: lyon + porto
        for (name, lyon), porto in zip(
            rows_of("lyon", oil=1.5).items(), rows_of("porto", oil="half full").values(), strict=True
        )
    }
    requests, faults = ask_service(as_json(both), contracts=contracts)
    assert set(requests) == {"lyon", "porto"}
    assert faults == []
    _, faults = ask_service(as_json(rows_of("lyon", oil="half full")), contracts=contracts)
    assert [(fault.column, fault.what) for fault in faults] == [("oil", "oil is 'half full'")]


def test_a_sensor_that_the_plant_does_not_have_is_not_read():
    whole = DICTIONARY.model_dump()
    telemetry = {name: column for name, column in whole["tables"]["telemetry"].items() if name != "vibration_mm_s"}
    dictionary = Dictionary.model_validate({"tables": whole["tables"] | {"telemetry": telemetry}})
    requests, _ = ask_service(
        as_json(rows_of(PLANT, vibration_mm_s=2.0)), contracts={PLANT: service_contract(dictionary)}
    )
    assert np.isnan(requests[PLANT].rows.readings).all()
    (cautions,) = requests[PLANT].cautions
    assert [caution["column"] for caution in cautions] == ["vibration_mm_s"]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("machine", "x" * 100_000, "at most 200 characters"),
        ("model", "x" * 201, "at most 200 characters"),
        ("machine", "M\x1b[2J", "no control characters and no line breaks"),
        ("power_kw", 700.0, "0 to 50 kW"),
        ("power_kw", "700", "0 to 50 kW"),
    ],
)
def test_what_would_cost_a_machine_its_rows_in_the_pipeline_costs_it_the_answer_of_the_service(column, value, expected):
    power = Column(meaning="Rated power", role="attribute", range=[0, 50], unit="kW")
    machines = {**SHIPPED.tables["machines"], "power_kw": power}
    dictionary = SHIPPED.model_copy(update={"tables": {**SHIPPED.tables, "machines": machines}})
    requests, [refused] = ask_service(
        as_json(rows_of(PLANT) | {column: [value] * 2}), contracts={PLANT: service_contract(dictionary)}
    )
    assert (requests, refused.column, refused.expected) == ({}, column, expected)
    assert max(map(len, (refused.machine, refused.what))) <= 200


def test_readings_seconds_apart_are_one_and_the_first_counts():
    table = rows_of(PLANT, load_pct=50.0)
    table["time"] = ["2025-01-06T13:00:40Z", "2025-01-06T13:00:30Z"]
    requests, _ = ask_service(as_json(table))
    assert requests[PLANT].rows.time.tolist() == [1_736_168_440_000_000]
    (caution,) = requests[PLANT].cautions[0]
    assert caution["message"] == "1 rows left out: the machine has one within the same 60 s already"


def test_a_machine_that_sends_another_unit_is_converted_and_told_so():
    requests, _ = ask_service(as_json(rows_of(PLANT, temperature_c=212.0)))
    assert requests[PLANT].rows.readings[:, SENSORS.index("temperature_c")].tolist() == pytest.approx([100.0, 100.0])
    assert requests[PLANT].cautions[0][-1] == {
        "code": "unit_converted",
        "message": "temperature_c came in °F instead of °C: converted",
        "column": "temperature_c",
    }


def test_an_attribute_that_another_plants_machines_alone_have_costs_no_plant_its_service():
    dictionary = SHIPPED.model_copy(update={"plants": {"porto": {"machines": POWER}}})
    contracts = {plant: service_contract(dictionary, plant) for plant in ("lyon", "porto")}
    for plant, known in {"lyon": {}, "porto": {"power_kw": 7.5}}.items():
        requests, faults = ask_service(as_json(rows_of(plant, power_kw=7.5)), contracts=contracts)
        assert faults == []
        assert requests[plant].records["M1"].attributes == known


def test_the_log_holds_the_rows_of_fast_readings_and_asked_with_them_the_service_reads_the_same():
    every_second = [f"2025-01-06T13:{second // 60:02d}:{second % 60:02d}Z" for second in range(600)]
    readings = [
        {"plant": PLANT, "machine": "M1", "time": time, "load_pct": 50.0 + number % 7, "model": "A", "mood": "fine"}
        for number, time in enumerate(every_second)
    ]
    error = {"plant": PLANT, "machine": "M1", "time": every_second[5], "kind": "error", "code": "E1"}
    contracts = {PLANT: service_contract(REDUCED)}
    requests, _ = ask_service(orjson.dumps({"dataframe_records": [*readings, error]}), contracts=contracts)
    (logged,) = requests[PLANT].inputs
    again, faults = ask_service(f'{{"dataframe_split": {logged}}}'.encode(), contracts=contracts)
    assert len(logged) < 5_000
    assert (faults, again[PLANT].records) == ([], requests[PLANT].records)
    for tables in ("rows", "events"):
        for once, twice in zip(getattr(requests[PLANT], tables), getattr(again[PLANT], tables), strict=True):
            np.testing.assert_array_equal(once, twice)


def test_readings_without_any_number_are_reduced_as_well():
    keys = {name: column for name, column in SHIPPED.tables["telemetry"].items() if column.role == "key"}
    dictionary = REDUCED.model_copy(update={"tables": {**DICTIONARY.tables, "telemetry": keys}})
    requests, _ = ask_service(as_json(rows_of(PLANT)), contracts={PLANT: service_contract(dictionary)})
    assert requests[PLANT].rows.readings.shape == (2, 0)
