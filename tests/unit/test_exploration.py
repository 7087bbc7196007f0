from datetime import UTC, datetime, timedelta

import polars as pl

from upkeep.contract.dictionary import Dictionary
from upkeep.contract.findings import MAX_FINDINGS
from upkeep.judging.reports import DataQuality
from upkeep.reporting import exploration
from upkeep.reporting.plots import style_plants

START = datetime(2025, 1, 6, tzinfo=UTC)
KEY = {"role": "key", "type": "text", "meaning": "key"}
KEYS = {"plant": KEY, "machine": KEY, "time": {**KEY, "type": "time"}}
DICTIONARY = Dictionary.model_validate(
    {
        "tables": {
            "telemetry": {
                **KEYS,
                "load_pct": {"role": "setting", "unit": "%", "range": [0, 100], "meaning": "load"},
                "vibration_mm_s": {"role": "sensor", "unit": "mm/s", "meaning": "vibration"},
                "pressure_bar": {"role": "sensor", "unit": "bar", "meaning": "pressure"},
            },
            "events": {**KEYS, "kind": KEY, "code": KEY},
            "machines": {"plant": KEY, "machine": KEY, "model": KEY, "installed": {**KEY, "type": "time"}},
        }
    }
)


NAMES = {"vibration_mm_s": "vibration", "pressure_bar": "pressure"}
STYLES = style_plants(["lyon", "porto"])


def panels_of(traces: pl.DataFrame) -> list[str]:
    picture = exploration.draw_traces(traces, NAMES, 20, STYLES)
    return [panel.get_title("left") for panel in picture.axes if panel.get_visible()]


