"""A small fleet, and its deliveries in the shapes that other people's exports have."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from sqlalchemy import create_engine

START = datetime(2025, 3, 3, tzinfo=UTC)
WEEKS, MACHINES = 8, 4
FOLDER = Path("deliveries")
SENSORS = ["load_pct", "vibration_mm_s", "temperature_c"]

Fleet = tuple[pl.DataFrame, pl.DataFrame]
"""Telemetry and events, as upkeep has them."""


def make_fleet() -> Fleet:
    """Return presses that wear until they fail, and are repaired ten hours later."""
    draw = np.random.default_rng(5)
    rows, events = [], []
    for machine in range(1, MACHINES + 1):
        key, wear, down = ("north", f"press-{machine}"), draw.random(), 0
        for hour in range(WEEKS * 168):
            time = START + timedelta(hours=hour)
            if down:
                down -= 1
                if not down:
                    events.append((*key, time, "maintenance", "oil change"))
                    wear = 0.0
                continue
            load = (50.0, 80.0)[hour // 8 % 2]
            wear += draw.uniform(0.5, 1.5) / 200
            readings = (load, 2 + 4 * wear**2 + draw.normal(0, 0.8), 40 + load / 5 + draw.normal(0, 0.5))
            rows.append((*key, time, *(round(float(value), 2) for value in readings)))
            if wear > 1 and draw.random() < 0.03:
                events.append((*key, time, "failure", "bearing breakdown"))
                down = 10
    keys = ["plant", "machine", "time"]
    return (
        pl.DataFrame(rows, schema=[*keys, *SENSORS], orient="row").sort(keys),
        pl.DataFrame(events, schema=[*keys, "kind", "code"], orient="row").sort(keys),
    )


def write_plain(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    telemetry.write_csv(FOLDER / "telemetry.csv")
    events.write_csv(FOLDER / "events.csv")


def write_german(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """Semicolons, decimal commas, local times, cp1252, words in German, endings in capitals."""
    clock = pl.col("time").dt.convert_time_zone("Europe/Berlin").dt.strftime("%d.%m.%Y %H:%M").alias("Zeitstempel")
    keys = [pl.col("plant").alias("Werk"), pl.col("machine").alias("Maschinen-Nr"), clock]
    names = dict(zip(SENSORS, ("Last [%]", "Schwingung [mm/s]", "Lagertemperatur [°C]"), strict=True))
    values = [pl.col(name).cast(pl.String).str.replace(".", ",", literal=True).alias(to) for name, to in names.items()]
    kinds = {"failure": "Ausfall", "maintenance": "Wartung"}
    happened = [pl.col("kind").replace(kinds).alias("Art"), pl.col("code").alias("Ursache für Stillstand")]
    for name, rows in {
        "Messwerte.CSV": telemetry.select(*keys, *values),
        "Ereignisse.CSV": events.select(*keys, *happened),
    }.items():
        (FOLDER / name).write_text(rows.write_csv(separator=";"), encoding="cp1252")


def write_long(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """A row per sensor and instant, in order of time."""
    long = telemetry.unpivot(on=SENSORS, index=["plant", "machine", "time"], variable_name="tag")
    long.sort("time", "machine").select("time", "plant", asset="machine", tag="tag", value="value").write_csv(
        FOLDER / "historian.csv"
    )
    events.write_csv(FOLDER / "events.csv")


def write_epoch_parquet(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    ts = pl.col("time").dt.epoch("ms").alias("ts")
    telemetry.with_columns(ts).drop("time").write_parquet(FOLDER / "telemetry.parquet")
    events.with_columns(ts).drop("time").write_parquet(FOLDER / "events.pq")


def write_files_per_machine(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """The plant is a folder, the machine a file in it."""
    for (plant, machine), rows in telemetry.group_by("plant", "machine"):
        folder = FOLDER / "readings" / f"plant={plant}"
        folder.mkdir(parents=True, exist_ok=True)
        rows.drop("plant", "machine").write_csv(folder / f"{machine}.csv")
    events.write_csv(FOLDER / "events.csv")


def write_files_beside_each_other(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """A file per machine, and the events among them."""
    for (machine,), rows in telemetry.group_by("machine"):
        rows.drop("plant", "machine").write_csv(FOLDER / f"{machine}.csv")
    events.drop("plant").write_csv(FOLDER / "events.csv")


def write_events_by_kind(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """A file for each kind of event, with columns of the same names, as the well-known set of 100 machines has them."""
    renamed = {"machine": "machineID", "time": "datetime"}
    telemetry.rename(renamed).write_csv(FOLDER / "PdM_telemetry.csv")
    for kind, name in (("failure", "failures"), ("maintenance", "maint")):
        events.filter(kind=kind).drop("kind").rename({**renamed, "code": "comp"}).write_csv(FOLDER / f"PdM_{name}.csv")


def write_one_machine(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """A single machine, so that nothing names it."""
    for name, rows in (("telemetry", telemetry), ("events", events)):
        rows.filter(machine="press-1").drop("plant", "machine").write_csv(FOLDER / f"{name}.csv")


def write_events_in_words(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """What happened stands in one column of text only."""
    telemetry.write_csv(FOLDER / "telemetry.csv")
    events.drop("kind").rename({"code": "remarks"}).write_csv(FOLDER / "logbook.tsv", separator="\t")


def write_files_per_machine_and_month(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """The machine is a folder with a file a month."""
    for (machine, month), rows in telemetry.group_by("machine", pl.col("time").dt.month()):
        folder = FOLDER / "history" / machine
        folder.mkdir(parents=True, exist_ok=True)
        rows.drop("plant", "machine").write_csv(folder / f"2025-{month:02d}.csv")
    events.drop("plant").write_csv(FOLDER / "downtime_log.csv")


def write_plants_that_differ(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """A file per plant, one of which measures noise."""
    noisy = pl.col("machine") == "press-1"
    telemetry.filter(~noisy).write_csv(FOLDER / "north.csv")
    south = telemetry.filter(noisy).with_columns(plant=pl.lit("south")).rename({"vibration_mm_s": "noise_db"})
    south.write_csv(FOLDER / "south.csv")
    plant = pl.when(noisy).then(pl.lit("south")).otherwise("plant")
    events.with_columns(plant=plant).write_csv(FOLDER / "events.csv")


def write_files_with_prefixes(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """The machine is a part of its file's name."""
    for (machine,), rows in telemetry.group_by("machine"):
        rows.drop("plant", "machine").write_csv(FOLDER / f"readings [{machine}]_2025.csv")
    events.drop("plant").write_csv(FOLDER / "events.csv")


