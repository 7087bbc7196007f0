"""What an error or a finding says to type once a delivery was mended is all there is to do."""

import json
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
import yaml
from dvc_projects import attempt, run
from one_sensor import DICTIONARY
from typer.testing import CliRunner

from upkeep.cli import app
from upkeep.core import paths
from upkeep.core.errors import UpkeepError

ROOT = Path(__file__).parents[2]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
OPTIONS = {"telemetry": {"path": "telemetry.csv"}, "events": {"path": "events.csv"}}
FIRST, SECOND = "north,m1,2025-01-06T00:00:00Z,{}", "north,m1,2025-01-13T00:00:00Z,{}"
FAILURE = "{},{},2025-01-13T00:00:00Z,failure,seal"
EARLIER = "north,m1,2025-01-07T00:00:00Z,failure,seal"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of the stages `fetch` and `validate` on two CSV files."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    batches = {"until": "2025-01-13", "batch_days": 7, "reread_batches": 1}
    fetch = {"source": "files", "mode": "copy", **batches, "options": OPTIONS}
    params |= {"fetch": fetch, "parallel": {"backend": "sequential", "jobs": 1}}
    params["validate"]["dictionary"] = "dictionary.yaml"
    for name, content in (("params", params), ("dictionary", {"tables": DICTIONARY})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    deliver([FIRST.format(20), SECOND.format(20)], [FAILURE.format("north", "m1")])
    return tmp_path


def deliver(telemetry: list[str], events: list[str] | None = None) -> None:
    Path("telemetry.csv").write_text("\n".join(["plant,machine,time,heat", *telemetry]), encoding="utf-8")
    if events:
        Path("events.csv").write_text("\n".join(["plant,machine,time,kind,code", *events]), encoding="utf-8")


def repro() -> None:
    for stage in ("fetch", "validate"):
        CliRunner().invoke(app, [stage], catch_exceptions=False)


def follow(text: str) -> None:
    """Type what is said, word by word, but for `dvc repro`."""
    *commands, last = re.findall(r"`([^`]+)`", text)
    assert last == "dvc repro"
    for command in commands:
        assert CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False).exit_code == 0
    repro()


def findings(plant: str = "north") -> dict[str, str]:
    quality = json.loads(paths.DATA_QUALITY.read_text(encoding="utf-8"))["plants"][plant]
    return {finding["kind"]: finding["detail"] for finding in quality["findings"]}


def test_with_real_dvc_the_pipeline_goes_on_from_the_mended_delivery(project: Path) -> None:
    stages = {name: PIPELINE[name] for name in ("fetch", "validate")}
    for stage in stages.values():
        stage["deps"] = [path for path in stage["deps"] if not path.startswith("src/")]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    run(project, "git", "init", "--quiet")
    run(project, "dvc", "init", "--quiet")
    deliver([FIRST.format(999), SECOND.format(20)])
    refused = attempt(project, "dvc", "repro")
    assert "50.0% of the rows are in quarantine" in refused.stdout
    deliver([FIRST.format(20), SECOND.format(20)])
    remedy = refused.stdout.partition("remedy:")[2]
    assert "`upkeep fetch --again --plant north --batch 2025-01-06`" in remedy
    for command in re.findall(r"`([^`]+)`", remedy):
        run(project, "sh", "-c", command)
    assert "up to date" in run(project, "dvc", "repro")
    assert sorted(file.name for file in Path("data/raw/telemetry/north").iterdir()) == [
        "2025-01-06.parquet",
        "2025-01-13.parquet",
    ]


SOUTH = FIRST.format(20).replace("north", "south")
GOOD = [FIRST.format(20), SECOND.format(20), SOUTH]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("telemetry", "failure", "what", "place"),
    [
        ([FIRST.format("hot"), SECOND.format("?")], ("north", "m1"), "in quarantine", "--plant north"),
        ([FIRST.format("hot"), SOUTH.replace(",20", ",?")], ("north", "m1"), "in quarantine", "--again"),
        (GOOD, ("north", "M-01"), r"no failure is of a machine .*did you mean m1\?", "--again"),
        (GOOD, ("NORTH", "m1"), r"without telemetry \(did you mean north\?\)", "--again"),
    ],
)
def test_the_remedy_of_an_error_that_blames_a_delivery_helps(telemetry, failure, what, place) -> None:
    deliver(telemetry, [FAILURE.format(*failure)])
    with pytest.raises(UpkeepError, match=what) as caught:
        repro()
    deliver(GOOD, [FAILURE.format("north", "m1")])
    assert f"{place}`" in caught.value.remedy
    follow(caught.value.remedy)


