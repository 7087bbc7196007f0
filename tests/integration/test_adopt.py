"""Deliveries of many shapes, adopted without a word typed, become the same clean tables."""

import gzip
import os
import re
import sys
from datetime import timedelta
from pathlib import Path

import fsspec
import polars as pl
import pytest
from adopted_fleet import FOLDER, SENSORS, SHAPES, START, Fleet, make_fleet
from conftest import ROOT
from sqlalchemy import create_engine

from upkeep import cli

DATABASE = "sqlite:///deliveries/plant.db"


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return make_fleet()


@pytest.fixture(autouse=True)
def _checkout(tmp_path, monkeypatch):
    """A fresh checkout, with a folder for deliveries."""
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir()
    Path("data/references").mkdir(parents=True)
    for file in ("params.yaml", "data/references/dictionary.yaml"):
        Path(file).write_text(
            (ROOT / file).read_text(encoding="utf-8").replace("jobs: -1", "jobs: 1"), encoding="utf-8"
        )


@pytest.fixture
def upkeep(monkeypatch, capsys):
    """Run a command in this process; return what it prints and, if it fails, what it says to the user."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["upkeep", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return said.out + said.err if left.value.code else said.out

    return run


def interim(table: str) -> pl.DataFrame:
    return pl.concat(
        [pl.read_parquet(file) for file in sorted(Path("data/interim", table).glob("*.parquet"))], how="diagonal"
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_deliveries_of_any_shape_become_the_fleets_clean_tables(shape, fleet, upkeep):
    telemetry, events = fleet
    SHAPES[shape](telemetry, events)
    told = upkeep("adopt", DATABASE if shape == "database" else "deliveries/", "--force")
    assert told.endswith("next: dvc repro\n")
    assert upkeep("fetch") == ""
    assert upkeep("validate") == ""
    if shape == "one_machine":
        telemetry, events = (rows.filter(machine="press-1") for rows in fleet)
    clean = interim("telemetry").sort("machine", "time")
    assert clean.height == telemetry.height
    assert clean["time"].to_list() == telemetry["time"].to_list()
    readings = clean.select(pl.sum_horizontal(pl.exclude("plant", "machine", "time"))).to_series()
    assert readings.to_list() == pytest.approx(telemetry.select(pl.sum_horizontal(SENSORS)).to_series().to_list())
    happened = interim("events").sort("machine", "time")
    assert happened["kind"].to_list() == events["kind"].to_list()
    assert happened["time"].to_list() == events["time"].to_list()
    if shape != "one_machine":
        assert clean["machine"].to_list() == telemetry["machine"].to_list()
        assert happened["machine"].to_list() == events["machine"].to_list()


@pytest.mark.parametrize("place", ["deliveries/", "deliveries/**"])
def test_the_copies_that_a_program_keeps_for_itself_are_no_deliveries(place, fleet, upkeep):
    for folder in (FOLDER, FOLDER / ".ipynb_checkpoints", FOLDER / "__MACOSX"):
        folder.mkdir(exist_ok=True)
        for name, rows in zip(("telemetry", "events"), fleet, strict=True):
            rows.write_csv(folder / f"{name}.csv")
    told = upkeep("adopt", place, "--force")
    assert f"telemetry: deliveries/telemetry.csv, {fleet[0].height:,} rows of 4 machines" in told


def test_nothing_is_overwritten_until_it_is_said_so(fleet, upkeep):
    SHAPES["plain"](*fleet)
    files = [Path("params.yaml"), Path("data/references/dictionary.yaml")]
    before = [file.read_bytes() for file in files]
    told = upkeep("adopt", "deliveries")
    assert "telemetry: deliveries/telemetry.csv" in told
    assert "nothing is written, since data/references/dictionary.yaml and params.yaml are there already" in told
    assert "type: upkeep adopt deliveries --force" in told
    assert [file.read_bytes() for file in files] == before
    upkeep("adopt", "deliveries", "--force")
    drafted = [file.read_bytes() for file in files]
    assert drafted != before
    upkeep("adopt", "deliveries", "--force")
    assert [file.read_bytes() for file in files] == drafted


def test_a_status_beside_the_readings_becomes_failures_and_a_model(fleet, upkeep):
    telemetry, events = fleet
    failures = events.filter(kind="failure").select("machine", "time", broken=True)
    labelled = pl.concat([telemetry, failures.select("machine", "time")], how="diagonal").sort("machine", "time")
    labelled = labelled.join(failures, on=["machine", "time"], how="left")
    status = pl.when("broken").then(pl.lit("BROKEN")).otherwise(pl.lit("NORMAL"))
    labelled.select("time", "machine", *SENSORS, machine_status=status).write_csv(FOLDER / "sensors.csv")
    told = upkeep("adopt", "deliveries", "--force")
    assert "only the column machine_status tells: data/references/labelled_events.csv is made from it" in told
    for stage in ("fetch", "validate", "dataset", "train"):
        assert upkeep(stage) == ""
    assert interim("events").filter(kind="failure").height == failures.height
    assert "machine_status" not in interim("telemetry").columns
    assert Path("models/plants").is_dir()


def test_failures_of_machines_that_are_called_otherwise_are_told(fleet, upkeep):
    telemetry, events = fleet
    telemetry.write_csv(FOLDER / "telemetry.csv")
    events.with_columns(machine=pl.col("machine").str.slice(6) + ".0").write_csv(FOLDER / "events.csv")
    told = upkeep("adopt", "deliveries", "--force")
    assert "no machine has readings and failures: north/press-1 has the ones, north/1.0 the others" in told


def test_a_time_that_cannot_be_read_is_shown(upkeep):
    (FOLDER / "a.csv").write_text("machine,time,x\na,45663.5,1\nb,45664.5,2\n")
    assert "the column time of deliveries/a.csv holds no date and time that can be read, but 45663.5" in upkeep(
        "adopt", "deliveries", "--force"
    )


def write_status(name: str, hour: int) -> None:
    lines = [
        f"2025-01-{row // 24 + 6:02}T{row % 24:02}:00:00Z,{row % 24}.5,{int(row % 24 == hour)}" for row in range(500)
    ]
    (FOLDER / "a.csv").write_text("\n".join([f"time,x,{name}", *lines]))


def test_a_label_that_no_row_sets_is_said_to_tell_of_no_failure(upkeep):
    write_status("failure", hour=24)
    assert "note: failure says of no row that the machine failed" in upkeep("adopt", "deliveries", "--force")


def write_as(name: str, rows: pl.DataFrame, encoding: str, decimal: str, separator: str = ";") -> None:
    values = pl.col(pl.Float64).cast(pl.String).str.replace(".", decimal, literal=True)
    (FOLDER / name).write_text(rows.with_columns(values).write_csv(separator=separator), encoding=encoding)


def test_each_file_of_a_table_is_read_as_it_is_written(fleet, upkeep):
    telemetry, events = (rows.with_columns(plant=pl.lit("Süd")) for rows in fleet)
    for machine, how in zip(
        "1234", (("cp1252", ","), ("utf-8", ".", ","), ("utf-16", ",", "\t"), ("utf-8", ",")), strict=True
    ):
        write_as(f"press-{machine}.csv", telemetry.filter(machine=f"press-{machine}").drop("machine"), *how)
    events.write_csv(FOLDER / "events.csv")
    upkeep("adopt", "deliveries", "--force")
    assert upkeep("fetch") == ""
    assert upkeep("validate") == ""
    clean = interim("telemetry").sort("machine", "time")
    assert clean.select("plant", "machine", *SENSORS).equals(telemetry.select("plant", "machine", *SENSORS))


def test_what_the_yaml_that_is_read_takes_for_no_text_is_drafted_as_text(fleet, upkeep):
    names = dict(zip(SENSORS, ("10:30", "No", "1_000"), strict=True))
    off = pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("Off")).otherwise(pl.col("No").cast(pl.String))
    for plant in ("NO", "SE"):
        (FOLDER / plant).mkdir()
        rows = fleet[0].filter(machine="press-1").drop("machine", "plant").rename(names).with_columns(No=off)
        rows.write_csv(FOLDER / plant / "on.csv")
    pl.DataFrame({"plant": ["NO"], "machine": "on", "time": START, "kind": "failure"}).write_csv(FOLDER / "events.csv")
    upkeep("adopt", "deliveries", "--force")
    assert upkeep("fetch") == ""
    clean = upkeep("validate") or interim("telemetry")
    assert {*clean["plant"]} == {"NO", "SE"}
    assert {*clean.columns} >= {"10_30", "No", "1_000"}


def test_names_that_are_spelt_alike_are_told(fleet, upkeep):
    renamed = fleet[0].with_columns(plant=pl.lit("North"), time=pl.col("time").dt.offset_by("8w"))
    fleet[0].write_csv(FOLDER / "old.csv")
    renamed.rename(str.upper).write_csv(FOLDER / "new.csv")
    told = upkeep("adopt", "deliveries", "--force")
    assert "note: plants North and north are spelt alike but for case" in told
    assert "note: columns LOAD_PCT and load_pct are spelt alike but for case" in told


def test_a_clock_that_was_reset_decides_no_batches(fleet, upkeep):
    reset = fleet[0].head(20).with_columns(time=pl.lit("1970-01-01T00:00:07Z"))
    pl.concat([fleet[0].cast({"time": pl.String}), reset]).write_csv(FOLDER / "telemetry.csv")
    upkeep("adopt", "deliveries", "--force")
    assert "until: '1970" not in (draft := Path("params.yaml").read_text(encoding="utf-8"))
    assert "batch_days: 28" not in draft


def test_failures_alone_are_enough_for_a_first_model(fleet, upkeep):
    fleet[1].write_csv(FOLDER / "events.csv")
    upkeep("adopt", "deliveries", "--force")
    for stage in ("fetch", "validate", "dataset"):
        assert upkeep(stage) == ""
    assert interim("telemetry").columns == ["plant", "machine", "time"]


def write_minutes(*, is_long: bool) -> None:
    """A press that is read every minute, its oil once an hour, and a list of the times when it failed."""
    times = pl.datetime_range(START, START + timedelta(days=32), "1m", closed="left", eager=True)
    wear = pl.Series([(row / 10_000) % 1 for row in range(times.len())]).round(3)
    rows = pl.DataFrame({"machine": "press", "time": times, "heat": 40 + 10 * wear})
    if is_long:
        oil = rows.gather_every(60).with_columns(heat=5 - pl.col("heat") / 50)
        tags = [each.with_columns(tag=pl.lit(tag)) for each, tag in ((rows, "heat"), (oil, "oil"))]
        rows = pl.concat(tags).rename({"heat": "value"}).sample(fraction=1, shuffle=True, seed=1)
    rows.write_csv(FOLDER / "readings.csv")
    failed = pl.DataFrame({"time": [START + timedelta(minutes=10_000 * number) for number in (1, 2, 3, 4)]})
    failed.write_csv(FOLDER / "failures.csv")


@pytest.mark.parametrize("is_long", [False, True])
def test_fast_readings_of_several_rates_and_a_list_of_failures_become_hourly_rows(upkeep, is_long):
    write_minutes(is_long=is_long)
    assert "events by kind: failure 4" in upkeep("adopt", "deliveries", "--force")
    reason = "a reading every 60 s, and 48 hours to look ahead"
    assert f"\nrows_every: 1h  # {reason}" in Path("data/references/dictionary.yaml").read_text(encoding="utf-8")
    assert upkeep("fetch") == upkeep("validate") == ""
    rows, events = interim("telemetry"), interim("events")
    assert rows.height == 32 * 24 + 1
    assert rows["heat.count"][1:-1].unique().to_list() == [60]
    assert not is_long or rows["oil.count"][:-1].unique().to_list() == [1]
    assert events["kind"].to_list() == ["failure"] * 4
    assert events["machine"].unique().to_list() == ["press"]


def test_an_index_without_a_name_is_told_by_words(fleet, upkeep):
    fleet[0].with_row_index("").write_csv(FOLDER / "telemetry.csv")
    assert "gives: (a column without a name)\n" in upkeep("adopt", "deliveries", "--force")
    assert "#   (a column without a name): numbers" in Path("data/references/dictionary.yaml").read_text(
        encoding="utf-8"
    )


def test_files_at_an_address_are_adopted_under_that_address(fleet, upkeep):
    folder = fsspec.filesystem("memory")
    folder.pipe("/line/telemetry.csv", fleet[0].write_csv().encode())
    upkeep("adopt", "memory://line", "--force")
    assert "path: memory:///line/telemetry.csv" in Path("params.yaml").read_text(encoding="utf-8")
    assert upkeep("fetch") == ""


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "there is no CSV or Parquet file in deliveries"),
        ({"notes.docx": "x"}, "it is neither CSV nor Parquet [file=deliveries/notes.docx]"),
        (
            {"notes.docx": "x", "b.xlsx": "y"},
            "file in deliveries that can be read: deliveries/b.xlsx",
        ),
        (
            {"a.csv": "machine,torque\na,1.5\nb,2.5\n"},
            "no column of deliveries/a.csv holds a date and time: upkeep learns",
        ),
        (
            {"train_FD001.txt": "1|1|0.5\n1|2|0.7\n"},
            "it has no line of column names at its top, or another separator than , ; | tab or blank [file=deliveries/",
        ),
        (
            {"a.csv": "time,machine,note\n2025-01-06,a,x\n"},
            "looks like telemetry or like machines' failures: upkeep learns",
        ),
        ({"a{b}.csv": "time,machine,x\n"}, "its name holds one of {}*?$, :: or a sign that cannot be printed"),
        ({"a.csv": "press-1,2025-01-06 00:00,1.5\npress-1,2025-01-06 01:00,2.5\n"}, "it has no line of column names"),
        ({"a.csv": "press-1;06.01.2025;1,5\npress-1;07.01.2025;2,5\n"}, "it has no line of column names"),
        ({"a.parquet": "no Parquet"}, "[file=deliveries/a.parquet]"),
        ({"a.csv": "time,machine,x\n"}, "it holds no rows [file=deliveries/a.csv]"),
        ({"a.csv": "time,machine,x\n1970-01-01,a,1.5\n1970-01-02,a,2.5\n"}, "no time is of 1981 or later"),
        ({"a.csv": "time,machine,*\n2025-01-06,a,1.5\n"}, "a column of deliveries/a.csv is called *"),
        ({"a\n.csv": "time,machine,x\n"}, "[file=deliveries/a\\n.csv]"),
        ({"$HOME.csv": "time,machine,x\n"}, "which mean something in a path"),
    ],
)
def test_what_cannot_be_adopted_is_refused_in_one_sentence(upkeep, files, told):
    for name, content in files.items():
        (FOLDER / name).write_text(content)
    said = upkeep("adopt", "deliveries", "--force")
    assert told in said
    assert "remedy: " in said
    assert "Traceback" not in said


def test_why_a_file_was_left_out_is_said_before_a_refusal_that_it_may_explain(upkeep):
    (FOLDER / "readings.csv").write_text("2025-01-06 00:00,1.5\n2025-01-06 01:00,2.5\n")
    (FOLDER / "limits.csv").write_text("part,torque\na,1.5\nb,2.5\n")
    said = upkeep("adopt", "deliveries")
    assert re.search(r"note: .*readings.csv is left out: it has no line of column names.*\nerror: no", said)


def test_a_flag_that_may_mark_failures_is_named_and_under_the_name_failure_makes_them(upkeep):
    write_status("machine_status", hour=7)
    assert "if machine_status marks failures by 1, call it failure" in upkeep("adopt", "deliveries", "--force")
    write_status("failure", hour=7)
    assert "events by kind: failure 21, maintenance 21" in upkeep("adopt", "deliveries", "--force")


ODD_NAMES = [
    *("a: b", "- x", "{x}", "&a", "!!python/object:x", "null", "1.5", "# c", "'", '"x', "%YAML", "| x"),
    *("100 %", "@all", "kind", "code", "model", "installed", "@sensor", "a :plant", "x::int", "temp\n[°C]"),
    *("a\nfetch: {source: evil}", "<img onerror=x>", "\x1b[31mred", "\u202eabc", "a\x85b", "x" * 10_000),
]
UNSEEN = ODD_NAMES[-4:]
"""Names that no draft can hold: such columns are left out."""


def adopt_printably(upkeep, place: str) -> str:
    """Adopt; return what is printed, which holds, as the drafts do, nothing that nobody sees."""
    told = upkeep("adopt", place, "--force")
    assert told.endswith("next: dvc repro\n")
    assert all(line.isprintable() and len(line) < 1000 for line in told.splitlines())
    for draft in ("params.yaml", "data/references/dictionary.yaml"):
        assert Path(draft).read_text(encoding="utf-8").replace("\n", "").isprintable()
    return told


def odd_rows(names: list[str]) -> pl.DataFrame:
    """Return thirty hours of one machine, with a sensor and a remark of each name."""
    hours = [START + timedelta(hours=hour) for hour in range(30)]
    odd = {name: [float((hour + place) * 7 % 23) for hour in range(30)] for place, name in enumerate(names)}
    return pl.DataFrame({"time": hours, "machine": ["m"] * 30, "note": ([*names, "x"] * 30)[:30], **odd})


def test_odd_names_and_values_stay_names_in_what_is_printed_and_drafted(upkeep):
    rows = odd_rows(ODD_NAMES)
    rows.write_parquet(FOLDER / "readings.parquet")
    happened = [*(f"{kind} {number}" for kind in ("failure", "service") for number in range(5)), *ODD_NAMES[-8:]]
    events = rows[: len(happened)].select("time", "machine", kind=pl.Series(happened), code=pl.Series(happened))
    events.write_parquet(FOLDER / "events.parquet")
    told = adopt_printably(upkeep, "deliveries")
    assert "events by kind: error 8, failure 5, maintenance 5" in told
    assert upkeep("fetch") == ""
    upkeep("validate")
    assert interim("telemetry").shape == (30, 3 + len(ODD_NAMES) - len(UNSEEN))
    dictionary = Path("data/references/dictionary.yaml").read_text(encoding="utf-8")
    assert dictionary.count("its name has more than 200 characters, or some that nobody sees") == len(UNSEEN)


@pytest.mark.parametrize(
    ("tables", "height"),
    [
        ({'the "odd" :until': odd_rows(ODD_NAMES[:-4])}, 30),
        ({"failures": odd_rows([])[:3]}, 0),
        (
            {plant: odd_rows([f"x of {plant}", "y"]).with_columns(plant=pl.lit(plant)) for plant in ("north", "south")},
            60,
        ),
        (
            {
                "named": pl.concat(odd_rows(["x"]).with_columns(plant=pl.lit(plant)) for plant in ("north", "south")),
                "unnamed": odd_rows(["x"]).with_columns(machine=pl.lit("other")),
            },
            90,
        ),
    ],
    ids=["odd names", "failures only", "tables that differ", "a table that names no plant"],
)
def test_a_databases_tables_are_adopted_whatever_they_are_called_and_hold(tables, height, upkeep):
    engine = create_engine(DATABASE)
    for name, rows in tables.items():
        rows.with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S")).write_database(name, engine)
    adopt_printably(upkeep, DATABASE)
    assert upkeep("fetch") == ""
    upkeep("validate")
    assert interim("telemetry").drop_nulls("machine").filter(pl.col("plant").is_not_null()).height >= height


def hold_to(**limits: int) -> None:
    """Lower what deliveries may take, in params.yaml."""
    text = Path("params.yaml").read_text(encoding="utf-8")
    for limit, value in limits.items():
        text = re.sub(rf"(?m)^  {limit}: \d+", f"  {limit}: {value}", text)
    Path("params.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (os.mkfifo, "the path leads to no file"),
        (lambda path: path.symlink_to("/dev/zero"), "the path leads to no file"),
        (lambda path: path.symlink_to("nowhere.csv"), "is left out: "),
        (lambda path: path.write_bytes(b"time,machine,x\n" + b"1" * 2_000_000), "more memory than the 1 MB"),
        (lambda path: path.with_suffix(".csv.gz").write_bytes(gzip.compress(b"1,2\n" * 1_000_000)), "than the 1 MB"),
        (lambda path: pl.select(x=pl.repeat(1, 10**6)).write_parquet(path.with_suffix(".parquet")), "than the 1 MB"),
        (lambda path: path.write_text(f"{'a,' * 3000}b\n{'1,' * 3000}1\n"), "3,001 columns, more than the 100"),
    ],
    ids=["pipe", "device", "dangling link", "large", "packed", "parquet", "columns"],
)
def test_what_never_ends_or_is_too_large_is_left_out_and_the_rest_adopted(make, told, upkeep):
    hold_to(table_mb=1, columns=100)
    odd_rows([]).with_columns(x=pl.int_range(30) % 7).write_csv(FOLDER / "readings.csv")
    make(FOLDER / "odd.csv")
    said = adopt_printably(upkeep, "deliveries")
    assert told in said
    assert "telemetry: deliveries/readings.csv, 30 rows" in said


def test_a_databases_table_that_is_too_large_is_refused_by_what_may_be_held(upkeep):
    hold_to(table_mb=1, columns=100)
    odd_rows([]).with_columns(note=pl.lit("x" * 100_000)).write_database("readings", create_engine(DATABASE))
    assert "more memory than the 1 MB of limits.table_mb" in upkeep("adopt", DATABASE, "--force")


@pytest.mark.parametrize("places", [(DATABASE, "deliveries"), ("deliveries", DATABASE)])
def test_a_database_beside_other_places_is_refused_rather_than_one_of_them_ignored(places, upkeep):
    assert "a database is adopted alone, not beside 1 other place" in upkeep("adopt", *places, "--force")


def test_a_database_that_cannot_be_reached_is_named_without_its_password(upkeep, monkeypatch):
    monkeypatch.setenv("PLANT_PASSWORD", "verysecret")
    said = upkeep("adopt", "postgresql+psycopg://upkeep:${PLANT_PASSWORD}@127.0.0.1:1/plants", "--force")
    assert "the database cannot be read" in said
    assert "verysecret" not in said


def test_a_password_never_comes_to_stand_in_a_draft(upkeep):
    said = upkeep("adopt", "postgresql+psycopg://upkeep:verysecret@127.0.0.1:1/plants", "--force")
    assert "the address holds a password" in said
    assert "verysecret" not in said
