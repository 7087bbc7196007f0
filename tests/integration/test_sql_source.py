import os
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy
from parameters import opened

from upkeep.contract.dictionary import Column
from upkeep.contract.reconcile import Delivered
from upkeep.contract.validation import check_table
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params

ROOT = Path(__file__).parents[2]
MONDAY = date(2025, 1, 6)

QUERIES = {
    "since": MONDAY,
    "plants": "SELECT DISTINCT plant FROM machines",
    "telemetry": "SELECT * FROM telemetry WHERE plant = :plant AND time >= :since AND time < :until",
    "machines": "SELECT * FROM machines WHERE plant = :plant",
}

SCHEMA = """
CREATE TABLE machines (plant TEXT, machine TEXT, model TEXT);
CREATE TABLE telemetry (plant TEXT, machine TEXT, time {time}, load NUMERIC(9, 3));
INSERT INTO machines VALUES ('lyon', 'm1', 'A'), ('porto', 'm2', 'B');
INSERT INTO telemetry VALUES
  ('lyon', 'm1', '2025-01-06 00:00:00', 1.5), ('lyon', 'm1', '2025-01-12 23:59:59', NULL),
  ('lyon', 'm1', '2025-01-13 00:00:00', 3), ('porto', 'm2', '2025-01-05 23:59:59', 4);
"""


def read_all(url, until=date(2025, 1, 13), **changes):
    source = opened("sql", {"url": url, **QUERIES, **changes})
    frames = {(found.table, found.plant, found.batch.day): found.read() for found in source.deliveries(until)}
    return {place: rows for place, rows in frames.items() if not rows.is_empty()}


@pytest.fixture
def sqlite(tmp_path):
    url = f"sqlite:///{tmp_path}/plant.db"
    run_script(url, SCHEMA.format(time="TEXT"))
    return url


def run_script(url, script):
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for statement in filter(str.strip, script.split(";")):
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()


def test_each_row_is_in_the_one_batch_that_holds_its_time(sqlite):
    found = read_all(sqlite)
    loads = {place: rows["load"].to_list() for place, rows in found.items() if place[0] == "telemetry"}
    assert loads == {("telemetry", "lyon", 6): [1.5, None], ("telemetry", "lyon", 13): [3.0]}


def test_machines_are_one_delivery_in_the_first_batch(sqlite):
    machines = [place for place in read_all(sqlite) if place[0] == "machines"]
    assert machines == [("machines", "lyon", 6), ("machines", "porto", 6)]


def test_plants_may_be_listed(sqlite):
    assert {plant for _, plant, _ in read_all(sqlite, plants=["porto"])} == {"porto"}


@pytest.mark.parametrize(("query", "what"), [("SELECT NULL", "no plant, only null"), ("SELECT 1 WHERE 0", "no plant")])
def test_a_query_that_gives_no_plant_is_named(sqlite, query, what):
    with pytest.raises(UpkeepError, match=f"plants gives {what}"):
        read_all(sqlite, plants=query)


def test_text_among_numbers_reaches_validate_as_text(sqlite):
    run_script(sqlite, "INSERT INTO telemetry VALUES ('lyon', 'm1', '2025-01-06 01:00:00', 'n/a')")
    assert "n/a" in read_all(sqlite)["telemetry", "lyon", 6]["load"].to_list()


@pytest.mark.parametrize(
    ("loads", "delivered"),
    [
        (["1", "2.5"], [1.0, 2.5]),
        (["1", "'n/a'", "x'3132'"], ["1", "\\x3132", "n/a"]),
        (["9007199254740993", "0.5"], ["0.5", "9007199254740993"]),
        (["CAST(x'e9' AS TEXT)", "'a'"], ["\\xe9", "a"]),
    ],
)
@pytest.mark.parametrize("rows_at_a_time", [1, 100])
def test_values_of_several_types_in_one_column_keep_every_digit(sqlite, monkeypatch, loads, delivered, rows_at_a_time):
    monkeypatch.setattr("upkeep.sources.sql.ROWS_AS_OBJECTS", rows_at_a_time)
    query = " UNION ALL ".join(f"SELECT {load} AS load" for load in loads)
    rows = read_all(sqlite, machines=f"SELECT load FROM ({query}) WHERE :plant = 'lyon'")  # noqa: S608  # the test's own
    assert rows["machines", "lyon", 6]["load"].to_list() == delivered


