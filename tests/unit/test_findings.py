from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from upkeep.contract.findings import (
    MAX_FINDINGS,
    find_late_rows,
    find_missing_batches,
    find_outages,
    find_renamed_machines,
    find_stuck_sensors,
    find_unknown_machines,
    report,
    sort_findings,
)

START = datetime(2025, 1, 6, tzinfo=UTC)
EVERYWHERE = {"heat": pl.lit(True)}


def record(heat: list[float | None], hours: list[int] | None = None, machine: str = "M1") -> pl.DataFrame:
    """One machine's hourly heat beside a sound that always moves."""
    times = [START + timedelta(hours=hour) for hour in hours or range(len(heat))]
    return pl.DataFrame(
        {"machine": machine, "time": times, "heat": heat, "sound": [float(row) for row in range(len(heat))]},
        schema_overrides={"heat": pl.Float64},
    )


def spans(findings: list[dict[str, str | None]]) -> list[tuple[str | None, float, float]]:
    """Column, and the hours since the start that a finding begins and ends with."""
    hour = timedelta(hours=1)
    return [
        (
            finding["column"],
            (datetime.fromisoformat(str(finding["from"])) - START) / hour,
            (datetime.fromisoformat(str(finding["to"])) - START) / hour,
        )
        for finding in findings
    ]


def moving(rows: int) -> list[float | None]:
    return [float(row % 7) + row / 1000 for row in range(rows)]


def test_a_gap_in_a_machines_rows_is_an_outage_only_beyond_the_limit() -> None:
    rows = record(moving(6), hours=[0, 1, 2, 8, 9, 16])
    assert spans(find_outages(rows, EVERYWHERE, 6)) == [(None, 9, 16)]


def test_a_gap_between_two_machines_is_no_outage() -> None:
    rows = pl.concat([record(moving(2)), record(moving(2), hours=[50, 51], machine="M2")])
    assert find_outages(rows, EVERYWHERE, 6) == []


def test_a_machine_that_reports_daily_is_not_out_all_day() -> None:
    rows = record(moving(6), hours=[0, 24, 48, 72, 96, 192])
    assert spans(find_outages(rows, EVERYWHERE, 6)) == [(None, 96, 192)]


@pytest.mark.parametrize(
    ("heat", "span"),
    [
        ([1.0, *[None] * 6, 2.0], ("heat", 0, 7)),
        ([*[None] * 8, 2.0], ("heat", 0, 8)),
        ([1.0, *[None] * 7], ("heat", 0, 7)),
    ],
)
def test_a_sensor_without_values_for_longer_than_the_limit_is_out(
    heat: list[float | None], span: tuple[str, float, float]
) -> None:
    assert spans(find_outages(record(heat), EVERYWHERE, 6)) == [span]


def test_a_short_gap_in_a_sensor_is_no_outage() -> None:
    assert find_outages(record([1.0, *[None] * 5, 2.0]), EVERYWHERE, 6) == []


def test_a_column_that_was_not_delivered_is_not_an_outage_of_each_machine() -> None:
    rows = record([1.0, *[None] * 30, 2.0])
    delivered = {"heat": ~pl.col("sound").is_between(1, 30)}
    assert find_outages(rows, delivered, 6) == []


def test_a_sensor_that_repeats_a_value_while_another_moves_is_stuck() -> None:
    heat = moving(100)
    heat[40:66] = [3.3] * 26
    [finding] = find_stuck_sensors(record(heat), ["heat", "sound"], 24)
    assert (finding["kind"], finding["detail"]) == ("stuck_sensor", "3.3 for 25.0 h")
    assert spans([finding]) == [("heat", 40, 65)]


@pytest.mark.parametrize("name", ["others", "value", "first", "rows", "lasted", "until"])
def test_a_sensor_may_be_called_as_the_columns_that_findings_are_made_in(name: str) -> None:
    heat = moving(100)
    heat[40:66] = [3.3] * 26
    heat[80:90] = [None] * 10
    rows = record(heat).rename({"heat": name})
    assert spans(find_stuck_sensors(rows, [name, "sound"], 24)) == [(name, 40, 65)]
    assert spans(find_outages(rows, {name: pl.lit(True)}, 6)) == [(name, 79, 90)]


def test_a_sensor_stuck_through_gaps_and_to_the_end_is_stuck() -> None:
    heat = moving(100)
    heat[60:] = [None, 0.0] * 20
    assert spans(find_stuck_sensors(record(heat), ["heat", "sound"], 24)) == [("heat", 61, 99)]


def test_a_sensor_that_repeats_a_value_for_less_than_the_limit_is_not_stuck() -> None:
    heat = moving(100)
    heat[40:60] = [3.3] * 20
    assert find_stuck_sensors(record(heat), ["heat", "sound"], 24) == []


def test_a_machine_that_stands_still_has_no_stuck_sensor() -> None:
    heat = moving(100)
    heat[40:70] = [3.3] * 30
    rows = record(heat).with_columns(sound=pl.when(pl.col("heat") == 3.3).then(1.0).otherwise("sound"))
    assert find_stuck_sensors(rows, ["heat", "sound"], 24) == []


