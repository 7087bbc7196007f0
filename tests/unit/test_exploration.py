from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from upkeep.contract.dictionary import Dictionary
from upkeep.judging.reports import DataQuality
from upkeep.reporting import exploration

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
    row = exploration.describe_fleet(make_telemetry(24 * 366), make_events(300, 600), machines).row(0, named=True)
    assert (row["machines"], row["models"], row["failures"], row["failures_per_machine_year"]) == (1, 1, 2, 2.0)


def test_a_plant_without_failures_is_still_in_the_fleet() -> None:
    machines = pl.DataFrame(
        {"plant": ["lyon"], "machine": ["M1"], "model": [None]}, schema_overrides={"model": pl.String}
    )
    row = exploration.describe_fleet(make_telemetry(), make_events(), machines).row(0, named=True)
    assert (row["models"], row["failures"]) == (0, 0)


def test_losses_account_for_every_row_that_came_in() -> None:
    losses = exploration.count_losses(make_quality())
    assert dict(losses.select("reason", "rows").iter_rows()) == {"clean": 90, "duplicate": 4, "out of range": 6}
    assert losses["share"].sum() == pytest.approx(1)


def test_a_delivery_is_late_missing_doubled_or_just_delivered() -> None:
    files = [
        {"table": "telemetry", "plant": "lyon", "batch": batch, "delivery": delivery}
        for batch, delivery in (("2025-01-06", 1), ("2025-01-13", 1), ("2025-01-13", 2), ("2025-02-03", 1))
    ]
    gone = {
        "kind": "missing_batch",
        "table": "telemetry",
        "batch": "2025-01-20",
        "from": "2025-01-20",
        "to": "2025-01-27",
    }
    late = {"kind": "late_rows", "table": "telemetry", "batch": "2025-02-03", "from": "2025-02-01T05:00:00+00:00"}
    deliveries = exploration.list_deliveries({"files": files}, make_quality(gone, late), 7)
    assert deliveries["status"].to_list() == ["delivered", "delivered again", "missing", "missing", "late rows"]
    assert deliveries["batch"].to_list()[2:4] == [date(2025, 1, 20), date(2025, 1, 27)]


@pytest.mark.parametrize(
    "text", ["2025-01-20", "2025-01-20T00:00:00", "2025-01-20T00:00:00+00:00", "2025-01-20T00:00:00Z"]
)
def test_a_finding_may_give_a_day_or_an_instant(text: str) -> None:
    finding = {"kind": "outage", "table": "telemetry", "from": text, "to": None}
    assert exploration.list_findings(make_quality(finding), ["outage"])["from"][0] == datetime(2025, 1, 20, tzinfo=UTC)


def test_findings_of_other_kinds_are_left_out() -> None:
    assert exploration.list_findings(
        make_quality({"kind": "extra_column", "table": "telemetry"}), ["outage"]
    ).is_empty()


def test_sensors_are_summarised_at_each_level_of_the_setting() -> None:
    levels = exploration.summarise_sensors(make_telemetry(fails_at=-100), "load_pct", ["vibration_mm_s"])
    assert levels["level"].to_list() == [20, 80]
    assert levels["middle"].to_list() == pytest.approx([2.05, 8.05], abs=0.06)


def test_the_setting_that_sensors_follow_is_picked() -> None:
    telemetry = make_telemetry().with_columns(constant=pl.lit(1.0), hour=pl.int_range(pl.len()) % 5)
    assert exploration.pick_setting(telemetry, ["constant", "hour", "load_pct"], ["vibration_mm_s"]) == "load_pct"


def test_a_trace_shows_wear_and_not_the_change_of_load() -> None:
    traces = exploration.trace_failures(make_telemetry(), make_events(300), DICTIONARY, 0.05, 12, hours=100)
    vibration = traces.filter(sensor="vibration_mm_s").sort("hours_to_failure")
    assert (vibration["deviation"][:8] > 1).all()
    assert (vibration["deviation"][12:].abs() < 0.5).all()
    assert (traces.filter(sensor="pressure_bar")["deviation"].abs() < 0.5).all()
    assert exploration.rank_sensors(traces, 20) == ["vibration_mm_s", "pressure_bar"]


def test_a_fleet_without_settings_is_traced_all_the_same() -> None:
    tables = DICTIONARY.model_dump()["tables"]
    del tables["telemetry"]["load_pct"]
    dictionary = Dictionary.model_validate({"tables": tables})
    traces = exploration.trace_failures(make_telemetry(), make_events(300), dictionary, 0.05, 12, hours=100)
    assert set(exploration.rank_sensors(traces, 20)) == {"vibration_mm_s", "pressure_bar"}
    assert exploration.pick_setting(make_telemetry(), [], ["vibration_mm_s"]) is None


def test_without_failures_there_is_no_trace_and_sensors_stay_in_the_dictionarys_order() -> None:
    traces = exploration.trace_failures(make_telemetry(), make_events(), DICTIONARY, 0.05, 12, hours=100)
    assert traces.is_empty()
    sensors = exploration.rank_sensors(traces, 20, otherwise=["vibration_mm_s", "pressure_bar"])
    assert sensors == ["vibration_mm_s", "pressure_bar"]
    assert exploration.pick_setting(make_telemetry(), ["load_pct"], sensors) == "load_pct"


def test_each_month_has_its_events_and_the_title_the_plant_that_fails_most() -> None:
    others = make_events(5).with_columns(plant=pl.lit("porto"))
    picture = exploration.draw_events(pl.concat([make_events(0, 24 * 60), others, make_events(9, kind="error")]))
    assert picture.get_suptitle() == "3 failures in all; lyon has the most, 2"
    heights = {panel.get_title("left"): [bar.get_height() for bar in panel.patches] for panel in picture.axes}
    assert heights == {"failures": [2, 1], "errors": [1]}
    assert exploration.draw_events(make_events(0)).get_suptitle() == "1 failure in all"