def test_a_plant_of_sqlite_may_be_a_number(sqlite):
    run_script(sqlite, "CREATE TABLE hall (plant INT, machine TEXT); INSERT INTO hall VALUES (7, 'm1'), (7, 'm2')")
    found = read_all(sqlite, plants="SELECT plant FROM hall", machines="SELECT * FROM hall WHERE plant = :plant")
    assert found["machines", "7", 6].rows() == [(7, "m1"), (7, "m2")]


def test_plants_that_differ_only_in_type_or_blanks_lose_no_row_to_each_other(sqlite):
    run_script(sqlite, "CREATE TABLE hall (plant, time TEXT); INSERT INTO hall VALUES (7, '2025-01-06 01:00:00'), "
        "('7', '2025-01-06 02:00:00'), ('7 ', '2025-01-06 03:00:00'), (NULL, '2025-01-06 04:00:00')")  # fmt: skip
    halls = {
        "plants": "SELECT plant FROM hall",
        "telemetry": QUERIES["telemetry"].replace("FROM telemetry", "FROM hall"),
    }
    source = opened("sql", {"url": sqlite, **QUERIES, **halls, "machines": None})
    found = list(source.deliveries(MONDAY))
    assert {delivery.plant for delivery in found} == {"7"}
    assert sum(delivery.read().height for delivery in found) == 3
    assert {finding["kind"] for delivery in found for finding in delivery.findings} == {"unnamed_rows"}


def test_rows_come_in_one_order_whatever_the_database_says_and_in_chunks(sqlite, monkeypatch):
    whole = read_all(sqlite)["telemetry", "lyon", 6]
    monkeypatch.setattr("upkeep.sources.sql.ROWS_AS_OBJECTS", 1)
    query = f"{QUERIES['telemetry']} ORDER BY time DESC"
    chunked = read_all(sqlite, telemetry=query)["telemetry", "lyon", 6]
    assert chunked.equals(whole)


@pytest.mark.parametrize("name", ["^.*$", "^load$", "*", "@row", "@broken_line"])
def test_a_column_of_a_database_may_be_called_anything(sqlite, name):
    query = QUERIES["telemetry"].replace("*", f'*, load AS "{name}"')
    rows = read_all(sqlite, telemetry=query)["telemetry", "lyon", 6]
    assert rows.width == read_all(sqlite)["telemetry", "lyon", 6].width + 1
    assert rows.columns[-1] == ("@broken_line" if name == "@broken_line" else f"{name.lstrip('@')} (delivered)")


UNTIMED = "INSERT INTO telemetry (plant, machine, load) VALUES ('lyon', 'm1', 1), ('lyon', 'm1', 2), ('porto', 'm2', 3)"


@pytest.mark.parametrize(
    "bounds",
    [
        "time >= :since AND time < :until",
        'telemetry."time">=:since AND telemetry.time   <\n :until',
        '(main.telemetry.[time] >= :since) and "telemetry"."time" < :until',
        "time >= :since AND time < :until UNION ALL SELECT * FROM telemetry WHERE plant = :plant AND 1 = 0"
        " AND time >= :since AND time < :until",
    ],
)
def test_rows_without_a_time_are_in_no_batch_and_told_by_plant(sqlite, bounds):
    run_script(sqlite, UNTIMED)
    query = f"SELECT * FROM telemetry WHERE plant = :plant AND {bounds}"  # noqa: S608  # the test's own
    offered = list(opened("sql", {"url": sqlite, **QUERIES, "telemetry": query}).deliveries(MONDAY))
    details = {delivery.plant: delivery.findings for delivery in offered if delivery.table == "telemetry"}
    assert [finding["detail"].split(";")[0] for finding in details["lyon"]] == [
        "lyon: 2 rows have no time, or none from 1900 to 2200 as the database compares it, so they are in no batch"
    ]
    assert {finding["kind"] for finding in details["porto"]} == {"untimed_rows"}
    assert not [delivery for delivery in offered if delivery.table != "telemetry" and delivery.findings]


