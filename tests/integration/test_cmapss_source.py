import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from parameters import LIMITS, opened

from upkeep.contract.dictionary import load_dictionary
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.features.labels import label_rows
from upkeep.sources.cmapss import SENSORS, SETTINGS, read_subset

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples/cmapss"
ALL = date(2000, 1, 24)


def engine(unit, cycles):
    values = " ".join(str(number) for number in range(1, 25))
    return "".join(f"{unit} {cycle} {values}  \n" for cycle in range(1, cycles + 1))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train_FD001.txt").write_text(engine(1, 40) + engine(2, 200))
    (tmp_path / "test_FD001.txt.gz").write_bytes(gzip.compress((engine(1, 5) + engine(2, 35)).encode()))
    (tmp_path / "RUL_FD001.txt").write_text("40 \n7 \n")
    return tmp_path


def labels(tables, machine):
    params = load_params(EXAMPLE / "params.yaml").dataset
    rows = label_rows(tables["telemetry"], tables["events"], params).filter(machine=machine)
    return dict(rows.select((pl.col("time") - datetime(2000, 1, 3, tzinfo=UTC)).dt.total_hours(), "label").iter_rows())


def test_a_cycle_is_an_hour_and_a_training_engine_fails_after_its_last(folder):
    tables = read_subset(folder, "FD001", LIMITS)
    one = tables["telemetry"].filter(machine="train-001")
    assert one["time"][0] == datetime(2000, 1, 3, 1, tzinfo=UTC)
    assert one["time"][-1] == datetime(2000, 1, 4, 16, tzinfo=UTC)
    assert one.columns == ["plant", "machine", "time", *SETTINGS, *SENSORS]
    assert one.row(0)[3:] == tuple(float(number) for number in range(1, 25))
    assert tables["events"].filter(machine="train-001").row(0) == (
        "fd001", "train-001", datetime(2000, 1, 4, 17, tzinfo=UTC), "failure", "end_of_life"
    )  # fmt: skip


def test_exactly_the_rows_with_at_most_30_cycles_left_are_positive(folder):
    tables = read_subset(folder, "FD001", LIMITS)
    train, test = labels(tables, "train-001"), labels(tables, "test-002")
    assert {cycle for cycle, label in train.items() if label} == set(range(10, 41))
    assert set(train) == set(range(1, 41))
    assert {cycle for cycle, label in test.items() if label} == set(range(12, 36))
    assert set(test) == set(range(1, 36))


def test_official_test_engines_are_pinned_to_the_test_set(folder):
    machines = read_subset(folder, "FD001", LIMITS)["machines"]
    assert dict(machines.select("machine", "split").iter_rows()) == {
        "train-001": None, "train-002": None, "test-001": "test", "test-002": "test"
    }  # fmt: skip


def test_batches_hold_the_hours_of_their_week(folder, monkeypatch):
    monkeypatch.setenv("ENGINES", str(folder))
    found = list(opened("cmapss", {"folder": "$ENGINES"}).deliveries(ALL))
    telemetry = {str(each.batch): each.read().height for each in found if each.table == "telemetry"}
    assert telemetry == {"2000-01-03": 40 + 167 + 5 + 35, "2000-01-10": 33}
    assert {str(each.batch) for each in found if each.table == "machines"} == {"2000-01-03"}


def test_subsets_that_are_not_there_are_no_plants(folder):
    assert {each.plant for each in opened("cmapss", {"folder": str(folder)}).deliveries(ALL)} == {"fd001"}


def test_a_training_file_alone_is_enough(folder):
    (folder / "test_FD001.txt.gz").unlink()
    assert set(read_subset(folder, "FD001", LIMITS)["machines"]["machine"]) == {"train-001", "train-002"}


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("RUL_FD001.txt", None, "RUL_FD001.txt cannot be used: the file is missing"),
        ("RUL_FD001.txt", "40 \n", "1 lines for 2 test engines"),
        ("train_FD001.txt", "1 1 0.5\n", "fewer than 26 numbers"),
        ("train_FD001.txt", engine(1, 2).replace("24", "x"), "conversion .* failed"),
        ("train_FD001.txt", "", "empty"),
    ],
)
def test_a_damaged_file_is_named(folder, name, text, fault):
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    with pytest.raises(UpkeepError, match=f"(?s){fault}"):
        read_subset(folder, "FD001", LIMITS)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(UpkeepError, match="no C-MAPSS file"):
        list(opened("cmapss", {"folder": str(tmp_path)}).deliveries(ALL))


def test_the_examples_dictionary_describes_every_column(folder):
    dictionary = load_dictionary(EXAMPLE / "dictionary.yaml")
    for table, rows in read_subset(folder, "FD001", LIMITS).items():
        assert list(dictionary.columns(table)) == rows.columns


def test_the_example_has_the_same_settings_as_the_default():
    assert load_params(EXAMPLE / "params.yaml").fetch.source == "cmapss"


def test_nasas_files_hold_the_published_numbers_of_engines_and_rows_within_the_dictionarys_ranges(cmapss):
    published = {  # readme.txt of the data set
        "FD001": (100, 20_631, 100, 13_096),
        "FD002": (260, 53_759, 259, 33_991),
        "FD003": (100, 24_720, 100, 16_596),
        "FD004": (249, 61_249, 248, 41_214),
    }
    columns = load_dictionary(EXAMPLE / "dictionary.yaml").columns("telemetry")
    ranges = {name: column.range for name, column in columns.items() if column.range}
    for subset, expected in published.items():
        tables = read_subset(cmapss, subset, LIMITS)
        kinds = [tables["telemetry"].filter(pl.col("machine").str.starts_with(kind)) for kind in ("train", "test")]
        assert tuple(size for rows in kinds for size in (rows["machine"].n_unique(), rows.height)) == expected
        inside = tables["telemetry"].select(pl.col(name).is_between(*limits).all() for name, limits in ranges.items())
        assert all(inside.row(0))
        assert tables["events"]["time"].max() < datetime(2000, 1, 31, tzinfo=UTC)