@pytest.mark.usefixtures("project")
def test_a_reading_that_was_corrected_is_reported_with_what_to_type_to_use_it() -> None:
    repro()
    deliver([FIRST.format(20), SECOND.format(30)])
    repro()
    detail = findings()["changed_row"]
    assert (
        "1 rows came again with other values, such as that of m1 at 2025-01-13 00:00:00: heat 30.0 beside 20.0"
        in detail
    )
    follow(detail)
    assert "changed_row" not in findings()


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("now", [[FAILURE.format("north", "m1").replace("00:00", "03:00")], [EARLIER]])
def test_a_failure_that_was_corrected_or_taken_back_is_reported_with_what_to_type(now) -> None:
    deliver([FIRST.format(20), SECOND.format(20)], [EARLIER, FAILURE.format("north", "m1")])
    repro()
    assert "withdrawn_event" not in findings()
    deliver([FIRST.format(20), SECOND.format(20)], sorted({EARLIER, *now}))
    repro()
    detail = findings()["withdrawn_event"]
    assert "1 event of plant north did not come again, such as failure of m1 at 2025-01-13 00:00:00" in detail
    follow(detail)
    assert "withdrawn_event" not in findings()
    clean = pl.read_parquet(paths.INTERIM / "events" / "north.parquet")
    assert clean.filter(kind="failure").height == len({EARLIER, *now})


def change(file: str, section: str, **values: object) -> None:
    content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    content[section].update(values)
    Path(file).write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("setting", "value"), [("near_duplicate_seconds", 0), ("max_near_duplicate_share", 1)])
def test_readings_that_come_faster_than_one_in_the_interval_are_an_error_that_names_what_to_set(setting, value) -> None:
    deliver([FIRST.format(20 + second).replace("00:00Z", f"00:{second:02}Z") for second in range(10)])
    with pytest.raises(UpkeepError, match=r"90\.0% of the rows are left out .*: readings come every 1 s") as caught:
        repro()
    assert setting in f"{caught.value.remedy} {caught.value.expected}"
    change("params.yaml", "validate", **{setting: value})
    repro()
    assert findings().get("near_duplicate", "").startswith("9 rows left out that are no copies" if value else "")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("wider", ["share", "dictionary"])
def test_values_that_are_right_although_they_break_the_dictionary_need_no_mended_source(wider) -> None:
    deliver([FIRST.format(150), SECOND.format(20)])
    with pytest.raises(UpkeepError, match="'out of range'") as caught:
        repro()
    assert "correct the data dictionary or that share" in caught.value.remedy
    if wider == "share":
        change("params.yaml", "validate", max_quarantined_share=1)
    else:
        heat = {"role": "sensor", "range": [0, 200], "meaning": ""}
        change("dictionary.yaml", "tables", telemetry={**DICTIONARY["telemetry"], "heat": heat})
    repro()


@pytest.mark.usefixtures("project")
def test_a_long_format_is_refused_with_the_pivot_that_reads_it() -> None:
    minutes = [f"north,m1,2025-01-06T00:0{minute}:00Z" for minute in range(9)]
    rows = [f"{minute},{reading}" for minute in minutes for reading in ("heat,20", "speed,70")]
    Path("telemetry.csv").write_text("\n".join(["plant,machine,time,tag,heat", *rows]), encoding="utf-8")
    with pytest.raises(UpkeepError, match=r"which differ in tag \(heat, speed\)") as caught:
        repro()
    pivot = yaml.safe_load(re.findall(r"\{.*\}", caught.value.remedy)[0])
    options = {**OPTIONS, "telemetry": {**OPTIONS["telemetry"], "pivot": pivot}}
    change("params.yaml", "fetch", options=options)
    repro()
    assert "near_duplicate" not in findings()
