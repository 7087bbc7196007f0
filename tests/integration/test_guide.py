"""The guide's "Put your own data in", followed to the letter with three generated CSV files."""

import io
import json
import random
import re
import subprocess
import sys
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from upkeep import cli

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, flags=re.DOTALL)
HEADERS = [text.splitlines()[0] for language, text in BLOCKS if language == "csv"]
DICTIONARY, FETCH = [text for language, text in BLOCKS if language == "yaml" and text.startswith(("tables:", "fetch:"))]
START, WEEKS, MACHINES = datetime(2025, 1, 6, tzinfo=UTC), 12, 4
TABLES = ("telemetry", "events", "machines")


def fleet(seed: int = 1) -> dict[str, list[str]]:
    """Return the lines of the three files: presses that wear until they fail, early or late, and are then repaired."""
    draw = random.Random(seed)  # noqa: S311  # made-up data, no secret
    lines: dict[str, list[str]] = {table: [header] for table, header in zip(TABLES, HEADERS, strict=True)}
    for machine in range(1, MACHINES + 1):
        lines["machines"].append(f"north,press-{machine},{'AB'[machine % 2]},2020-01-01")
        wear, limit, repaired_in = draw.random(), draw.uniform(0.85, 1.3), 0
        for hour in range(WEEKS * 168):
            row = f"north,press-{machine},{START + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}"
            if repaired_in:
                repaired_in -= 1
                if not repaired_in:
                    lines["events"].append(f"{row},maintenance,repair")
                    wear, limit = 0.0, draw.uniform(0.85, 1.3)
                continue
            load = draw.choice((50, 80))
            wear += load / 15_600 * draw.uniform(0.5, 1.5)
            vibration = 2 + 18 * max(0.0, wear - 0.6) ** 2 + draw.gauss(0, 0.2)
            lines["telemetry"].append(f"{row},{load},{vibration:.2f},{40 + 0.2 * load + draw.gauss(0, 0.5):.1f}")
            if wear > limit:
                lines["events"].append(f"{row},failure,bearing")
                repaired_in = 12
    return lines


@pytest.fixture(scope="module")
def lines():
    return fleet()