@pytest.mark.parametrize("time", ["'n/a'", "1736150400", "'06.01.2025 14:00'", "'2205-01-06'", "x'00'", "''"])
def test_a_time_that_the_database_compares_with_no_batch_is_told(sqlite, time):
    run_script(sqlite, f"INSERT INTO telemetry VALUES ('lyon', 'm1', {time}, 1)")  # noqa: S608  # the test's own
    offered = list(opened("sql", {"url": sqlite, **QUERIES}).deliveries(MONDAY))
    [told] = {finding["detail"] for delivery in offered for finding in delivery.findings}
    assert told.startswith("lyon: 1 rows have no time, or none from 1900 to 2200 as the database compares it")


@pytest.mark.parametrize("time", ["date(time)", "time || ''"])
def test_bounds_that_cannot_be_turned_round_are_a_warning(sqlite, caplog, time):
    query = f"SELECT * FROM telemetry WHERE plant = :plant AND {time} >= :since AND {time} < :until"  # noqa: S608  # the test's own
    assert read_all(sqlite, telemetry=query)
    assert "rows whose time is null are in no batch of this query" in caplog.text


def test_a_query_without_its_watermark_is_refused(sqlite):
    with pytest.raises(UpkeepError, match=r"telemetry: .*the query must use :until"):
        read_all(sqlite, telemetry="SELECT * FROM telemetry WHERE plant = :plant AND time >= :since")


def test_a_query_that_the_database_refuses_is_told(sqlite):
    with pytest.raises(UpkeepError, match="no such table: machinery") as caught:
        read_all(sqlite, machines="SELECT * FROM machinery WHERE plant = :plant")
    assert "correct the query" in caught.value.remedy


def test_two_columns_of_one_name_are_told(sqlite):
    with pytest.raises(UpkeepError, match="more than one occurrence"):
        read_all(sqlite, machines="SELECT plant, plant FROM machines WHERE plant = :plant")


def test_a_url_that_is_none_and_a_driver_that_is_missing_are_told():
    with pytest.raises(UpkeepError, match="not a database URL"):
        opened("sql", {"url": "plant.db://", **QUERIES})
    with pytest.raises(UpkeepError, match="no driver for oracle"):
        opened("sql", {"url": "oracle://h/db", **QUERIES})


def test_the_whole_url_may_come_from_a_variable(sqlite, monkeypatch):
    monkeypatch.setenv("PLANT_DATABASE", sqlite)
    assert read_all("$PLANT_DATABASE")


def test_an_unset_password_is_named(monkeypatch):
    monkeypatch.delenv("PLANT_PASSWORD", raising=False)
    with pytest.raises(UpkeepError, match="PLANT_PASSWORD is not set"):
        opened("sql", {"url": "postgresql+psycopg://u:${PLANT_PASSWORD}@127.0.0.1/db", **QUERIES})


def _postgres_program(name):
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(installed[-1]) if installed else shutil.which(name)


def _as_postgres(*command):
    # PostgreSQL refuses to run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")


PASSWORD = "sl@sh/and:colon$x"