def test_two_equal_values_around_an_outage_are_not_a_stuck_sensor() -> None:
    rows = record([*moving(20), 3.3, 3.3, *moving(20)], hours=[*range(21), *range(80, 101)])
    assert find_stuck_sensors(rows, ["heat", "sound"], 24) == []


def test_a_sensor_with_few_levels_is_coarse_and_not_stuck() -> None:
    levels = [21.0] * 40 + [22.0] * 3
    assert find_stuck_sensors(record(levels * 6), ["heat", "sound"], 24) == []


def test_a_sensor_that_never_moves_is_reported_once_for_all_machines() -> None:
    rows = pl.concat([record([5.0] * 30), record([5.0] * 30, machine="M2"), record(moving(30), machine="M3")])
    [finding] = find_stuck_sensors(rows, ["heat", "sound"], 24)
    assert (finding["kind"], finding["machine"], finding["detail"]) == ("constant_sensor", None, "on 2 of 3 machines")


def test_gaps_in_the_sequence_of_batches_are_missing_batches_up_to_the_newest() -> None:
    batches = [date(2025, 1, 6), date(2025, 1, 27), date(2025, 1, 27), date(2025, 2, 3)]
    findings = find_missing_batches("telemetry", batches, date(2025, 2, 10), 7)
    assert [(finding["from"], finding["to"], finding["detail"]) for finding in findings] == [
        ("2025-01-13", "2025-01-20", "batches missing: 2"),
        ("2025-02-10", "2025-02-10", "batches missing: 1"),
    ]


def test_rows_from_before_their_batch_are_late_and_counted_per_batch() -> None:
    times = [START - timedelta(hours=30), START - timedelta(hours=1), START]
    [finding] = find_late_rows("telemetry", pl.DataFrame({"time": times}).with_columns(begins=pl.lit(START)))
    assert finding["batch"] == "2025-01-06"
    assert finding["detail"] == "2 rows, up to 30.0 h before the batch"


def test_a_flood_of_findings_is_counted_instead_of_listed() -> None:
    flood = [report("outage", "telemetry", machine=f"M{number:04d}", detail="") for number in range(MAX_FINDINGS + 5)]
    findings = sort_findings([*flood[::-1], report("late_rows", "events", detail="")])
    assert len(findings) == MAX_FINDINGS + 2
    assert findings[0]["kind"] == "late_rows"
    assert findings[1]["machine"] == "M0000"
    assert (findings[-1]["kind"], findings[-1]["detail"]) == ("outage", "5 more")


def test_machines_that_no_telemetry_has_are_one_finding_with_their_failures_and_what_was_meant() -> None:
    events = pl.DataFrame({"machine": ["1", "001", "002", "x9"], "kind": ["failure", "failure", "error", "error"]})
    known = pl.Series(["1", "2"])
    [finding] = find_unknown_machines("events", events, known, None)
    names = "001 (did you mean 1?), 002 (did you mean 2?), x9"
    assert finding["detail"] == f"3 rows, 1 of them failures, of 3 machines that telemetry has not: {names}"
    assert find_unknown_machines("events", events[:1], known, None) == []
    [finding] = find_unknown_machines("machines", events.select("machine"), known.clear(), "north")
    whose = "of a plant without telemetry (did you mean north?)"
    assert finding["detail"] == f"4 rows of 4 machines {whose}: 001, 002, 1"


@pytest.mark.parametrize("later", ["M1", "m-01", "M1.0"])
def test_a_machine_that_goes_on_under_another_spelling_is_a_finding(later: str) -> None:
    rows = pl.concat([record([1.0] * 3, machine="m1"), record([1.0] * 3, [5, 6, 7], machine=later)])
    [found] = find_renamed_machines(rows)
    assert (found["machine"], found["from"]) == (later, (START + timedelta(hours=5)).isoformat())
    assert "begins where m1 ends" in str(found["detail"])


@pytest.mark.parametrize("other", ["Sa\u0308ge", "Säge\u200b", "\u00adSäge"])
def test_machines_whose_difference_cannot_be_seen_are_a_finding_that_shows_it(other: str) -> None:
    rows = pl.concat([record([1.0] * 3, machine="Säge"), record([1.0] * 3, machine=other)])
    [found] = find_renamed_machines(rows)
    first, second = sorted([ascii("Säge")[1:-1], ascii(other)[1:-1]])
    assert {first, second} <= set(str(found["detail"]).removesuffix(":").replace(":", "").split())
    [finding] = find_unknown_machines(
        "machines", rows.select("machine").filter(machine=other), pl.Series(["Säge"]), None
    )
    assert f"{ascii(other)[1:-1]} (did you mean S\\xe4ge?)" in str(finding["detail"])


@pytest.mark.parametrize(("later", "hours"), [("M1", [1, 2, 3]), ("m2", [5, 6, 7]), ("m1", [5, 6, 7])])
def test_machines_beside_each_other_or_of_other_numbers_are_not_renamed(later: str, hours: list[int]) -> None:
    rows = pl.concat([record([1.0] * 3, machine="m1"), record([1.0] * 3, hours, machine=later)])
    assert find_renamed_machines(rows) == []