def write_spreadsheet(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """A title, UTF-16, thousands grouped, words for gaps; events with nothing but machine, time and kind."""
    thousands = pl.col("load_pct").map_elements("{:,.1f}".format, return_dtype=pl.String)
    wide = telemetry.with_columns(thousands, spare=pl.lit("#N/A"), energy=pl.lit("1,250.5"))
    title = "Readings of the year 2025\n\n"
    (FOLDER / "telemetry.csv").write_text(title + wide.write_csv(), encoding="utf-16-le")
    events.select("machine", "time", "kind").write_csv(FOLDER / "events.csv")


def write_day_and_hour(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    """Day and time of day in two columns: readings as a data logger has them, events as SAP has them."""
    time = pl.col("time").dt
    day, clock = time.strftime("%d/%m/%Y").alias("Date"), time.strftime("%H.%M.%S").alias("Time")
    telemetry.select("plant", "machine", day, clock, *SENSORS).write_csv(FOLDER / "AirQuality.csv", separator=";")
    day, clock = time.strftime("%Y%m%d").alias("AUSVN"), time.strftime("%H%M%S").alias("AUZTV Uhrzeit")
    events.select("plant", "machine", day, clock, "kind", "code").write_csv(FOLDER / "notifications.csv")


def write_database(telemetry: pl.DataFrame, events: pl.DataFrame) -> None:
    engine = create_engine(f"sqlite:///{FOLDER}/plant.db")
    text = pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S")
    for name, rows in (("readings", telemetry), ("downtimes", events)):
        rows.with_columns(text).rename({"time": "ts", "machine": "asset"}).write_database(
            name, engine, if_table_exists="replace"
        )


SHAPES: dict[str, Callable[[pl.DataFrame, pl.DataFrame], None]] = {
    name.removeprefix("write_"): write for name, write in globals().copy().items() if name.startswith("write_")
}