@pytest.fixture(scope="module")
def postgres():
    initdb, pg_ctl = _postgres_program("initdb"), _postgres_program("pg_ctl")
    if not initdb or not pg_ctl:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed (Debian: apt-get install postgresql)")
    # Outside of pytest's folders, which are their owner's alone, so that the user postgres can reach it.
    folder = Path(tempfile.mkdtemp(prefix="upkeep-postgres-"))
    password = folder / "password"
    password.write_text(PASSWORD)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        shutil.chown(password, "postgres")
    data = str(folder / "data")
    _as_postgres(initdb, "-D", data, "-U", "upkeep", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c timezone=America/New_York"
    _as_postgres(pg_ctl, "-D", data, "-w", "-o", settings, "-l", f"{data}.log", "start")
    yield port
    _as_postgres(pg_ctl, "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["TIMESTAMP", "TIMESTAMPTZ"])
def postgres_url(postgres, request):
    database = request.param.lower()
    address = {"username": "upkeep", "password": PASSWORD, "host": "127.0.0.1", "port": postgres}
    admin = sqlalchemy.URL.create("postgresql+psycopg", **address, database="postgres")
    engine = sqlalchemy.create_engine(admin, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {database}"))
        connection.execute(sqlalchemy.text(f"ALTER DATABASE {database} SET timezone = 'UTC'"))
    run_script(admin.set(database=database), SCHEMA.format(time=request.param))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"ALTER DATABASE {database} SET timezone = 'America/New_York'"))
    engine.dispose()
    return f"postgresql+psycopg://upkeep:${{PLANT_PASSWORD}}@127.0.0.1:{postgres}/{database}"


def test_postgresql_gives_each_row_once_in_utc_whatever_its_own_zone(postgres_url, monkeypatch):
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    found = read_all(postgres_url)
    rows = found["telemetry", "lyon", 6]
    assert rows["load"].cast(pl.Float64).to_list() == [1.5, None]
    assert rows["time"].dt.replace_time_zone("UTC")[0] == datetime(2025, 1, 6, tzinfo=UTC)
    assert found["telemetry", "lyon", 13]["load"].cast(pl.Float64).to_list() == [3.0]
    assert ("telemetry", "porto", 6) not in found


@pytest.mark.parametrize("column", ["time", "seen.time::timestamptz"])
def test_rows_of_postgresql_at_no_time_are_told(postgres_url, monkeypatch, column):
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    rows = "SELECT CAST(unnest(ARRAY['infinity', '-infinity', '2025-01-07', NULL]) AS TIMESTAMP) AS time"
    query = f"SELECT * FROM ({rows}) AS seen WHERE {column} >= :since AND {column} < :until AND 'lyon' = :plant"  # noqa: S608
    offered = list(opened("sql", {"url": postgres_url, **QUERIES, "telemetry": query}).deliveries(MONDAY))
    [told] = {finding["detail"] for delivery in offered for finding in delivery.findings}
    assert told.startswith("lyon: 3 rows have no time")


def test_a_uuid_is_text(postgres_url, monkeypatch):
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    query = "SELECT CAST('7d444840-9dc0-11d1-b245-5ffdce74fad2' AS UUID) AS machine WHERE :plant = 'lyon'"
    rows = read_all(postgres_url, machines=query)["machines", "lyon", 6]
    assert rows["machine"].to_list() == ["7d444840-9dc0-11d1-b245-5ffdce74fad2"]


UUID = "7d444840-9dc0-11d1-b245-5ffdce74fad2"

CONTRACT = {
    name: Column.model_validate({"meaning": "", "role": role, "type": kind, "required": False, **more})
    for name, role, kind, more in [
        ("plant", "key", "text", {"required": True}),
        ("machine", "key", "text", {"required": True}),
        ("time", "key", "time", {"required": True}),
        ("load", "sensor", "number", {"range": [0, 100]}),
        ("seen", "attribute", "time", {}),
    ]
}

READING = """
SELECT 'lyon' AS plant, machine, TIMESTAMPTZ '2025-01-06 00:00Z' + hour * INTERVAL '1 hour' AS time, {load} AS load,
  {seen} AS seen, {other} AS other
FROM (VALUES ('m1', 0, true), ('m1', 1, false)) AS row (machine, hour, odd)
WHERE :plant = 'lyon' AND CAST(:since AS DATE) = '2025-01-06' AND :until > DATE '2025-01-01'
"""


def read_odd(url, kind, text, column="load"):
    """Read two rows, one with an odd value, as a source and then as `validate` does."""
    usual = {"load": "50.0", "seen": "NULL", "other": "NULL"}
    query = READING.format(**{**usual, column: f"CASE WHEN odd THEN CAST('{text}' AS {kind}) END"})
    rows = read_all(url, until=MONDAY, plants=["lyon"], telemetry=query)["telemetry", "lyon", 6]
    strictness = load_params(ROOT / "params.yaml").validate_
    return rows, check_table("telemetry", "lyon", [Delivered(MONDAY, 1, rows.lazy)], CONTRACT, strictness, 7)


@pytest.mark.parametrize(
    ("column", "kind", "text", "reason", "delivered"),
    [
        ("load", "NUMERIC", "Infinity", "not a number", "inf"),
        ("load", "NUMERIC", "1e45", "out of range", f"1{'0' * 45}"),
        ("load", "NUMERIC", "1" * 50, "out of range", "1" * 50),
        ("load", "FLOAT8", "-Infinity", "not a number", "-inf"),
        ("load", "JSONB", '{"a": 1}', "not a number", '{"a": 1}'),
        ("load", "JSON", '[1, "x"]', "not a number", '[1, "x"]'),
        ("load", "FLOAT8[]", "{1,2}", "not a number", "[1.0, 2.0]"),
        ("load", "INTERVAL", "1 month", "not a number", "1 mon"),
        ("load", "TIME", "24:00", "not a number", "24:00:00"),
        (
            "load",
            "UUID",
            "7d444840-9dc0-11d1-b245-5ffdce74fad2",
            "not a number",
            "7d444840-9dc0-11d1-b245-5ffdce74fad2",
        ),
        ("load", "BYTEA", r"\x3132", "not a number", "3132"),
        ("seen", "TIMESTAMPTZ", "infinity", "not a time", "infinity"),
        ("seen", "TIMESTAMP", "-infinity", "not a time", "-infinity"),
        ("seen", "DATE", "infinity", "not a time", "infinity"),
        ("seen", "DATE", "0044-03-15 BC", "not a time", "0044-03-15 BC"),
        ("seen", "TIMESTAMPTZ", "10000-01-01 00:00Z", "not a time", "10000-01-01 00:00:00+00"),
        ("seen", "TIME", "24:00", "not a time", "24:00:00"),
    ],
)
def test_one_value_that_no_type_holds_costs_one_row(postgres_url, monkeypatch, column, kind, text, reason, delivered):
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    _, checked = read_odd(postgres_url, kind, text, column)
    assert checked.quarantined.select("reason", "column", "value").rows() == [(reason, column, delivered)]
    assert checked.clean["time"].to_list() == [datetime(2025, 1, 6, 1, tzinfo=UTC)]


@pytest.mark.parametrize(("kind", "text"), [("NUMERIC", "NaN"), ("FLOAT8", "NaN"), ("NUMERIC", "42.000")])
def test_a_number_of_a_database_is_a_gap_if_it_is_nan_and_itself_if_not(postgres_url, monkeypatch, kind, text):
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    _, checked = read_odd(postgres_url, kind, text)
    assert checked.clean["load"].to_list() == [None if text == "NaN" else 42.0, None]


@pytest.mark.parametrize(
    ("kind", "text"),
    [("TIMESTAMPTZ[]", "{infinity}"), ("BOOL", "true"), ("INET", "10.0.0.1"), ("DATERANGE", "[2025-01-01,infinity)")],
)
def test_a_column_of_any_type_that_the_dictionary_does_not_know_costs_no_row(postgres_url, monkeypatch, kind, text):
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    rows, checked = read_odd(postgres_url, kind, text, "other")
    assert rows["other"].null_count() == 1
    assert checked.clean.height == 2


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    ("kind", "type_", "value"),
    [
        ("int", "INT", "7"),
        ("numeric", "NUMERIC(9, 3)", "7.000"),
        ("uuid", "UUID", UUID),
        ("char", "CHAR(9)", "7"),
        ("enum", "{hall}_type", "7"),
    ],
)
def test_a_plant_of_any_type_is_asked_for_by_its_own_value_and_called_by_its_text(
    postgres_url, monkeypatch, kind, type_, value, listed
):
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    hall = f"{kind}_{listed}".lower()
    script = f"""
      CREATE TYPE {hall}_type AS ENUM ('7');
      CREATE TABLE {hall} (plant {type_.format(hall=hall)}, machine TEXT);
      INSERT INTO {hall} VALUES ('{value}', 'm1');
    """  # noqa: S608  # all of it stands in this test
    run_script(postgres_url.replace("${PLANT_PASSWORD}", urllib.parse.quote(PASSWORD, safe="")), script)
    name = UUID if kind == "uuid" else "7"
    found = read_all(
        postgres_url,
        plants=[int(name) if kind in ("int", "numeric") else name] if listed else f"TABLE {hall}",
        telemetry=READING.format(load="1", seen="NULL", other="NULL").replace(":plant =", "CAST(:plant AS TEXT) ="),
        machines=f"SELECT * FROM {hall} WHERE plant = :plant",  # noqa: S608  # likewise
    )
    assert found["machines", name, 6]["machine"].to_list() == ["m1"]


@pytest.mark.parametrize("password", ["wrong-but-secret", PASSWORD])
def test_a_login_that_fails_does_not_show_the_password(postgres_url, monkeypatch, password):
    monkeypatch.setenv("PLANT_PASSWORD", password)
    url = postgres_url if password != PASSWORD else postgres_url.rsplit("/", 1)[0] + "/nowhere"
    with pytest.raises(UpkeepError, match="cannot be read") as caught:
        read_all(url)
    assert password not in str(caught.value)
    assert "password's variable" in caught.value.remedy
    assert caught.value.__suppress_context__
