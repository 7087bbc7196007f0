"""Predictions in real databases: SQLite and PostgreSQL."""

import socket
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import sqlalchemy
from test_sql_source import PASSWORD, postgres  # noqa: F401  # a fixture

from upkeep.core.errors import UpkeepError
from upkeep.core.params import PredictionTable
from upkeep.scoring.prediction_table import write_predictions
from upkeep.sources.sql import open_engine

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)


def predictions(*machines, day=0, probability=0.25):
    return pl.DataFrame(
        {
            "plant": "lyon",
            "machine": machines,
            "time": MONDAY + timedelta(days=day),
            "scored_at": MONDAY + timedelta(days=7),
            "probability": probability,
            "threshold": 0.5,
            "alarm": False,
            "reasons": [["temperature is 70 °C", "age"]] * len(machines),
            "warnings": [[{"code": "gap", "message": "no readings for 9 h", "column": "time"}]] * len(machines),
            **dict.fromkeys(
                ("serviced_at", "maintained_at"), pl.Series([None] * len(machines), dtype=pl.Datetime("us", "UTC"))
            ),
            "maintenance_code": pl.Series([None] * len(machines), dtype=pl.String),
            "model_version": "abc",
        }
    )


@pytest.fixture
def sqlite(tmp_path):
    return f"sqlite:///{tmp_path}/planner.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, monkeypatch, tmp_path):
    if request.param != "postgres":
        return f"sqlite:///{tmp_path}/planner.db"
    monkeypatch.setenv("PLANNER_PASSWORD", PASSWORD)
    port = request.getfixturevalue("postgres")
    url = f"postgresql+psycopg://upkeep:${{PLANNER_PASSWORD}}@127.0.0.1:{port}/postgres"
    read(url, "DROP TABLE IF EXISTS predictions")
    return url


def test_a_database_that_never_answers_is_given_up(sqlite, monkeypatch):
    monkeypatch.setattr("upkeep.scoring.prediction_table.SECONDS", 0.2)
    with sqlalchemy.create_engine(sqlite).connect() as holder:
        holder.execute(sqlalchemy.text("BEGIN EXCLUSIVE"))
        with pytest.raises(UpkeepError, match="predictions: not done within"):
            write(sqlite, predictions("M1"))


def write(url, rows, name="predictions"):
    engine = open_engine(url, "score.table.url")
    write_predictions(engine, PredictionTable(url=url, name=name), rows)
    engine.dispose()


def read(url, query="SELECT machine, probability FROM predictions ORDER BY machine, time"):
    engine = open_engine(url, "score.table.url")
    with engine.begin() as connection:
        result = connection.execute(sqlalchemy.text(query))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows


def test_the_table_is_made_and_written_again_without_doubling_a_row(url):
    write(url, predictions("M1", "M2"))
    write(url, predictions("M1", "M2"))
    assert read(url) == [("M1", 0.25), ("M2", 0.25)]


def test_a_prediction_of_the_same_machine_and_time_takes_the_place_of_the_old_one(url):
    write(url, predictions("M1", "M2"))
    write(url, predictions("M1", probability=0.75))
    assert read(url) == [("M1", 0.75), ("M2", 0.25)]


def test_a_later_prediction_stands_beside_the_earlier_one(url):
    write(url, predictions("M1"))
    write(url, predictions("M1", day=1, probability=0.75))
    assert read(url) == [("M1", 0.25), ("M1", 0.75)]


def test_a_planner_reads_words(sqlite):
    write(sqlite, predictions("M1"))
    assert read(sqlite, "SELECT reasons, warnings FROM predictions") == [
        ("temperature is 70 °C; age", "no readings for 9 h")
    ]


def test_times_are_utc(url):
    write(url, predictions("M1"))
    zone = "" if url.startswith("sqlite") else " AT TIME ZONE 'UTC'"
    (time,) = read(url, f"SELECT CAST(time{zone} AS TEXT) FROM predictions")[0]  # noqa: S608  # no value from outside
    assert time.startswith("2025-01-06 00:00:00")


def test_either_all_rows_are_written_or_none(url):
    write(url, predictions("M0"))
    with pytest.raises(UpkeepError, match=r"(?i)null"):
        write(url, predictions("M1", "M2").with_columns(threshold=pl.Series([0.5, None])))
    assert read(url) == [("M0", 0.25)]


def test_a_table_may_stand_in_a_schema(sqlite):
    write(sqlite, predictions("M1"), name="main.risk")
    assert read(sqlite, "SELECT count(*) FROM main.risk") == [(1,)]
    with pytest.raises(UpkeepError, match="unknown database nowhere"):
        write(sqlite, predictions("M1"), name="nowhere.risk")


def test_a_table_with_other_columns_is_told(sqlite):
    read(sqlite, "CREATE TABLE predictions (plant TEXT, machine TEXT, time TEXT, PRIMARY KEY (plant, machine, time))")
    with pytest.raises(UpkeepError, match=r"cannot be written to the table predictions: .*scored_at"):
        write(sqlite, predictions("M1"))


def test_a_database_that_is_down_is_told_without_its_password(monkeypatch):
    monkeypatch.setenv("PLANNER_PASSWORD", PASSWORD)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        url = f"postgresql+psycopg://upkeep:${{PLANNER_PASSWORD}}@127.0.0.1:{closed.getsockname()[1]}/planner"
        with pytest.raises(UpkeepError, match=r"cannot be written to the table predictions: .*refused") as caught:
            write(url, predictions("M1"))
    assert PASSWORD not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_password_that_a_driver_repeats_is_hidden():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://upkeep:127.0.0.1@127.0.0.1:{closed.getsockname()[1]}/planner"
        with pytest.raises(UpkeepError, match="refused") as caught:
            write(url, predictions("M1"))
    assert "127.0.0.1" not in str(caught.value)


def test_the_whole_url_may_come_from_a_variable(sqlite, monkeypatch):
    monkeypatch.setenv("PLANNER_DATABASE", sqlite)
    write("$PLANNER_DATABASE", predictions("M1"))
    assert read(sqlite) == [("M1", 0.25)]


def test_a_url_that_is_none_a_driver_and_a_variable_that_are_missing_are_told(monkeypatch):
    monkeypatch.delenv("PLANNER_PASSWORD", raising=False)
    with pytest.raises(UpkeepError, match=r"score\.table\.url is not a database URL"):
        open_engine("planner.db://", "score.table.url")
    with pytest.raises(UpkeepError, match="no driver for oracle"):
        open_engine("oracle://h/db", "score.table.url")
    with pytest.raises(UpkeepError, match="PLANNER_PASSWORD is not set"):
        open_engine("postgresql+psycopg://u:${PLANNER_PASSWORD}@127.0.0.1/db", "score.table.url")