@pytest.fixture(autouse=True)
def _checkout(lines, tmp_path, monkeypatch):
    """A checkout in which a newcomer has done steps 1, 3 and 4 of the guide by hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deliveries").mkdir()
    for table in TABLES:
        (tmp_path / f"deliveries/{table}.csv").write_text("\n".join(lines[table]) + "\n")
    (tmp_path / "data/references").mkdir(parents=True)
    (tmp_path / "data/references/dictionary.yaml").write_text(DICTIONARY, encoding="utf-8")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")) | yaml.safe_load(FETCH)
    params["evaluate"]["golden"] = None
    params["parallel"]["jobs"] = 1  # spares the start of worker processes
    write_params(params)
    return tmp_path


def write_params(params: dict[str, object]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def read_params() -> dict[str, dict[str, object]]:
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


def replace_in(path: str, old: str, new: str, count: int = -1) -> None:
    text = Path(path).read_text(encoding="utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new, count), encoding="utf-8")


def upkeep(monkeypatch, command: str) -> str:
    """Run a command in this process; return what it says to a user who made a mistake, empty if all went well."""
    monkeypatch.setattr(sys, "argv", ["upkeep", *command.split()])
    said = io.StringIO()
    with pytest.raises(SystemExit) as left, redirect_stderr(said):
        cli.main()
    return said.getvalue() if left.value.code else ""


@pytest.mark.parametrize("drafted", [False, True])
def test_three_csv_files_become_a_model_that_is_judged(monkeypatch, drafted):
    if drafted:
        assert upkeep(monkeypatch, "adopt deliveries/ --force") == ""
    for stage in ("fetch", "validate", "dataset", "train", "evaluate", "check"):
        assert upkeep(monkeypatch, stage) == ""
    quality = json.loads(Path("reports/data_quality.json").read_text())["plants"]["north"]["tables"]
    assert quality["telemetry"]["quarantined"] == {}
    assert quality["telemetry"]["clean"] == quality["telemetry"]["rows_in"] > 5_000
    sizes = json.loads(Path("reports/dataset.json").read_text())["north"]
    assert all(split["failing"] for split in sizes.values())
    assert json.loads(Path("reports/metrics.json").read_text())["overall"]["average_precision"] > 0.5
    assert Path("models/plants/north/model.json").exists()


def test_the_draft_is_what_the_guide_writes_by_hand(monkeypatch):
    assert upkeep(monkeypatch, "adopt deliveries/ --force") == ""
    by_hand = yaml.safe_load(DICTIONARY)["tables"]
    drafted = yaml.safe_load(Path("data/references/dictionary.yaml").read_text(encoding="utf-8"))["tables"]
    roles = [
        {(table, name): column["role"] for table, columns in tables.items() for name, column in columns.items()}
        for tables in (drafted, by_hand)
    ]
    assert roles[0] == roles[1]
    assert {name: column.get("unit") for name, column in drafted["telemetry"].items()} == {
        name: column.get("unit") for name, column in by_hand["telemetry"].items()
    }
    fetch = yaml.safe_load(FETCH)["fetch"]
    for name in ("source", "until", "batch_days", "reread_batches"):
        assert read_params()["fetch"][name] == fetch[name]


def test_a_misspelt_column_is_named_with_the_nearest(monkeypatch):
    replace_in("deliveries/telemetry.csv", "time", "tiem", count=1)
    told = upkeep(monkeypatch, "fetch")
    assert "there is no column 'time'; did you mean 'tiem'?" in told
    assert "table=telemetry" in told
    assert "deliveries/telemetry.csv" in told
    assert "remedy:   name it in columns" in told


def test_a_required_sensor_that_the_file_lacks_is_named(monkeypatch):
    replace_in("deliveries/telemetry.csv", "vibration_mm_s", "vibratoin_mm_s", count=1)
    assert upkeep(monkeypatch, "fetch") == ""
    told = upkeep(monkeypatch, "validate")
    assert "missing column vibration_mm_s" in told
    assert re.search(
        r"stage=validate, plant=north, table=telemetry, batch=\d{4}-\d\d-\d\d, column=vibration_mm_s", told
    )
    assert "data/interim/quarantine/north.parquet" in told


@pytest.mark.parametrize(
    ("line", "table", "column"), [("    model:", "machines", "model"), ("    code:", "events", "code")]
)
def test_a_dictionary_without_a_needed_column_is_refused(monkeypatch, line, table, column):
    replace_in("data/references/dictionary.yaml", line, f"    {column}_name:")
    assert upkeep(monkeypatch, "fetch") == ""
    told = upkeep(monkeypatch, "validate")
    assert f"the table {table} needs {column} (text)" in told
    assert "correct the file as docs/guide.md describes it, or validate.dictionary in params.yaml" in told


def test_a_dictionary_that_lacks_a_delivered_sensor_leaves_it_out_and_reports_it(monkeypatch):
    dictionary = re.sub(r"(?m)^    temperature_c:.*\n", "", DICTIONARY)
    Path("data/references/dictionary.yaml").write_text(dictionary, encoding="utf-8")
    assert upkeep(monkeypatch, "fetch") == upkeep(monkeypatch, "validate") == ""
    findings = json.loads(Path("reports/data_quality.json").read_text())["plants"]["north"]["findings"]
    assert ("extra_column", "temperature_c") in {(finding["kind"], finding["column"]) for finding in findings}


def test_dates_in_another_format_are_shown_with_what_to_set(monkeypatch, lines):
    rows = [re.sub(r"2025-(\d\d)-(\d\d)T(\d\d:\d\d):\d\dZ", r"\2.\1.2025 \3", line) for line in lines["telemetry"]]
    Path("deliveries/telemetry.csv").write_text("\n".join(rows))
    told = upkeep(monkeypatch, "fetch")
    assert "no time in the file can be read; the first is '06.01.2025 00:00'" in told
    assert "set time_format" in told
    params = read_params()
    params["fetch"]["options"]["telemetry"]["time_format"] = "%d.%m.%Y %H:%M"
    write_params(params)
    assert upkeep(monkeypatch, "fetch") == ""


def test_a_tenth_of_the_dates_unreadable_stops_at_validate(monkeypatch, lines):
    header, *rows = lines["telemetry"]
    broken = [re.sub(r"2025-[^,]*", "soon", row) if number % 10 == 5 else row for number, row in enumerate(rows)]
    Path("deliveries/telemetry.csv").write_text("\n".join([header, *broken]))
    assert upkeep(monkeypatch, "fetch") == ""
    told = upkeep(monkeypatch, "validate")
    assert "10.0% of the rows are in quarantine" in told
    assert "'not a time'" in told
    assert "column=time" in told


@pytest.mark.parametrize(
    ("section", "setting", "value", "message"),
    [
        ("dataset", "horizon_hour", 24, "dataset.horizon_hour: Extra inputs are not permitted"),
        ("dataset", "horizon_hours", "two days", "dataset.horizon_hours: Input should be a valid number"),
        ("model", "kind", "xgboost", "model.kind: Input should be 'lightgbm', "),
        ("fetch", "until", "2025-03-25", "is not the first day of a batch of 7 days"),
        ("fetch", "source", "csv", "the source 'csv' cannot be imported"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, section, setting, value, message):
    params = read_params()
    params[section][setting] = value
    write_params(params)
    told = upkeep(monkeypatch, "fetch")
    assert message in told
    assert "params.yaml" in told


def test_a_mistake_ends_with_status_1_and_without_a_traceback():
    replace_in("params.yaml", "deliveries/events.csv", "deliveries/event.csv")
    command = [Path(sys.executable).with_name("upkeep"), "fetch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no file matches deliveries/event.csv" in done.stderr
    assert "[stage=fetch, table=events]" in done.stderr
    assert "correct fetch.options.events.path in params.yaml" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
