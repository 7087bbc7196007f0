import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from upkeep.contract.dictionary import NEEDED, OPTIONAL, Table, load_dictionary
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params, load_params
from upkeep.reporting.templates import render_markdown
from upkeep.sources import Key
from upkeep.sources.manifest import Manifest, RawFile, write_manifest
from upkeep.sources.store import store
from upkeep.stages import validate

ROOT = Path(__file__).parents[2]
MONDAY = date(2025, 1, 6)
START = datetime(2025, 1, 6, tzinfo=UTC)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters of an empty repository to work in, one plant after the other."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["validate"]["dictionary"] = str(ROOT / "data/references/dictionary.yaml")
    settings["parallel"] = {"backend": "threads", "jobs": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return load_params()


def telemetry(plant: str, week: int = 0, **columns: object) -> pl.DataFrame:
    """One machine's week of telemetry that holds the contract, unless `columns` say otherwise."""
    hours = pl.int_range(168, eager=True)
    usual = {
        "plant": pl.lit(plant),
        "machine": pl.lit("M1"),
        "time": pl.lit(START + timedelta(weeks=week)) + pl.duration(hours=hours),
        "speed_rpm": 1000 + hours,
        "load_pct": pl.lit(50.0),
        "vibration_mm_s": 1 + hours / 1000,
        "temperature_c": 40 + hours / 100,
        "pressure_bar": 6 + hours / 1000,
        "current_a": 20 + hours / 100,
        "humidity_pct": 50 + hours / 100,
    }
    return pl.select(**usual).with_columns(**columns)


def deliver(*deliveries: tuple[Table, str, int, int, pl.DataFrame]) -> list[RawFile]:
    """Store deliveries (table, plant, week, number, rows) as the fetch stage does."""
    files = [
        store(paths.RAW, Key(table, plant, MONDAY + timedelta(weeks=week)), number, rows)
        for table, plant, week, number, rows in deliveries
    ]
    write_manifest(Manifest(source="simulator", options_sha256="", files=tuple(files)))
    return files


def quality() -> dict[str, Any]:
    return json.loads(paths.DATA_QUALITY.read_text(encoding="utf-8"))["plants"]


def outputs() -> dict[str, bytes]:
    files = [*paths.INTERIM.rglob("*.parquet"), paths.DATA_QUALITY]
    return {str(path): path.read_bytes() for path in files}


def test_a_plant_with_telemetry_only_gets_empty_events_and_bare_machines(params: Params) -> None:
    deliver(("telemetry", "lyon", 0, 1, telemetry("lyon")))
    validate.run(params)
    assert pl.read_parquet(paths.INTERIM / "telemetry/lyon.parquet").height == 168
    events = pl.read_parquet(paths.INTERIM / "events/lyon.parquet")
    assert (events.height, events.columns) == (0, [*NEEDED["events"], *OPTIONAL["events"]])
    assert pl.read_parquet(paths.INTERIM / "machines/lyon.parquet").rows() == [("lyon", "M1", None, None)]
    assert pl.read_parquet(paths.QUARANTINE / "lyon.parquet").is_empty()


def test_the_report_counts_every_row_of_every_plant_and_table(params: Params) -> None:
    first, spiked = telemetry("lyon"), telemetry("porto")
    spiked = spiked.with_columns(pressure_bar=pl.when(pl.int_range(168) == 7).then(99.0).otherwise("pressure_bar"))
    deliver(
        ("telemetry", "lyon", 0, 1, first),
        ("telemetry", "lyon", 0, 2, first),
        ("telemetry", "lyon", 2, 1, telemetry("lyon", 2)),
        ("telemetry", "porto", 0, 1, spiked),
    )
    validate.run(params)
    assert quality()["lyon"]["tables"]["telemetry"] == {
        "rows_in": 504,
        "clean": 336,
        "duplicates": {"exact": 0, "near": 0, "repeated_batch": 168},
        "quarantined": {},
    }
    assert quality()["porto"]["tables"]["telemetry"]["quarantined"] == {"out of range": 1}
    missing = {
        plant: [(item["from"], item["to"]) for item in report["findings"] if item["kind"] == "missing_batch"]
        for plant, report in quality().items()
    }
    assert missing == {"lyon": [("2025-01-13", "2025-01-13")], "porto": [("2025-01-13", "2025-01-20")]}


def test_running_again_with_other_workers_writes_the_same_bytes_and_drops_plants_that_are_gone(
    params: Params,
) -> None:
    deliver(*(("telemetry", plant, 0, 1, telemetry(plant)) for plant in ("lyon", "porto", "gone")))
    validate.run(params)
    deliver(*(("telemetry", plant, 0, 1, telemetry(plant)) for plant in ("lyon", "porto")))
    validate.run(params)
    before = outputs()
    assert not any("gone" in path for path in before)
    two = params.model_copy(update={"parallel": params.parallel.model_copy(update={"jobs": 2})})
    validate.run(two)
    assert outputs() == before


def test_too_much_in_quarantine_fails_with_the_place_after_everything_is_written(params: Params) -> None:
    deliver(
        ("telemetry", "lyon", 0, 1, telemetry("lyon")),
        ("telemetry", "porto", 0, 1, telemetry("porto")),
        ("telemetry", "porto", 1, 1, telemetry("porto", 1).drop("pressure_bar")),
    )
    with pytest.raises(UpkeepError, match=r"50\.0% of the rows are in quarantine, most of them, 168") as error:
        validate.run(params)
    assert error.value.where == {
        "plant": "porto",
        "table": "telemetry",
        "batch": "2025-01-13",
        "column": "pressure_bar",
    }
    assert pl.read_parquet(paths.QUARANTINE / "porto.parquet").height == 168
    assert pl.read_parquet(paths.INTERIM / "telemetry/lyon.parquet").height == 168
    assert quality()["porto"]["tables"]["telemetry"]["quarantined"] == {"missing column pressure_bar": 168}


@pytest.mark.parametrize("entirely", [telemetry("lyon", temperature_c=pl.lit("hot")), telemetry("other")])
def test_a_plant_with_nothing_but_broken_telemetry_fails(params: Params, entirely: pl.DataFrame) -> None:
    deliver(("telemetry", "lyon", 0, 1, entirely))
    with pytest.raises(UpkeepError, match=r"100\.0% of the rows"):
        validate.run(params)


def failure(plant: str, machine: str) -> pl.DataFrame:
    return pl.DataFrame({"plant": plant, "machine": machine, "time": START, "kind": "failure", "code": "seal"})


def test_a_plant_of_the_dictionary_that_delivers_nothing_is_warned_of(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    content = yaml.safe_load(params.validate_.dictionary.read_text(encoding="utf-8"))
    current = {"telemetry": {"current_a": content["tables"]["telemetry"]["current_a"]}}
    content["plants"] = {"lyon": current, "Portoo": current}
    Path("dictionary.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    how = params.validate_.model_copy(update={"dictionary": Path("dictionary.yaml")})
    deliver(*(("telemetry", plant, 0, 1, telemetry(plant)) for plant in ("lyon", "porto")))
    validate.run(params.model_copy(update={"validate_": how}))
    assert caplog.messages == ["dictionary.yaml describes a plant that delivers nothing: Portoo (did you mean porto?)"]


def test_plants_that_are_spelt_alike_stay_two_with_a_warning(params: Params, caplog: pytest.LogCaptureFixture) -> None:
    deliver(*(("telemetry", plant, 0, 1, telemetry(plant)) for plant in ("Süd", "Su\u0308d", "porto")))
    validate.run(params)
    assert len(quality()) == 3
    assert [text for text in caplog.messages if r"Su\u0308d and S\xfcd are spelt alike" in text]


def unknown_machine() -> str:
    return next(item["detail"] for item in quality()["lyon"]["findings"] if item["kind"] == "unknown_machine")


def test_failures_of_machines_that_no_telemetry_has_are_a_finding_and_an_error_if_there_are_no_others(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    lyon = ("telemetry", "lyon", 0, 1, telemetry("lyon"))
    unknown = ("events", "lyon", 0, 1, failure("lyon", "M01"))
    elsewhere = ("events", "porto", 0, 1, failure("porto", "M1"))
    deliver(lyon, unknown, elsewhere)
    with pytest.raises(UpkeepError, match=r"no failure is of a machine .* M01 \(did you mean M1\?\)") as error:
        validate.run(params)
    assert error.value.where == {"plant": "lyon", "table": "events"}
    deliver(lyon, unknown, elsewhere, ("events", "lyon", 0, 2, failure("lyon", "M1")))
    caplog.clear()
    validate.run(params)
    assert caplog.messages[0] == f"plant lyon, events: {unknown_machine()}"
    assert "plant porto, events: 1 rows, 1 of them failures, of 1 machines of a plant without telemetry" in caplog.text
    found = [(plant, item["kind"]) for plant, report in quality().items() for item in report["findings"]]
    assert found.count(("lyon", "unknown_machine")) == 1
    assert found.count(("porto", "unknown_machine")) == 1


def test_failures_at_times_of_no_readings_are_a_finding_and_a_warning(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    lyon, happened = ("telemetry", "lyon", 0, 1, telemetry("lyon")), failure("lyon", "M1")
    years_ago = happened.with_columns(pl.col("time").dt.offset_by("-2y"))
    deliver(lyon, ("events", "lyon", 0, 1, years_ago))
    validate.run(params)
    [finding] = [item for item in quality()["lyon"]["findings"] if item["kind"] == "unwatched_failure"]
    assert finding["detail"].startswith("none of 1 failure from 2023-")
    assert caplog.messages == [f"plant lyon, events: {finding['detail']}"]
    deliver(lyon, ("events", "lyon", 0, 1, pl.concat([years_ago, happened])))
    validate.run(params)
    assert "unwatched_failure" not in [item["kind"] for item in quality()["lyon"]["findings"]]


@pytest.mark.parametrize(
    ("table", "change", "remedy"),
    [
        ("telemetry", {"load_pct": "Load_pct [%]"}, "name what holds load_pct in fetch.options.telemetry.columns"),
        ("telemetry", {"load_pct": pl.lit("50,5")}, 'set fetch.options.telemetry.decimal: ","'),
        ("telemetry", {"time": pl.lit(1736121600)}, "set fetch.options.telemetry.epoch"),
        ("telemetry", {"time": pl.lit("6 Jan 2025")}, "set fetch.options.telemetry.time_format"),
        ("events", {"kind": pl.lit("Failure")}, "translate the kinds by fetch.options.events.kinds"),
    ],
)
def test_rows_that_an_option_would_read_have_it_as_remedy(params: Params, table, change, remedy) -> None:
    rows = {"telemetry": telemetry("lyon"), "events": failure("lyon", "M1")}
    is_renamed = isinstance(change.get("load_pct"), str)
    how = rows[table].rename(change) if is_renamed else rows[table].with_columns(**change)
    deliver(*((name, "lyon", 0, 1, how if name == table else part) for name, part in rows.items()))
    with pytest.raises(UpkeepError) as error:
        validate.run(params)
    assert remedy in error.value.remedy
    assert ("such as" in error.value.what) == (not is_renamed)
    details = [str(item["detail"]) for item in quality()["lyon"]["findings"]]
    assert any("did you mean Load_pct [%]?" in detail for detail in details) == is_renamed


def test_a_plant_without_telemetry_is_no_error_if_others_have_failures_to_learn_from(params: Params) -> None:
    lyon = ("telemetry", "lyon", 0, 1, telemetry("lyon"))
    porto = ("events", "porto", 0, 1, failure("porto", "M1"))
    deliver(lyon, porto, ("events", "lyon", 0, 1, failure("lyon", "M1")))
    validate.run(params)
    deliver(lyon, porto)
    with pytest.raises(UpkeepError, match=r"each row would count as healthy: .* of a plant without telemetry: M1"):
        validate.run(params)
    deliver(lyon, ("events", "LYON", 0, 1, failure("LYON", "M1")))
    with pytest.raises(UpkeepError, match=r"without telemetry \(did you mean lyon\?\)"):
        validate.run(params)


def test_a_raw_file_that_was_changed_is_named(params: Params) -> None:
    [file] = deliver(("telemetry", "lyon", 0, 1, telemetry("lyon")))
    path = paths.RAW / file.file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UpkeepError) as error:
        validate.run(params)
    assert error.value.where["file"] == path
    assert error.value.where["plant"] == "lyon"


def test_a_raw_file_that_is_no_parquet_is_named(params: Params) -> None:
    [file] = deliver(("telemetry", "lyon", 0, 1, telemetry("lyon")))
    path = paths.RAW / file.file
    garbage = b"PAR1 but not really PAR1"
    path.write_bytes(garbage)
    write_manifest(Manifest(source="files", options_sha256="", files=(_described_anew(file, garbage),)))
    with pytest.raises(UpkeepError, match="a raw file cannot be read") as error:
        validate.run(params)
    assert error.value.where["file"] == path


def _described_anew(file: RawFile, content: bytes) -> RawFile:
    return file.model_copy(update={"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})


def test_without_raw_data_the_remedy_is_to_fetch(params: Params) -> None:
    with pytest.raises(UpkeepError, match="manifest of the raw data does not exist"):
        validate.run(params)
    deliver()
    with pytest.raises(UpkeepError, match="has no telemetry"):
        validate.run(params)


def test_the_data_dictionary_in_docs_is_the_page_that_its_yaml_makes() -> None:
    source = Path("data/references/dictionary.yaml")
    page = render_markdown("data_dictionary.md", dictionary=load_dictionary(ROOT / source), source=source)
    assert (ROOT / "docs/data_dictionary.md").read_text(encoding="utf-8") == page