def make_telemetry(hours: int = 400, *, fails_at: int = 300) -> pl.DataFrame:
    """One machine whose load alternates, and whose vibration rises by one in the 20 h before its failure."""
    hour = pl.int_range(hours, eager=True)
    load = 20.0 + 60 * (hour // 7 % 2).cast(pl.Float64)
    wear = ((hour > fails_at - 20) & (hour <= fails_at)).cast(pl.Float64)
    return pl.DataFrame({"hour": hour, "load_pct": load, "wear": wear}).select(
        plant=pl.lit("lyon"),
        machine=pl.lit("M1"),
        time=pl.lit(START) + pl.duration(hours="hour"),
        load_pct="load_pct",
        vibration_mm_s=pl.col("load_pct") / 10 + pl.col("wear") + 0.1 * (pl.col("hour") % 2),
        pressure_bar=pl.col("load_pct") / 20 + 0.1 * ((pl.col("hour") + 1) % 2),
    )


def make_events(*hours: int, kind: str = "failure") -> pl.DataFrame:
    times = [START + timedelta(hours=hour) for hour in hours]
    schema = {"plant": pl.String, "machine": pl.String, "time": pl.Datetime("us", "UTC"), "kind": pl.String}
    return pl.DataFrame({"plant": "lyon", "machine": "M1", "time": times, "kind": kind}, schema=schema)


def make_quality(*findings: dict[str, object]) -> DataQuality:
    counts = {"rows_in": 100, "clean": 90, "duplicates": {"exact": 3, "near": 1}, "quarantined": {"out_of_range": 6}}
    plant = {"tables": {"telemetry": counts}, "findings": list(findings)}
    return DataQuality.model_validate({"plants": {"lyon": plant}})


def test_a_fleet_row_counts_failures_per_machine_and_year() -> None:
    machines = pl.DataFrame({"plant": ["lyon"], "machine": ["M1"], "model": ["A"]})
    row = exploration.describe_fleet([make_telemetry(24 * 366).lazy()], make_events(300, 600), machines).row(
        0, named=True
    )
    assert (row["machines"], row["models"], row["failures"], row["failures_per_machine_year"]) == (1, 1, 2, 2.0)


def test_the_first_and_the_last_day_of_a_record_count_both() -> None:
    machines = pl.DataFrame({"plant": ["lyon"], "machine": ["M1"], "model": ["A"]})
    for days in (1, 7):
        fleet = exploration.describe_fleet([make_telemetry(24 * days).lazy()], make_events(5), machines)
        assert fleet["failures_per_machine_year"].to_list() == [round(365.25 / days, 1)]


def test_a_plant_without_failures_is_still_in_the_fleet() -> None:
    machines = pl.DataFrame(
        {"plant": ["lyon"], "machine": ["M1"], "model": [None]}, schema_overrides={"model": pl.String}
    )
    row = exploration.describe_fleet([make_telemetry().lazy()], make_events(), machines).row(0, named=True)
    assert (row["models"], row["failures"]) == (0, 0)


def test_losses_account_for_every_row_that_came_in() -> None:
    (row,) = exploration.count_losses(make_quality()).rows(named=True)
    assert row == {"plant": "lyon", "rows_in": 100, "clean": 90, "duplicate": 4, "out_of_range": 6}
    assert sum(list(row.values())[2:]) == row["rows_in"]


def test_findings_of_telemetry_are_counted_by_kind_as_far_as_validate_lists_them() -> None:
    outages = [{"kind": "outage", "table": "telemetry"}] * (MAX_FINDINGS + 1)  # the last one counts the others
    stuck, of_events = {"kind": "stuck_sensor", "table": "telemetry"}, {"kind": "late_rows", "table": "events"}
    table = exploration.tabulate_findings(make_quality(*outages, stuck, of_events)).splitlines()
    assert table[0] == "| plant | outage | stuck sensor |"
    assert table[2:] == [f"| lyon | more than {MAX_FINDINGS} | 1 |"]


def test_readings_are_described_over_all_rows_and_between_plants() -> None:
    other = make_telemetry(fails_at=-100).with_columns(pl.lit("porto").alias("plant"), pl.col("load_pct") * 10)
    empty = other.with_columns(pressure_bar=pl.lit(None, pl.Float64))
    telemetry = [make_telemetry().drop("pressure_bar").lazy(), empty.lazy()]
    columns = DICTIONARY.columns("telemetry")
    found = {row["column"]: row for row in exploration.describe_readings(telemetry, columns).rows(named=True)}
    assert list(found) == ["load_pct", "vibration_mm_s", "pressure_bar"]
    load, pressure = found["load_pct"], found["pressure_bar"]
    assert (load["unit"], load["missing_percent"], load["1%"], load["99%"]) == ("%", 0, 20, 800)
    assert (load["lowest_plant"], load["highest_plant"]) == (20, 200)
    assert (pressure["missing_percent"], pressure["50%"], pressure["lowest_plant"]) == (100, None, None)


def test_a_trace_shows_wear_and_not_the_change_of_load() -> None:
    traces = exploration.trace_failures([make_telemetry().lazy()], make_events(300), DICTIONARY, 0.05, 12, hours=100)
    vibration = traces.filter(sensor="vibration_mm_s").sort("hours_to_failure")
    assert (vibration["deviation"][:8] > 1).all()
    assert (vibration["deviation"][12:].abs() < 0.5).all()
    assert (traces.filter(sensor="pressure_bar")["deviation"].abs() < 0.5).all()
    assert panels_of(traces) == ["vibration", "pressure"]


def test_a_fleet_without_settings_is_traced_all_the_same() -> None:
    tables = DICTIONARY.model_dump()["tables"]
    del tables["telemetry"]["load_pct"]
    dictionary = Dictionary.model_validate({"tables": tables})
    traces = exploration.trace_failures([make_telemetry().lazy()], make_events(300), dictionary, 0.05, 12, hours=100)
    assert set(panels_of(traces)) == {"vibration", "pressure"}


def test_without_failures_there_is_no_trace() -> None:
    traces = exploration.trace_failures([make_telemetry().lazy()], make_events(), DICTIONARY, 0.05, 12, hours=100)
    assert traces.is_empty()
    picture = exploration.draw_traces(traces, NAMES, 20, STYLES)
    assert picture.get_suptitle().startswith("No failure of a machine with sensors is on record")
    assert not picture.axes[0].get_visible()


def test_the_title_of_traces_does_not_average_plants_that_move_apart() -> None:
    traces = pl.DataFrame(
        {
            "plant": ["lyon", "lyon", "porto"],
            "sensor": "pressure_bar",
            "hours_to_failure": [5.0, 15.0, 5.0],
            "deviation": [-3.0, -1.0, 1.9],
        }
    )
    title = exploration.draw_traces(traces, NAMES, 48, STYLES).get_suptitle().replace("\n", " ")
    assert title.startswith("Pressure gives failures away best: in the last 48 h it averages 2.0 standard deviations")
    assert title.endswith("below its usual level (lyon)")
